"""What a user may type for MODEL, on stores built in a temporary home; no test touches the network or the real home."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from gguf_files import LLAMA, write_gguf, write_llama
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headcount.cost.parameters import parameters
from headcount.errors import ConfigError, GgufError, HeadcountError, MissingExtraError, SourceError
from headcount.shape.gguf import read_gguf
from headcount.shape.model import ModelShape
from headcount.shape.presets import preset_names, read_preset
from headcount.shape.sources import resolve

CONFIG = {
    "model_type": "llama", "num_hidden_layers": 3, "hidden_size": 48, "intermediate_size": 72, "num_attention_heads": 6,
    "num_key_value_heads": 3, "head_dim": 16, "vocab_size": 97,
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, an empty working folder, and no variable that points elsewhere."""
    for name in ("OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    return home


def _config(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return folder / "config.json"


# -- paths and presets ------------------------------------------------------------------------------------------------------------


def test_preset_by_name(home: Path) -> None:
    name = preset_names()[0]
    assert resolve(name) == resolve(f" {name.upper()} ") == read_preset(name)


def test_path_of_a_config_and_of_its_folder(home: Path) -> None:
    path = _config(home / "m")
    expected = ModelShape.from_config(CONFIG)
    assert resolve(str(path)) == resolve(str(path.parent)) == resolve("~/m") == expected


def test_path_of_a_gguf_with_and_without_suffix(home: Path) -> None:
    path = write_llama(home / "m.gguf")
    blob = shutil.copy(path, home / "blob")
    assert resolve(str(path)) == resolve(str(blob)) == ModelShape.from_gguf(path)


def test_an_existing_path_wins_over_a_preset(home: Path) -> None:
    name = preset_names()[0]
    _config(Path(name))
    assert resolve(name) == ModelShape.from_config(CONFIG) != read_preset(name)


def test_config_wins_over_gguf_in_one_folder(home: Path) -> None:
    _config(home / "m")
    write_llama(home / "m/model.gguf")
    assert resolve("~/m").config == CONFIG


def test_unknown_fields_are_accepted_on_request(home: Path) -> None:
    path = _config(home / "m", strange=7)
    with pytest.raises(ConfigError, match="strange=7"):
        resolve(str(path))
    assert "accepted unread: strange" in resolve(str(path), accept_unknown=("strange",)).notes


def test_a_name_that_is_nothing_names_the_nearest_presets(home: Path) -> None:
    name = preset_names()[0]
    with pytest.raises(SourceError, match=f"no preset \\(nearest: .*{name}"):
        resolve(name[:-1] + "x")


@pytest.mark.parametrize("text", ["./none.gguf", "none.gguf", "a/b/config.json", "/nowhere/at/all", "~/none", "C:\\models\\m"])
def test_a_path_that_does_not_exist_is_called_one(home: Path, text: str) -> None:
    with pytest.raises(SourceError, match="does not exist; give the path"):
        resolve(text)


def test_empty_and_wild_texts_are_refused(home: Path) -> None:
    for text in ("", " ", "a b c", "a/b/c/d", "\0", "x" * 5000, "../..//x y", "ollama", "org/na me"):
        with pytest.raises(SourceError, match="exist|no existing path"):
            resolve(text)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), prefix=st.sampled_from(["", "ollama:", "lmstudio:", "a/", "ollama:../", "lmstudio:a/"]))
def test_any_text_raises_nothing_but_our_errors(home: Path, text: str, prefix: str) -> None:
    with contextlib.suppress(HeadcountError):
        resolve(prefix + text)


# -- folders of GGUF files ----------------------------------------------------------------------------------------------------------


def test_folder_with_one_model_and_its_projector(home: Path) -> None:
    (home / "m").mkdir()
    write_llama(home / "m/model-Q4.gguf")
    write_llama(home / "m/mmproj-model-f16.gguf")
    shape = resolve("~/m")
    assert shape == ModelShape.from_gguf(home / "m/model-Q4.gguf")
    assert "mmproj-model-f16.gguf" in shape.notes[-1]


def test_folder_with_several_models_lists_them(home: Path) -> None:
    (home / "m").mkdir()
    for name in ("a-Q4.gguf", "a-Q8.gguf"):
        write_llama(home / "m" / name)
    with pytest.raises(SourceError, match=r"holds 2 models.*a-Q4\.gguf, a-Q8\.gguf"):
        resolve("~/m")


def test_parts_of_one_model_are_one_model(home: Path) -> None:
    (home / "m").mkdir()
    whole = read_gguf(write_llama(home / "whole.gguf"))
    for i in range(2):
        metadata = {"split.no": i, "split.count": 2} | (LLAMA if i == 0 else {})
        write_gguf(home / f"m/x-{i + 1:05d}-of-00002.gguf", "llama", metadata, [(t.name, t.dims) for t in whole.tensors[i::2]])
    assert parameters(resolve("~/m")).total == whole.parameters


def test_folder_without_a_model_says_so(home: Path) -> None:
    with pytest.raises(SourceError, match=r"must hold a config\.json or a \.gguf file"):
        resolve("~")


# -- Ollama -------------------------------------------------------------------------------------------------------------------------


def _pull(store: Path, name: str, layers: dict[str, Path], separator: str = "-") -> None:
    """What `ollama pull` leaves: a manifest, and blobs named by their digest."""
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    listed = []
    for kind, path in layers.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, store / "blobs" / f"sha256{separator}{digest}")
        listed.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": path.stat().st_size})
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {"digest": "sha256:" + "0" * 64}, "layers": listed}))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("ollama:tiny", "registry.ollama.ai/library/tiny/latest"),
        ("ollama:tiny:3b-q4_K_M", "registry.ollama.ai/library/tiny/3b-q4_K_M"),
        ("ollama:someone/tiny", "registry.ollama.ai/someone/tiny/latest"),
        ("ollama:hf.co/org/Tiny-GGUF:Q4_K_M", "hf.co/org/Tiny-GGUF/Q4_K_M"),
    ],
)
@pytest.mark.parametrize("separator", ["-", ":"])
def test_ollama_names_find_their_blob(home: Path, text: str, stored: str, separator: str) -> None:
    path = write_llama(home / "m.gguf")
    template = home / "template"
    template.write_text("{{ .Prompt }}")
    _pull(home / ".ollama/models", stored, {"template": template, "model": path}, separator)
    assert resolve(text) == ModelShape.from_gguf(path)
    assert resolve(text).name == text


def test_ollama_models_variable_and_projector_layer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, projector = write_llama(home / "m.gguf"), write_gguf(home / "p.gguf", "clip", {}, [("v.x.weight", (7, 13))])
    _pull(home / "store", "registry.ollama.ai/library/tiny/latest", {"model": path, "projector": projector})
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "store"))
    counted = parameters(resolve("ollama:tiny"))
    assert counted.total == counted.text_only + 7 * 13


def test_ollama_name_that_is_not_there_names_the_nearest(home: Path) -> None:
    _pull(home / ".ollama/models", "registry.ollama.ai/library/tiny/1b", {"model": write_llama(home / "m.gguf")})
    with pytest.raises(SourceError, match="nearest installed: tiny:1b.*ollama pull tinny:1b"):
        resolve("ollama:tinny:1b")


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..", "a/../b", "a:../../x", "/etc/passwd", "a\\b", "", "a//b", "a:b:c", ".hidden", "a..b"]
)
def test_ollama_names_cannot_leave_the_store(home: Path, name: str) -> None:
    with pytest.raises(SourceError, match="must have the form ollama:NAME"):
        resolve(f"ollama:{name}")


@pytest.mark.parametrize("digest", ["sha256:../../../../secret", "sha256:" + "0" * 63, "md5:" + "0" * 64, "SHA256:" + "A" * 64, 7, None])
def test_ollama_digests_are_validated(home: Path, digest: Any) -> None:
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library/bad/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": digest}]}))
    with pytest.raises(SourceError, match="sha256 digest, but does not"):
        resolve("ollama:bad")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"layers": 3}', '{"layers": [3]}', "[" * 100_000, " " * 2**21])
def test_ollama_manifests_that_are_none(home: Path, content: str) -> None:
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library/bad/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(content)
    with pytest.raises(SourceError, match="must list layers"):
        resolve("ollama:bad")


def test_ollama_model_without_gguf_layer_and_missing_blob(home: Path) -> None:
    path = write_llama(home / "m.gguf")
    _pull(home / ".ollama/models", "registry.ollama.ai/library/none/latest", {"template": path})
    with pytest.raises(SourceError, match="must have one GGUF model layer to be read, but has 0; layers: template"):
        resolve("ollama:none")
    _pull(home / ".ollama/models", "registry.ollama.ai/library/gone/latest", {"model": path})
    shutil.rmtree(home / ".ollama/models/blobs")
    with pytest.raises(SourceError, match="is incomplete: blob sha256-"):
        resolve("ollama:gone")


# -- LM Studio ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [".lmstudio/models", ".cache/lm-studio/models", "elsewhere/models"])
def test_lmstudio_folders(home: Path, models: str) -> None:
    folder = home / models / "publisher/Tiny-GGUF"
    folder.mkdir(parents=True)
    path = write_llama(folder / "Tiny-Q8_0.gguf")
    if models.startswith("elsewhere"):
        (home / ".lmstudio-home-pointer").write_text(str(home / "elsewhere") + "\n")
    expected = ModelShape.from_gguf(path)
    assert resolve("lmstudio:publisher/Tiny-GGUF") == resolve("lmstudio:publisher/Tiny-GGUF/Tiny-Q8_0.gguf") == expected


def test_lmstudio_model_that_is_not_there_names_the_nearest(home: Path) -> None:
    (home / ".lmstudio/models/publisher/Tiny-GGUF").mkdir(parents=True)
    with pytest.raises(SourceError, match="nearest there: publisher/Tiny-GGUF"):
        resolve("lmstudio:publisher/Tny-GGUF")


@pytest.mark.parametrize("name", ["../../x", "a/../../b", "a", "/a/b", "a/b/c/d", "", "a/..b"])
def test_lmstudio_names_cannot_leave_the_folder(home: Path, name: str) -> None:
    with pytest.raises(SourceError, match="must have the form lmstudio:PUBLISHER/REPO"):
        resolve(f"lmstudio:{name}")


# -- the hub ------------------------------------------------------------------------------------------------------------------------


def _cache(hub: Path, repo: str, revision: str = "0123abc", **changes: Any) -> None:
    folder = hub / f"models--{repo.replace('/', '--')}"
    _config(folder / "snapshots" / revision, **changes)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(revision)


@pytest.mark.parametrize(
    ("variable", "value", "hub"),
    [
        ("", "", ".cache/huggingface/hub"), ("HF_HOME", "hf", "hf/hub"), ("HF_HUB_CACHE", "cache", "cache"),
        ("XDG_CACHE_HOME", "xdg", "xdg/huggingface/hub"),
    ],
)
def test_cached_hub_id_is_read_where_the_variables_say(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, hub: str
) -> None:
    if variable:
        monkeypatch.setenv(variable, str(home / value))
    _cache(home / hub, "org/Tiny")
    shape = resolve("org/Tiny")
    assert shape == ModelShape.from_config(CONFIG)
    assert shape.name == "org/Tiny"


def test_cached_copy_wins_over_the_preset_of_that_repository(home: Path) -> None:
    _cache(home / ".cache/huggingface/hub", "Qwen/Qwen3-32B", num_hidden_layers=5)
    assert resolve("Qwen/Qwen3-32B").n_layers == 5


def test_preset_answers_for_its_own_repository_only(home: Path) -> None:
    assert resolve("Qwen/Qwen3-32B") == read_preset("qwen3-32b")
    with pytest.raises(SourceError, match=r"HF_HUB_OFFLINE forbids.*preset \(nearest: qwen3-32b"):
        resolve("someone-else/Qwen3-32B")


def test_revision_cannot_leave_the_cache(home: Path) -> None:
    _config(home / "secret")
    _cache(home / ".cache/huggingface/hub", "org/Tiny")
    (home / ".cache/huggingface/hub/models--org--Tiny/refs/main").write_text("../../../../../secret")
    with pytest.raises(SourceError, match="not in the Hugging Face cache"):
        resolve("org/Tiny")


def test_missing_hub_extra_names_the_command(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headcount\[hub\]'") as caught:
        resolve("org/Tiny")
    assert caught.value.exit_code == 3


def _fake_hub(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.delenv("HF_HUB_OFFLINE")


def test_only_the_config_is_downloaded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        return str(_config(home / "downloaded"))

    _fake_hub(monkeypatch, download)
    assert resolve("org/Tiny").name == "org/Tiny"
    assert asked == [("org/Tiny", "config.json")]


def test_failed_download_gives_its_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, name: str) -> str:
        raise RuntimeError("401 Unauthorized\nlong trace")

    _fake_hub(monkeypatch, download)
    with pytest.raises(SourceError, match=r"RuntimeError: 401 Unauthorized\. Give the path"):
        resolve("org/Tiny")


def test_resolving_does_not_import_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "huggingface_hub", "gguf")
    code = f"import sys, headcount.shape.sources; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_damaged_gguf_in_a_store_is_a_gguf_error(home: Path) -> None:
    (home / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(GgufError, match="must begin with the letters GGUF"):
        resolve("~/m.gguf")

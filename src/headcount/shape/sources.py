"""From what a user types for MODEL to a ModelShape.

`resolve` tries, in this order, and stops at the first that applies:

1. a prefix: ``ollama:NAME[:TAG]``, ``lmstudio:PUBLISHER/REPO``;
2. an existing path: a GGUF file, a config.json, or a folder that holds one of them (a config.json before a GGUF file);
3. a preset name, such as ``qwen3-32b``;
4. a Hugging Face id ``ORG/NAME``: the local cache, then a preset read from that very repository, then a download of config.json.

So a file called like a preset wins over the preset, and ``./NAME`` always means a path. Nothing is executed, and nothing but one
config.json is ever downloaded. Layouts: Ollama's model store (docs/faq.md, types/model/name.go of ollama/ollama), LM Studio's models
folder (its documentation, "Import models"), the Hugging Face cache (huggingface_hub documentation, "Manage your cache").
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtraError, SourceError, UnknownNameError, Words
from .config import parse_json, read_config
from .gguf import read_gguf
from .gguf_shape import read_gguf_shape
from .model import ModelShape
from .parts import Tower

MAX_MANIFEST_BYTES = 2**20
_WORD = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
"""One component of a name: cannot be empty, cannot be or begin with dots, holds no separator. So it cannot leave its folder."""
_HUB_ID = re.compile(rf"{_WORD}/{_WORD}")
_OLLAMA = re.compile(rf"(?:(?:(?P<host>{_WORD})/)?(?P<namespace>{_WORD})/)?(?P<model>{_WORD})(?::(?P<tag>{_WORD}))?")
_LMSTUDIO = re.compile(rf"{_WORD}(?:/{_WORD}){{1,2}}")
_REVISION = re.compile(_WORD)
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}\.gguf", re.DOTALL)
_MEDIA = "application/vnd.ollama.image."
_YES = ("1", "on", "yes", "true")


def resolve(text: str, accept_unknown: tuple[str, ...] = ()) -> ModelShape:
    """The shape of the model that `text` names; the order of attempts is in the module's docstring.

    Args:
        text: what the user typed for MODEL.
        accept_unknown: see `ModelShape.from_config`.

    Raises:
        SourceError: nothing of that name, or more than one model; the message says what would work.
        MissingExtraError: a download is needed and huggingface_hub is not installed.
        ConfigError, GgufError, ShapeError: what was found cannot be counted.
    """
    text = str(text).strip()
    for prefix, read in (("ollama:", _read_ollama), ("lmstudio:", _read_lmstudio)):
        if text.lower().startswith(prefix):
            return read(text[len(prefix):])
    path = _existing(text)
    if path is not None:
        return _read_path(path, accept_unknown)
    if text.lower().endswith((".gguf", ".json")) or text.startswith((".", "/", "~")) or "\\" in text:
        raise SourceError(
            "no_such_path", "{path} does not exist; give the path of a config.json, of a .gguf file or of the folder with it",
            path=_short(text),
        )
    if "/" not in text:
        return _read_preset(text)
    if _HUB_ID.fullmatch(text):
        return _read_hub(text, accept_unknown)
    raise _unknown(text)


# -- paths ------------------------------------------------------------------------------------------------------------------------


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # name too long, a null byte, no home: nothing that exists
        return None


def _read_path(path: Path, accept_unknown: tuple[str, ...]) -> ModelShape:
    if path.is_dir():
        if (path / "config.json").is_file():
            return read_config(path, accept_unknown=accept_unknown)
        return _read_gguf_folder(path)
    if path.suffix.lower() == ".gguf" or _begins_with_gguf(path):
        return read_gguf_shape(path)
    if not path.is_file():
        raise SourceError("not_a_file", "{path} must be a file to be read, but it is not one", path=str(path))
    return read_config(path, accept_unknown=accept_unknown)


def _begins_with_gguf(path: Path) -> bool:
    """Ollama's blobs are GGUF files without a suffix."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError:
        return False


def _read_gguf_folder(folder: Path) -> ModelShape:
    """The one model among a folder's .gguf files; the parts of a split file are one, projectors (mmproj) are none."""
    files = sorted(p for p in _entries(folder) if p.suffix.lower() == ".gguf" and p.is_file())
    projectors = [p for p in files if "mmproj" in p.name.lower()]
    models: dict[str, Path] = {}
    for file in files:
        if file not in projectors:
            part = _PART.fullmatch(file.name)
            models.setdefault(part[1] if part else file.name, file)
    if not models:
        raise SourceError(
            "nothing_to_read", "{path} must hold a config.json or a .gguf file, but holds neither; name the folder or file that does",
            path=str(folder),
        )
    if len(models) > 1:
        raise SourceError(
            "several_models", "{path} holds {count} models, and one must be chosen: {models}. Give the path of the file", path=str(folder),
            count=len(models), models=", ".join(p.name for p in list(models.values())[:12]) + (", ..." if len(models) > 12 else ""),
        )
    shape = read_gguf_shape(next(iter(models.values())))
    if projectors:
        note = Words("not counted, beside the model: {files}", files=", ".join(p.name for p in projectors[:4]))
        shape = shape.replaced(notes=(*shape.notes, note))
    return shape


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise SourceError("unreadable", "{path} cannot be read: {reason}", path=str(folder), reason=error.strerror or str(error)) from None


# -- Ollama -----------------------------------------------------------------------------------------------------------------------


def _ollama_roots() -> list[Path]:
    given = os.environ.get("OLLAMA_MODELS")
    # The second is where the Linux service keeps its models.
    return [Path(given).expanduser()] if given else [_home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]


def _read_ollama(name: str) -> ModelShape:
    """A model of the local Ollama store, found by its manifest."""
    found = _OLLAMA.fullmatch(name.strip())
    if found is None or ".." in name:
        raise _bad_name("ollama:", name, Words("ollama:NAME, ollama:NAME:TAG or ollama:NAMESPACE/NAME:TAG"))
    host, namespace = found["host"] or "registry.ollama.ai", found["namespace"] or "library"
    parts = (host, namespace, found["model"], found["tag"] or "latest")
    roots = _ollama_roots()
    root = next((r for r in roots if r.joinpath("manifests", *parts).is_file()), None)
    if root is None:
        installed = [n for r in roots for n in _installed_in_ollama(r)]
        near = difflib.get_close_matches(name, installed, 5, 0.3) or installed[:5]
        raise SourceError(
            "not_in_ollama", "ollama:{name} is not in the local store ({roots}); {installed}. Get it with: ollama pull {name}, "
            "or set OLLAMA_MODELS", name=name.strip(), roots=", ".join(map(str, roots)),
            installed=Words("nearest installed: {names}", names=", ".join(near)) if near else Words("no model is installed"),
        )
    layers = _manifest_layers(root.joinpath("manifests", *parts), name)
    models = layers.get("model", [])
    if len(models) != 1:
        raise SourceError(
            "ollama_layers", "ollama:{name} must have one GGUF model layer to be read, but has {count}; layers: {layers}", name=name,
            count=len(models), layers=", ".join(sorted(layers)) or Words("none"),
        )
    shape = read_gguf_shape(_blob(root, models[0], name))
    projectors = [read_gguf(_blob(root, digest, name)) for digest in layers.get("projector", [])]
    towers = tuple(Tower(name="projector", kind="layer of Ollama", terms=(("tensors", file.parameters),)) for file in projectors)
    notes = (Words("adapter layer not counted"),) if "adapter" in layers else ()
    return shape.replaced(name=f"ollama:{name.strip()}", towers=shape.towers + towers, notes=shape.notes + notes)


def _installed_in_ollama(root: Path) -> list[str]:
    base = root / "manifests/registry.ollama.ai"
    found = []
    for manifest in sorted(base.glob("*/*/*"))[:1000]:
        namespace, model, tag = manifest.relative_to(base).parts
        found.append(f"{'' if namespace == 'library' else namespace + '/'}{model}:{tag}")
    return found


def _manifest_layers(path: Path, name: str) -> dict[str, list[str]]:
    """Kind of layer -> digests. Raises SourceError for a manifest that is not one."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        manifest = parse_json(data, str(path)) if len(data) <= MAX_MANIFEST_BYTES else None
    except (OSError, ConfigError):
        manifest = None
    listed = manifest.get("layers") if isinstance(manifest, Mapping) else None
    layers: dict[str, list[str]] = {}
    for layer in listed if isinstance(listed, list) else [None]:
        media, digest = (layer.get("mediaType"), layer.get("digest")) if isinstance(layer, Mapping) else (None, None)
        valid = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
        if not isinstance(media, str) or valid is None:
            raise SourceError(
                "ollama_manifest", "the manifest of ollama:{name} must list layers with a mediaType and a sha256 digest, but does not "
                "({path}); pull the model again", name=name, path=str(path),
            )
        layers.setdefault(media.removeprefix(_MEDIA), []).append(valid[1])
    return layers


def _blob(root: Path, digest: str, name: str) -> Path:
    # Ollama before 0.1.25 wrote a colon into the file name.
    for separator in "-:":
        path = root / "blobs" / f"sha256{separator}{digest}"
        if path.is_file():
            return path
    raise SourceError(
        "ollama_blob_missing", "ollama:{name} is incomplete: blob sha256-{digest} is not in {folder}; pull the model again", name=name,
        digest=digest, folder=str(root / "blobs"),
    )


# -- LM Studio --------------------------------------------------------------------------------------------------------------------


def _lmstudio_roots() -> list[Path]:
    home = _home()
    roots = [home / ".lmstudio/models", home / ".cache/lm-studio/models"]
    try:
        with (home / ".lmstudio-home-pointer").open(encoding="utf-8") as file:
            pointed = file.read(4096).strip()
        return [Path(pointed) / "models", *roots] if pointed else roots
    except (OSError, ValueError):
        return roots


def _read_lmstudio(name: str) -> ModelShape:
    """A folder, or one file of it, below LM Studio's models."""
    name = name.strip()
    if _LMSTUDIO.fullmatch(name) is None or ".." in name:
        raise _bad_name("lmstudio:", name, Words("lmstudio:PUBLISHER/REPO or lmstudio:PUBLISHER/REPO/FILE.gguf"))
    roots = _lmstudio_roots()
    path = next((r / name for r in roots if (r / name).exists()), None)
    if path is None:
        installed = sorted({"/".join(p.relative_to(r).parts) for r in roots for p in list(r.glob("*/*"))[:1000] if p.is_dir()})
        near = difflib.get_close_matches(name, installed, 5, 0.3) or installed[:5]
        raise SourceError(
            "not_in_lmstudio",
            "lmstudio:{name} is not in LM Studio's models folder ({roots}); {installed}. Give the path of the .gguf file", name=name,
            roots=", ".join(map(str, roots)),
            installed=Words("nearest there: {names}", names=", ".join(near)) if near else Words("no model is there"),
        )
    return _read_gguf_folder(path) if path.is_dir() else read_gguf_shape(path)


# -- presets and the hub ----------------------------------------------------------------------------------------------------------


def _read_preset(name: str) -> ModelShape:
    from .presets import read_preset

    try:
        return read_preset(name)
    except UnknownNameError:
        raise _unknown(name) from None


def _read_hub(repo: str, accept_unknown: tuple[str, ...]) -> ModelShape:
    path = _cached_config(repo)
    if path is None:
        preset = _preset_from(repo)
        if preset is not None:
            return _read_preset(preset)
        path = _downloaded_config(repo)
    return read_config(path, accept_unknown=accept_unknown, name=repo)


def _hub_cache() -> Path:
    env = os.environ
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if env.get(variable):
            return Path(env[variable]).expanduser()
    home = env.get("HF_HOME") or (env["XDG_CACHE_HOME"] + "/huggingface" if env.get("XDG_CACHE_HOME") else "")
    return (Path(home).expanduser() if home else _home() / ".cache/huggingface") / "hub"


def _cached_config(repo: str) -> Path | None:
    """config.json of the cached revision that main points to; None where it is not cached."""
    folder = _hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        with (folder / "refs/main").open(encoding="utf-8") as file:
            revision = file.read(256).strip()
    except (OSError, ValueError):
        return None
    if _REVISION.fullmatch(revision) is None:
        return None
    path = folder / "snapshots" / revision / "config.json"
    return path if path.is_file() else None


def _preset_from(repo: str) -> str | None:
    """The preset that was read from this very repository: a fine-tune of the same name elsewhere may be another model."""
    from .presets import preset_names, preset_source

    wanted = f"/{repo.replace('/', '--')}_config.json".lower()
    return next((name for name in preset_names() if wanted in preset_source(name).lower()), None)


def _downloaded_config(repo: str) -> Path:
    if any(os.environ.get(v, "").lower() in _YES for v in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        raise SourceError(
            "hub_offline", "{repo} is not in the Hugging Face cache ({cache}), and HF_HUB_OFFLINE forbids to download its config.json; "
            "unset it, give the path of a config.json, or a preset{nearest}", repo=repo, cache=str(_hub_cache()), nearest=_nearest(repo),
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingExtraError(
            "extra_missing", "{what} needs the extra [{extra}]; install it with: pip install 'headcount[{extra}]'. {instead}",
            what=Words("{repo} is not in the Hugging Face cache, and downloading its config.json", repo=repo), extra="hub",
            instead=Words("Or give the path of a config.json, or a preset{nearest}", nearest=_nearest(repo)),
        ) from None
    try:
        return Path(hf_hub_download(repo, "config.json"))
    except Exception as error:  # noqa: BLE001  its own errors, the HTTP library's and the system's share no base class
        raise SourceError(
            "hub_failed", "config.json of {repo} cannot be downloaded: {reason}. Give the path of a config.json, or a preset{nearest}",
            repo=repo, reason=f"{type(error).__name__}: {_first_line(error)}", nearest=_nearest(repo),
        ) from None


# -- words ------------------------------------------------------------------------------------------------------------------------


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("~")


def _first_line(error: Any) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0][:200]


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "..."


def _nearest(text: str) -> str:
    from .presets import preset_names

    names = preset_names()
    word = text.rpartition("/")[2].lower()
    near = difflib.get_close_matches(word, names, 4, 0.4)
    return Words(" (nearest: {names})", names=", ".join(near)) if near else ""


def _bad_name(prefix: str, name: str, forms: str) -> SourceError:
    return SourceError(
        "bad_model_name", "{prefix}{name} must have the form {forms}, of letters, digits and . _ -",
        prefix=prefix, name=_short(name), forms=forms,
    )


def _unknown(text: str) -> SourceError:
    return SourceError(
        "unknown_model",
        "{text} is no existing path, no preset{nearest} and no Hugging Face id; give a preset, ORG/NAME, the path of a config.json or "
        ".gguf file, ollama:NAME or lmstudio:PUBLISHER/REPO",
        text=_short(text) or Words("an empty name"), nearest=_nearest(text),
    )

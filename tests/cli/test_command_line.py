"""The command line as a user meets it: exit codes, one-line errors, both languages, pipes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headcount.cli.main import exit_code

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 300,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 70,
    "intermediate_size": 1000,
    "vocab_size": 999,
}


def spoiled(**changes: object) -> dict[str, object]:
    return {k: v for k, v in (LLAMA | changes).items() if v is not ...}


def config_file(folder: Path, **changes: object) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(spoiled(**changes)))
    return str(path)


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = exit_code(list(arguments))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_explain_prints_the_default_report(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("explain", "--lang", "en", capsys=capsys)
    assert (code, err) == (0, "")
    assert out.startswith("qwen3-32b body on RTX PRO 6000 Blackwell Server Edition")
    assert "128 x 128 / 8" in out
    assert "Does it fit?  Yes" in out


def test_count_takes_a_model_described_by_flags_and_writes_its_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "config.json"
    flags = "--layers 4 --width 300 --heads 6 --kv-heads 3 --head-dim 70 --ffn 1000 --vocab 999".split()
    code, out, _ = run("count", *flags, "--write-config", str(target), "--json", capsys=capsys)
    assert code == 0
    described = json.loads(out)
    again = json.loads(run("count", str(target), "--json", capsys=capsys)[1])
    assert (
        described["total"]["value"]
        == again["total"]["value"]
        == 4 * (300 * 70 * (6 + 3 + 3 + 6) + 3 * 300 * 1000 + 600) + 2 * 999 * 300 + 300
    )


def test_an_existing_file_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.json"
    target.write_text("precious")
    code, _, err = run("count", "qwen3-32b", "--write-config", str(target), capsys=capsys)
    assert code == 2
    assert "cannot be written: File exists" in err
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_attention_heads=-6), "num_attention_heads .* must be a whole number from 1 .*, but got -6"),
        (dict(num_hidden_layers=0), "num_hidden_layers .* must be a whole number from 1 .*, but got 0"),
        (dict(num_hidden_layers=32.5), "must be a whole number .*, but got 32.5"),
        (dict(num_hidden_layers=10**30), "must be a whole number .*, but got 1000000000000000000000000000000"),
        (dict(num_hidden_layers=float("nan")), "must be a whole number .*, but got NaN"),
        (dict(num_hidden_layers="32"), 'must be a whole number .*, but got "32"'),
        (dict(num_hidden_layers=True), "must be a whole number .*, but got true"),
        (
            dict(num_key_value_heads=4),
            "n_kv_heads must divide n_heads, but got n_heads=6, n_kv_heads=4; nearest that work: n_kv_heads 3 .* 6",
        ),
        (dict(num_key_value_heads=12), "n_kv_heads must divide n_heads, but got n_heads=6, n_kv_heads=12"),
        (dict(num_attention_heads=...), "must state num_attention_heads"),
        (dict(hidden_size=...), "must state hidden_size"),
        (dict(head_dim=None), None),
        (dict(head_dim=None, num_attention_heads=7, num_key_value_heads=7), "head_dim must be given when d_model is not a multiple"),
        (dict(model_type="nosuch"), 'model_type "nosuch" is not one'),
        (dict(model_type=...), "model_type .*absent"),
        (dict(experts_per_layer=4), "does not know .* experts_per_layer=4.*--accept-unknown experts_per_layer"),
        (dict(quantization_config={"quant_method": "zip"}), "quantization_config is not understood: zip"),
        (dict(quantization_config=5), "quantization_config is not understood"),
        (dict(rope_scaling=[[[]]]), None),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_spoiled_config_gets_one_clear_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, message: str | None
) -> None:
    code, out, err = run("count", config_file(tmp_path, **changes), "--lang", "en", capsys=capsys)
    if message is None:
        assert code == 0
        return
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert re.search(message, err), err


def test_an_unknown_field_can_be_accepted_and_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config_file(tmp_path, experts_per_layer=4)
    code, out, _ = run("count", path, "--accept-unknown", "experts_per_layer", "--lang", "en", capsys=capsys)
    assert code == 0
    assert "accepted unread: experts_per_layer" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\x00\xff\xfe", "not valid JSON"),
        (b"[1, 2]", "one JSON object"),
        (b'"text"', "one JSON object"),
        (b'{"model_type": "llama"', "not valid JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "at most 64 levels"),
        (b"[" * 100_000, "at most 64 levels"),
        (b'{"model_type": "llama", "x": "' + b"[" * 1000 + b'"}', "must state"),
        (b'{"model_type": ["llama"]}', "model_type"),
        (b"NaN", "one JSON object"),
    ],
    ids=lambda v: repr(v[:24]),
)
def test_hostile_files_get_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    code, _, err = run("count", str(path), "--lang", "en", capsys=capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


HOSTILE = """
import resource, sys, time
import numpy  # its own start is not what is measured
from headcount.cli.main import exit_code
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
code = exit_code(["count", sys.argv[1], "--lang", "en"])
print(code, time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize("kind", ["200 MB", "100,000 levels", "8 MB of numbers", "8 MB of brackets"])
def test_hostile_json_takes_under_a_second_and_200_mb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.json"
    contents = {
        "200 MB": b'{"model_type": "llama", "x": [' + b"1," * 100_000_000 + b"1]}",
        "100,000 levels": b'{"a":' * 100_000,
        "8 MB of numbers": b'{"x": [' + b"0.1," * 2_000_000 + b"1]}",
        "8 MB of brackets": b"[]," * 2_700_000,
    }
    path.write_bytes(contents[kind])
    done = subprocess.run([sys.executable, "-c", HOSTILE, str(path)], capture_output=True, text=True, timeout=120, check=True)
    code, seconds, megabytes = map(float, done.stdout.split())
    assert code == 2
    assert seconds < 1
    assert megabytes < 200


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["explain", "--foo"], 2, "No such option: --foo"),
        (["explain", "--heads", "8;16"], 2, "--heads must be whole numbers separated by commas"),
        (["explain", "--context", "lots"], 2, "whole number of tokens"),
        (["explain", "--batch", "many"], 2, "Invalid value for '--batch'"),
        (["nosuch"], 2, "No such command 'nosuch'"),
        (["count"], 2, "name a model, or describe one"),
        (["count", "qwen3-32b", "--layers", "3"], 2, "named or described"),
        (["explain", "qwen9"], 2, "qwen"),
        (["explain", "--lang", "fr"], 2, "language must be one of en, ru"),
        (["count", "nowhere/config.json"], 2, "does not exist"),
    ],
)
def test_wrong_calls_exit_2_with_a_way_out(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    given, out, err = run(*arguments, capsys=capsys)
    assert (given, out) == (code, "")
    assert message in err


def test_errors_are_russian_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run("explain", "--heads", "9", "--lang", "ru", capsys=capsys)
    assert err.startswith("ошибка: ")
    assert "n_heads=9" in err
    assert "must" not in err


def test_json_errors_are_json_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("explain", "--heads", "9", "--json", capsys=capsys)
    error = json.loads(out)["error"]
    assert code == 2
    assert error["code"] == "heads_not_divisible"
    assert error["parameters"]["n_heads"] == 9


def test_language_comes_from_the_locale_unless_given(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("LANG", "ru_RU.UTF-8")
    assert "Помещается?" in run("explain", capsys=capsys)[1]
    assert "Does it fit?" in run("explain", "--lang", "en", capsys=capsys)[1]
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert "Does it fit?" in run("explain", capsys=capsys)[1]


def test_version_names_code_schemas_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--version", capsys=capsys)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["headcount", "schema", "schema", "data", "data", "data"]


def piped(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "headcount", *arguments], capture_output=True, text=True, check=True, env=os.environ | environment
    ).stdout


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"COLUMNS": "80"}, {"TERM": "dumb"}])
def test_a_pipe_gets_plain_text(environment: dict[str, str]) -> None:
    text = piped("explain", "--lang", "en", **environment)
    assert "\x1b" not in text
    assert "128 x 128 / 8     38.1" in text


def test_tables_fit_eighty_columns() -> None:
    import headcount as hc

    for report in (hc.explain(), hc.count("deepseek-v3")):
        for lang in ("en", "ru"):
            tables = [line for line in report.text(lang, width=80).splitlines() if "  " in line]
            assert max(map(len, tables)) <= 80


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m headcount count deepseek-v3 | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_offered(shell: str) -> None:
    script = subprocess.run(
        [sys.executable, "-c", "from headcount.cli.main import run; run()"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"_HEADCOUNT_COMPLETE": f"source_{shell}"},
    ).stdout
    assert "headcount" in script
    assert "complete" in script or "compdef" in script


@pytest.mark.parametrize("model", ["qwen3-8b", "deepseek-v3", "gemma-4-26b-a4b", "qwen3.6-27b-nvfp4", "gpt-oss-20b"])
@pytest.mark.parametrize("lang", ["en", "ru"])
def test_every_next_command_works_when_pasted(model: str, lang: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run("count", model, "--lang", lang, capsys=capsys)
    following = out.rstrip().splitlines()[-1].partition(": ")[2].split("   ")
    assert following[-1] == f"headcount count {model} --json"
    for command in following:
        assert run(*shlex.split(command)[1:], capsys=capsys)[0] == 0


def test_next_quotes_a_path_with_a_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my model"
    folder.mkdir()
    path = config_file(folder)
    out = run("count", path, "--lang", "en", capsys=capsys)[1]
    assert f"headcount explain '{path}'" in " ".join(out.split())
    assert json.loads(run("count", path, "--json", capsys=capsys)[1])["source"] == path


def test_an_empty_name_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("count", "", "--lang", "en", capsys=capsys)
    assert code == 2
    assert err.startswith("error: an empty name is no existing path")

"""Every --json output validates against its shipped schema, and the schema files are those that the result classes give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import headcount as hc
from headcount.versions import SCHEMAS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "src/headcount/present/schemas"


def schema(name: str) -> dict:
    return json.loads((FOLDER / f"{name}-{SCHEMAS[name]}.json").read_text())


def test_schema_files_are_those_that_the_script_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts/schemas.py", tmp_path], check=True, capture_output=True)
    assert {f.name: f.read_text() for f in tmp_path.iterdir()} == {f.name: f.read_text() for f in FOLDER.iterdir()}


@pytest.mark.parametrize("model", ["qwen3-32b", "gpt-oss-120b", "qwen3.5-27b"])
def test_explain_output_validates(model: str) -> None:
    heads = [24, 32] if model != "gpt-oss-120b" else [64, 128]
    output = json.loads(json.dumps(hc.explain(model, heads=heads, kv_heads=4).to_dict()))
    jsonschema.validate(output, schema("explain"))


@pytest.mark.parametrize(
    "model", ["deepseek-v3", "deepseek-v4-flash", "qwen3-vl-2b-instruct", "nemotron-3-nano", "glm-5.2-nvfp4", "qwen3.6-27b-nvfp4"]
)
def test_count_output_validates(model: str) -> None:
    output = json.loads(json.dumps(hc.count(model).to_dict()))
    jsonschema.validate(output, schema("count"))


def test_a_number_without_basis_does_not_validate() -> None:
    output = json.loads(json.dumps(hc.count("qwen3-0.6b").to_dict()))
    del output["text_only"]["basis"]
    with pytest.raises(jsonschema.ValidationError, match="'basis' is a required property"):
        jsonschema.validate(output, schema("count"))

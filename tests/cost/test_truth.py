"""Every row of the truth table: parameters and cache bytes of real published configs, counted by building them with transformers.

tests/data/truth-configs.csv is a record made with transformers 5.23.0 on the meta device (parameters: distinct elements; cache: every
tensor that a DynamicCache holds after a prefill of 8,192 tokens). The configs ship in the package aiconfigurator-core 0.12.0.
"""

from __future__ import annotations

import csv
import json
from importlib import resources
from pathlib import Path

import pytest

from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.errors import ConfigError
from headcount.shape import ModelShape

ROWS = list(csv.DictReader((Path(__file__).parent.parent / "data/truth-configs.csv").open(encoding="utf-8")))
BUILT = [row for row in ROWS if row["transformers_ok"] == "yes"]
MEASURED = [row for row in BUILT if row["kv_total_bytes"]]
CONFIGS = resources.files("aiconfigurator_core") / "model_configs"


def shape_of(row: dict[str, str]) -> ModelShape:
    return ModelShape.from_config(json.loads((CONFIGS / row["config"]).read_text()))


def ids(rows: list[dict[str, str]]) -> list[str]:
    return [row["config"].removesuffix("_config.json") for row in rows]


def test_the_table_is_whole() -> None:
    assert (len(ROWS), len(BUILT), len(MEASURED)) == (46, 42, 41)


@pytest.mark.parametrize("row", BUILT, ids=ids(BUILT))
def test_parameters_equal_the_truth(row: dict[str, str]) -> None:
    counted = parameters(shape_of(row))
    assert counted.text_only == int(row["params_text_only"] or row["params"])
    assert int(counted) == int(row["params"])


@pytest.mark.parametrize("row", MEASURED, ids=ids(MEASURED))
def test_cache_equals_the_truth(row: dict[str, str]) -> None:
    cache = kv_cache_bytes(shape_of(row), int(row["kv_len"]), runtime="transformers")
    assert cache.bytes_per_token == float(row["kv_bytes_per_token_bf16"])
    assert cache.constant_bytes == int(row["fixed_bytes"])
    assert cache.total == int(row["kv_total_bytes"])


@pytest.mark.parametrize("row", [r for r in ROWS if r["transformers_ok"] == "no"], ids=lambda r: r["model_type"])
def test_types_that_nothing_can_check_are_refused(row: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="model_type"):
        shape_of(row)


def test_vllm_reserves_windowed_layers_at_full_length() -> None:
    """vLLM's log for gpt-oss-120b: 73,728 bytes per token, where the windows alone would need 36,864."""
    shape = ModelShape.from_preset("gpt-oss-120b")
    assert kv_cache_bytes(shape, 8192, runtime="vllm").bytes_per_token == 73_728
    assert kv_cache_bytes(shape, 8192, runtime="transformers").bytes_per_token == 36_864


def test_router_correction_biases_are_buffers_beside_the_total() -> None:
    """DeepSeek-V3: 58 mixture layers x 256 experts; with them the checkpoint has 671,026,419,200 numbers."""
    counted = parameters(ModelShape.from_preset("deepseek-v3"))
    assert counted.buffers == 14_848
    assert counted.total + counted.buffers == 671_026_419_200


def test_tied_weights_offer_both_readings() -> None:
    counted = parameters(ModelShape.from_preset("qwen3-0.6b"))
    assert (counted.total, counted.tied_counted_twice) == (596_049_920, 751_632_384)

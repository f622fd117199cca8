"""Thousands of damaged config.json files: the reader answers with a shape or with one of our errors, never with anything else."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.errors import HeadcountError
from headcount.shape import ModelShape
from headcount.shape.config import parse_json
from headcount.shape.fields import class_defaults
from headcount.shape.presets import _table

PRESETS: dict[str, Any] = {name: entry["config"] for name, entry in _table()["presets"].items()}
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    2**31,
    10**30,
    -(10**30),
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "32",
    "full_attention",
    [],
    [0],
    [1, 2, 3],
    ["full_attention"],
    [[]],
    {},
    {"a": 1},
    {"model_type": "llama"},
    [None],
    ["sliding_attention", 3],
)


def damaged(config: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One to three fields changed, removed or added, at any depth."""
    config = json.loads(json.dumps(config))
    known = [name for entry in class_defaults().values() for name in entry["defaults"]]
    for _ in range(rng.randint(1, 3)):
        node = config
        while True:
            inner = [v for v in node.values() if isinstance(v, dict) and v]
            if not inner or rng.random() < 0.5:
                break
            node = rng.choice(inner)
        name = rng.choice([*node, rng.choice(known)])
        if rng.random() < 0.2:
            node.pop(name, None)
        else:
            value = node.get(name)
            near = [value + 1, value - 1, value * 2] if isinstance(value, int) and not isinstance(value, bool) else []
            node[name] = copy.deepcopy(rng.choice([*ODD, *near]))
    return config


@pytest.mark.parametrize("seed", range(8))
def test_damaged_configs_are_read_or_refused_by_name(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(500):
        config = damaged(PRESETS[rng.choice(sorted(PRESETS))], rng)
        try:
            shape = ModelShape.from_config(config)
        except HeadcountError as error:
            outcomes["refused"] += bool(str(error))
            continue
        outcomes["read"] += 1
        assert parameters(shape).text_only > 0
        assert kv_cache_bytes(shape, 100).total >= 0
    assert min(outcomes.values()) > 50


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    texts = [json.dumps(config).encode() for config in PRESETS.values()]
    refused = 0
    for _ in range(1000):
        data = bytearray(rng.choice(texts))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[: rng.randrange(len(data))] if rng.random() < 0.1 else data
        try:
            parsed = parse_json(bytes(data), "config.json")
            ModelShape.from_config(parsed)
        except HeadcountError:
            refused += 1
    assert refused > 500


def test_a_list_where_an_object_belongs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(HeadcountError, match="one JSON object"):
        ModelShape.from_config(tmp_path)


@pytest.mark.parametrize("activation", ["xielu", "prelu"])
def test_an_activation_with_parameters_of_its_own_is_refused_where_nobody_counts_them(activation: str) -> None:
    with pytest.raises(HeadcountError, match=f'hidden_act="{activation}"'):
        ModelShape.from_config(PRESETS["mixtral-8x7b-v0.1"] | {"hidden_act": activation})

"""Tensor, pipeline and expert parallel shards: what adds up, what is replicated, which sizes are legal."""

from __future__ import annotations

import numpy as np
import pytest

from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.memory import memory, weight_bytes
from headcount.cost.shards import Plan, legal_tp, rank_of
from headcount.errors import ShapeError
from headcount.shape import ModelShape
from headcount.shape.table import ShapeTable

SHAPE = ModelShape(n_layers=6, d_model=320, n_heads=24, n_kv_heads=4, head_dim=40, d_ff=960, vocab_size=1000)
MATRICES = ("attention.q", "attention.o", "ffn.up", "ffn.down")


@pytest.mark.parametrize("tp", [2, 4, 8, 12, 24])
def test_matrices_are_divided_and_norms_and_kv_heads_replicated(tp: int) -> None:
    whole, part = weight_bytes(SHAPE), weight_bytes(rank_of(SHAPE, Plan(tp=tp)))
    for name in MATRICES:
        assert part[name] * tp == whole[name]
    copies = max(1, tp // 4)
    assert part["attention.k"] * tp == whole["attention.k"] * copies
    assert part["norms"] == whole["norms"]
    assert part["head"] == -(-1024 // tp) * 320 * 2
    cache = kv_cache_bytes(rank_of(SHAPE, Plan(tp=tp)), 100).total
    assert cache * tp == kv_cache_bytes(SHAPE, 100).total * copies


@pytest.mark.parametrize("tp", [5, 7, 16, 48])
def test_sizes_that_cannot_split_the_heads_name_those_that_can(tp: int) -> None:
    with pytest.raises(ShapeError, match=r"n_heads=24 .* got tp=\d+; legal sizes: 1, 2, 4, 8, 12, 24") as caught:
        memory(SHAPE, context=10, tp=tp)
    assert caught.value.code == "tp_not_divisible"
    assert legal_tp(24, 4) == [1, 2, 4, 8, 12, 24]
    assert legal_tp(24, 3) == [1, 3, 6, 12, 24]


def test_rows_of_a_table_that_cannot_be_split_are_nan() -> None:
    table = ShapeTable.grid(SHAPE, n_heads=[24, 20], n_kv_heads=4)
    total = weight_bytes(rank_of(table, Plan(tp=8))).total
    assert np.isnan(total).tolist() == [False, True]
    assert total[0] == weight_bytes(rank_of(SHAPE, Plan(tp=8))).total


def test_latent_attention_replicates_its_cache() -> None:
    shape = ModelShape.from_preset("deepseek-v3")
    rank = rank_of(shape, Plan(tp=8))
    assert kv_cache_bytes(rank, 1000).total == kv_cache_bytes(shape, 1000).total
    whole, part = weight_bytes(shape, "bf16"), weight_bytes(rank, "bf16")
    assert part["attention.kv_down"] == whole["attention.kv_down"]
    assert part["attention.kv_up"] * 8 == whole["attention.kv_up"]


def test_experts_by_cutting_and_by_dividing_weigh_the_same_and_the_router_stays_whole() -> None:
    shape = ModelShape.from_preset("qwen3-30b-a3b")
    cut, divided = (weight_bytes(rank_of(shape, plan)) for plan in (Plan(tp=4), Plan(tp=4, ep=4)))
    whole = weight_bytes(shape)
    assert cut["moe.up"] * 4 == divided["moe.up"] * 4 == whole["moe.up"]
    assert cut["moe.router"] == whole["moe.router"]
    assert divided["moe.router"] + divided["moe.router_elsewhere"] == whole["moe.router"]
    alone = weight_bytes(rank_of(shape, Plan(tp=1, ep=4)))
    assert alone["moe.up"] * 4 == whole["moe.up"]
    assert alone["attention.q"] == whole["attention.q"]


def test_pipeline_stages_are_whole_layers_and_the_fullest_is_answered_for() -> None:
    found = memory(SHAPE, context=64, pp=4, runtime="logical")
    whole = memory(SHAPE, context=64, runtime="logical")
    assert found.terms["weights.ffn.up"] * 3 == whole.terms["weights.ffn.up"]  # 6 layers over 4 stages: 2 in the fullest
    assert found.kv_cache_bytes * 3 == whole.kv_cache_bytes
    assert "weights.head" in found.terms  # the last stage has the head and the final norm: more than the embedding alone
    assert not found.terms.get("weights.embedding.tokens")

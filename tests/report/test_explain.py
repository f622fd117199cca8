"""The default report, recomputed by hand: every number below is arithmetic on the published sizes of Qwen3-32B, not a call of cost/."""

from __future__ import annotations

from itertools import pairwise

import pytest

import headcount as hc
from headcount.errors import HeadcountError

LAYERS, WIDTH, FFN, VOCAB, DIM, KV = 64, 5120, 25600, 151936, 128, 8
BANDWIDTH, PEAK, CARD = 1.792e12, 467800534963698, 102641958912
HEADS = (8, 16, 24, 32, 64, 128)
CONTEXTS = (32768, 65536, 131072)


@pytest.fixture(scope="module")
def report() -> hc.Report:
    return hc.explain()


def parameters_by_hand(n_heads: int) -> int:
    """q, k, v, o; gate, up, down; two norms and the q and k norms per layer; embedding, head and last norm."""
    layer = 2 * WIDTH * n_heads * DIM + 2 * WIDTH * KV * DIM + 3 * WIDTH * FFN + 2 * WIDTH + 2 * DIM
    return LAYERS * layer + 2 * VOCAB * WIDTH + WIDTH


@pytest.mark.parametrize("n_heads", HEADS)
def test_parameters_and_weights_by_hand(report: hc.Report, n_heads: int) -> None:
    row = report.content.row(n_heads)
    assert row.parameters.value == parameters_by_hand(n_heads)
    assert row.weights.value == 2 * parameters_by_hand(n_heads)
    assert (row.n_kv_heads, row.head_dim) == (min(KV, n_heads), DIM)


@pytest.mark.parametrize("context", CONTEXTS)
def test_cache_and_fit_by_hand(report: hc.Report, context: int) -> None:
    cache = context * LAYERS * KV * 2 * DIM * 2
    for row in report.content.rows:
        cell = next(c for c in row.cells if c.context == context)
        assert cell.kv_cache.value == cache
        assert cell.weights_and_cache.value == cache + 2 * parameters_by_hand(row.n_heads)
        assert cell.within_memory == (cache + 2 * parameters_by_hand(row.n_heads) <= CARD)


@pytest.mark.parametrize("n_heads", HEADS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_decode_roofline_by_hand(report: hc.Report, n_heads: int, context: int) -> None:
    """One token: all weights but the embedding table, of which one row is read, then the cache."""
    cell = next(c for c in report.content.row(n_heads).cells if c.context == context)
    weights = 2 * (parameters_by_hand(n_heads) - VOCAB * WIDTH + WIDTH)
    cache = context * LAYERS * KV * 2 * DIM * 2
    assert cell.decode_time.value == pytest.approx((weights + cache) / BANDWIDTH, rel=1e-12)
    assert cell.decode_bytes.value == weights + cache
    assert cell.decode_attention_share.value == pytest.approx(cache / (weights + cache), rel=1e-12)


@pytest.mark.parametrize("n_heads", HEADS)
def test_prefill_flops_by_hand(report: hc.Report, n_heads: int) -> None:
    tokens = CONTEXTS[0]
    cell = report.content.row(n_heads).cells[0]
    matrices = 2 * tokens * LAYERS * (2 * WIDTH * n_heads * DIM + 2 * WIDTH * KV * DIM + 3 * WIDTH * FFN)
    pairs = 2 * LAYERS * n_heads * 2 * DIM * (tokens * (tokens + 1) // 2)
    assert cell.prefill_flops.value == matrices + pairs + 2 * WIDTH * VOCAB
    assert cell.prefill_time.value == pytest.approx((matrices + pairs + 2 * WIDTH * VOCAB) / PEAK, rel=1e-12)


def test_price_of_one_more_head_by_hand(report: hc.Report) -> None:
    query, kv = report.content.one_more
    per_head = 2 * 2 * WIDTH * DIM * LAYERS
    assert (query.weights.value, query.kv_cache.value) == (per_head, 0)
    assert query.decode_time.value == pytest.approx(per_head / BANDWIDTH)
    assert kv.weights.value == per_head
    assert kv.kv_cache.value == 131072 * LAYERS * 2 * DIM * 2
    assert kv.decode_time.value == pytest.approx((per_head + kv.kv_cache.value) / BANDWIDTH)


def test_longest_fit_is_the_last_that_fits(report: hc.Report) -> None:
    fit = report.content.longest_fit
    assert fit is not None
    per_token = LAYERS * KV * 2 * DIM * 2
    assert fit.value * per_token <= CARD - 2 * parameters_by_hand(64) < (fit.value + 1) * per_token


def test_every_quantity_has_a_basis_and_none_claims_a_measurement(report: hc.Report) -> None:
    def bases(node: object) -> set[str]:
        if isinstance(node, dict):
            own = {node["basis"]} if set(node) == {"value", "unit", "basis"} else set()
            return own.union(*map(bases, node.values())) if node else own
        return set().union(*map(bases, node)) if isinstance(node, list) else set()

    assert bases(report.to_dict()) == {"exact", "roofline", "published"}


def test_kv_heads_are_capped_at_the_query_heads_and_the_text_says_so() -> None:
    report = hc.explain(heads=[4, 8, 16])
    assert [r.n_kv_heads for r in report.content.rows] == [4, 8, 8]
    assert "fewer than 8 query heads" in report.text()


def test_more_heads_never_cost_less(report: hc.Report) -> None:
    for few, many in pairwise(report.content.rows):
        for a, b in zip(few.cells, many.cells, strict=True):
            assert a.decode_time.value < b.decode_time.value
            assert a.prefill_time.value < b.prefill_time.value
            assert a.kv_cache.value == b.kv_cache.value


def test_quantised_weights_are_called_assumed() -> None:
    report = hc.explain("gpt-oss-120b", heads=[64])
    assert report.content.rows[0].weights.basis == "assumed"
    assert "Weight bytes are assumed" in report.text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(heads=[7, 9]), "n_heads=9, n_kv_heads=8; nearest that work: n_kv_heads 3"),
        (dict(model="deepseek-v3"), "no layer has grouped softmax attention"),
        (dict(gpu="rtx 7000"), "no device is called 'rtx 7000'; nearest: rtx-"),
        (dict(batch=0), "batch must be a whole number from 1"),
        (dict(contexts=[-4]), "context must be a whole number from 1"),
        (dict(heads=[0]), "n_heads must be at least 1"),
        (dict(weight_dtype="bf17"), "dtype 'bf17' is not known; nearest: bf16"),
    ],
)
def test_bad_input_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(HeadcountError, match=message):
        hc.explain(**arguments)

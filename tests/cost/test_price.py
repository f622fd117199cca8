"""One formula for one model and for a million: a table's row costs exactly what the row alone costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import shapes

from headcount.cost.kv_cache import RUNTIMES
from headcount.cost.memory import weight_bytes
from headcount.cost.price import price
from headcount.cost.traffic import bytes_moved
from headcount.errors import ExactnessError, HeadcountError, ShapeError
from headcount.shape import Compressed, ModelShape
from headcount.shape.table import ShapeTable
from headcount.units import EXACT_LIMIT

contexts = st.integers(1, 20000)


def _cache_unknown(model: ModelShape) -> bool:
    mixers = [m for _, layer in model.layers for m in layer.mixers]
    return any(isinstance(m, Compressed) or getattr(m, "indexer", None) is not None for m in mixers)


def assert_same_terms(row: dict, alone: dict) -> None:
    """Equal names and values; above 2^53 float64 no longer holds every integer, and only its last bits may differ."""
    assert set(row) == set(alone)
    for name, value in alone.items():
        if abs(value) <= EXACT_LIMIT:
            assert row[name] == value, name
        else:
            assert row[name] == pytest.approx(value, rel=1e-15), name


@settings(max_examples=150)
@given(models=st.lists(shapes, min_size=1, max_size=4), data=st.data())
def test_a_row_of_a_table_costs_what_it_costs_alone(models: list, data: st.DataObject) -> None:
    table = ShapeTable.from_shapes(models)
    context = data.draw(st.lists(contexts, min_size=len(models), max_size=len(models)))
    batch = data.draw(st.lists(st.integers(1, 64), min_size=len(models), max_size=len(models)))
    phase = data.draw(st.sampled_from(["prefill", "decode", "train"]))
    setting = {
        "phase": phase,
        "causal": data.draw(st.sampled_from(["half", "full"])),
        "kv_dtype": data.draw(st.sampled_from(["bf16", "fp8", "q8_0"])),
    }
    runtime = data.draw(st.sampled_from(RUNTIMES))
    assume(runtime in ("logical", "transformers") or not any(_cache_unknown(model) for model in models))
    priced = price(table, context=np.array(context, float), batch=np.array(batch, float), runtime=runtime, **setting)
    for i, model in enumerate(models):
        alone = price(table.row(i), context=context[i], batch=batch[i], runtime=runtime, **setting).terms()
        original = price(model, context=context[i], batch=batch[i], runtime=runtime, **setting).terms()
        assert_same_terms(dict(priced[i]), {k: v for k, v in alone.items() if v})
        assert_same_terms(dict(priced[i]), {k: v for k, v in original.items() if v})


@settings(max_examples=60)
@given(models=st.lists(shapes, min_size=1, max_size=3), context=contexts, batch=st.integers(1, 64))
def test_bytes_moved_of_a_row_equal_those_of_the_model(models: list, context: int, batch: int) -> None:
    moved = bytes_moved(ShapeTable.from_shapes(models), "decode", float(context), float(batch))
    for i, model in enumerate(models):
        alone = {k: v for k, v in bytes_moved(model, "decode", context, batch).items() if v}
        row = moved.row(i)
        assert set(row) == set(alone)
        for name, value in alone.items():
            assert row[name] == pytest.approx(value, rel=1e-12), name


def test_scalar_costs_are_python_ints_above_float_precision() -> None:
    huge = ModelShape(n_layers=101, d_model=2**20 + 1, n_heads=3, head_dim=2**20 + 3, d_ff=2**22 + 5, vocab_size=2**21 + 7)
    terms = price(huge, context=2**20 + 1, batch=3, phase="prefill").flops
    assert all(isinstance(v, int) for v in terms.values())
    assert terms["ffn.down"] == 2 * 101 * 3 * (2**20 + 1) * (2**22 + 5) * (2**20 + 1)
    assert terms["ffn.down"] > EXACT_LIMIT


def test_a_table_refuses_to_round_what_it_promised_exact() -> None:
    table = ShapeTable.from_columns(n_layers=2**20, d_model=2**20, n_heads=1, head_dim=2**20, d_ff=2**20, vocab_size=8)
    with pytest.raises(ExactnessError, match=r"exact up to 2\^53"):
        price(table, context=np.array([8.0]))


def test_rows_that_cannot_exist_are_masked_with_reasons_and_cost_nan() -> None:
    table = ShapeTable.from_columns(
        n_layers=[4, 4, 4, 0, 2.5, 4],
        d_model=96,
        n_heads=[6, 6, 7, 6, 6, np.nan],
        n_kv_heads=[3, 4, 7, 3, 3, 3],
        head_dim=16,
        d_ff=100,
        vocab_size=50,
    )
    assert table.legal.tolist() == [True, False, True, False, False, False]
    assert [table.why(i) for i in range(6)] == [
        [],
        ["heads_not_divisible"],
        [],
        ["count_too_small"],
        ["not_a_count"],
        ["not_a_count", "heads_not_divisible"],
    ]
    total = price(table, context=np.full(6, 64.0)).parameters.total
    assert np.isnan(total).tolist() == [False, True, False, True, True, True]
    with pytest.raises(HeadcountError, match="row 1 cannot exist: heads_not_divisible"):
        table.row(1)


def test_product_holds_every_combination_and_grid_varies_only_heads() -> None:
    table = ShapeTable.product(n_layers=[2, 3], d_model=96, n_heads=[4, 6, 8], n_kv_heads=2, head_dim=[16, 24], d_ff=100, vocab_size=50)
    assert len(table) == 12
    assert [(table.row(i).n_layers, table.row(i).n_heads, table.row(i).head_dim) for i in (0, 1, 11)] == [
        (2, 4, 16),
        (2, 4, 24),
        (3, 8, 24),
    ]
    body = ModelShape.from_preset("gpt-oss-20b")
    grid = ShapeTable.grid(body, n_heads=[64, 96], n_kv_heads=[8, 7])
    assert grid.legal.tolist() == [True, False, True, False]
    assert grid.row(0) == body.replaced(layers=body.groups, mtp=body.mtp)
    assert grid.row(2).n_heads == 96


def test_default_head_dim_of_a_table_is_refused_where_the_width_does_not_divide() -> None:
    table = ShapeTable.from_columns(n_layers=4, d_model=[96, 100], n_heads=6, d_ff=100, vocab_size=50)
    assert table.why(1) == ["not_a_count"]
    assert table.row(0).head_dim == 16


def test_single_and_table_share_the_exactness_of_tied_and_towers() -> None:
    from headcount.cost.parameters import parameters

    models = [ModelShape.from_preset(n) for n in ("qwen3-0.6b", "qwen3-vl-2b-instruct", "deepseek-v3", "qwen3-32b")]
    counted = parameters(ShapeTable.from_shapes(models))
    for i, model in enumerate(models):
        alone = parameters(model)
        for name in ("total", "text_only", "active", "embedding", "tied_counted_twice", "buffers"):
            assert getattr(counted, name)[i] == getattr(alone, name), (name, model.name)


def test_bytes_of_a_table_whose_rows_are_stored_differently_are_refused_not_guessed() -> None:
    flat = dict(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=101, vocab_size=211)
    rows = [ModelShape(**flat, weight_dtype=dtype) for dtype in ("fp8", "bf16")]
    table = ShapeTable.from_shapes(rows)
    for cost in (weight_bytes, bytes_moved):
        with pytest.raises(ShapeError, match=r"different storage formats \(bf16, fp8\)"):
            cost(table)
        assert cost(table, weight_dtype="fp8").total[0] == cost(rows[0]).total
    with pytest.raises(ShapeError, match="mixes storage formats"):
        bytes_moved(rows[0].replaced(weight_dtype="mixed"))


def test_sparse_attention_reads_what_its_indexer_picks_and_scores_everything() -> None:
    """DeepSeek-V3.2: 61 layers, latent 512 + 64, indexer keys of 128, 2,048 tokens picked; DeepSeek-V4: one entry of 512 per 4 tokens."""
    deepseek = ModelShape.from_preset("deepseek-v3.2")
    for context in (1000, 131072):
        moved = bytes_moved(deepseek, "decode", context, 3)
        assert moved["kv.latent"] == 3 * 61 * 2 * (512 + 64) * min(context, 2048)
        assert moved["kv.indexer"] == 3 * 61 * 2 * 128 * context
    assert bytes_moved(deepseek, "prefill", 131072)["kv.latent"] == 61 * 2 * (512 + 64) * 131072
    flash = ModelShape.from_preset("deepseek-v4-flash")
    mixers = [(n, m) for n, layer in flash.groups for m in layer.mixers if m.ratio]
    expected = sum(2 * n * (512 * min(m.indexer.top_k, 32768) + 128 * 32768 if m.indexer else 512 * (131072 // m.ratio)) for n, m in mixers)
    assert bytes_moved(flash, "decode", 131072)["kv.compressed"] == expected


def test_a_window_is_read_once_however_much_the_runtime_reserves() -> None:
    windowed = ModelShape(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=101, vocab_size=211, window=64)
    assert bytes_moved(windowed, "decode", 5000, runtime="vllm")["kv.windows"] == 3 * 64 * 3 * 20 * 2
    assert bytes_moved(windowed, "decode", 5000)["kv.windows"] == 3 * 64 * 3 * 20 * 2

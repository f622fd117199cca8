"""Attention times: every legal combination answered, measured points as they are, physics outside, silicon's own ratios."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headcount.cost.attention_time import BASES, EXTRAPOLATED, MEASURED, OFF_NODE_ERROR, ROOFLINE, attention_seconds
from headcount.errors import QuantityError, UnknownNameError
from headcount.hardware import device
from headcount.records import kernel_manifest, load_table

RTX, H100 = "rtx-pro-6000-server", "h100-sxm"
TABLES = [(i.device, i.engine) for i in kernel_manifest() if i.family == "attention-decode"]
SHAPES = np.array([(h, k, d) for h in range(1, 129) for k in range(1, h + 1) if h % k == 0 for d in range(32, 513, 8)], dtype=np.float64)


def ask(table: tuple[str, str], phase: str, *columns: Any, **options: Any) -> Any:
    card = device(table[0])
    return attention_seconds(table, phase, *columns, bandwidth=card.bandwidth, peak=card.peak_flops("bf16"), **options)


def bench() -> Any:
    path = Path(__file__).parents[2] / "bench" / "attention_leftout.py"
    spec = importlib.util.spec_from_file_location("attention_leftout", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "phase", "limit"), [
    (RTX, "decode", 2.3), (RTX, "prefill", 2.2), (H100, "decode", 1.6), (H100, "prefill", 4.1),
])
def test_left_out_head_counts_are_hit_at_least_as_well_as_by_log_log_interpolation(name: str, phase: str, limit: float) -> None:
    found = bench().errors(name, phase, "heads")
    assert found["rows"] > 3400
    assert found["mape"] <= found["plain_mape"]
    assert round(found["mape"], 1) <= limit


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_the_error_that_is_promised_is_the_error_of_left_out_points(phase: str) -> None:
    found = [bench().grid_errors(name, phase, axis) for name in (RTX, H100) for axis in ("kv_heads", "head_dim")]
    found += [bench().errors(name, phase, axis) for name in (RTX, H100) for axis in ("heads", "contexts", "batches")]
    for axis, promised in OFF_NODE_ERROR[phase].items():
        worst = max(f["mape"] for f in found if f["axis"] in (axis, axis + "s", axis + "es"))
        assert 100 * promised == pytest.approx(worst, rel=0.07), axis


def swept(table: tuple[str, str], phase: str, shapes: np.ndarray, at: np.ndarray, along: str, **options: Any) -> None:
    """All shapes along one axis: finite, positive, and never less for more work, but from or to a measured point."""
    other = {"context": [1.0, 8.0, 100.0, 2048.0], "batch": [777.0, 4096.0, 1e6]}[along]
    for fixed in other:
        pair = (at, fixed) if along == "context" else (fixed, at)
        grid = [shapes[:, i][:, None] for i in range(3)]
        found = ask(table, phase, *grid, *(np.asarray(v)[None] if np.ndim(v) else v for v in pair), **options)
        assert np.isfinite(found.seconds).all()
        assert (found.seconds > 0).all()
        assert (found.error > 0).all()
        free = found.basis != MEASURED
        rows = np.where(free, found.seconds, 0.0)
        before = np.maximum.accumulate(rows, axis=1)[:, :-1]
        falls = free[:, 1:] & (rows[:, 1:] < before * (1 - 1e-12))
        assert not falls.any(), (shapes[np.argwhere(falls)[0][0]], fixed)


CONTEXTS = {"decode": np.array([1, 2, 3, 100, 128, 1000, 4096, 30000, 65536, 131072, 500000, 2**20], dtype=np.float64)}
CONTEXTS["prefill"] = CONTEXTS["decode"][1:]
BATCHES = np.array([1, 2, 3, 8, 24, 64, 100, 512, 2048], dtype=np.float64)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("name", [RTX, H100])
def test_every_legal_combination_is_answered_and_grows_with_work(name: str, phase: str) -> None:
    for part in np.array_split(SHAPES, 10):
        swept((name, "vllm"), phase, part, CONTEXTS[phase], "context")
        swept((name, "vllm"), phase, part, BATCHES, "batch")


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("table", TABLES, ids="-".join)
def test_a_sample_of_combinations_on_every_device_and_engine(table: tuple[str, str], phase: str) -> None:
    sample = np.random.default_rng(3).permutation(SHAPES)[:300]
    swept(table, phase, sample, CONTEXTS[phase], "context")
    swept(table, phase, sample, BATCHES, "batch", window=1024)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_measured_points_are_returned_as_they_are(phase: str) -> None:
    for key, grid in load_table(RTX, "vllm", f"attention-{phase}").grids.items():
        if key[0] != "bfloat16":
            continue
        heads, contexts, batches = (v.ravel() for v in np.meshgrid(*grid.axes, indexing="ij"))
        kv_heads = heads if key[1] == "mha" else float(key[1])
        found = ask((RTX, "vllm"), phase, heads, kv_heads, float(key[2]), contexts, batches, window=int(key[3]))
        true = np.exp2(grid.log2_s.astype(np.float64)).ravel()
        known = ~np.isnan(true)
        assert (found.basis[known] == MEASURED).all()
        assert (found.basis[~known] != MEASURED).all()
        np.testing.assert_array_equal(found.seconds[known], true[known])


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("name", [RTX, H100, "l40s"])
def test_cold_numbers_stay_below_the_datasheet(name: str, phase: str) -> None:
    card = device(name)
    rng = np.random.default_rng(5)
    shapes = rng.permutation(SHAPES)[:4000]
    contexts, batches = 2.0 ** rng.integers(0, 21, len(shapes)), 2.0 ** rng.integers(0, 12, len(shapes))
    found = ask((name, "vllm"), phase, *shapes.T, contexts, batches, l2="cold")
    heads, kv_heads, head_dim = shapes.T
    # Written out again: keys and values of every cached token once; 2 products of 2 FLOPs over half of the square.
    cache_bytes = 2 * 2 * kv_heads * head_dim * contexts * batches
    flops = 4 * heads * head_dim * batches * (contexts if phase == "decode" else contexts**2 / 2)
    assert (flops / found.seconds <= card.peak_flops("bf16") * (1 + 1e-9)).all()
    if phase == "decode":
        assert (cache_bytes / found.seconds <= card.bandwidth * (1 + 1e-9)).all()
    assert (found.basis != MEASURED).all()
    warm = ask((name, "vllm"), phase, *shapes.T, contexts, batches)
    assert (found.seconds >= warm.seconds).all()


def test_the_cache_that_lay_in_l2_is_slower_when_it_does_not() -> None:
    # 134 MB in 0.056 ms would be 2.4 TB/s on a card of 1.79 (cost of 16 query heads, 8 KV heads of 128, 32k tokens).
    warm = ask((RTX, "vllm"), "decode", 16, 8, 128, 32768, 1)
    cold = ask((RTX, "vllm"), "decode", 16, 8, 128, 32768, 1, l2="cold")
    assert BASES[warm.basis] == "measured"
    assert BASES[cold.basis] == "roofline"
    assert cold.seconds == pytest.approx(134.2e6 / 1.792e12, rel=0.01)
    assert cold.seconds > 1.3 * warm.seconds


@pytest.mark.parametrize("name", [RTX, H100])
def test_ratios_of_silicon(name: str) -> None:
    table = (name, "vllm")
    kv_heads, head_dims, contexts = (v.ravel() for v in np.meshgrid([1.0, 2, 4, 8], [64.0, 96, 128], [8192.0, 16384, 32768]))
    shared = kv_heads, head_dims, contexts
    decode = ask(table, "decode", 64, *shared, 8).seconds / ask(table, "decode", 16, *shared, 8).seconds
    assert 1.00 <= round(float(np.median(decode)), 2) <= 1.03
    prompts = kv_heads, head_dims, contexts / 2
    prefill = ask(table, "prefill", 64, *prompts, 1).seconds / ask(table, "prefill", 16, *prompts, 1).seconds
    assert 3.5 <= np.median(prefill) <= 4.1
    wide = head_dims, contexts, 16
    kv = ask(table, "decode", 32, 8, *wide).seconds / ask(table, "decode", 32, 4, *wide).seconds
    assert 1.8 <= np.median(kv) <= 1.95


def test_the_cliff_of_unshared_heads_depends_on_heads_times_batch() -> None:
    # Measured: 8 x 128 without sharing 0.640 ms at batch 1 and 32k, no more than 0.72 at batch 8 of one head.
    table = (RTX, "vllm")
    shared = ask(table, "decode", 16, 8, 128, 32768, 1).seconds
    alone = ask(table, "decode", 8, 8, 128, 32768, 1).seconds
    assert alone > 6 * shared
    # 64 heads at batch 1 keep as many cores busy as 8 heads at batch 8: no cliff is left.
    wide = ask(table, "decode", 64, 64, 128, 32768, 1)
    assert BASES[wide.basis] == "extrapolated"
    assert wide.seconds == pytest.approx(ask(table, "decode", 8, 8, 128, 32768, 8).seconds, rel=0.02)


def test_beyond_the_table_time_follows_bytes_and_flops() -> None:
    far = ask((RTX, "vllm"), "decode", 32, 8, 128, np.array([2.0**18, 2.0**19, 2.0**20]), 8)
    assert (far.basis == EXTRAPOLATED).all()
    np.testing.assert_allclose(far.seconds[1:] / far.seconds[:-1], 2.0, rtol=0.05)
    assert (np.diff(far.error) > 0).all()
    prompt = ask((RTX, "vllm"), "prefill", 32, 8, 128, np.array([2.0**17, 2.0**18, 2.0**19]), 1)
    np.testing.assert_allclose(prompt.seconds[1:] / prompt.seconds[:-1], 4.0, rtol=0.05)


def test_columns_equal_single_questions() -> None:
    rng = np.random.default_rng(7)
    shapes = rng.permutation(SHAPES)[:200]
    contexts, batches = rng.integers(1, 2**20, 200).astype(float), rng.integers(1, 2049, 200).astype(float)
    for phase in ("decode", "prefill"):
        for options in ({}, {"window": 512}, {"kv_dtype": "fp8", "l2": "cold"}):
            whole = ask((H100, "vllm"), phase, *shapes.T, contexts, batches, **options)
            for i, row in enumerate(shapes):
                one = ask((H100, "vllm"), phase, *row, contexts[i], batches[i], **options)
                assert (one.seconds, one.basis, one.error) == (whole.seconds[i], whole.basis[i], whole.error[i])


def test_windows_cost_no_more_than_the_whole_context() -> None:
    for window in (128, 512, 1024, 4096, 8192):
        contexts = 2.0 ** np.arange(12, 21)
        for phase in ("decode", "prefill"):
            part = ask((RTX, "vllm"), phase, 32, 8, 128, contexts, 4, window=window)
            whole = ask((RTX, "vllm"), phase, 32, 8, 128, contexts, 4)
            assert (part.seconds[-3:] < whole.seconds[-3:] / 4).all()


def test_without_tables_the_roofline_answers_and_says_so() -> None:
    found = attention_seconds(None, "decode", 32, 8, 128, 8192, 8, bandwidth=1e12, peak=1e14)
    assert found.basis == ROOFLINE
    assert found.seconds == pytest.approx(2 * 2 * 8 * 128 * 8192 * 8 / 1e12, rel=0.01)


@pytest.mark.parametrize(("change", "error"), [
    ({"n_heads": 129}, QuantityError), ({"n_kv_heads": 5}, QuantityError), ({"head_dim": 520}, QuantityError),
    ({"context": 2**20 + 1}, QuantityError), ({"batch": 0}, QuantityError), ({"context": float("nan")}, QuantityError),
    ({"phase": "train"}, UnknownNameError), ({"kv_dtype": "int4"}, UnknownNameError), ({"l2": "hot"}, UnknownNameError),
    ({"tables": ("h100-sxm", "llama.cpp")}, UnknownNameError), ({"window": -1}, QuantityError),
])
def test_what_cannot_be_answered_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    question: dict[str, Any] = {
        "tables": (H100, "vllm"), "phase": "decode", "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "context": 4096, "batch": 4,
    }
    with pytest.raises(error):
        attention_seconds(**{**question, **change}, bandwidth=3.35e12, peak=989e12)


def test_every_argument_tells() -> None:
    question: dict[str, Any] = {
        "tables": (RTX, "vllm"), "phase": "decode", "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "context": 16384, "batch": 1,
        "kv_dtype": "bf16", "window": 0, "l2": "cold", "bandwidth": 1.0e12, "peak": 1e14,
    }
    first = attention_seconds(**question).seconds
    changes = {
        "tables": (H100, "vllm"), "phase": "prefill", "n_heads": 64, "n_kv_heads": 4, "head_dim": 64, "context": 32768, "batch": 2,
        "kv_dtype": "fp8", "window": 1024, "l2": "warm", "bandwidth": 0.9e12, "peak": 1e10,
    }
    assert changes.keys() == question.keys()
    for name, value in changes.items():
        changed = {**question, name: value}
        if name == "tables":
            changed["l2"], reference = "warm", attention_seconds(**{**question, "l2": "warm"}).seconds
        else:
            reference = first
        assert attention_seconds(**changed).seconds != reference, name

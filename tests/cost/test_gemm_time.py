"""Matrix multiplications: measured points as they are, left-out sizes, limits of the datasheet, growth outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headcount.cost.attention_time import EXTRAPOLATED, INTERPOLATED, MEASURED, ROOFLINE
from headcount.cost.gemm_time import gemm_seconds, grouped_seconds
from headcount.errors import QuantityError, UnknownNameError
from headcount.hardware import device
from headcount.records import load_table

RTX, H100 = ("rtx-pro-6000-server", "vllm"), ("h100-sxm", "vllm")


def ask(table: tuple[str, str], *sizes: Any, **options: Any) -> Any:
    card = device(table[0])
    return gemm_seconds(table, *sizes, bandwidth=card.bandwidth, peak=card.peak_flops("bf16"), **options)


@pytest.mark.parametrize("table", [RTX, H100])
def test_measured_points_are_returned_as_they_are(table: tuple[str, str]) -> None:
    grid = load_table(*table, "gemm").grids[("bfloat16",)]
    n, k, m = np.ix_(*(grid.axis(name) for name in ("n", "k", "m")))
    found = ask(table, m, n, k, l2="warm")
    known = ~np.isnan(grid.log2_s)
    np.testing.assert_array_equal(found.seconds[known], np.exp2(grid.log2_s.astype(np.float64))[known])
    assert (found.basis[known] == MEASURED).all()
    assert (found.basis[~known] == EXTRAPOLATED).all()
    assert (found.seconds > 0).all()


@pytest.mark.parametrize("table", [RTX, H100])
def test_between_points_it_stays_between_its_neighbours(table: tuple[str, str]) -> None:
    grid = load_table(*table, "gemm").grids[("bfloat16",)]
    found = ask(table, 600.0, 4608.0, 4608.0, l2="warm")
    around = [np.flatnonzero(np.isin(grid.axis(a), v)) for a, v in (("n", (4096, 5120)), ("k", (4096, 5120)), ("m", (513, 768)))]
    near = np.exp2(grid.log2_s[np.ix_(*around)].astype(np.float64))
    assert found.basis == INTERPOLATED
    assert near.min() <= found.seconds <= near.max()


def test_cold_numbers_stay_below_the_datasheet_and_large_ones_grow_with_flops() -> None:
    rng = np.random.default_rng(1)
    m, n, k = (2.0 ** rng.uniform(0, top, 5000) for top in (20, 18, 18))
    found = ask(RTX, m, n, k)
    card = device(RTX[0])
    assert (2 * m * n * k / found.seconds <= card.peak_flops("bf16") * (1 + 1e-9)).all()
    assert (2 * n * k / found.seconds <= card.bandwidth * (1 + 1e-9)).all()
    assert np.isfinite(found.error).all()
    far = ask(RTX, np.array([2.0**16, 2.0**17]), 8192, 8192)
    assert far.seconds[1] / far.seconds[0] == pytest.approx(2.0, rel=0.01)
    assert (far.basis == EXTRAPOLATED).all()


def test_columns_equal_single_questions() -> None:
    rng = np.random.default_rng(2)
    m, n, k = (rng.integers(1, 70000, 100) for _ in range(3))
    whole = ask(H100, m, n, k)
    for i in range(100):
        one = ask(H100, int(m[i]), int(n[i]), int(k[i]))
        assert (one.seconds, one.basis, one.error) == (whole.seconds[i], whole.basis[i], whole.error[i])


def test_experts_cost_at_least_their_bytes_and_no_more_than_one_by_one() -> None:
    card = device(H100[0])
    figures = {"bandwidth": card.bandwidth, "peak": card.peak_flops("bf16")}
    found = grouped_seconds(H100, 2.0, 4096, 2048, 64, **figures)
    assert found.seconds >= 64 * 2 * 4096 * 2048 / card.bandwidth
    assert found.seconds <= 64 * gemm_seconds(H100, 2.0, 4096, 2048, **figures).seconds
    assert found.basis >= EXTRAPOLATED


def test_what_was_not_measured_is_roofline_and_nonsense_is_refused() -> None:
    assert ask(H100, 16, 4096, 4096, weight_dtype="nvfp4").basis == ROOFLINE
    with pytest.raises(QuantityError):
        ask(H100, 0, 4096, 4096)
    with pytest.raises(QuantityError):
        ask(H100, 1, float("nan"), 4096)
    with pytest.raises(UnknownNameError):
        ask(("h100-sxm", "llama.cpp"), 1, 4096, 4096)

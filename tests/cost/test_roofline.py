"""The roofline: each stage takes the longer of its two times, and says which that was."""

from __future__ import annotations

import pytest

from headcount.cost.roofline import roofline_step
from headcount.shape import ModelShape

SHAPE = ModelShape(n_layers=3, d_model=77, n_heads=9, n_kv_heads=3, head_dim=10, d_ff=130, vocab_size=101)


@pytest.mark.parametrize(("peak", "bandwidth", "bound"), [(1e20, 1e3, "memory"), (1e3, 1e20, "compute")])
def test_a_stage_is_bound_by_what_is_slower(peak: float, bandwidth: float, bound: str) -> None:
    step = roofline_step(SHAPE, peak_flops=peak, bandwidth=bandwidth, phase="decode", context=50)
    assert step.bound == {"matrices": bound, "attention": bound}
    expected = step.bytes_moved.total / bandwidth if bound == "memory" else step.flops.total / peak
    assert step.total == pytest.approx(expected, rel=1e-12)

"""Seconds of one matrix multiplication, m x k by k x n, from measured tables.

Inside the table linear in log2 of m, n and k; above it the edge grows as the roofline does, below it the edge holds, as launching does.
l2="cold" never beats the datasheet. Experts have no table of their own here: a grouped kernel is priced as the measured multiplication of
one expert, times the experts that are touched, less the launches that grouping saves; that is extrapolated and says so.
This module must not know which matrices a model has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..errors import QuantityError
from ..records import has_table, load_table
from ..shape.dtypes import storage
from .attention_time import EXTRAPOLATED, INTERPOLATED, MEASURED, ROOFLINE, ROOFLINE_ERROR, ROUNDING_ERROR, KernelTime, place_on
from .surface import Array, fill_between, fill_beyond

TABLE_OF = {"bf16": "bfloat16", "f16": "bfloat16", "fp8": "fp8", "nvfp4": "nvfp4", "int8": "int8_wo", "int4": "int4_wo"}
"""Storage of weights -> the table's name for it."""
# Mean relative error of left-out sizes (the worst axis; bench/gemm_leftout.py prints it); assumed ones outside and for experts.
OFF_NODE_ERROR, EDGE_ERROR, ERROR_PER_OCTAVE, GROUPED_ERROR = 0.07, 0.10, 0.08, 0.5


@dataclass(frozen=True)
class GemmTable:
    """log2(seconds) over axes n, k, m; `log2_s` has no holes, `measured` has them as NaN; `launch` is the shortest one, in seconds."""

    axes: tuple[Array, ...]
    log2_s: Array
    measured: Array
    launch: float


@cache
def gemm_table(device: str, engine: str, dtype: str) -> GemmTable | None:
    """The table of one number format, None where that was not measured. Raises UnknownNameError: no GEMM table of that engine."""
    if not has_table(device, engine, "gemm"):
        load_table(device, engine, "gemm")  # raises, naming what there is
    grid = load_table(device, engine, "gemm").grids.get((dtype,))
    if grid is None:
        return None
    axes = tuple(grid.axis(name) for name in ("n", "k", "m"))
    measured = grid.log2_s.astype(np.float64)
    n, k, m = np.ix_(*axes)
    slope = np.log2(n * k + m * (n + k))
    residual = measured - slope
    outside = np.where(np.isnan(residual), np.nan, 0.0)
    for fill in (fill_between, fill_beyond):
        for axis in (2, 0, 1):
            fill(residual, outside, axis, np.log2(axes[axis]))
    return GemmTable(axes, residual + slope, measured, float(np.exp2(np.nanmin(measured))))


def gemm_floor(m: Any, n: Any, k: Any, weight_dtype: str, bandwidth: float, peak: float) -> Any:
    """Seconds that the datasheet allows at the least: weights in their storage and bf16 in and out once, or the FLOPs at peak."""
    moved = np.asarray(storage(weight_dtype).bytes_of(n * k), dtype=np.float64) + 2.0 * m * (n + k)
    return np.maximum(moved / bandwidth, 2.0 * m * n * k / peak)


def gemm_seconds(
    tables: tuple[str, str] | None, m: Any, n: Any, k: Any, weight_dtype: str = "bf16", l2: str = "cold", *, bandwidth: float, peak: float,
) -> KernelTime:
    """Time of one multiplication.

    Args:
        tables: (device, engine); None, or a format that was not measured: the roofline answers.
        m, n, k: rows (tokens), outputs, inputs; positive numbers or arrays that broadcast.
        l2: "cold": never faster than `bandwidth` (bytes/s) and `peak` (FLOP/s of the format that is multiplied) allow; "warm": as measured.

    Raises:
        QuantityError: a size that is not positive and finite. UnknownNameError: no such table or storage.
    """
    columns = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (m, n, k)))
    rows, outputs, inputs = (np.ascontiguousarray(c).reshape(-1) for c in columns)
    for name, column in (("m", rows), ("n", outputs), ("k", inputs)):
        if not ((column > 0) & np.isfinite(column)).all():
            raise QuantityError("gemm_size", "{name} of a matrix multiplication must be positive and finite", name=name)
    floor = gemm_floor(rows, outputs, inputs, weight_dtype, bandwidth, peak)
    table = None if tables is None or weight_dtype not in TABLE_OF else gemm_table(*tables, TABLE_OF[weight_dtype])
    if table is None:
        found = KernelTime(floor, np.full(len(floor), ROOFLINE), np.full(len(floor), ROOFLINE_ERROR))
    else:
        inside = [np.clip(v, a[0], a[-1]) for v, a in zip((outputs, inputs, rows), table.axes, strict=True)]
        edge = gemm_floor(inside[2], inside[0], inside[1], weight_dtype, bandwidth, peak)
        found = _read(table, inside, np.maximum(floor / edge, 1.0), (outputs, inputs, rows))
        if l2 == "cold":
            limited = floor > found.seconds
            basis = np.where(limited, ROOFLINE, np.maximum(found.basis, INTERPOLATED))
            found = KernelTime(np.maximum(found.seconds, floor), basis, np.where(limited, np.maximum(found.error, EDGE_ERROR), found.error))
    shape = columns[0].shape
    parts = (np.asarray(p).reshape(shape) for p in (found.seconds, found.basis, found.error))
    return KernelTime(*(p if shape else p.item() for p in parts))


def _read(table: GemmTable, inside: list[Array], growth: Array, asked: tuple[Array, Array, Array]) -> KernelTime:
    places = [place_on(a, v) for a, v in zip(table.axes, inside, strict=True)]
    log2_s = np.zeros(len(growth))
    for corner in np.ndindex(2, 2, 2):
        share = np.ones(len(growth))
        for p, up in zip(places, corner, strict=True):
            share = share * (p.share if up else 1.0 - p.share)
        n, k, m = (p.low + up for p, up in zip(places, corner, strict=True))
        log2_s = log2_s + share * table.log2_s[n, k, m]
    exact = table.measured[places[0].node, places[1].node, places[2].node]
    off = places[0].off + places[1].off + places[2].off
    octaves = sum((np.abs(np.log2(a / i)) for a, i in zip(asked, inside, strict=True)), start=np.zeros(len(growth)))
    hit = (off == 0) & (octaves == 0) & ~np.isnan(exact)
    error = 0.01 + OFF_NODE_ERROR * np.minimum(off, 1.0) + np.where(octaves > 0, EDGE_ERROR + ERROR_PER_OCTAVE * octaves, 0.0)
    basis = np.where(hit, MEASURED, np.where((octaves > 0) | (np.isnan(exact) & (off == 0)), EXTRAPOLATED, INTERPOLATED))
    return KernelTime(np.exp2(np.where(hit, exact, log2_s)) * growth, basis, np.where(hit, ROUNDING_ERROR, error))


def grouped_seconds(
    tables: tuple[str, str] | None, m: Any, n: Any, k: Any, touched: Any, weight_dtype: str = "bf16", *, bandwidth: float, peak: float,
) -> KernelTime:
    """Time of `touched` experts in one kernel, each with m tokens (which need not be whole): see the module."""
    one = gemm_seconds(tables, np.maximum(m, 1.0), n, k, weight_dtype, bandwidth=bandwidth, peak=peak)
    table = None if tables is None or weight_dtype not in TABLE_OF else gemm_table(*tables, TABLE_OF[weight_dtype])
    launch = 0.0 if table is None else table.launch
    floor = gemm_floor(m, n, k, weight_dtype, bandwidth, peak)
    seconds = np.maximum(launch + touched * np.maximum(one.seconds - launch, floor), touched * floor)
    return KernelTime(seconds, np.maximum(one.basis, EXTRAPOLATED), np.maximum(one.error, GROUPED_ERROR))

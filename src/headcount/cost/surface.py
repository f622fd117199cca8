"""A measured attention table filled to the last cell: log2(seconds) over KV heads x head_dim x heads x contexts x batches.

What nobody measured is filled in the space of residuals, log2(measured) - log2(physics), where physics is a launch time plus bytes at the
table's own bandwidth (decode) or FLOPs at its own rate (prefill): between measured points linear in log2 of the axis, beyond them the
residual of the nearest edge is held, so that time grows as bytes and FLOPs do. Layers without sharing (KV heads = heads) are a branch of
their own: some kernels do not split their cache over cores, and are up to ten times slower where heads x batch is small. In decode their
time depends on heads x batch alone, so that branch goes on along heads x batch.
This module must not know the device's datasheet, nor answer a query: that is `attention_time.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..records import Grid, load_table

Array: TypeAlias = NDArray[np.float64]

KV_NODES = (1, 2, 4, 8, 16, 32, 64, 128)
"""KV heads of the branch that shares them; the branch without sharing follows as one more index."""
MHA = len(KV_NODES)
HEAD_DIM_NODES = (32, 64, 128, 256, 512)
MAX_CONTEXT = 2**20
MAX_BATCH = 2048
KV_BYTES = {"bfloat16": 2.0, "fp8": 1.0}
BEND_OCTAVES = 3
"""Kernels this many octaves above the shortest are long: the number of heads tells fully in their time."""
KV, HEAD_DIM, HEADS, CONTEXT, BATCH = range(5)
SHORT, LONG = 256, 4096
"""Contexts whose prefill tells the rate of bytes, and the rate of FLOPs."""


@dataclass(frozen=True)
class Surface:
    """One filled table.

    Args:
        phase: "prefill" or "decode".
        window: tokens that a query sees; 0: all.
        axes: head_dims, heads, contexts, batches; ascending.
        log2_s: [9 branches, head_dims, heads, contexts, batches], finite, monotone in context and batch.
        measured: same axes, log2 of the measured seconds, NaN where there are none.
        outside: same axes, octaves between a cell and the measured points that it was filled from; 0 inside.
        head_dims: the smallest and the largest that were measured.
    """

    phase: str
    window: int
    axes: tuple[Array, Array, Array, Array]
    log2_s: Array
    measured: Array
    outside: Array
    head_dims: tuple[float, float]
    launch: float
    """log2 of the seconds of the shortest kernels."""
    bend: float
    """By how much, in log2, head counts halfway between two measured ones lie above the straight line; 0 for short kernels."""
    one_token: Surface | None = None
    """Prompts of a single token, where they were measured: engines run another kernel for them, slower than sixteen tokens take."""


def work(
    phase: str, heads: Any, kv_heads: Any, head_dim: Any, context: Any, batch: Any, kv_bytes: float, window: Any = 0,
) -> tuple[Any, Any]:
    """(bytes, FLOPs) of one attention kernel at the least: queries, keys, values and results moved once; half of the pairs if causal.

    The cache is read in `kv_bytes` per number; queries and results are bf16. In prefill keys and values are counted as bf16 as well.
    """
    seen = np.where(np.asarray(window) > 0, np.minimum(context, window), context) if np.any(window) else context
    if phase == "decode":
        return batch * head_dim * (2.0 * kv_bytes * kv_heads * seen + 4.0 * heads), 4.0 * batch * heads * head_dim * seen
    pairs = seen * seen / 2.0 + (context - seen) * seen
    return 4.0 * batch * context * head_dim * (heads + kv_heads), 4.0 * batch * heads * head_dim * pairs


@cache
def attention_surface(device: str, engine: str, phase: str, kv_dtype: str = "bfloat16", window: int = 0) -> Surface | None:
    """The filled surface of one table, built once; None where the table has nothing for that cache type and window.

    Raises:
        UnknownNameError: no such table.
    """
    grids = load_table(device, engine, f"attention-{phase}").grids
    chosen = select(grids, kv_dtype, window)
    return build(chosen, phase, KV_BYTES[kv_dtype], window) if chosen else None


def select(grids: Mapping[Any, Grid], kv_dtype: str, window: int) -> dict[tuple[str, int], Grid]:
    """The grids of one cache type and window by (kv_heads, head_dim), computed in bf16."""
    return {
        (str(k[1]), int(k[2])): g for k, g in grids.items() if k[0] == kv_dtype and k[3] == window and (len(k) < 5 or k[4] == "bfloat16")
    }


def build(grids: Mapping[tuple[str, int], Grid], phase: str, kv_bytes: float, window: int) -> Surface:
    """A surface from grids by (kv_heads or "mha", head_dim)."""
    single = {key: part for key, grid in grids.items() if (part := _contexts(grid, grid.contexts == 1)) is not None}
    if phase == "prefill" and single:
        others = {key: part for key, grid in grids.items() if (part := _contexts(grid, grid.contexts > 1)) is not None}
        return replace(_filled(others, phase, kv_bytes, window), one_token=_filled(single, phase, kv_bytes, window))
    return _filled(grids, phase, kv_bytes, window)


def _contexts(grid: Grid, kept: NDArray[np.bool_]) -> Grid | None:
    axes = (grid.heads, grid.contexts[kept], grid.batches)
    return replace(grid, axes=axes, log2_s=grid.log2_s[:, kept]) if kept.any() else None


def _filled(grids: Mapping[tuple[str, int], Grid], phase: str, kv_bytes: float, window: int) -> Surface:
    axes = _axes(grids)
    measured = _placed(grids, axes)
    steady = _steady(measured)
    prior = _prior(measured, axes, phase, kv_bytes, window)
    residual = steady - prior
    outside = np.where(np.isnan(residual), np.nan, 0.0)
    logs = [np.append(np.log2(KV_NODES), np.inf), *(np.log2(a) for a in axes)]
    for axis in (HEADS, CONTEXT, BATCH):
        fill_between(residual, outside, axis, logs[axis])
    for axis in (CONTEXT, BATCH):
        fill_beyond(residual, outside, axis, logs[axis])
    if phase == "decode":
        _along_product(residual[MHA], outside[MHA], logs[HEADS], logs[BATCH])
    fill_beyond(residual, outside, HEADS, logs[HEADS])
    for part in (slice(0, MHA), slice(MHA, None)):
        for axis in (KV, HEAD_DIM):
            fill_between(residual[part], outside[part], axis, logs[axis][part] if axis == KV else logs[axis])
            fill_beyond(residual[part], outside[part], axis, logs[axis][part] if axis == KV else logs[axis])
    if np.isnan(residual[MHA]).any():  # no layer without sharing was measured
        residual[MHA], outside[MHA] = residual[MHA - 1], outside[MHA - 1] + 1.0
    if np.isnan(residual[0]).any():  # nothing else was
        residual[:MHA], outside[:MHA] = residual[MHA], outside[MHA] + 1.0
    dims = [d for _, d in grids]
    launch = float(np.nanpercentile(measured, 2))
    filled = _monotone(prior + residual, steady)
    return Surface(phase, window, axes, filled, measured, outside, (min(dims), max(dims)), launch, _bend(grids, launch))


def _bend(grids: Mapping[tuple[str, int], Grid], launch: float) -> float:
    """How far measured head counts that are no power of two lie above the line between their neighbours, as the median of long kernels."""
    found = []
    for grid in grids.values():
        place, values = np.log2(grid.heads), grid.log2_s.astype(np.float64)
        for i in range(1, len(place) - 1):
            if place[i] != round(place[i]):
                share = (place[i] - place[i - 1]) / (place[i + 1] - place[i - 1])
                above = values[i] - (1 - share) * values[i - 1] - share * values[i + 1]
                long = np.asarray((values[i] > launch + BEND_OCTAVES) & ~np.isnan(above))
                found.append((above / (4 * share * (1 - share)))[long])
    samples = np.concatenate(found) if found else np.zeros(0)
    return float(np.median(samples)) if len(samples) else 0.0


def _axes(grids: Mapping[tuple[str, int], Grid]) -> tuple[Array, Array, Array, Array]:
    def union(extra: Any, *vectors: Any) -> Array:
        return np.unique(np.concatenate([np.asarray(extra, dtype=np.float64), *vectors]))

    doubling = [1.0] + [2.0**i for i in range(17, 21)]
    return (
        union(HEAD_DIM_NODES, [float(d) for _, d in grids]),
        union([1.0, 128.0], *(g.heads for g in grids.values())),
        union(doubling, *(g.contexts for g in grids.values())),
        union([2.0**i for i in range(12)], *(g.batches for g in grids.values())),
    )


def _placed(grids: Mapping[tuple[str, int], Grid], axes: tuple[Array, ...]) -> Array:
    out = np.full((MHA + 1, *(len(a) for a in axes)), np.nan)
    for (kv_heads, head_dim), grid in grids.items():
        branch = MHA if kv_heads == "mha" else KV_NODES.index(int(kv_heads))
        places = (np.searchsorted(a, v) for a, v in zip(axes[1:], grid.axes, strict=True))
        out[branch, np.searchsorted(axes[0], head_dim)][np.ix_(*places)] = grid.log2_s
    return out


def _bounds(values: Array) -> tuple[Array, Array]:
    """The largest known value at no more context and batch, and the smallest at no less; -inf and inf where there is none."""
    low, high = np.where(np.isnan(values), -np.inf, values), np.where(np.isnan(values), np.inf, values)
    for axis in (CONTEXT, BATCH):
        low = np.maximum.accumulate(low, axis=axis)
        high = np.flip(np.minimum.accumulate(np.flip(high, axis), axis=axis), axis)
    return low, high


def _steady(measured: Array) -> Array:
    """Measured points made monotone in context and batch, changed as little as possible (medians of pooled neighbours, by turns)."""
    out = measured.copy()
    for _ in range(8):
        if not _pool_lines(out, CONTEXT) + _pool_lines(out, BATCH):
            break
    # Lines are in order by now; holes may still hide a pair out of order across both axes.
    low, high = _bounds(out)
    known = ~np.isnan(out)
    out[known] = (low[known] + high[known]) / 2
    return out


def _pool_lines(values: Array, axis: int) -> int:
    """Pools neighbours along an axis in place until every line ascends; returns how many lines did not."""
    lines = np.moveaxis(values, axis, -1)
    low = np.maximum.accumulate(np.where(np.isnan(lines), -np.inf, lines), axis=-1)
    wrong = np.argwhere((low > lines).any(axis=-1))  # no comparison with NaN holds
    for place in map(tuple, wrong):
        known = np.flatnonzero(~np.isnan(lines[place]))
        lines[(*place, known)] = _pooled(lines[place][known])
    return len(wrong)


def _middle(members: list[float]) -> float:
    """The one of some log2 values with the least sum of relative errors to all of them."""
    values = np.array(members)
    return float(values[np.argmin(np.abs(np.exp2(values[:, None] - values) - 1.0).sum(axis=1))])


def _pooled(line: Array) -> Array:
    """The ascending line nearest to a line by the sum of absolute differences: medians of pooled adjacent violators."""
    blocks: list[tuple[list[float], float]] = []
    for value in line.tolist():
        blocks.append(([value], value))
        while len(blocks) > 1 and blocks[-2][1] > blocks[-1][1]:
            members = blocks[-2][0] + blocks[-1][0]
            blocks[-2:] = [(members, float(np.median(members)))]
    return np.array([middle for members, middle in blocks for _ in members])


def _prior(measured: Array, axes: tuple[Array, ...], phase: str, kv_bytes: float, window: int) -> Array:
    head_dims, heads, contexts, batches = np.ix_(*axes)
    kv_heads = np.broadcast_to(np.array([*KV_NODES, 0.0])[:, None, None, None, None], (MHA + 1, 1, len(axes[1]), 1, 1)).copy()
    kv_heads[MHA] = heads
    amounts = work(phase, heads, kv_heads, head_dims, contexts, batches, kv_bytes, window)
    moved, flops = (np.broadcast_to(amount, measured.shape) for amount in amounts)
    seconds = np.exp2(measured)
    launch = np.nanpercentile(seconds, 2)
    spent = np.where(seconds > 8 * launch, seconds - launch, np.nan)
    if phase == "decode":
        return np.asarray(np.log2(launch + moved / _rate(moved, spent, measured)))
    # Short prompts are bound by their bytes, long ones by their FLOPs.
    by_bytes = _rate(moved, np.where(contexts <= SHORT, spent, np.nan), measured)
    by_flops = _rate(flops, np.where(contexts >= LONG, spent - moved / by_bytes, np.nan), measured)
    return np.asarray(np.log2(launch + moved / by_bytes + flops / by_flops))


def _rate(amount: Array, seconds: Array, measured: Array) -> float:
    known = np.greater(seconds, 0)  # NaN is not
    return float(np.median(amount[known] / seconds[known]) if known.any() else np.nanmax(amount / np.exp2(measured)))


def _neighbours(known: NDArray[np.bool_], axis: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index of the nearest known cell at or before, and at or after, each cell along an axis; -1 and n where there is none."""
    n = known.shape[axis]
    at = np.arange(n).reshape([-1 if i == axis else 1 for i in range(known.ndim)])
    before = np.maximum.accumulate(np.where(known, at, -1), axis=axis)
    after = np.flip(np.minimum.accumulate(np.flip(np.where(known, at, n), axis), axis=axis), axis)
    return before, after


def fill_between(values: Array, outside: Array, axis: int, coordinates: Array) -> None:
    """Fills NaN in place between known cells of an axis, linear in its coordinates."""
    known = ~np.isnan(values)
    before, after = _neighbours(known, axis)
    fill = ~known & (before >= 0) & (after < values.shape[axis])
    if not fill.any():
        return
    low, high = np.maximum(before, 0), np.minimum(after, values.shape[axis] - 1)
    here = coordinates.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (here - coordinates[low]) / (coordinates[high] - coordinates[low])
    for array in (values, outside):
        ends = np.take_along_axis(array, low, axis), np.take_along_axis(array, high, axis)
        array[fill] = (ends[0] + share * (ends[1] - ends[0]))[fill]


def fill_beyond(values: Array, outside: Array, axis: int, coordinates: Array) -> None:
    """Fills NaN in place with the nearest known cell of an axis, and adds the distance to `outside`."""
    known = ~np.isnan(values)
    before, after = _neighbours(known, axis)
    source = np.where(before >= 0, before, after)
    fill = ~known & (source < values.shape[axis])
    source = np.minimum(source, values.shape[axis] - 1)
    here = coordinates.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    with np.errstate(invalid="ignore"):  # the branch without sharing has no place along KV heads
        distance = np.abs(here - coordinates[source])
    outside[fill] = (np.take_along_axis(outside, source, axis) + distance)[fill]
    values[fill] = np.take_along_axis(values, source, axis)[fill]


def _along_product(values: Array, outside: Array, heads: Array, batches: Array) -> None:
    """Fills [head_dims, heads, contexts, batches] for head counts that were not measured, at equal heads x batch."""
    known = np.isfinite(values.min(axis=(2, 3)))  # the minimum of a plane with a hole is NaN
    for d in range(values.shape[0]):
        sources = np.flatnonzero(known[d])
        for h in np.flatnonzero(~known[d]) if len(sources) else ():
            source = sources[np.argmin(np.abs(heads[sources] - heads[h]))]
            wanted = batches + heads[h] - heads[source]
            past = np.maximum(wanted - batches[-1], 0.0)
            for array in (values, outside):
                array[d, h] = [np.interp(wanted, batches, row) for row in array[d, source]]
            outside[d, h] += past + 0.5 * np.abs(heads[h] - heads[source])


def _monotone(filled: Array, steady: Array) -> Array:
    """Filled cells between what was measured at less and at more work, so that a running maximum leaves measured cells alone."""
    low, high = _bounds(steady)
    out = np.where(np.isnan(steady), np.clip(filled, low, high), steady)
    for axis in (CONTEXT, BATCH):
        out = np.maximum.accumulate(out, axis=axis)
    return out

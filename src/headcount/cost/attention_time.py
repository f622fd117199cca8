"""Seconds of one attention kernel for any legal combination of heads, KV heads, head_dim, context and batch.

Inside the measured range a point is interpolated in log2 of every axis, outside it follows bytes and FLOPs (see `surface.py`); points
that were measured are returned as they are. Each answer carries its basis and the relative error to expect. Measurements were taken in a
loop, with a cache that still lay in L2 where it fits: l2="cold" asks for a layer among many, which cannot be faster than the datasheet.
One formula for a single question and for columns of them. This module must not know of models: only of one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuantityError, UnknownNameError
from ..records import has_table, load_table
from .surface import BEND_OCTAVES, KV_BYTES, KV_NODES, MAX_BATCH, MAX_CONTEXT, MHA, Array, Surface, attention_surface, work

MEASURED, INTERPOLATED, EXTRAPOLATED, ROOFLINE = range(4)
BASES = ("measured", "interpolated", "extrapolated", "roofline")
"""Names of the basis codes, from the strongest to the weakest."""

# Mean relative errors of left-out points, the worse of the vLLM tables of two devices; bench/attention_leftout.py prints them. A step
# outside costs 4-15 % there; that it grows by 8 % with every further octave is assumed.
ROUNDING_ERROR = 0.0007
OFF_NODE_ERROR = {
    "decode": {"kv_heads": 0.085, "head_dim": 0.105, "heads": 0.023, "context": 0.09, "batch": 0.10},
    "prefill": {"kv_heads": 0.056, "head_dim": 0.15, "heads": 0.038, "context": 0.082, "batch": 0.04},
}
EDGE_ERROR, ERROR_PER_OCTAVE = 0.10, 0.08
ROOFLINE_ERROR = 0.75
"""Mean error of the plain roofline on the same tables."""
_NAMES = {"bf16": "bfloat16", "bfloat16": "bfloat16", "f16": "bfloat16", "fp16": "bfloat16", "fp8": "fp8"}
_LIMITS = {"n_heads": 128, "n_kv_heads": 128, "head_dim": 512, "context": MAX_CONTEXT, "batch": MAX_BATCH}


@dataclass(frozen=True)
class KernelTime:
    """Seconds with basis codes (indices of BASES) and expected relative errors; numbers for one question, arrays for columns."""

    seconds: Any
    basis: Any
    error: Any


def attention_seconds(
    tables: tuple[str, str] | None, phase: str, n_heads: Any, n_kv_heads: Any, head_dim: Any, context: Any, batch: Any,
    kv_dtype: str = "bf16", window: int = 0, l2: str = "warm", *, bandwidth: float, peak: float,
) -> KernelTime:
    """Time of the attention kernel of one layer: scores, softmax and weighted values, without projections.

    Args:
        tables: (device, engine) of the measured tables; None: the roofline answers.
        phase: "decode": one new token per sequence, `context` tokens in its cache, that one among them; "prefill": `context` new tokens.
        n_heads, n_kv_heads, head_dim, context, batch: numbers or arrays that broadcast; 1-128, divisors, 8-512, to 2^20, to 2048.
        window: tokens that a query sees, 0: all before it.
        l2: "warm": as measured; "cold": never faster than `bandwidth` and `peak` allow.
        bandwidth: bytes/s of the device's memory.
        peak: dense FLOP/s for bf16.

    Raises:
        QuantityError: a value outside those ranges. UnknownNameError: no such phase, cache type, l2 or table.
    """
    _check_choices(phase, kv_dtype, l2)
    columns = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (n_heads, n_kv_heads, head_dim, context, batch)))
    flat = [np.ascontiguousarray(c).reshape(-1) for c in columns]
    check_ranges(*flat)
    if not 0 <= window <= MAX_CONTEXT:
        raise QuantityError(
            "kernel_range", "kernel times are answered for {name} from {low} to {high}, but got {value}",
            name="window", low=0, high=MAX_CONTEXT, value=float(window),
        )
    heads, kv_heads, dims, contexts, batches = flat
    moved, flops = work(phase, heads, kv_heads, dims, contexts, batches, KV_BYTES[_NAMES[kv_dtype]], window)
    floor = np.maximum(moved / bandwidth, flops / peak)
    found = None if tables is None else _from_tables(tables, phase, flat, _NAMES[kv_dtype], int(window))
    if found is None:
        found = KernelTime(floor, np.full(len(floor), ROOFLINE), np.full(len(floor), ROOFLINE_ERROR))
    elif l2 == "cold":
        found = _cold(found, floor)
    shape = columns[0].shape
    parts = (np.asarray(p).reshape(shape) for p in (found.seconds, found.basis, found.error))
    return KernelTime(*(p if shape else p.item() for p in parts))


def _check_choices(phase: str, kv_dtype: str, l2: str) -> None:
    known = (("phase", phase, ("prefill", "decode")), ("kv_dtype", kv_dtype, tuple(_NAMES)), ("l2", l2, ("warm", "cold")))
    for name, value, choices in known:
        if value not in choices:
            raise UnknownNameError(
                "unknown_choice", "{name} must be one of {known}, but got {value!r}",
                name=name, known=", ".join(choices), value=str(value)[:60],
            )


def check_ranges(n_heads: Array, n_kv_heads: Array, head_dim: Array, context: Array, batch: Array) -> None:
    """Raises QuantityError for the first row that no attention kernel can have, or that lies beyond what is answered."""
    columns = dict(zip(_LIMITS, (n_heads, n_kv_heads, head_dim, context, batch), strict=True))
    for name, column in columns.items():
        low = 8 if name == "head_dim" else 1
        wrong = ~((column >= low) & (column <= _LIMITS[name]))
        if wrong.any():
            raise QuantityError(
                "kernel_range", "kernel times are answered for {name} from {low} to {high}, but got {value}",
                name=name, low=low, high=_LIMITS[name], value=float(column[wrong][0]),
            )
    wrong = n_heads % n_kv_heads != 0
    if wrong.any():
        raise QuantityError(
            "kernel_heads", "n_heads ({heads}) must be a multiple of n_kv_heads ({kv_heads})",
            heads=int(n_heads[wrong][0]), kv_heads=int(n_kv_heads[wrong][0]),
        )


def _from_tables(tables: tuple[str, str], phase: str, flat: list[Array], kv_dtype: str, window: int) -> KernelTime | None:
    device, engine = tables
    if not has_table(device, engine, f"attention-{phase}"):
        load_table(device, engine, f"attention-{phase}")  # raises, naming what there is
    full = attention_surface(device, engine, phase, kv_dtype)
    if full is None:
        return None
    own = attention_surface(device, engine, phase, kv_dtype, window) if window else full
    if own is not None:
        inside = (flat[2] >= own.head_dims[0]) & (flat[2] <= own.head_dims[1])
        if not window or inside.all():
            return query(own, *flat)
    found = _windowed(full, flat, window)
    if own is None or not inside.any():
        return found
    answer = query(own, *(c[inside] for c in flat))
    for whole, part in ((found.seconds, answer.seconds), (found.basis, answer.basis), (found.error, answer.error)):
        whole[inside] = part
    return found


def _windowed(full: Surface, flat: list[Array], window: int) -> KernelTime:
    """A window that was not measured: the kernel over as many tokens, in prefill times the pairs that follow, never above no window."""
    heads, kv_heads, head_dim, context, batch = flat
    seen = np.minimum(context, window)
    beyond = context > window
    found = query(full, heads, kv_heads, head_dim, seen, batch, ~beyond)
    if full.phase == "prefill" and beyond.any():
        whole = query(full, heads, kv_heads, head_dim, context, batch, ~beyond)
        found.seconds[:] = np.minimum(found.seconds * (2.0 * context / seen - 1.0), whole.seconds)
    found.basis[beyond] = EXTRAPOLATED
    found.error[beyond] += EDGE_ERROR
    return found


def _cold(found: KernelTime, floor: Array) -> KernelTime:
    limited = floor > found.seconds
    # What was measured with the cache in L2 is no measurement of a layer among many.
    basis = np.where(limited, ROOFLINE, np.maximum(found.basis, INTERPOLATED))
    return KernelTime(np.maximum(found.seconds, floor), basis, np.where(limited, np.maximum(found.error, EDGE_ERROR), found.error))


def query(
    surface: Surface, n_heads: Array, n_kv_heads: Array, head_dim: Array, context: Array, batch: Array, raw: Any = True,
) -> KernelTime:
    """Reads a surface at columns of equal length. Planes over context and batch are made once for each distinct shape.

    `raw` says, for all or for each row, whether a measured point is to be returned as it is instead of made monotone.
    """
    if surface.one_token is not None and (single := context == 1).any():
        parts = [(mask, part) for mask, part in ((single, surface.one_token), (~single, replace(surface, one_token=None))) if mask.any()]
        out = KernelTime(np.empty(len(context)), np.empty(len(context), dtype=np.intp), np.empty(len(context)))
        for mask, part in parts:
            rows = np.broadcast_to(raw, context.shape)[mask]
            found = query(part, n_heads[mask], n_kv_heads[mask], head_dim[mask], context[mask], batch[mask], rows)
            out.seconds[mask], out.basis[mask], out.error[mask] = found.seconds, found.basis, found.error
        return out
    shapes, which = _distinct(n_heads, n_kv_heads, head_dim)
    planes = _planes(surface, *shapes)
    c, b = place_on(surface.axes[2], context), place_on(surface.axes[3], batch)
    n_batches = len(surface.axes[3])
    base = which * (len(surface.axes[2]) * n_batches)
    corners = [
        (base + (c.low + i) * n_batches + b.low + j, (c.share if i else 1.0 - c.share) * (b.share if j else 1.0 - b.share))
        for i in (0, 1) for j in (0, 1)
    ]
    log2_s, outside = (
        corners[0][1] * p.take(corners[0][0]) + corners[1][1] * p.take(corners[1][0])
        + corners[2][1] * p.take(corners[2][0]) + corners[3][1] * p.take(corners[3][0])
        for p in (planes.log2_s, planes.outside)
    )
    node = base + c.node * n_batches + b.node
    exact = planes.measured.take(node)
    hit = (c.off + b.off == 0) & ~np.isnan(exact) & raw
    rates = OFF_NODE_ERROR[surface.phase]
    error = planes.error.take(which) + rates["context"] * c.off + rates["batch"] * b.off
    error = error + np.where(outside > 0, EDGE_ERROR + ERROR_PER_OCTAVE * outside, 0.0)
    basis = np.where(hit, MEASURED, np.where(outside > 0, EXTRAPOLATED, INTERPOLATED))
    return KernelTime(np.exp2(np.where(hit, exact, log2_s)), basis, np.where(hit, ROUNDING_ERROR, np.maximum(error, 0.01)))


@dataclass(frozen=True)
class Place:
    """Where values lie on an axis: node below, share of the way to the next, nearest node, and 0 on a node to 1 halfway between two."""

    low: NDArray[np.intp]
    share: Array
    node: NDArray[np.intp]
    off: Array


def place_on(axis: Array, values: Array) -> Place:
    """Places of values within an ascending positive axis, linear in log2."""
    logs = np.log2(axis)
    at = np.log2(values)
    low = np.clip(np.searchsorted(axis, values, side="right") - 1, 0, len(axis) - 2)
    share = (at - logs[low]) / (logs[low + 1] - logs[low])
    share = np.where(values == axis[low], 0.0, np.where(values == axis[low + 1], 1.0, share))
    return Place(low, share, low + (share > 0.5), np.where(share * (1.0 - share) == 0, 0.0, 4.0 * share * (1.0 - share)))


def _distinct(*columns: Array) -> tuple[list[Array], NDArray[np.intp]]:
    code = (columns[0] * 129.0 + columns[1]) * 513.0 + columns[2]
    if (code == np.floor(code)).all():
        # Small whole numbers: a look-up table instead of sorting every row.
        codes = code.astype(np.intp)
        seen = np.zeros(129 * 129 * 513, dtype=bool) if len(codes) > 100_000 else None
        if seen is not None:
            seen[codes] = True
            unique = np.flatnonzero(seen)
            rank = np.empty(len(seen), dtype=np.intp)
            rank[unique] = np.arange(len(unique))
            first = np.empty(len(unique), dtype=np.intp)
            which = rank[codes]
            first[which] = np.arange(len(codes))
            return [c[first] for c in columns], which
    _, index, which = np.unique(code, return_index=True, return_inverse=True)
    return [c[index] for c in columns], which


@dataclass(frozen=True)
class _Planes:
    """[shapes, contexts, batches] of a surface; `error` [shapes] is what interpolating between shapes costs."""

    log2_s: Array
    outside: Array
    measured: Array
    error: Array


def _planes(surface: Surface, n_heads: Array, n_kv_heads: Array, head_dim: Array) -> _Planes:
    d, h = place_on(surface.axes[0], np.maximum(head_dim, surface.axes[0][0])), place_on(surface.axes[1], n_heads)
    k = place_on(np.array(KV_NODES, dtype=np.float64), n_kv_heads)
    alone = n_kv_heads == n_heads
    size = (len(n_heads), len(surface.axes[2]), len(surface.axes[3]))
    log2_s, outside = np.zeros(size), np.zeros(size)
    for i in (0, 1):
        kv_share = np.where(alone, 1.0 - i, k.share if i else 1.0 - k.share)
        branch = np.where(alone, MHA, k.low + i)
        for j in (0, 1):
            for m in (0, 1):
                share = kv_share * (d.share if j else 1.0 - d.share) * (h.share if m else 1.0 - h.share)
                used = np.flatnonzero(share)
                place = branch[used], d.low[used] + j, h.low[used] + m
                log2_s[used] += share[used, None, None] * surface.log2_s[place]
                outside[used] += share[used, None, None] * surface.outside[place]
    log2_s += (surface.bend * h.off)[:, None, None] * np.clip((log2_s - surface.launch) / BEND_OCTAVES, 0.0, 1.0)
    kv_off = np.where(alone, 0.0, k.off)
    measured = surface.measured[np.where(alone, MHA, k.node), d.node, h.node]
    measured = np.where((kv_off + d.off + h.off > 0)[:, None, None], np.nan, measured)
    rates = OFF_NODE_ERROR[surface.phase]
    return _Planes(log2_s, outside, measured, rates["kv_heads"] * kv_off + rates["head_dim"] * d.off + rates["heads"] * h.off)

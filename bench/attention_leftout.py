"""How well the attention predictor answers what was kept from it, beside plain log-log interpolation.

    python bench/attention_leftout.py            table, then one JSON line

Rows with certain head counts, contexts or batches are taken out of a table, the surface is built from the rest, and its answers are
compared with the rows taken out. "plain" interpolates linearly in log2 along the one axis between points that agree in all others;
"inside" are the rows that it can answer, "outside" those beyond the last point measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from headcount.cost.attention_time import query
from headcount.cost.surface import KV_BYTES, build, select
from headcount.records import Grid, load_table

LEFT_OUT = {
    ("decode", "heads"): (24, 40, 48, 96), ("prefill", "heads"): (24, 40, 48, 96),
    ("decode", "contexts"): (16, 128, 1024, 8192, 65536), ("prefill", "contexts"): (64, 512, 2048, 6144, 12288),
    ("decode", "batches"): (2, 8, 32, 128, 512), ("prefill", "batches"): (2, 8, 32, 128),
}
WHOLE_GRIDS: dict[str, tuple[int, str | int]] = {"kv_heads": (0, "4"), "head_dim": (1, 128)}
"""Axis -> its place in a grid's key, and the value left out."""
DEVICES = ("rtx-pro-6000-server", "h100-sxm")


def thinned(grid: Grid, axis: str, left_out: tuple[int, ...]) -> Grid | None:
    """The grid without some values of an axis; None where nothing remains."""
    at = grid.names.index(axis)
    kept = ~np.isin(grid.axes[at], left_out)
    axes = tuple(a[kept] if i == at else a for i, a in enumerate(grid.axes))
    return replace(grid, axes=axes, log2_s=np.compress(kept, grid.log2_s, axis=at)) if kept.any() else None


def plain(grid: Grid, axis: str, left_out: tuple[int, ...]) -> np.ndarray:
    """log2(seconds) of the left-out rows by linear interpolation of log2; NaN outside. Same layout as the rows."""
    at = grid.names.index(axis)
    kept = ~np.isin(grid.axes[at], left_out)
    known, wanted = np.log2(grid.axes[at][kept]), np.log2(grid.axes[at][~kept])
    lines = np.moveaxis(grid.log2_s.astype(np.float64), at, -1)[..., kept]
    out = np.full((*lines.shape[:-1], len(wanted)), np.nan)
    for place in np.ndindex(lines.shape[:-1]):
        points = ~np.isnan(lines[place])
        if points.sum() >= 2:
            out[place] = np.interp(wanted, known[points], lines[place][points], left=np.nan, right=np.nan)
    return np.moveaxis(out, -1, at)


def errors(device: str, phase: str, axis: str, engine: str = "vllm", kv_dtype: str = "bfloat16") -> dict[str, Any]:
    """Relative errors in percent of the rows left out, ours and plain."""
    left_out = LEFT_OUT[phase, axis]
    grids = select(load_table(device, engine, f"attention-{phase}").grids, kv_dtype, 0)
    rest = {key: part for key, grid in grids.items() if (part := thinned(grid, axis, left_out)) is not None}
    surface = build(rest, phase, KV_BYTES[kv_dtype], 0)
    inside: list[np.ndarray] = []
    outside: list[np.ndarray] = []
    for key, grid in grids.items():
        if key in rest and np.isin(grid.axis(axis), left_out).any() and len(rest[key].axis(axis)) > 1:
            true, ours, simple = _compared(surface, key, grid, axis, left_out)
            off = np.abs(np.exp2([ours - true, simple - true]) - 1) * 100
            between, known = ~np.isnan(simple), ~np.isnan(true)
            inside.append(off[:, between & known])
            outside.append(off[:1, ~between & known])
    a, b = np.concatenate(inside, axis=1), np.concatenate(outside, axis=1)
    return {
        "device": device, "phase": phase, "axis": axis, "rows": a.shape[1], "mape": a[0].mean(), "median": np.median(a[0]),
        "plain_mape": a[1].mean(), "plain_median": np.median(a[1]), "outside_rows": b.shape[1], "outside_mape": b[0].mean(),
    }


def _compared(
    surface: Any, key: tuple[str, int], grid: Grid, axis: str, left_out: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    at = grid.names.index(axis)
    gone = np.isin(grid.axes[at], left_out)
    axes = [a[gone] if i == at else a for i, a in enumerate(grid.axes)]
    heads, contexts, batches = (v.ravel() for v in np.meshgrid(*axes, indexing="ij"))
    kv_heads = heads if key[0] == "mha" else np.full_like(heads, float(key[0]))
    found = query(surface, heads, kv_heads, np.full_like(heads, key[1]), contexts, batches)
    true = np.compress(gone, grid.log2_s, axis=at).astype(np.float64).ravel()
    return true, np.log2(found.seconds), plain(grid, axis, left_out).ravel()


def grid_errors(device: str, phase: str, axis: str, engine: str = "vllm") -> dict[str, Any]:
    """As `errors`, with every grid of 4 KV heads, or of head_dim 128, left out at once; there is nothing plain to compare with."""
    at, gone = WHOLE_GRIDS[axis]
    grids = select(load_table(device, engine, f"attention-{phase}").grids, "bfloat16", 0)
    surface = build({key: grid for key, grid in grids.items() if key[at] != gone}, phase, 2.0, 0)
    off = []
    for key, grid in grids.items():
        if key[at] == gone:
            true, ours, _ = _compared(surface, key, grid, "heads", tuple(grid.heads))
            off.append(100 * np.abs(np.exp2(ours - true) - 1)[~np.isnan(true)])
    found = np.concatenate(off)
    return {"device": device, "phase": phase, "axis": axis, "rows": len(found), "mape": found.mean(), "median": np.median(found)}


def rows() -> Iterator[dict[str, Any]]:
    """All devices, axes and phases."""
    for device in DEVICES:
        for phase, axis in LEFT_OUT:
            yield errors(device, phase, axis)


def main() -> None:
    """Prints the table and the JSON line."""
    results = list(rows())
    names = f"{'rows':>6} {'MAPE':>6} {'median':>7} {'plain':>6} {'median':>7} {'outside':>8} {'MAPE':>6}"
    print(f"{'device':22} {'phase':8} {'left out':9} {names}")
    for r in results:
        print(
            f"{r['device']:22} {r['phase']:8} {r['axis']:9} {r['rows']:6} {r['mape']:6.2f} {r['median']:7.2f} {r['plain_mape']:6.2f}"
            f" {r['plain_median']:7.2f} {r['outside_rows']:8} {r['outside_mape']:6.2f}"
        )
    for device in DEVICES:
        for phase in ("decode", "prefill"):
            for axis in WHOLE_GRIDS:
                results.append(r := grid_errors(device, phase, axis))
                print(f"{device:22} {phase:8} {axis:9} {r['rows']:6} {r['mape']:6.2f} {r['median']:7.2f}")
    json.dump({"attention_leftout": [{k: round(v, 3) if isinstance(v, float) else v for k, v in r.items()} for r in results]}, sys.stdout)
    print()


if __name__ == "__main__":
    main()

"""How well GEMM times are interpolated: rows with certain sizes taken out of a table, and asked for.

    python bench/gemm_leftout.py                 table, then one JSON line
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from headcount.cost.gemm_time import gemm_table
from headcount.records import load_table

LEFT_OUT = {"n": (512, 2048, 4096, 8192), "k": (512, 2048, 4096, 8192), "m": (8, 32, 256, 2048, 16384)}
TABLES = (("rtx-pro-6000-server", "vllm"), ("h100-sxm", "vllm"))


def errors(device: str, engine: str, axis: str, dtype: str = "bfloat16") -> dict[str, Any]:
    """Relative errors in percent of linear interpolation in log2 along one axis, as `gemm_seconds` does between its nodes."""
    grid = load_table(device, engine, "gemm").grids[(dtype,)]
    table = gemm_table(device, engine, dtype)
    assert table is not None
    at = grid.names.index(axis)
    gone = np.isin(grid.axes[at], LEFT_OUT[axis])
    known, wanted = np.log2(grid.axes[at][~gone]), np.log2(grid.axes[at][gone])
    lines = np.moveaxis(table.log2_s, at, -1)
    guess = np.apply_along_axis(lambda line: np.interp(wanted, known, line), -1, lines[..., ~gone])
    off = 100 * np.abs(np.exp2(guess - lines[..., gone]) - 1)
    return {"device": device, "engine": engine, "axis": axis, "rows": off.size, "mape": float(off.mean()), "median": float(np.median(off))}


def main() -> None:
    """Prints the table and the JSON line."""
    results = [errors(device, engine, axis) for device, engine in TABLES for axis in LEFT_OUT]
    for r in results:
        print(f"{r['device']:22} {r['axis']:2} {r['rows']:7} MAPE {r['mape']:6.2f} median {r['median']:6.2f}")
    print(json.dumps({"gemm_leftout": results}))


if __name__ == "__main__":
    main()

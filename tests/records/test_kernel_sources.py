"""Every row of the source tables of two devices, against what is shipped. Nothing of the script that distils is used here."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from headcount.records import Grid, TableInfo, kernel_manifest, load_table

DEVICES = ("a100-sxm", "rtx-pro-6000-server")
TABLES = [i for i in kernel_manifest() if i.device in DEVICES]
# Our name -> the source's, where they differ.
THEIRS = {
    "kv_dtype": "kv_cache_dtype", "heads": "num_heads", "batches": "batch_size", "hidden": "hidden_size", "inter": "inter_size",
    "n_experts": "num_experts", "tp": "moe_tp_size", "ep": "moe_ep_size", "tokens": "num_tokens", "step": "kernel_source",
    "k_heads": "num_k_heads", "k_dim": "head_k_dim", "v_heads": "num_v_heads", "v_dim": "head_v_dim", "groups": "n_groups",
    "chunk": "chunk_size", "gpus": "num_gpus", "gemm_dtype": "gemm_type",
}
DTYPES = {"gemm": "gemm_dtype", "moe": "moe_dtype"}


def ours(name: str, row: dict[str, Any], info: TableInfo) -> Any:
    """The value of one of our keys, columns or axes in a source row."""
    if name == "contexts":
        return row["step"] + row["isl"] if "isl" in row else row["seq_len"]
    if name == "kv_heads":
        return "mha" if row["num_heads"] == row["num_key_value_heads"] else str(row["num_key_value_heads"])
    if name == "window":
        return row.get("window_size", 0)
    if name == "compute_dtype":
        return row["attn_dtype"] if info.family.startswith("attention") else row["mla_dtype"]
    if name == "heads" and info.family == "mamba2":
        return row["nheads"]
    if info.family in ("collectives", "allreduce"):
        dtype = row["nccl_dtype"] if "nccl_dtype" in row else row["allreduce_dtype"]
        backend = row.get("backend", "")
        communication = {
            "dtype": dtype, "op": "all_reduce" if "allreduce" in row["op_name"] else row["op_name"],
            "mode": backend.split("_")[-1] if "_" in backend else "", "bytes": row["message_size"] * (1 if dtype == "int8" else 2),
        }
        if name in communication:
            return communication[name]
    if name == "dtype":
        return row[DTYPES[info.family]]
    return row[THEIRS.get(name, name)]


def stored(info: TableInfo, rows: list[dict[str, Any]]) -> np.ndarray:
    """The seconds that the shipped table has for each row; NaN where it has none."""
    grids = load_table(info.device, info.engine, info.family).grids
    places: dict[int, tuple[Grid, dict[tuple[int, ...], int], list[dict[float, int]]]] = {}
    out = np.full(len(rows), np.nan)
    for number, row in enumerate(rows):
        grid = grids.get(tuple(ours(k, row, info) for k in info.key))
        if grid is None:
            continue
        if id(grid) not in places:
            axes = [{float(v): i for i, v in enumerate(axis)} for axis in grid.axes]
            places[id(grid)] = (grid, {tuple(r): i for i, r in enumerate(grid.rows.tolist())}, axes)
        _, where, axes = places[id(grid)]
        index = [where.get(tuple(ours(c, row, info) for c in info.columns))] if info.columns else []
        index += [axis.get(float(ours(name, row, info))) for name, axis in zip(info.axes, axes, strict=True)]
        if None not in index:
            out[number] = 2.0 ** float(grid.log2_s[tuple(index)])  # type: ignore[arg-type]
    return out


@pytest.mark.parametrize("info", TABLES, ids=lambda i: i.file.removesuffix(".npz"))
def test_every_source_row_is_in_the_table_or_accounted_for(info: TableInfo) -> None:
    package = Path(str(resources.files("aiconfigurator_core")))
    rows = [row for s in info.sources for row in pq.read_table(package / s["path"]).to_pylist()]
    measured = np.array([row["latency"] for row in rows]) / 1e3
    found = stored(info, rows)
    equal = np.abs(found / measured - 1) <= info.rounding + 1e-6
    dropped = info.dropped
    elsewhere = dropped["conflicts"]["rows_dropped"] + dropped["repeated_rows_merged"] + dropped["thinned_rows"]
    assert dropped["source_rows"] == len(rows)
    assert len(rows) - int(equal.sum()) <= elsewhere
    # A merged repeat keeps the lower time, so the table never shows more than a row that was not dropped for its kernel.
    if not dropped["conflicts"]["rows_dropped"]:
        assert (found[np.isfinite(found)] <= measured[np.isfinite(found)] * (1 + info.rounding + 1e-6)).all()


def test_both_devices_have_every_kind_of_table() -> None:
    assert {i.family for i in TABLES} >= {"attention-prefill", "attention-decode", "gemm", "moe", "collectives", "allreduce"}
    assert {i.device for i in TABLES} == set(DEVICES)

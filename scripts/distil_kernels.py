"""Distils the measured kernel tables of aiconfigurator-core 0.12.0 into src/headcount/records/data/kernels/.

Usage: python scripts/distil_kernels.py [OUT_FOLDER] [--device NAME] [--engine NAME]     (needs pyarrow and aiconfigurator-core)

One .npz per device, engine and kernel family, and one manifest.json. Latencies become log2(seconds) in steps of 1/512 octave (int16);
points that nobody measured stay holes. Where one point was measured with several kernels, one kernel is kept, chosen in `choose_kernels`.
The script reads back what it wrote and compares it with every source row; it stops where one is off by more than the rounding allows or
is unaccounted for. Which tables exist and what their columns mean is decided in kernel_families.py.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from kernel_families import FAMILIES, PREFERRED_KERNELS, Family, Source, thinned

from headcount.records.kernels import HOLE, SCHEMA, STEPS_PER_OCTAVE, KernelTable, packed, read_table

OUT = Path(__file__).parent.parent / "src/headcount/records/data/kernels"
PACKAGE, VERSION = "aiconfigurator-core", "0.12.0"
LICENCE = "Apache-2.0"
NOTICE = "measured by the authors of aiconfigurator-core 0.12.0; changed by headcount: see `dropped` and `rounding`, and the file NOTICE"
BUDGET_BYTES = {"attention": 5_000_000, "gemm": 5_000_000, "moe": 3_000_000, "rest": 2_000_000}
ROUNDING_LIMIT = 0.0015
EPOCH = (1980, 1, 1, 0, 0, 0)


def version_key(version: str) -> list[tuple[int, str]]:
    """Orders 1.3.0rc10 < 1.3.0rc20 < 1.3.0 and 0.5.6 < 0.5.6.post2."""
    parts = re.findall(r"\d+|[a-z]+", version)
    return [(int(p), "") if p.isdigit() else (-1 if p in ("rc", "dev") else 10**6, p) for p in parts] + [(0, "")]


def sources(root: Path, family: Family) -> Iterable[tuple[list[Source], list[str]]]:
    """Per device and engine: the files of the newest version that is at least half as large as the largest, and what was passed over.

    Small tables of newer versions hold a few shapes that were added later; alone they would answer less than the version before.
    """
    folders: dict[tuple[str, str], dict[str, list[Source]]] = {}
    for name in family.files:
        for path in sorted(root.glob(f"*/{family.folder}/*/*/{name}.parquet")):
            device, _, engine, version = path.relative_to(root).parts[:4]
            rows = pq.read_metadata(path).num_rows
            source = Source(path, device.replace("_", "-"), engine, version, rows)
            folders.setdefault((source.device, engine), {}).setdefault(version, []).append(source)
    for _, versions in sorted(folders.items()):
        size = {version: sum(s.rows for s in found) for version, found in versions.items()}
        newest = max((v for v in versions if 2 * size[v] >= max(size.values())), key=version_key)
        yield versions[newest], [f"version {v}: {size[v]} rows" for v in sorted(versions, key=version_key) if v != newest]


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """All columns of a parquet file; text as numpy text."""
    table = pq.read_table(path)
    found = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            # Through the few distinct texts: a list of all of them takes most of the script's time.
            coded = column.dictionary_encode()
            found[name] = np.asarray(coded.dictionary.to_pylist())[coded.indices.to_numpy()]
        else:
            found[name] = column.to_numpy(zero_copy_only=False)
    return found


def codes(columns: list[np.ndarray], n: int) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """Row -> number of its distinct combination, and the combinations in sorted order."""
    if not columns:
        return np.zeros(n, dtype=np.int64), [()]
    found = [np.unique(c, return_inverse=True) for c in columns]
    distinct, inverse = np.unique(np.stack([i for _, i in found], axis=1), axis=0, return_inverse=True)
    return inverse.reshape(-1), [tuple(u[j].item() for (u, _), j in zip(found, row, strict=True)) for row in distinct]


def choose_kernels(cell: np.ndarray, point: np.ndarray, kernel: np.ndarray, single: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """Rows to keep where several kernels measured one thing.

    Args:
        cell: what shall come from one kernel (a grid, or a row of a grid); point: the measured point; both as numbers.
        kernel: kernel_source of each row.
        single: one kernel per cell even where no two rows conflict. False keeps an engine's own dispatch by shape.

    Returns:
        A mask of rows, and for the manifest: conflicting points, rows dropped, and the choice.
    """
    names, number = np.unique(kernel, return_inverse=True)
    order = np.lexsort((number, point))
    same = np.diff(point[order]) == 0
    conflicting = np.unique(point[order][1:][same & (np.diff(number[order]) != 0)])
    cells = np.unique(cell[np.isin(point, conflicting)])
    if single:
        several = np.unique(np.stack([cell, number], axis=1), axis=0)[:, 0]
        cells = np.unique(several[1:][np.diff(several) == 0])
    keep = np.ones(len(cell), dtype=bool)
    chosen: dict[str, int] = {}
    for one in cells:
        rows = np.flatnonzero(cell == one)
        count = {str(names[i]): int(c) for i, c in enumerate(np.bincount(number[rows], minlength=len(names))) if c}
        default = next((k for k in PREFERRED_KERNELS if 2 * count.get(k, 0) >= max(count.values())), None)
        best = default or max(sorted(count), key=count.__getitem__)
        keep[rows[kernel[rows] != best]] = False
        chosen[best] = chosen.get(best, 0) + 1
    return keep, {"conflicting_points": len(conflicting), "rows_dropped": int((~keep).sum()), "grids_or_rows_decided": chosen}


def grid_of(family: Family, columns: dict[str, np.ndarray], rows: np.ndarray) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """One grid: its layout entry, its compound rows (may be empty), its fixed-point values; and which source rows gave a value."""
    point_of, points = codes([columns[c][rows] for c in family.columns], len(rows))
    axes = [np.unique(columns[a][rows], return_inverse=True) for a in family.axes]
    shape = [len(points)] * bool(family.columns) + [len(values) for values, _ in axes]
    index = [point_of] * bool(family.columns) + [inverse for _, inverse in axes]
    grid = np.full(shape, np.inf)
    # A point measured more than once by the same kernel keeps its lowest time: noise only ever adds.
    np.minimum.at(grid, tuple(index), columns["latency"][rows])
    with np.errstate(invalid="ignore"):
        steps = np.round(np.log2(grid / 1e3) * STEPS_PER_OCTAVE)
    values = np.where(np.isfinite(grid), steps, HOLE).astype("<i2")
    entry = {
        "axes": [[int(v) for v in vector] for vector, _ in axes], "rows": len(points) if family.columns else 0,
        "kernels": sorted({str(k) for k in np.unique(columns["kernel"][rows])}),
    }
    return entry, np.asarray(points, dtype="<i4").reshape(len(points), len(family.columns)), values.ravel()


def write_npz(path: Path, members: dict[str, np.ndarray]) -> None:
    """An .npz whose bytes depend on its content alone: numpy.savez would stamp it with the time of day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in members.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            archive.writestr(info, buffer.getvalue())


def compared(table: KernelTable, family: Family, columns: dict[str, np.ndarray]) -> float:
    """The worst relative difference between the kept source rows and the table as read back.

    Raises SystemExit where a row is missing from the table, or the table holds more points than the rows.
    """
    seen, worst = 0, 0.0
    cell, keys = codes([columns[k] for k in family.keys], len(columns["latency"]))
    for number, key in enumerate(keys):
        grid = table.grids[key]
        rows = np.flatnonzero(cell == number)
        index = []
        if family.columns:
            where = {tuple(row): i for i, row in enumerate(grid.rows.tolist())}
            index.append(np.array([where[row] for row in zip(*(columns[c][rows].tolist() for c in family.columns), strict=True)]))
        index += [np.searchsorted(grid.axis(a), columns[a][rows]) for a in family.axes]
        flat = np.ravel_multi_index(tuple(index), grid.log2_s.shape)
        lowest = np.full(grid.log2_s.size, np.inf)
        np.minimum.at(lowest, flat, columns["latency"][rows] / 1e3)
        measured = np.isfinite(lowest)
        if not np.array_equal(measured, np.isfinite(grid.log2_s.ravel())):
            raise SystemExit(f"{table.info.file}: {key}: the measured points of source and table differ")
        error = np.abs(np.exp2(grid.log2_s.ravel()[measured].astype(np.float64)) / lowest[measured] - 1)
        worst = max(worst, float(error.max()))
        seen += int(measured.sum())
    if set(keys) != set(table.grids) or seen != table.info.points:
        raise SystemExit(f"{table.info.file}: the keys or the number of points differ from the source")
    if worst > ROUNDING_LIMIT:
        raise SystemExit(f"{table.info.file}: rounding error {worst:.5f} above {ROUNDING_LIMIT}")
    return worst


def collected(path: Path) -> tuple[str | None, str]:
    """When a table was collected, as collection_meta.yaml states it beside the table (None where it does not), and its provenance word."""
    text = path.with_name("collection_meta.yaml").read_text(encoding="utf-8")
    block = re.search(rf"^  {path.stem}:\n((?:    .*\n?|\s*\n)*)", text, re.MULTILINE)
    stated = re.findall(r"collected_at: '?(\d{4}-\d\d-\d\d)", block[1] if block else "")
    provenance = re.search(r"^provenance: (\S+)", text, re.MULTILINE)
    return (max(stated) if stated else None), (provenance[1] if provenance else "unknown")


def prepared(family: Family, files: list[Source]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The rows that the table will hold, under headcount's column names, and what was dropped on the way."""
    read = [family.prepare(read_columns(s.path), s) for s in files]
    columns = {name: np.concatenate([part[name] for part in read]) for name in read[0]}
    if not (np.isfinite(columns["latency"]).all() and (columns["latency"] > 0).all()):
        raise SystemExit(f"{files[0].path}: a latency is not a positive number")
    total = len(columns["latency"])
    columns, thinning = thinned(family, columns)
    names = [*family.keys, *family.columns]
    cell, _ = codes([columns[n] for n in names], len(columns["latency"]))
    point, _ = codes([columns[n] for n in [*names, *family.axes]], len(columns["latency"]))
    keep, conflicts = choose_kernels(cell, point, columns["kernel"], family.one_kernel(files[0].engine))
    columns, point = {name: values[keep] for name, values in columns.items()}, point[keep]
    return columns, {"source_rows": total, "conflicts": conflicts, **repeats(point, columns["latency"]), **thinning}


def repeats(point: np.ndarray, latency: np.ndarray) -> dict[str, Any]:
    """How many rows repeat another's point, and the ratio of the highest to the lowest time of such a point: the noise of the source."""
    low, high = np.full(point.max() + 1, np.inf), np.zeros(point.max() + 1)
    np.minimum.at(low, point, latency)
    np.maximum.at(high, point, latency)
    count = np.bincount(point)
    ratio = high[count > 1] / low[count > 1]
    spread = {"median": round(float(np.median(ratio)), 4), "max": round(float(ratio.max()), 4)} if ratio.size else {}
    return {"repeated_rows_merged": int(count.sum() - (count > 0).sum()), "repeat_spread": spread}


def distil(family: Family, files: list[Source], passed_over: list[str], root: Path, out: Path) -> dict[str, Any]:
    """Writes one .npz, reads it back, compares it, and returns its manifest entry."""
    columns, dropped = prepared(family, files)
    cell, keys = codes([columns[k] for k in family.keys], len(columns["latency"]))
    parts = [grid_of(family, columns, np.flatnonzero(cell == i)) for i in range(len(keys))]
    layout = {
        "schema": SCHEMA, "key": list(family.keys), "columns": list(family.columns), "axes": list(family.axes),
        "grids": [{"key": list(key), **entry} for key, (entry, _, _) in zip(keys, parts, strict=True)],
    }
    text = json.dumps(layout, separators=(",", ":"), sort_keys=True).encode()
    values = np.concatenate([v for _, _, v in parts])
    first = files[0]
    path = out / f"{first.device}.{first.engine}.{family.name}.npz"
    members = {"layout": np.frombuffer(text, dtype=np.uint8), "log2": packed(values)}
    if family.columns:
        members["rows"] = np.concatenate([points for _, points, _ in parts])
    write_npz(path, members)
    dates = [collected(s.path) for s in files]
    entry = {
        "file": path.name, "device": first.device, "engine": first.engine, "engine_version": first.version, "family": family.name,
        "schema": SCHEMA, "unit": f"log2 of seconds, in steps of 1/{STEPS_PER_OCTAVE}; the source states milliseconds",
        "sources": [{"path": str(s.path.relative_to(root.parent.parent)), "sha256": hashlib.sha256(s.path.read_bytes()).hexdigest()}
                    for s in files],
        "package": f"{PACKAGE} {VERSION}", "licence": LICENCE, "notice": NOTICE,
        "collected": max((d for d, _ in dates if d), default=None), "provenance": dates[0][1],
        "kernels": sorted({str(k) for k in columns["kernel"]}), "grids": len(keys), "points": int((values != HOLE).sum()),
        "axes": list(family.axes), "columns": list(family.columns), "key": list(family.keys),
        "dropped": {**dropped, "passed_over": passed_over}, "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    entry["rounding"] = round(compared(read_table(path, entry), family, columns), 6)
    accounted = entry["points"] + dropped["conflicts"]["rows_dropped"] + dropped["repeated_rows_merged"] + dropped["thinned_rows"]
    if accounted != dropped["source_rows"]:
        raise SystemExit(f"{path.name}: {dropped['source_rows']} source rows, {accounted} accounted for")
    return entry


def summary(entries: list[dict[str, Any]]) -> None:
    """Prints sizes per family against the budget, the worst rounding and the thinning errors."""
    used = dict.fromkeys(BUDGET_BYTES, 0)
    for family in dict.fromkeys(e["family"] for e in entries):
        those = [e for e in entries if e["family"] == family]
        group = next((g for g in BUDGET_BYTES if family.startswith(g)), "rest")
        size = sum(e["bytes"] for e in those)
        used[group] += size
        conflicts = sum(e["dropped"]["conflicts"]["conflicting_points"] for e in those)
        print(f"{family:22} {len(those):3} files {size:9,} bytes {sum(e['points'] for e in those):9,} points, "
              f"{conflicts} in conflict, worst rounding {100 * max(e['rounding'] for e in those):.3f} %")
        for e in those:
            if e["dropped"]["thinned_rows"]:
                print(f"    {e['device']} {e['engine']}: {e['dropped']['thinned_rows']} rows thinned: {e['dropped']['thinning']}")
    for group, size in used.items():
        print(f"{group:22} {size:9,} of {BUDGET_BYTES[group]:,} bytes")
        if size > BUDGET_BYTES[group]:
            raise SystemExit(f"{group} is over its budget")


def main() -> None:
    """Distils every table, or those of one device or engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    parser.add_argument("--device")
    parser.add_argument("--engine")
    options = parser.parse_args()
    if metadata.version(PACKAGE) != VERSION:
        raise SystemExit(f"{PACKAGE} {VERSION} is needed, found {metadata.version(PACKAGE)}")
    root = Path(str(resources.files("aiconfigurator_core"))) / "systems" / "data"
    options.out.mkdir(parents=True, exist_ok=True)
    entries = []
    for family in FAMILIES:
        for files, passed_over in sources(root, family):
            if options.device in (None, files[0].device) and options.engine in (None, files[0].engine):
                entries.append(distil(family, files, passed_over, root, options.out))
    entries.sort(key=lambda e: e["file"])
    text = json.dumps({"schema": SCHEMA, "tables": entries}, indent=1, sort_keys=True)
    (options.out / "manifest.json").write_text(text + "\n", encoding="utf-8")
    summary(entries)


if __name__ == "__main__":
    main()

"""Measured kernel times: what is on disk, and one table at a time in memory.

A table belongs to one device, engine and kernel family (`attention-decode`, `gemm`, ...). It holds grids of log2(seconds) under keys such
as (kv_dtype, kv_heads, head_dim, window); points that nobody measured are NaN. Times were taken in a loop with a warm L2 cache. This
module must not interpolate or judge: that is `cost/`. The files are written by scripts/distil_kernels.py.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError, UnknownNameError

SCHEMA = 1
STEPS_PER_OCTAVE = 512
"""Resolution of the stored log2(seconds): half a step is 0.068 %."""
HOLE = -32768
"""The stored value of a point that nobody measured."""

Key: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class TableInfo:
    """What the manifest says of one table: enough to name the source of every number in it.

    `collected` is the date of collection as the source states it, None where it does not. `key`, `columns` and `axes` name the parts of a
    grid. `dropped` tells which rows of the source are not in the table and why; `rounding` is the worst relative error of storing.
    """

    file: str
    device: str
    engine: str
    engine_version: str
    family: str
    schema: int
    unit: str
    sources: tuple[Mapping[str, str], ...]
    package: str
    licence: str
    notice: str
    collected: str | None
    provenance: str
    kernels: tuple[str, ...]
    grids: int
    points: int
    key: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, ...]
    dropped: Mapping[str, Any]
    rounding: float
    bytes: int
    sha256: str

    @property
    def source(self) -> str:
        """Where the numbers come from, in one line, for the basis `measured`."""
        return f"{self.package}, {', '.join(s['path'] for s in self.sources)}"


@dataclass(frozen=True)
class Grid:
    """Measured times over the product of its axes.

    Args:
        columns: names of the compound first axis, empty where there is none.
        rows: [n_rows, n_columns] int64, the combinations along it.
        names: names of the other axes, in order.
        axes: their ascending float64 vectors.
        log2_s: float32 [n_rows?, *axes], log2 of seconds, NaN where nothing was measured. Not writable.
        kernels: the kernels that gave the values.
    """

    columns: tuple[str, ...]
    rows: NDArray[np.int64]
    names: tuple[str, ...]
    axes: tuple[NDArray[np.float64], ...]
    log2_s: NDArray[np.float32]
    kernels: tuple[str, ...]

    def axis(self, name: str) -> NDArray[np.float64]:
        """The vector of an axis. Raises UnknownNameError."""
        if name not in self.names:
            raise UnknownNameError("unknown_axis", "the grid has no axis {name!r}; it has {known}", name=name, known=", ".join(self.names))
        return self.axes[self.names.index(name)]

    @property
    def heads(self) -> NDArray[np.float64]:
        """Query heads (attention families)."""
        return self.axis("heads")

    @property
    def contexts(self) -> NDArray[np.float64]:
        """Tokens in the cache, the new one counted (decode), or tokens of the prompt (prefill)."""
        return self.axis("contexts")

    @property
    def batches(self) -> NDArray[np.float64]:
        """Sequences."""
        return self.axis("batches")


@dataclass(frozen=True)
class KernelTable:
    """One table: grids by key. An attention key is (kv_dtype, kv_heads, head_dim, window), in prefill with compute_dtype at its end;
    kv_heads is ``"mha"`` or a number as text."""

    info: TableInfo
    grids: Mapping[Key, Grid] = field(repr=False)

    @property
    def device(self) -> str:
        """Name of the device, as in `hardware/`."""
        return self.info.device

    @property
    def engine(self) -> str:
        """Name of the engine (or communication library)."""
        return self.info.engine

    @property
    def engine_version(self) -> str:
        """Version of the engine that was measured."""
        return self.info.engine_version

    @property
    def family(self) -> str:
        """Kernel family."""
        return self.info.family


def _folder() -> Any:
    return resources.files("headcount.records").joinpath("data", "kernels")


def table_info(entry: Mapping[str, Any]) -> TableInfo:
    """A manifest entry as a TableInfo."""
    lists = ("sources", "kernels", "key", "columns", "axes")
    values: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in entry.items()}
    return TableInfo(**values)


@cache
def _tables() -> Mapping[tuple[str, str, str], TableInfo]:
    manifest = json.loads(_folder().joinpath("manifest.json").read_text(encoding="utf-8"))
    _check_schema(manifest["schema"], "manifest.json")
    infos = [table_info(entry) for entry in manifest["tables"]]
    return MappingProxyType({(i.device, i.engine, i.family): i for i in infos})


def _check_schema(schema: int, file: str) -> None:
    if schema != SCHEMA:
        raise SourceError(
            "kernel_schema", "{file} has schema {schema}, this version of headcount reads schema {known}; reinstall headcount",
            file=file, schema=schema, known=SCHEMA,
        )


def kernel_manifest() -> tuple[TableInfo, ...]:
    """All tables on disk, by file name. Opens no table."""
    return tuple(_tables().values())


def has_table(device: str, engine: str, family: str) -> bool:
    """Whether a table exists. Opens no table."""
    return (device, engine, family) in _tables()


@cache
def load_table(device: str, engine: str, family: str) -> KernelTable:
    """One table; its file is opened once per process, and no other file is.

    Raises:
        UnknownNameError: nobody measured this family on this device with this engine; those that exist are named.
    """
    info = _tables().get((device, engine, family))
    if info is None:
        near = sorted(f"{e} {f}" for d, e, f in _tables() if d == device) or sorted({d for d, _, _ in _tables()})
        raise UnknownNameError(
            "unknown_kernel_table", "no {family} table of {engine} on {device} exists; there are: {known}",
            family=family, engine=engine, device=device, known=", ".join(near),
        )
    return _read(_folder().joinpath(info.file).read_bytes(), info)


def read_table(path: Path, entry: Mapping[str, Any]) -> KernelTable:
    """A table from a file and its manifest entry (which may still lack `rounding`)."""
    return _read(path.read_bytes(), table_info({"rounding": 0.0, **entry}))


def packed(steps: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Stored form of int16 values: differences modulo 2^16, low bytes before high bytes. It deflates to three quarters of the plain form.

    Returns:
        uint8 [2, len(steps)].
    """
    differences = np.diff(steps.astype("<i2").view("<u2"), prepend=np.uint16(0)).astype("<u2")
    return np.ascontiguousarray(differences.view(np.uint8).reshape(-1, 2).T)


def unpacked(planes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The int16 values that `packed` was given."""
    differences = np.ascontiguousarray(planes.T).view("<u2").reshape(-1)
    return np.cumsum(differences, dtype=np.uint16).view(np.int16)


def _read(data: bytes, info: TableInfo) -> KernelTable:
    with np.load(io.BytesIO(data), allow_pickle=False) as members:
        layout = json.loads(members["layout"].tobytes())
        steps = unpacked(members["log2"])
        rows = members["rows"].astype(np.int64) if "rows" in members else np.zeros((0, 0), dtype=np.int64)
    _check_schema(layout["schema"], info.file)
    log2_s = steps.astype(np.float32) / np.float32(STEPS_PER_OCTAVE)
    log2_s[steps == HOLE] = np.nan
    log2_s.setflags(write=False)
    grids: dict[Key, Grid] = {}
    at = first_row = 0
    for entry in layout["grids"]:
        axes = tuple(np.array(vector, dtype=np.float64) for vector in entry["axes"])
        n_rows = entry["rows"]
        shape = ([n_rows] if n_rows else []) + [len(vector) for vector in axes]
        size = int(np.prod(shape))
        grids[tuple(entry["key"])] = Grid(
            tuple(layout["columns"]), rows[first_row : first_row + n_rows], tuple(layout["axes"]), axes,
            log2_s[at : at + size].reshape(shape), tuple(entry["kernels"]),
        )
        at, first_row = at + size, first_row + n_rows
    return KernelTable(info, MappingProxyType(grids))

"""Own measurements as JSON Lines: the contract between those who measure and those who predict.

One line is one `Measurement`, with the name and version of its schema. A file only grows: appending is one write of whole lines, so readers
and several writers may share it. A line that is torn, or of a version that this code does not know, is refused by name, never skipped. This
module must not know how anything is measured, nor what a prediction does with it.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import InputError, SourceError

SCHEMA_NAME = "headcount.measurement"
SCHEMA_VERSION = 1

Plain: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Measurement:
    """One measured value and all that is needed to judge or repeat it.

    Args:
        quantity: what was measured, such as ``attention-decode`` or ``step``.
        device: name of the device, as in `hardware/`; engine: what ran on it.
        versions: name -> version of everything that the value depends on (driver, library, headcount).
        command: the command line that measured it.
        date: day of measuring, ISO (2026-11-23).
        value: the median, in `unit`; spread: half the interquartile range, same unit; repeats: how many values these stand for.
        unit: ``s``, ``bytes``, ``FLOP/s``, ... Never a multiple such as ms.
        parameters: the point that was measured, such as ``{"heads": 32, "batch": 8}``.

    Raises:
        InputError: a value or spread that is no finite number, an empty name, no repeats, a date that is none.
    """

    quantity: str
    device: str
    engine: str
    versions: Mapping[str, str]
    command: str
    date: str
    value: float
    unit: str
    spread: float
    repeats: int = 1
    parameters: Mapping[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        empty = [name for name in ("quantity", "device", "engine", "command", "unit") if not _is_text(getattr(self, name))]
        wrong = [name for name in ("value", "spread") if not _is_number(getattr(self, name))]
        if isinstance(self.repeats, bool) or not isinstance(self.repeats, int) or self.repeats < 1:
            wrong.append("repeats")
        if not wrong and self.spread < 0:
            wrong.append("spread")
        texts = isinstance(self.versions, Mapping) and all(_is_text(v) for pair in self.versions.items() for v in pair)
        plain = isinstance(self.parameters, Mapping) and all(_is_text(n) and _is_plain(v) for n, v in self.parameters.items())
        bad = [*empty, *wrong, *([] if texts else ["versions"]), *([] if plain else ["parameters"])]
        if not _is_date(self.date):
            bad.append("date")
        if bad:
            raise InputError(
                "bad_measurement",
                "a measurement needs names that are not empty, finite numbers, at least one repeat, a spread of 0 or more, a date such as "
                "2026-11-23 and plain versions and parameters; not so here: {fields}",
                fields=", ".join(bad),
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the schema's name and version first."""
        return {"schema": SCHEMA_NAME, "version": SCHEMA_VERSION, **asdict(self)}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (str, bool)) or _is_number(value)


def _is_date(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def append_measurements(path: str | os.PathLike[str], measurements: Iterable[Measurement]) -> None:
    """Adds measurements to a file, all or none as far as the file system allows: one write at the end of the file, then a flush to disk.

    Raises:
        SourceError: the file cannot be written, or its last line was torn (its writer died).
    """
    data = "".join(json.dumps(m.to_dict(), ensure_ascii=False, allow_nan=False) + "\n" for m in measurements).encode()
    if not data:
        return
    try:
        if _is_torn(Path(path)):
            raise SourceError(
                "torn_record", "the last line of {file} has no end, its writer was interrupted; remove that line and repeat", file=str(path)
            )
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError("disk full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SourceError("record_not_written", "{file} cannot be written: {detail}", file=str(path), detail=str(error)) from error


def _is_torn(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_measurements(path: str | os.PathLike[str]) -> tuple[Measurement, ...]:
    """All measurements of a file, in order. Empty lines are allowed.

    Raises:
        SourceError: the file cannot be read, a line is not a measurement, or of a schema or version that is not known; file and line named.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError("record_not_read", "{file} cannot be read: {detail}", file=str(path), detail=str(error)) from error
    return tuple(_parsed(line, str(path), number) for number, line in enumerate(lines, 1) if line.strip())


def _parsed(line: str, file: str, number: int) -> Measurement:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise SourceError(
            "bad_record", "line {line} of {file} is not a JSON object; a torn line can be removed, the others stay valid",
            line=number, file=file,
        )
    schema, version = entry.pop("schema", None), entry.pop("version", None)
    if (schema, version) != (SCHEMA_NAME, SCHEMA_VERSION):
        raise SourceError(
            "record_schema", "line {line} of {file} is {schema!r} version {version!r}; this headcount reads {name!r} version {known}; "
            "a newer headcount may have written it",
            line=number, file=file, schema=str(schema)[:60], version=str(version)[:20], name=SCHEMA_NAME, known=SCHEMA_VERSION,
        )
    known = {f.name for f in fields(Measurement)}
    wanted = known - {"repeats", "parameters"}
    if not wanted <= entry.keys() <= known:
        names = sorted(wanted - entry.keys()) + sorted(str(n)[:40] for n in entry.keys() - known)
        raise SourceError("record_fields", "line {line} of {file}: fields missing or unknown: {fields}", line=number, file=file,
                          fields=", ".join(names))
    try:
        return Measurement(**entry)
    except InputError as error:
        raise SourceError(
            "record_values", "line {line} of {file} is not a measurement; wrong are: {fields}", line=number, file=file,
            fields=error.parameters["fields"],
        ) from error

"""A user's own device: a JSON file with one entry in the format of the shipped ones, checked figure by figure.

Decides what such a file must hold and in which units; it changes no shipped device. It must not know what the figures are used for.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from pathlib import Path
from typing import Any

from ..errors import ConfigError, SourceError, UnknownNameError
from .devices import BASES, Device, make_device, shipped_devices

MAX_FILE_BYTES = 1_000_000
# Unit symbol and plausible range of each figure: wide enough for any device, narrow enough to catch GB/s given as bytes/s.
_RANGES: dict[str, tuple[str, float, float]] = {
    "memory_bytes": ("B", 1e8, 1e14), "bandwidth_bytes_s": ("B/s", 1e9, 1e14), "l2_bytes": ("B", 1e4, 1e11),
    "l3_bytes": ("B", 1e4, 1e12), "nvlink_bytes_s": ("B/s", 1e9, 1e13), "pcie_bytes_s": ("B/s", 1e8, 1e12),
    "power_w": ("W", 0.1, 1e5), "compute_capability": ("1", 1.0, 100.0), "cpu_cores": ("1", 1, 1e5),
    **{f"peak_flops.{dtype}": ("FLOP/s", 1e9, 1e18) for dtype in ("f32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8")},
}
_FORM = '{"name": "...", "figures": {"memory_bytes": [1e11, "source", "2026-01-31"], ...}}'
_ROW = '[1e11, "source", "2026-01-31"] / [1e11, "source", "2026-01-31", "measured" | "published" | "assumed"]'
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
REQUIRED = ("memory_bytes", "bandwidth_bytes_s")


def looks_like_file(text: str) -> bool:
    """Whether a device was given as the path of a file."""
    return text.strip().lower().endswith(".json")


def device_from_file(path: str | Path) -> Device:
    """Reads one device from a JSON file: ``{"name", "title", "figures": {figure: [value, source, date]}, ...}``.

    Values are in bytes, bytes/s, dense FLOP/s (never the number "with sparsity") and watts. ``{"devices": {name: entry}}`` with one
    entry is read too. The name must not be one of a shipped device.

    Raises:
        SourceError: the file cannot be read or is no JSON object with one device.
        ConfigError: a figure is missing, malformed, unknown or in another unit.
        UnknownNameError: ``kernel_tables`` names no shipped device.
    """
    shown = str(path)
    name, entry, sources = _entry(shown, _load(Path(path).expanduser(), shown))
    figures = entry.get("figures")
    if not isinstance(figures, dict):
        raise _form(shown, "figures", figures, _FORM)
    for figure, row in figures.items():
        _check(shown, figure, row)
    missing = [f for f in REQUIRED if f not in figures] + ([] if any(f.startswith("peak_flops.") for f in figures) else ["peak_flops.bf16"])
    if missing:
        raise ConfigError(
            "device_figure_missing", "{path}: a device needs {missing}; the file gives {given}", path=shown, missing=", ".join(missing),
            given=", ".join(figures) or "-",
        )
    for field, kind in (("title", str), ("vendor", str), ("kind", str), ("generation", str), ("notes", list)):
        if not isinstance(entry.get(field, kind()), kind):
            raise _form(shown, field, entry[field], '["..."]' if kind is list else '"..."')
    tables = entry.get("kernel_tables")
    if tables is not None and tables not in shipped_devices():
        near = difflib.get_close_matches(str(tables), [*shipped_devices()], 3, 0.3) or [*shipped_devices()]
        raise UnknownNameError(
            "unknown_device", "no device is called {name!r}; nearest: {nearest}", name=str(tables)[:60], nearest=", ".join(near)
        )
    return make_device(name, {k: v for k, v in entry.items() if k != "conflicts"}, sources)


def _load(path: Path, shown: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SourceError("device_file_form", "{path} must be a JSON object with one device: {form}", path=shown, form=_FORM)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError("unreadable", "{path} cannot be read: {reason}", path=shown, reason=error.strerror or str(error)) from None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise SourceError("device_file_form", "{path} must be a JSON object with one device: {form}", path=shown, form=_FORM)
    return data


def _entry(shown: str, data: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, str]]:
    entries = data.get("devices", {data.get("name"): data})
    sources = data.get("sources", {})
    if not isinstance(entries, dict) or len(entries) != 1 or not isinstance(sources, dict):
        raise SourceError("device_file_form", "{path} must be a JSON object with one device: {form}", path=shown, form=_FORM)
    (name, entry), = entries.items()
    if not isinstance(name, str) or not name.strip() or not isinstance(entry, dict):
        raise SourceError("device_file_form", "{path} must be a JSON object with one device: {form}", path=shown, form=_FORM)
    if name in shipped_devices():
        raise ConfigError(
            "device_name_taken", "{path}: a file cannot change {name!r}, a device that headcount brings; give it another name",
            path=shown, name=name,
        )
    return name, entry, {str(k): str(v) for k, v in sources.items()}


def _check(shown: str, figure: str, row: Any) -> None:
    if figure not in _RANGES:
        near = difflib.get_close_matches(figure, [*_RANGES], 3, 0.4) or [*_RANGES]
        raise ConfigError(
            "device_figure_unknown", "{path}: no figure is called {figure!r}; nearest: {nearest}", path=shown, figure=figure[:60],
            nearest=", ".join(near),
        )
    form = isinstance(row, list) and len(row) in (3, 4) and isinstance(row[0], (int, float)) and not isinstance(row[0], bool)
    texts = form and all(isinstance(x, str) and x.strip() for x in row[1:])
    if not texts or not _DATE.fullmatch(row[2]) or (len(row) == 4 and row[3] not in BASES):
        raise _form(shown, figure, row)
    unit, low, high = _RANGES[figure]
    if not (math.isfinite(row[0]) and low <= row[0] <= high):
        raise ConfigError(
            "device_figure_unit", "{path}: {figure} is given in {unit}, from {low:g} to {high:g}, but is {value}",
            path=shown, figure=figure, unit=unit, low=low, high=high, value=row[0],
        )


def _form(shown: str, figure: str, value: Any, form: str = _ROW) -> ConfigError:
    return ConfigError(
        "device_figure_form", "{path}: {figure} must look like {form}, but is {value}", path=shown, figure=figure, form=form,
        value=repr(value)[:80],
    )

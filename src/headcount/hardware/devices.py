"""Devices and their figures. A figure is a value with the place and date it was read and a basis; there are no figures without.

Decides what a device is, which shipped devices there are, and whose measured kernel tables stand in for a device that has none.
It must not know what a model is, how fast anything runs (that is `cost/`), or how people spell names (that is `names.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from ..errors import UnknownNameError

BASES = ("measured", "published", "assumed")


@dataclass(frozen=True)
class Figure:
    """One property of a device: value in bytes, bytes/s, dense FLOP/s or watts; source and ISO date; ``published`` or another of BASES."""

    value: float
    source: str
    date: str
    basis: str = "published"


@dataclass(frozen=True)
class Device:
    """A GPU or other processor.

    ``kernel_tables`` names the device whose measured tables hold or stand in for this one; None: no tables come near. ``notes`` are
    codes of what a reader of any number should know. ``conflicts`` are the other values that sources gave for a figure, and were not taken.
    """

    name: str
    title: str
    figures: Mapping[str, Figure]
    vendor: str = ""
    kind: str = "gpu"
    generation: str = ""
    kernel_tables: str | None = None
    notes: tuple[str, ...] = ()
    conflicts: Mapping[str, tuple[Figure, ...]] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    """Names of the GPUs that the driver reports; only of a detected machine."""

    def figure(self, name: str) -> Figure:
        """A figure with its source and basis. Raises UnknownNameError where no source gave one."""
        if name not in self.figures:
            raise UnknownNameError(
                "unknown_figure", "{figure} of the {device} is not known; known are {known}",
                figure=name, device=self.title, known=", ".join(sorted(self.figures)) or "-",
            )
        return self.figures[name]

    def value(self, figure: str) -> float:
        """A figure's value. Raises UnknownNameError where no source gave one."""
        return self.figure(figure).value

    @property
    def memory_bytes(self) -> int:
        """Memory as the driver reports it; nominal where the figure's source says so."""
        return int(self.value("memory_bytes"))

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth, bytes/s."""
        return self.value("bandwidth_bytes_s")

    @property
    def l2_bytes(self) -> int | None:
        """Last cache before memory that all cores share; None where no source gave one."""
        return int(self.figures["l2_bytes"].value) if "l2_bytes" in self.figures else None

    @property
    def link_bytes_s(self) -> float | None:
        """To other GPUs of the node, per GPU and direction: NVLink or its like, else PCIe; None where neither is known."""
        return next((self.figures[k].value for k in ("nvlink_bytes_s", "pcie_bytes_s") if k in self.figures), None)

    @property
    def number_formats(self) -> tuple[str, ...]:
        """Formats whose dense peak is known, such as ``bf16``."""
        return tuple(k.removeprefix("peak_flops.") for k in self.figures if k.startswith("peak_flops."))

    def peak_flops(self, dtype: str) -> float:
        """Dense peak for a number format, FLOP/s. Raises UnknownNameError where it is not known."""
        return self.value(f"peak_flops.{dtype}")


def read_data(name: str) -> dict[str, Any]:
    """One of the data files of this room, as plain data."""
    data: dict[str, Any] = json.loads(resources.files("headcount.hardware").joinpath(f"data/{name}").read_text(encoding="utf-8"))
    return data


def make_device(name: str, entry: Mapping[str, Any], sources: Mapping[str, str]) -> Device:
    """A device from its JSON entry; figures are [value, source or its key, date] or [..., basis]."""

    def made(row: list[Any]) -> Figure:
        return Figure(row[0], sources.get(row[1], row[1]), *row[2:])

    return Device(
        name, entry.get("title", name), {k: made(v) for k, v in entry["figures"].items()}, entry.get("vendor", ""),
        entry.get("kind", "gpu"), entry.get("generation", ""), entry.get("kernel_tables"), tuple(entry.get("notes", ())),
        {k: tuple(made(row) for row in rows) for k, rows in entry.get("conflicts", {}).items()},
    )


@cache
def shipped_devices() -> dict[str, Device]:
    """All devices that ship with headcount, by name."""
    data = read_data("devices.json")
    return {name: make_device(name, entry, data["sources"]) for name, entry in data["devices"].items()}


@cache
def shipped_aliases() -> dict[str, str]:
    """Other spellings in the data, each with the device that it means."""
    return {alias: name for name, entry in read_data("devices.json")["devices"].items() for alias in entry["aliases"]}


def device_names() -> list[str]:
    """All device names, sorted."""
    return sorted(shipped_devices())

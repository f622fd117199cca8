"""Devices by name. A figure is a value with the place and date it was read; there are no figures without.

It must not know what a model is or how fast anything runs on a device: that is `cost/`.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..errors import UnknownNameError


@dataclass(frozen=True)
class Figure:
    """One property of a device."""

    value: float
    source: str
    date: str


@dataclass(frozen=True)
class Device:
    """A GPU or other processor: figures in bytes, bytes/s and FLOP/s (dense)."""

    name: str
    title: str
    figures: dict[str, Figure]

    def value(self, figure: str) -> float:
        """A figure's value. Raises UnknownNameError where no source gave one."""
        if figure not in self.figures:
            raise UnknownNameError(
                "unknown_figure", "{figure} of the {device} is not known; known are {known}",
                figure=figure, device=self.title, known=", ".join(sorted(self.figures)),
            )
        return self.figures[figure].value

    @property
    def memory_bytes(self) -> int:
        """Memory as the driver reports it."""
        return int(self.value("memory_bytes"))

    @property
    def bandwidth(self) -> float:
        """Memory bandwidth, bytes/s."""
        return self.value("bandwidth_bytes_s")

    def peak_flops(self, dtype: str) -> float:
        """Dense peak for a number format, FLOP/s. Raises UnknownNameError where it is not known."""
        return self.value(f"peak_flops.{dtype}")


@cache
def _devices() -> dict[str, Device]:
    text = resources.files("headcount.hardware").joinpath("data/devices.json").read_text(encoding="utf-8")
    entries: dict[str, Any] = json.loads(text)["devices"]
    return {n: Device(n, e["title"], {k: Figure(*v) for k, v in e["figures"].items()}) for n, e in entries.items()}


@cache
def _aliases() -> dict[str, str]:
    text = resources.files("headcount.hardware").joinpath("data/devices.json").read_text(encoding="utf-8")
    return {alias: name for name, e in json.loads(text)["devices"].items() for alias in e["aliases"]}


def device_names() -> list[str]:
    """All device names, sorted."""
    return sorted(_devices())


def device(name: str) -> Device:
    """A device by name, in any case, with spaces or dashes. Raises UnknownNameError with the nearest names."""
    key = re.sub(r"[\s_]+", "-", str(name).strip().lower())
    key = _aliases().get(key, key)
    if key not in _devices():
        near = difflib.get_close_matches(key, [*_devices(), *_aliases()], 3, 0.4) or device_names()
        raise UnknownNameError(
            "unknown_device", "no device is called {name!r}; nearest: {nearest}", name=str(name)[:60], nearest=", ".join(near)
        )
    return _devices()[key]



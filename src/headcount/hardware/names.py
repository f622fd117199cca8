"""Which device a name means: exact spellings, the usual meaning of a short name with a note of what else it may be, or an honest error.

It must not guess silently: a short name that has a usual meaning carries a note, one that has none is an error that lists the candidates.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache

from ..errors import UnknownNameError
from .device_files import device_from_file, looks_like_file
from .devices import Device, device_names, shipped_aliases, shipped_devices
from .machine import detect
from .spelling import Reading, readings

_THIS_MACHINE = ("cpu", "this machine", "machine", "this cpu", "local", "local machine", "host")
# A short name, what it usually means, and what else is sold under it.
_USUAL = {
    "h100": ("h100-sxm", ("h100-pcie",)),
    "a100": ("a100-sxm", ("a100-pcie",)),
    "pro 6000": ("rtx-pro-6000-workstation", ("rtx-pro-6000-server", "rtx-pro-6000-max-q")),
    "rtx 6000 server": ("rtx-pro-6000-server", ()),
    "rtx 6000 max q": ("rtx-pro-6000-max-q", ()),
}
# Names that several products share and no usage settles.
_AMBIGUOUS = {"rtx 6000": ("quadro-rtx-6000", "rtx-6000-ada", "rtx-pro-6000-workstation"),
              "6000": ("quadro-rtx-6000", "rtx-6000-ada", "rtx-pro-6000-workstation", "rtx-a6000")}
_MEMORY_TOLERANCE = 0.07
"""Between the size on the box and the driver's: 80 GB are 81,559 MiB, 180 GB of a B200 are sold as 192."""


@dataclass(frozen=True)
class Note:
    """Something that the reader of a result should know: a code for a sentence, and the devices that it names."""

    code: str
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Match:
    """The device that a name means, with what has to be said about it."""

    device: Device
    notes: tuple[Note, ...] = ()


def device(name: str) -> Device:
    """A device by name as people write it, by the path of a device file (``.json``), or ``cpu`` for this machine.

    Raises:
        UnknownNameError: no device or several devices are called so; the nearest or the candidates are named.
        SourceError, ConfigError: a device file that cannot be read or understood.
    """
    return find_device(name).device


def find_device(text: str) -> Match:
    """The device that a name means, and notes: ``variant_assumed`` (with the others), whose kernel tables stand in, traits of the device.

    Raises:
        UnknownNameError: no device or several devices are called so; the nearest or the candidates are named.
        SourceError, ConfigError: a device file that cannot be read or understood.
    """
    name = str(text)
    if looks_like_file(name):
        return _match(device_from_file(name))
    found = readings(name)
    for reading in found:
        if _canonical(reading.words) in _this_machine():
            return _match(detect())
        match = _usual(reading) or _spelled(reading) or _shared(name, reading)
        if match:
            return match
    raise UnknownNameError(
        "unknown_device", "no device is called {name!r}; nearest: {nearest}", name=name[:60], nearest=", ".join(_nearest(name, found))
    )


def _usual(reading: Reading) -> Match | None:
    """The usual meaning of a short name, among the devices whose memory size it does not contradict."""
    for key, (usual, others) in _USUAL.items():
        if _canonical(reading.words) == _words_of(key):
            fitting = [d for d in (usual, *others) if _memory_fits(shipped_devices()[d], reading.memory_gb)]
            notes = [Note("variant_assumed", tuple(fitting[1:]))] if fitting[1:] else []
            return _match(shipped_devices()[fitting[0]], *notes) if fitting else None
    return None


def _spelled(reading: Reading) -> Match | None:
    name = _index().get(_canonical(reading.words))
    return _match(shipped_devices()[name]) if name and _memory_fits(shipped_devices()[name], reading.memory_gb) else None


def _shared(name: str, reading: Reading) -> Match | None:
    """A name that several products share: settled by the memory size where it fits one of them, else an error."""
    devices = next((found for key, found in _AMBIGUOUS.items() if _canonical(reading.words) == _words_of(key)), None)
    if devices is None:
        return None
    fitting = [d for d in devices if _memory_fits(shipped_devices()[d], reading.memory_gb)]
    if len(fitting) == 1:
        return _match(shipped_devices()[fitting[0]], Note("variant_from_memory", tuple(d for d in devices if d != fitting[0])))
    raise UnknownNameError(
        "ambiguous_device", "{name!r} is the name of several devices: {candidates}; name one of them",
        name=name[:60], candidates=", ".join(fitting or devices),
    )


def _match(found: Device, *notes: Note) -> Match:
    tables = found.kernel_tables
    about_tables = [Note("no_kernel_tables")] if tables is None else []
    traits = [Note(code, (tables,) if tables and code.startswith("tables_of") else ()) for code in found.notes]
    return Match(found, (*notes, *about_tables, *traits))


def _memory_fits(found: Device, memory_gb: int | None) -> bool:
    if memory_gb is None:
        return True
    return any(abs(memory_gb * unit / found.memory_bytes - 1) <= _MEMORY_TOLERANCE for unit in (10**9, 2**30))


def _canonical(words: frozenset[str]) -> frozenset[str]:
    """RTX PRO 6000 Blackwell is written with any of RTX, PRO and Blackwell left out; Max-Q is a workstation edition by name."""
    if "6000" in words and words & {"pro", "blackwell"}:
        words = words - {"rtx", "blackwell"} | {"pro"}
    return words - {"workstation"} if {"max", "q"} <= words else words


@cache
def _words_of(text: str) -> frozenset[str]:
    return _canonical(readings(text)[0].words)


@cache
def _this_machine() -> frozenset[frozenset[str]]:
    return frozenset(_words_of(text) for text in _THIS_MACHINE)


@cache
def _index() -> dict[frozenset[str], str]:
    return {_words_of(alias): name for alias, name in shipped_aliases().items()} | {_words_of(name): name for name in shipped_devices()}


def _nearest(name: str, found: list[Reading]) -> list[str]:
    """The three likeliest devices, by shared words and by letters; all of them where none is like it."""
    scores: dict[str, float] = {}
    for reading in found:
        for spelled, meant in [*shipped_aliases().items(), *((n, n) for n in shipped_devices())]:
            words = _words_of(spelled)
            shared = len(reading.words & words) / len(reading.words | words)
            likeness = difflib.SequenceMatcher(None, name.lower()[:60], spelled).ratio()
            scores[meant] = max(scores.get(meant, 0.0), shared + likeness)
    best = sorted(scores, key=lambda n: -scores[n])[:3]
    return best if best and scores[best[0]] > 0.5 else device_names()

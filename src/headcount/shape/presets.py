"""Known models by name. Each is the part of a published config.json that its reader asks for, with the file it was read from.

The file data/presets.json is written by scripts/presets.py and goes through the same reader as any config.json: there is no second path.
"""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from importlib import resources
from typing import Any

from ..errors import UnknownNameError
from .config import read_config
from .model import ModelShape


@cache
def _table() -> dict[str, Any]:
    text = resources.files("headcount.shape").joinpath("data/presets.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def preset_names() -> list[str]:
    """All preset names, sorted."""
    return sorted(_table()["presets"])


def preset_source(name: str) -> str:
    """Where a preset's facts were read: package, file and its SHA-256."""
    entry = _table()["presets"][_canonical(name)]
    return f"{_table()['source']}, {entry['file']} (sha256 {entry['sha256'][:16]})"


@cache
def read_preset(name: str) -> ModelShape:
    """The shape of a preset. Raises UnknownNameError with the nearest names."""
    canonical = _canonical(name)
    return read_config(_table()["presets"][canonical]["config"], name=canonical)


def nearest_presets(name: str, how_many: int = 4) -> list[str]:
    """The preset names nearest to a word."""
    key = _key(name)
    close = difflib.get_close_matches(key, preset_names(), how_many, 0.4)
    return close or [n for n in preset_names() if key[:4] and n.startswith(key[:4])][:how_many] or preset_names()[:how_many]


def _key(name: str) -> str:
    return re.sub(r"[\s_]+", "-", str(name).strip().lower()).rpartition("/")[2]


def _canonical(name: str) -> str:
    key = _key(name)
    key = str(_table()["aliases"].get(key, key))
    if key not in _table()["presets"]:
        raise UnknownNameError(
            "unknown_preset", "no preset is called {name!r}; nearest: {nearest}",
            name=str(name)[:80], nearest=", ".join(nearest_presets(name)),
        )
    return key

"""Inference engines: how much of the card they take by default, in which pages they keep the cache, which head shapes their kernels serve.

Decides from rules in data/engines.json, each with source, date and basis; where no rule reaches, the answer is ``unknown``.
It must not know how long a kernel takes (that is `cost/`) nor what a whole model needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import UnknownNameError
from ..units import MIB
from .devices import Device, Figure, read_data


@dataclass(frozen=True)
class Engine:
    """An engine's defaults.

    ``memory_share`` is of the card (``memory_share_of="card"``) or of what is free once the weights are loaded (``free_after_weights``).
    ``kv_block_tokens`` is the page of the KV cache in tokens. ``notes`` are codes.
    """

    name: str
    title: str
    memory_share: Figure
    memory_share_of: str
    kv_block_tokens: int
    kv_block_source: Figure
    notes: tuple[str, ...]
    conflicts: Mapping[str, tuple[Figure, ...]]
    memory_rule: Mapping[str, Any] | None
    rules: tuple[Mapping[str, Any], ...]

    def default_share(self, memory_bytes: float, tp: int = 1, pp: int = 1) -> float:
        """The share that the engine takes when none is asked for, on a card of that many bytes; see ``memory_share_of``.

        SGLang subtracts what prefill, CUDA graphs and parallelism will need and rounds to three digits (source in the data).
        """
        rule = self.memory_rule
        if rule is None:
            return float(self.memory_share.value)
        card = memory_bytes / MIB
        size = "small" if card < rule["small_below_mib"] else "medium" if card < rule["medium_below_mib"] else "large"
        prefill, graph = rule[size]
        reserve = rule["reserve_mib"] + max(prefill, rule["prefill_tokens_minimum"]) * rule["per_prefill_token_mib"]
        reserve += graph * rule["per_graph_batch_mib"] + tp * pp * rule["per_gpu_mib"]
        if card > rule["floor_above_mib"]:
            reserve = max(reserve, rule["floor_mib"])
        return float(max(round((card - reserve) / card, 3), 0.0))


@dataclass(frozen=True)
class Service:
    """What an engine's attention does with a head shape on a device.

    ``kind``: ``serves`` as it is, ``pads`` to ``padded_head_dim`` while it computes (the cache keeps head_dim), ``refuses``, or
    ``unknown`` where nothing could be read. ``reason`` is a code; ``basis`` says how sure: measured tables, a publication, assumed.
    """

    kind: str
    padded_head_dim: int | None
    kernel: str | None
    reason: str
    basis: str
    source: str
    date: str


@cache
def _engines() -> dict[str, Engine]:
    data = read_data("engines.json")
    sources = data["sources"]

    def figure(row: list[Any]) -> Figure:
        return Figure(row[0], sources.get(row[1], row[1]), *row[2:])

    return {
        name: Engine(
            name, e["title"], figure(e["memory_share"]), e["memory_share_of"], e["kv_block_tokens"][0], figure(e["kv_block_tokens"]),
            tuple(e["notes"]), {k: tuple(figure(r) for r in rows) for k, rows in e["conflicts"].items()}, e.get("memory_rule"),
            tuple({**r, "source": sources[r["source"]]} for r in e["kernels"]),
        )
        for name, e in data["engines"].items()
    }


@cache
def _aliases() -> dict[str, str]:
    return {_key(alias): name for name, e in read_data("engines.json")["engines"].items() for alias in (*e["aliases"], name)}


def _key(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def engine_names() -> list[str]:
    """All engine names, sorted."""
    return sorted(_engines())


def engine(name: str) -> Engine:
    """An engine by name, in any case and spelling that is common. Raises UnknownNameError with the nearest names."""
    key = _key(str(name))
    if key not in _aliases():
        near = dict.fromkeys(_aliases()[a] for a in difflib.get_close_matches(key, [*_aliases()], 3, 0.4))
        raise UnknownNameError(
            "unknown_engine", "no engine is called {name!r}; nearest: {nearest}", name=str(name)[:60],
            nearest=", ".join(near or engine_names()),
        )
    return _engines()[_aliases()[key]]


def serves(engine: Engine | str, device: Device, head_dim: int, n_heads: int, n_kv_heads: int) -> Service:
    """What the engine's attention kernels on that device do with heads of this width and ratio (softmax attention, bf16).

    Raises UnknownNameError for an engine that is not known.
    """
    chosen = engine if isinstance(engine, Engine) else _by_name(engine)
    if n_kv_heads < 1 or n_heads % n_kv_heads:
        gqa = read_data("engines.json")
        return Service("refuses", None, None, "heads_not_divisible", "published", gqa["sources"][gqa["gqa"]["source"]], gqa["gqa"]["date"])
    group = n_heads // n_kv_heads
    for rule in chosen.rules:
        if device.generation in rule["generations"] and _holds(rule["head_dims"], head_dim) and _holds(rule.get("group_sizes"), group):
            padded = _padded(rule.get("pads_to"), head_dim) if rule["kind"] == "pads" else head_dim if rule["kind"] == "serves" else None
            kind, reason = rule["kind"], rule.get("reason", "in_list")
            if padded == head_dim:
                kind, reason = "serves", "in_list" if reason == "padded_in_kernel" else reason
            return Service(kind, padded, rule["kernel"], reason, rule["basis"], rule["source"], rule["date"])
    return Service("unknown", None, None, "no_source", "assumed", "", "")


_by_name = engine
"""The look-up under another name, since `serves` calls its argument `engine`."""


def _holds(condition: Any, value: int) -> bool:
    if condition is None:
        return True
    if isinstance(condition, list):
        return value in condition
    if "not_multiple_of" in condition:
        return bool(value % condition["not_multiple_of"])
    return bool(condition["from"] <= value <= condition.get("to", value) and value % condition["multiple_of"] == 0)


def _padded(target: Any, head_dim: int) -> int:
    if target == "power_of_two":
        return int(1 << (head_dim - 1).bit_length())
    if isinstance(target, dict):
        step: int = target["multiple_of"]
        return -(-head_dim // step) * step
    return min(int(width) for width in target if width >= head_dim)

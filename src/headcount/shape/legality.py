"""Which shapes can exist: one list of rules, asked of a single model (raises) and of a table (mask with reason codes).

A rule is a comparison that works on ints and on arrays alike. It must not know engines or GPUs: what a kernel serves is `hardware/`,
what a checkpoint family can hold is `builder/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from ..errors import ShapeError, Words
from .parts import Attention, Compressed, Dense, GatedDelta, Indexer, LayerSpec, Mamba1, Mamba2, Mla, Moe, Stem, is_count

MAX_COUNT = 2**40
"""No real count comes near it; above it a typo would turn into absurd but well-formed answers."""

_AT_LEAST_ONE: dict[type, tuple[str, ...]] = {
    Attention: ("n_heads", "n_kv_heads", "head_dim", "v_head_dim"),
    Mla: ("n_heads", "kv_lora_rank", "v_head_dim"),
    Compressed: ("n_heads", "head_dim", "q_lora_rank", "o_groups", "o_lora_rank", "window"),
    Indexer: ("n_heads", "head_dim"),
    GatedDelta: ("n_k_heads", "n_v_heads", "k_head_dim", "v_head_dim", "conv_kernel"),
    Mamba2: ("n_heads", "head_dim", "n_groups", "d_state", "conv_kernel"),
    Mamba1: ("d_inner", "d_state", "dt_rank", "conv_kernel"),
    Dense: ("d_ff",),
    Moe: ("n_experts", "n_active", "d_expert"),
    Stem: ("vocab_size",),
}
_BIAS_LETTERS: dict[type, str] = {Attention: "qkvog", Mamba2: "io", Mamba1: "io"}


@dataclass(frozen=True)
class Rule:
    """`broken(part)` is true, per row, where the rule does not hold."""

    code: str
    part: type
    broken: Callable[[Any], Any]
    template: str
    way_out: Callable[[Any], dict[str, Any]] = lambda part: {}


def divisors(n_heads: int) -> list[int]:
    """All divisors, ascending: the KV head counts that a number of query heads can be shared over."""
    low = [d for d in range(1, math.isqrt(n_heads) + 1) if n_heads % d == 0]
    return sorted({*low, *(n_heads // d for d in low)})


def nearest_divisors(n_heads: int, wanted: int) -> list[int]:
    """The divisors of n_heads next below and next above `wanted`."""
    below = [d for d in divisors(n_heads) if d < wanted]
    above = [d for d in divisors(n_heads) if d > wanted]
    return below[-1:] + above[:1]


def nearest_multiples(n_kv_heads: int, n_heads: int) -> list[int]:
    """The multiples of n_kv_heads on both sides of n_heads."""
    below = n_heads // n_kv_heads * n_kv_heads
    return [m for m in (below, below + n_kv_heads) if m > 0]


RULES: tuple[Rule, ...] = (
    Rule(
        "heads_not_divisible", Attention, lambda a: a.n_heads % np.maximum(a.n_kv_heads, 1) != 0,
        "n_kv_heads must divide n_heads, but got n_heads={n_heads}, n_kv_heads={n_kv_heads}; "
        "nearest that work: n_kv_heads {kv_options}, or n_heads {head_options}",
        lambda a: {
            "kv_options": _spell(nearest_divisors(a.n_heads, a.n_kv_heads)),
            "head_options": _spell(nearest_multiples(a.n_kv_heads, a.n_heads)),
        },
    ),
    Rule(
        "window_missing", Attention, lambda a: (a.window < 1) & (a.reach != "full"),
        "attention of reach '{reach}' needs a window of at least 1 token, but got window={window}",
    ),
    Rule(
        "too_many_active_experts", Moe, lambda m: m.n_active > m.n_experts + m.n_identity,
        "n_active_experts must be at most n_experts, but got n_experts={n_experts}, n_active={n_active}",
    ),
    Rule(
        "value_heads_not_divisible", GatedDelta, lambda g: g.n_v_heads % np.maximum(g.n_k_heads, 1) != 0,
        "the key heads of a gated-delta layer must divide its value heads, but got n_k_heads={n_k_heads}, n_v_heads={n_v_heads}",
    ),
)


def _spell(values: list[int]) -> str:
    return Words("{low} or {high}", low=values[0], high=values[1]) if len(values) == 2 else ", ".join(map(str, values))


def parts_of(node: Any) -> Iterator[Any]:
    """The part itself and every part inside it."""
    if is_dataclass(node):
        yield node
        for f in fields(node):
            yield from parts_of(getattr(node, f.name))
    elif isinstance(node, tuple):
        for item in node:
            yield from parts_of(item)


def require_count(value: Any, name: str, minimum: int = 0) -> int:
    """Returns `value` as an int, or raises ShapeError: not a whole number, too small, absurdly large."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ShapeError(
            "not_a_count", "{name} must be a whole number, but got {value}; write it without quotes or decimals",
            name=name, value=repr(value)[:60],
        )
    if value < minimum:
        raise ShapeError(
            "count_too_small", "{name} must be at least {minimum}, but got {value}", name=name, minimum=minimum, value=int(value)
        )
    if value > MAX_COUNT:
        raise ShapeError(
            "count_too_large", "{name} must be at most {maximum}, but got {value}; no model comes near that, so this is taken for a typo",
            name=name, maximum=MAX_COUNT, value=_shorten(int(value)),
        )
    return int(value)


def _shorten(value: int) -> str:
    # str() of an int beyond 4300 digits raises, and nobody reads more than a few anyway.
    return Words("about 2^{power}", power=value.bit_length() - 1) if value.bit_length() > 200 else str(value)


@cache
def _choices(kind: type) -> dict[str, tuple[Any, ...]]:
    """Fields of a part that hold one of a few words -> those words."""
    return {name: get_args(hint) for name, hint in get_type_hints(kind).items() if get_origin(hint) is Literal}


def check_switches(node: LayerSpec | Stem) -> None:
    """Raises ShapeError for a switch whose value means nothing: it would be taken for "off"."""
    for part in parts_of(node):
        for name, known in _choices(type(part)).items():  # type: ignore[arg-type]
            if getattr(part, name) not in known:
                raise _bad_switch(name, ", ".join(map(str, known)), getattr(part, name))
        letters = _BIAS_LETTERS.get(type(part))
        if letters is not None and not (isinstance(part.bias, str) and set(part.bias) <= set(letters)):
            raise _bad_switch("bias", Words("the letters {letters} in any choice", letters=", ".join(letters)), part.bias)


def _bad_switch(name: str, known: str, value: Any) -> ShapeError:
    return ShapeError("unknown_choice", "{name} must be one of {known}, but got {value!r}", name=name, known=known, value=str(value)[:60])


def check(node: LayerSpec | Stem) -> None:
    """Raises ShapeError for the first rule that one model's layer or stem breaks."""
    check_switches(node)
    for part in parts_of(node):
        required = _AT_LEAST_ONE.get(type(part), ())
        for f in fields(part):
            value = getattr(part, f.name)
            if f.name in required or is_count(value) or isinstance(value, float):
                require_count(value, f.name, minimum=1 if f.name in required else 0)
        for rule in RULES:
            if isinstance(part, rule.part) and bool(np.any(rule.broken(part))):
                shown = {name: value for name, value in vars(part).items() if isinstance(value, (int, str))}
                raise ShapeError(rule.code, rule.template, **(shown | rule.way_out(part)))


def broken_rules(node: LayerSpec | Stem, n_rows: int) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """For a table: reason code -> which rows break it. Codes: not_a_count, count_too_small, count_too_large and those of RULES."""
    found: dict[str, np.ndarray[Any, np.dtype[np.bool_]]] = {}

    def note(code: str, rows: Any) -> None:
        rows = np.broadcast_to(np.asarray(rows, dtype=bool), (n_rows,))
        if rows.any():
            found[code] = found[code] | rows if code in found else rows

    with np.errstate(invalid="ignore"):
        for part in parts_of(node):
            required = _AT_LEAST_ONE.get(type(part), ())
            for f in fields(part):
                value = getattr(part, f.name)
                if is_count(value):
                    values = np.asarray(value, dtype=np.float64)
                    note("not_a_count", ~np.isfinite(values) | (values != np.floor(values)))
                    note("count_too_small", values < (1 if f.name in required else 0))
                    note("count_too_large", values > MAX_COUNT)
            for rule in RULES:
                if isinstance(part, rule.part):
                    note(rule.code, rule.broken(part))
    return found

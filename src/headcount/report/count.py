"""The exact counts of one model, term by term: the content of `headcount count`. It must not contain a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..cost.flops import flops
from ..cost.kv_cache import RUNTIMES, kv_cache_bytes
from ..cost.memory import weight_bytes
from ..cost.parameters import parameters
from ..cost.schemes import PLAIN
from ..errors import ShapeError
from ..shape import ModelShape
from ..shape.dtypes import MIXED, storage
from .explain import explains
from .quantity import Quantity, plain

SCHEMA = "headcount.count/1"


@dataclass(frozen=True)
class CacheRow:
    """The cache in one runtime at one context."""

    runtime: str
    context: int
    bytes_per_token: Quantity
    constant: Quantity
    total: Quantity


@dataclass(frozen=True)
class FlopsRow:
    """FLOPs of one phase at one context."""

    phase: str
    context: int
    total: Quantity
    attention: Quantity
    convention: str


@dataclass(frozen=True)
class Count:
    """All counts of one model; `to_dict()` is what `--json` prints."""

    model: str
    source: str
    model_type: str
    notes: tuple[str, ...]
    batch: int
    weight_dtype: str
    kv_dtype: str
    total: Quantity | None
    """None where a tower is not understood; `unknown_towers` names it."""
    unknown_towers: tuple[str, ...]
    text_only: Quantity
    active: Quantity
    embedding: Quantity
    tied_counted_twice: Quantity | None
    mtp: Quantity | None
    """Multi-token-prediction layers beside the total; None where the checkpoint has them and their layout is not known."""
    buffers: Quantity
    weights: Quantity | None
    """Bytes of the text model's weights; None for checkpoints that mix formats."""
    terms: dict[str, Quantity]
    caches: tuple[CacheRow, ...]
    unknown_caches: dict[str, str]
    """Runtime -> error code, where that runtime's cache of such layers is not known."""
    flops: tuple[FlopsRow, ...]
    explains: bool
    """Whether `headcount explain` answers for this model, which it does where the heads can be varied."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the schema's name and version."""
        return {"schema": SCHEMA, **plain(self)}


def count_model(
    shape: ModelShape, *, contexts: Sequence[int] = (8192, 131072), batch: int = 1, kv_dtype: str = "bf16", source: str = ""
) -> Count:
    """Counts parameters, cache bytes in every runtime, and FLOPs in every phase, each at every context."""
    counted = parameters(shape)
    known = not counted.unknown_towers
    caches, unknown = _caches(shape, contexts, batch, kv_dtype)
    counted_bytes = shape.stored_bytes is not None or shape.weight_dtype in PLAIN
    return Count(
        model=shape.label, source=source, model_type=shape.model_type, notes=shape.notes, batch=batch, weight_dtype=shape.weight_dtype,
        kv_dtype=storage(kv_dtype).name, total=_exact(counted.total) if known else None, unknown_towers=counted.unknown_towers,
        text_only=_exact(counted.text_only), active=_exact(counted.active), embedding=_exact(counted.embedding),
        tied_counted_twice=_exact(counted.tied_counted_twice) if known else None,
        mtp=None if counted.mtp is None else _exact(counted.mtp), buffers=_exact(counted.buffers),
        weights=None if shape.weight_dtype == MIXED else Quantity(weight_bytes(shape).total, "B", "exact" if counted_bytes else "assumed"),
        terms={name: _exact(value) for name, value in counted.terms.items()}, caches=caches, unknown_caches=unknown,
        flops=tuple(_flops(shape, phase, context, batch) for phase in ("prefill", "decode", "train") for context in contexts),
        explains=explains(shape),
    )


def _exact(value: Any) -> Quantity:
    return Quantity(int(value), "1", "exact")


def _caches(shape: ModelShape, contexts: Sequence[int], batch: int, kv_dtype: str) -> tuple[tuple[CacheRow, ...], dict[str, str]]:
    rows, unknown = [], {}
    for runtime in RUNTIMES:
        for context in contexts:
            try:
                cache = kv_cache_bytes(shape, context, batch, kv_dtype, runtime)
            except ShapeError as error:
                unknown[runtime] = error.code
                break
            bytes_of = {n: Quantity(v, "B", "exact") for n, v in
                        (("bytes_per_token", cache.bytes_per_token), ("constant", cache.constant_bytes), ("total", cache.total))}
            rows.append(CacheRow(runtime=runtime, context=context, **bytes_of))
    return tuple(rows), unknown


def _flops(shape: ModelShape, phase: str, context: int, batch: int) -> FlopsRow:
    counted = flops(shape, phase, context, batch)
    return FlopsRow(
        phase=phase, context=context, total=Quantity(counted.total, "FLOP", "exact"),
        attention=Quantity(counted.quadratic, "FLOP", "exact"), convention=counted.convention,
    )

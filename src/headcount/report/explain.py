"""How the number of heads changes parameters, memory, FLOPs and time of one model: the content of `headcount explain`.

What is held while the heads vary: head_dim (so the projections grow with n_heads x head_dim), d_model, d_ff, the layers and the KV heads
(capped at n_heads). Counts are exact; times are roofline bounds. What an engine adds to weights and cache is not counted, and the answer
to "does it fit" says so. It must not contain a sentence: `present/` writes those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..cost.flops import flops
from ..cost.kv_cache import kv_cache_bytes
from ..cost.memory import weight_bytes
from ..cost.numbers import positive
from ..cost.parameters import parameters
from ..cost.roofline import StepTime, roofline_step
from ..cost.schemes import PLAIN, scheme_of
from ..errors import ShapeError
from ..hardware import Device
from ..shape import ModelShape
from ..shape.dtypes import storage
from ..shape.legality import divisors, require_count
from ..units import MAX_TOKENS
from .quantity import Quantity, plain

SCHEMA = "headcount.explain/1"
DEFAULT_HEADS = (8, 16, 24, 32, 64, 128)
DEFAULT_CONTEXTS = (32768, 65536, 131072)


@dataclass(frozen=True)
class Cell:
    """One head count at one context."""

    context: int
    kv_cache: Quantity
    weights_and_cache: Quantity
    within_memory: bool
    """Weights and cache alone are at most the card's memory."""
    decode_time: Quantity
    decode_attention_share: Quantity
    decode_bytes: Quantity
    decode_flops: Quantity
    prefill_time: Quantity
    prefill_flops: Quantity
    prefill_quadratic_share: Quantity


@dataclass(frozen=True)
class HeadRow:
    """One head count: what does not depend on the context, and a cell per context."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    parameters: Quantity
    attention_parameters: Quantity
    weights: Quantity
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class OneMore:
    """What one more head costs, per head, at the longest context asked for."""

    kind: str
    """"query" or "kv"."""
    compared: tuple[int, int]
    """Head counts whose difference, divided, is the price: heads can only be added in whole groups."""
    weights: Quantity
    kv_cache: Quantity
    decode_time: Quantity


@dataclass(frozen=True)
class Explanation:
    """The whole answer; `to_dict()` is what `--json` prints."""

    model: str
    source: str
    notes: tuple[str, ...]
    device: str
    device_title: str
    device_memory: Quantity
    device_bandwidth: Quantity
    device_peak: Quantity
    """Dense FLOP/s of the format that is multiplied."""
    hold: str
    kv_rule: str
    weight_dtype: str
    kv_dtype: str
    batch: int
    contexts: tuple[int, ...]
    baseline: int
    rows: tuple[HeadRow, ...]
    one_more: tuple[OneMore, ...]
    longest_fit: Quantity | None
    """The longest context at which weights and cache of the baseline are within the card's memory: MAX_TOKENS where every one is,
    because the cache stops growing; None where not even one token fits."""

    def row(self, n_heads: int) -> HeadRow:
        """The row of a head count; KeyError where there is none."""
        return next(r for r in self.rows if r.n_heads == n_heads)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the schema's name and version."""
        return {"schema": SCHEMA, **plain(self)}


def explain_heads(
    shape: ModelShape, device: Device, *, heads: Sequence[int] | None = None, contexts: Sequence[int] = DEFAULT_CONTEXTS,
    batch: int = 1, n_kv_heads: int | None = None, head_dim: int | None = None, weight_dtype: str | None = None, kv_dtype: str = "bf16",
    source: str = "",
) -> Explanation:
    """Computes the report for every head count and context.

    Args:
        shape: the body; its softmax-attention layers get the heads.
        heads, contexts: what varies; each at least one value. Heads by default as in `default_heads`.
        n_kv_heads: held KV heads, capped at n_heads; the body's own by default. head_dim likewise.

    Raises:
        ShapeError: a head count that the KV heads do not divide (the nearest legal ones are named), or a body without such layers.
        QuantityError: a context or batch that is no positive whole number.
    """
    shape.with_heads()  # refuses a body whose heads cannot be varied, before anything is asked of them
    kv = require_count(shape.n_kv_heads if n_kv_heads is None else n_kv_heads, "n_kv_heads", 1)
    dim = shape.head_dim if head_dim is None else head_dim
    setting = _Setting(
        device, tuple(positive(c, "context") for c in contexts), positive(batch, "batch"),
        shape.weight_dtype if weight_dtype is None else scheme_of(shape, weight_dtype).name, storage(kv_dtype).name,
    )
    shapes = {n: with_held(shape, n, kv, dim) for n in heads or default_heads(shape.n_heads, kv)}
    own = shape.n_heads if shape.n_heads in shapes else next(iter(shapes))
    base = shapes[own]
    return Explanation(
        model=shape.label, source=source, notes=shape.notes, device=device.name, device_title=device.title,
        device_memory=Quantity(device.memory_bytes, "B", "published"), device_bandwidth=Quantity(device.bandwidth, "B/s", "published"),
        device_peak=Quantity(setting.peak, "FLOP/s", "published"), hold="head-dim", kv_rule=f"kv-heads {kv}",
        weight_dtype=setting.weight_dtype, kv_dtype=setting.kv_dtype, batch=setting.batch, contexts=setting.contexts, baseline=own,
        rows=tuple(_row(s, n, setting) for n, s in shapes.items()), longest_fit=_longest_fit(base, setting),
        one_more=tuple(o for o in (_one_more_query(base, setting), _one_more_kv(base, setting)) if o),
    )


def default_heads(own: int, n_kv_heads: int) -> tuple[int, ...]:
    """Head counts to compare when none were asked for: the body's own and DEFAULT_HEADS, those of them that the KV heads divide."""
    legal = sorted(n for n in {own, *DEFAULT_HEADS} if n % min(n_kv_heads, n) == 0)
    return tuple(legal) or (n_kv_heads,)


def explains(shape: ModelShape) -> bool:
    """Whether `explain` answers for a body as it is: its heads can be changed, its layers agree on them, its weights have one format."""
    try:
        shape.with_heads(n_heads=shape.n_heads, n_kv_heads=shape.n_kv_heads, head_dim=shape.head_dim)
        scheme_of(shape, None)
    except ShapeError:
        return False
    return True


@dataclass(frozen=True)
class _Setting:
    device: Device
    contexts: tuple[int, ...]
    batch: int
    weight_dtype: str
    kv_dtype: str

    @property
    def peak(self) -> float:
        # Tensor cores multiply in 16 bits unless both operands are narrower, which weight-only formats are not.
        return self.device.peak_flops("fp8" if self.weight_dtype == "fp8" else "bf16")

    def step(self, shape: ModelShape, phase: str, context: int) -> StepTime:
        return roofline_step(
            shape, peak_flops=self.peak, bandwidth=self.device.bandwidth, phase=phase, context=context, batch=self.batch,
            weight_dtype=self.weight_dtype, kv_dtype=self.kv_dtype,
        )


def with_held(shape: ModelShape, n_heads: int, n_kv_heads: int, head_dim: int) -> ModelShape:
    """The body with n_heads query heads, head_dim and KV heads held; KV heads are capped at n_heads."""
    return shape.with_heads(n_heads=n_heads, n_kv_heads=min(n_kv_heads, require_count(n_heads, "n_heads", 1)), head_dim=head_dim)


def _row(shape: ModelShape, n_heads: int, setting: _Setting) -> HeadRow:
    counted = parameters(shape)
    return HeadRow(
        n_heads=n_heads, n_kv_heads=shape.n_kv_heads, head_dim=shape.head_dim,
        parameters=Quantity(counted.text_only, "1", "exact"),
        attention_parameters=Quantity(counted.terms.group("attention."), "1", "exact"),
        weights=Quantity(weight_bytes(shape, setting.weight_dtype).total, "B", _weights_basis(setting)),
        cells=tuple(_cell(shape, context, setting) for context in setting.contexts),
    )


def _weights_basis(setting: _Setting) -> str:
    # Which tensors a quantised checkpoint leaves in 16 bits is a convention, not a fact about this one.
    return "exact" if setting.weight_dtype in PLAIN else "assumed"


def _cell(shape: ModelShape, context: int, setting: _Setting) -> Cell:
    cache = kv_cache_bytes(shape, context, setting.batch, setting.kv_dtype).total
    both = cache + weight_bytes(shape, setting.weight_dtype).total
    decode, prefill = setting.step(shape, "decode", context), setting.step(shape, "prefill", context)
    work = flops(shape, "prefill", context, setting.batch)
    return Cell(
        context=context,
        kv_cache=Quantity(cache, "B", "exact"),
        weights_and_cache=Quantity(both, "B", _weights_basis(setting)),
        within_memory=bool(both <= setting.device.memory_bytes),
        decode_time=Quantity(decode.total, "s", "roofline"),
        decode_attention_share=Quantity(decode.terms["attention"] / decode.total, "1", "roofline"),
        decode_bytes=Quantity(decode.bytes_moved.total, "B", "exact"),
        decode_flops=Quantity(decode.flops.total, "FLOP", "exact"),
        prefill_time=Quantity(prefill.total, "s", "roofline"),
        prefill_flops=Quantity(work.total, "FLOP", "exact"),
        prefill_quadratic_share=Quantity(work.quadratic / work.total, "1", "exact"),
    )


def _one_more_query(base: ModelShape, setting: _Setting) -> OneMore:
    # Query heads come in groups of n_kv_heads: the price of one is the price of a group, divided.
    more = base.n_heads + base.n_kv_heads
    return _difference("query", base, base.with_heads(n_heads=more), base.n_heads, more, setting)


def _one_more_kv(base: ModelShape, setting: _Setting) -> OneMore | None:
    more = next((d for d in divisors(base.n_heads) if d > base.n_kv_heads), None)
    if more is None:
        return None
    return _difference("kv", base, base.with_heads(n_kv_heads=more), base.n_kv_heads, more, setting)


def _difference(kind: str, base: ModelShape, changed: ModelShape, before: int, after: int, setting: _Setting) -> OneMore:
    context, added = max(setting.contexts), after - before

    def per_head(measure: Any) -> float:
        return float(measure(changed) - measure(base)) / added

    return OneMore(
        kind=kind, compared=(before, after),
        weights=Quantity(per_head(lambda s: weight_bytes(s, setting.weight_dtype).total), "B", _weights_basis(setting)),
        kv_cache=Quantity(per_head(lambda s: kv_cache_bytes(s, context, setting.batch, setting.kv_dtype).total), "B", "exact"),
        decode_time=Quantity(per_head(lambda s: setting.step(s, "decode", context).total), "s", "roofline"),
    )


def _longest_fit(base: ModelShape, setting: _Setting) -> Quantity | None:
    free = setting.device.memory_bytes - weight_bytes(base, setting.weight_dtype).total

    def cache(context: int) -> Any:
        return kv_cache_bytes(base, context, setting.batch, setting.kv_dtype).total

    if free < cache(1):
        return None
    low, high = 1, MAX_TOKENS  # cache() never falls with the context, so halving finds the last length that fits
    if cache(high) <= free:
        return Quantity(high, "1", _weights_basis(setting))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cache(middle) <= free else (low, middle)
    return Quantity(low, "1", _weights_basis(setting))

"""What one card holds: weights, cache, activations and the engine's reserve; whether that fits, and what is the most that does.

It joins the rooms' formulas and decides nothing about devices: card size, usable share, page size and reserve are plain numbers given by
the caller. Every figure is for the fullest rank of the plan. Prefix caching and speculative decoding are not modelled: the result names
them by code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import QuantityError, ShapeError, UnknownNameError
from ..shape.parts import Compressed
from ..units import MAX_TOKENS
from .activations import activation_bytes, attention_map_bytes
from .kv_cache import kv_cache_bytes
from .numbers import positive
from .offload import Offload, scaled_to, split_cache, split_weights
from .schemes import PLAIN, scheme_of
from .shards import Plan, Rank, rank_of
from .terms import Terms
from .training import Training, training_bytes
from .weights import scheme_bytes, weight_bytes

PHASES = ("decode", "prefill", "train")
NOT_MODELLED = ("prefix_caching", "speculative_decoding")


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest card; ints for one model, arrays for a table."""

    terms: Terms
    """On the card, by name: `weights.*`, `kv.*`, `state.*`, `activations.*`, `gradients`, `optimizer.*`, `engine.reserve`."""
    host_terms: Terms
    """In the machine's own memory, where something was left there."""
    usable_bytes: int | None
    """Card size times the engine's share; None where no card was given."""
    basis: dict[str, str]
    """Basis of weights, kv_cache and activations."""
    not_modelled: tuple[str, ...] = NOT_MODELLED
    uncounted_towers: tuple[str, ...] = field(default=())
    """Encoders of other modalities whose size is not known."""

    @property
    def total_bytes(self) -> Any:
        """All terms on the card."""
        return self.terms.total

    @property
    def weights_bytes(self) -> Any:
        """Weights on the card."""
        return self.terms.group("weights.")

    @property
    def kv_cache_bytes(self) -> Any:
        """Cache and recurrent state on the card, page rounding included."""
        return self.terms.group("kv.") + self.terms.group("state.")

    @property
    def activations_bytes(self) -> Any:
        """Peak of intermediate results."""
        return self.terms.group("activations.")

    @property
    def host_ram_bytes(self) -> Any:
        """All terms in the machine's own memory."""
        return self.host_terms.total

    @property
    def fits(self) -> Any:
        """Whether the total is at most the usable bytes; None where no card was given."""
        return None if self.usable_bytes is None else self.total_bytes <= self.usable_bytes


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything about a run but context and batch; see `memory` for the fields."""

    phase: str = "decode"
    card_bytes: int | None = None
    usable_share: float = 1.0
    reserve_bytes: int = 0
    plan: Plan = Plan()
    weight_dtype: str | None = None
    kv_dtype: str = "bf16"
    runtime: str = "vllm"
    page: int = 1
    execution: str = "engine"
    max_batched_tokens: int | None = None
    logits: str = "last"
    attention_map: bool = False
    towers: bool = True
    training: Training | None = None
    offload: Offload | None = None

    @property
    def usable_bytes(self) -> int | None:
        """Card size times share, rounded down."""
        return None if self.card_bytes is None else int(self.card_bytes * self.usable_share)


def memory(shape: Any, *, context: Any, batch: Any = 1, tp: int = 1, pp: int = 1, ep: int = 1, **setting: Any) -> Memory:
    """Bytes that the fullest card holds when every one of `batch` sequences has `context` tokens.

    Args:
        shape: ModelShape (exact ints) or ShapeTable (context and batch may then be arrays).
        tp, pp, ep: tensor-, pipeline- and expert-parallel sizes; or `plan=Plan(...)` for more.
        phase: "decode", "prefill" or "train".
        card_bytes, usable_share, reserve_bytes: the card, what of it the engine takes, and what else it keeps there.
        weight_dtype: a scheme of `weight_bytes`; kv_dtype, runtime and page: as in `kv_cache_bytes`.
        execution, max_batched_tokens, logits: as in `activation_bytes`. attention_map: all layers' maps are kept.
        towers: encoders of other modalities are loaded too.
        training: how, when the phase is "train". offload: llama.cpp's split over card and memory.

    Raises:
        UnknownNameError, QuantityError: an argument out of its range; ShapeError: heads that cannot be split, mixed formats.
    """
    if "plan" not in setting:
        setting["plan"] = Plan(tp=tp, pp=pp, ep=ep)
    elif (tp, pp, ep) != (1, 1, 1):
        raise QuantityError("plan_twice", "give tp, pp and ep, or plan, but not both")
    return _memory(shape, context, batch, _checked(setting))


def _checked(setting: dict[str, Any]) -> Setting:
    unknown = set(setting) - set(Setting.__dataclass_fields__)
    if unknown:
        raise UnknownNameError(
            "unknown_argument", "memory has no argument {name}; known are {known}",
            name=", ".join(sorted(unknown)), known=", ".join(Setting.__dataclass_fields__),
        )
    made = Setting(**setting)
    if made.phase not in PHASES:
        raise UnknownNameError(
            "unknown_choice", "{name} must be one of {known}, but got {value!r}",
            name="phase", known=", ".join(PHASES), value=str(made.phase)[:60],
        )
    if not 0 < made.usable_share <= 1:
        raise QuantityError(
            "bad_share", "the usable share of a card must be above 0 and at most 1, but got {value}; 0.9 is vLLM's default",
            value=made.usable_share,
        )
    if made.reserve_bytes < 0 or (made.card_bytes is not None and made.card_bytes <= 0):
        raise QuantityError(
            "negative_bytes", "card_bytes must be positive and reserve_bytes not negative, but got {card} and {reserve}",
            card=made.card_bytes, reserve=made.reserve_bytes,
        )
    if (made.training is not None) != (made.phase == "train"):
        made = _with_training(made)
    return made


def _with_training(setting: Setting) -> Setting:
    if setting.phase != "train":
        raise QuantityError("training_without_train", "training= belongs to phase=train, but got phase={phase}", phase=setting.phase)
    return Setting(**{**vars(setting), "training": Training()})


def _memory(shape: Any, context: Any, batch: Any, setting: Setting) -> Memory:
    context, batch = positive(context, "context"), positive(batch, "batch")
    rank = rank_of(shape, setting.plan)
    terms, host = Terms(), Terms()
    if setting.training is not None:
        found = training_bytes(rank, batch * context, context, setting.training, setting.weight_dtype)
        terms = Terms(dict(found))
    else:
        _inference(terms, host, shape, rank, context, batch, setting)
    if setting.towers:
        side = scheme_of(shape, _named(setting.weight_dtype, shape)).side
        for tower in shape.towers:
            if tower.parameters is not None:
                terms.add(f"weights.tower.{tower.name}", side.bytes_of(tower.parameters, 1))
    if setting.attention_map:
        maps = attention_map_bytes(rank, context, batch, kept=True)
        terms.add("activations.attention_maps_kept", maps)
    terms.add("engine.reserve", setting.reserve_bytes)
    unknown = tuple(t.name for t in shape.towers if t.parameters is None) if setting.towers else ()
    return Memory(terms=terms, host_terms=host, usable_bytes=setting.usable_bytes, basis=_basis(shape, setting), uncounted_towers=unknown)


def _named(weight_dtype: str | None, shape: Any) -> str | None:
    # A file of mixed types has no scheme of its own; only its side tensors are asked for, and those are 16 bits wide.
    return "f16" if weight_dtype is None and getattr(shape, "stored_bytes", None) is not None else weight_dtype


def _inference(terms: Terms, host: Terms, shape: Any, rank: Rank, context: Any, batch: Any, setting: Setting) -> None:
    cache = kv_cache_bytes(rank, context, batch, setting.kv_dtype, setting.runtime, setting.page).terms
    if setting.offload is None:
        weights = _rank_weights(shape, rank, setting)
    else:
        weights, left, cache, cache_left = _offloaded(shape, cache, setting)
        for name, size in left.items():
            host.add(f"weights.{name}", size)
        for name, size in cache_left.items():
            host.add(name, size)
    for name, size in weights.items():
        terms.add(f"weights.{name}", size)
    for name, size in cache.items():
        terms.add(name, size)
    alive = activation_bytes(
        rank, setting.phase, context, batch, execution=setting.execution, max_batched_tokens=setting.max_batched_tokens,
        logits=setting.logits,
    )
    for name, size in alive.items():
        terms.add(name, size)


def _rank_weights(shape: Any, rank: Rank, setting: Setting) -> Terms:
    stored = getattr(shape, "stored_bytes", None)
    if setting.weight_dtype is None and stored is not None:
        if setting.plan == Plan():
            return Terms({"file": stored})
        # A file's own bytes, in proportion to what this rank would hold at 16 bits.
        half = scheme_of(shape, "f16")
        return Terms({"file": stored * _of_stage(scheme_bytes(rank, half), setting.plan).total // scheme_bytes(shape, half).total})
    if setting.plan.pp == 1:
        return weight_bytes(rank, setting.weight_dtype)
    return _of_stage(weight_bytes(rank, setting.weight_dtype), setting.plan)


def _of_stage(weights: Terms, plan: Plan) -> Terms:
    """A pipeline's first stage has the embedding, its last the head and final norm: the larger of the two stages."""
    if plan.pp == 1:
        return weights
    last = weights.group("head") + weights.group("final_norm")
    first = weights.group("embedding.")
    terms = Terms()
    for name, size in weights.items():
        if name.startswith("embedding."):
            terms.add(name, size * (1 * (first >= last)))
        elif name.startswith(("head", "final_norm")):
            terms.add(name, size * (1 * (first < last)))
        else:
            terms.add(name, size)
    return terms


def _offloaded(shape: Any, cache: Terms, setting: Setting) -> tuple[Terms, Terms, Terms, Terms]:
    if setting.plan != Plan() or setting.offload is None:
        raise ShapeError("offload_and_plan", "partial offload is answered for one card; tp, pp and ep must be 1")
    stored = getattr(shape, "stored_bytes", None)
    own_file = setting.weight_dtype is None and stored is not None
    scheme = scheme_of(shape, _named(setting.weight_dtype, shape))
    split = split_weights(shape, scheme, setting.offload)
    if own_file and stored is not None:
        split = scaled_to(split, scheme_bytes(shape, scheme).total, stored)
    here, there = split_cache(cache, split)
    return split.device, split.host, here, there


def _basis(shape: Any, setting: Setting) -> dict[str, str]:
    own_file = setting.weight_dtype is None and getattr(shape, "stored_bytes", None) is not None
    if own_file:
        weights = "exact" if setting.plan == Plan() and setting.offload is None else "assumed"
    else:
        weights = "exact" if scheme_of(shape, setting.weight_dtype).name in PLAIN and setting.plan.pp == 1 else "assumed"
    cache = "exact" if setting.runtime in ("logical", "transformers") else "assumed"
    return {"weights": weights, "kv_cache": cache, "activations": "assumed"}


# -- the most that fits -----------------------------------------------------------------------------------------------------------------


def largest_context(shape: Any, *, batch: int = 1, **setting: Any) -> int:
    """The longest context at which it fits, every shorter one fitting as well; 0 where none does. Arguments as in `memory`.

    Raises:
        QuantityError: no card_bytes to fit into.
    """
    _require_card(setting)
    ratios = {int(m.ratio) for _, layer in shape.groups for m in layer.mixers if isinstance(m, Compressed) and m.ratio > 1}

    def fits(context: int) -> bool:
        # A compressor's buffer empties whenever an entry is complete, so the need peaks just before.
        peaks = {context, *((context + 1) // r * r - 1 for r in ratios)}
        return all(bool(memory(shape, context=c, batch=batch, **setting).fits) for c in peaks if c > 0)

    return _bisect(fits)


def largest_batch(shape: Any, *, context: int, **setting: Any) -> int:
    """The most sequences of `context` tokens that fit; 0 where not even one does. Arguments as in `memory`.

    Raises:
        QuantityError: no card_bytes to fit into.
    """
    _require_card(setting)
    return _bisect(lambda batch: bool(memory(shape, context=context, batch=batch, **setting).fits))


def _require_card(setting: dict[str, Any]) -> None:
    if setting.get("card_bytes") is None:
        raise QuantityError("card_needed", "card_bytes must be given to ask what fits")


def _bisect(fits: Any) -> int:
    """The largest n from 0 to MAX_TOKENS with fits(n), where fits is true up to some number and false beyond."""
    if fits(MAX_TOKENS):
        return MAX_TOKENS
    low, high = 0, 1
    while high < MAX_TOKENS and fits(high):
        low, high = high, high * 2
    high = min(high, MAX_TOKENS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


__all__ = ["Memory", "Offload", "Plan", "Setting", "Training", "largest_batch", "largest_context", "memory", "weight_bytes"]

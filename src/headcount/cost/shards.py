"""What one rank holds when a model is split over several: the same parts with smaller counts, priced by the same formulas.

Tensor parallelism divides heads, feed-forward widths and the vocabulary; KV heads are replicated where there are fewer than ranks, and
what has no head axis (latents, norms, routers) is whole on every rank. Experts are divided among `ep` ranks, the rest of tp cuts each.
Pipeline stages are whole layers; the fullest stage is answered for, and where layers differ each kind is rounded up.

Sources, read 2026-11-23: vLLM's model files (a rank's KV heads: max(1, n_kv_heads // tp), one dividing the other) and
`vocab_parallel_embedding.py` (vocabulary padded to a multiple of 64). Other engines are taken to do the same (`assumed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..shape.legality import divisors
from ..shape.parts import Attention, Compressed, Dense, GatedDelta, LayerSpec, Mamba1, Mamba2, Mla, Moe, Recurrent, Stem
from .numbers import larger, positive, rounded_up

VOCAB_PAD = 64


@dataclass(frozen=True)
class Plan:
    """How a model is split: `tp` ranks share every layer, `ep` of the ranks divide the experts, `pp` stages divide the layers.

    With data-parallel attention the experts may be spread over more ranks than the attention: then `moe_tp` says how many cut one
    expert; by default those of tp that ep leaves.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    moe_tp: int | None = None

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "ep"):
            positive(getattr(self, name), name)

    @property
    def expert_cut(self) -> int:
        """Ranks that one expert's matrices are cut over."""
        return self.moe_tp if self.moe_tp is not None else max(1, self.tp // self.ep)


@dataclass(frozen=True)
class Rank:
    """One rank's share, in the form of a ModelShape or ShapeTable: what costs are summed over."""

    d_model: Any
    stems: tuple[tuple[Any, Stem], ...]
    groups: tuple[tuple[Any, LayerSpec], ...]
    towers: tuple[Any, ...]
    mtp: Any
    weight_dtype: Any
    n_layers: Any
    config: Any = None
    model_type: str = ""


def rank_of(shape: Any, plan: Plan) -> Rank:
    """The share of the fullest rank of a plan.

    Raises:
        ShapeError: tp does not divide n_heads, or neither of tp and n_kv_heads divides the other; rows of a table become NaN instead.
    """
    groups = []
    for n, layer in shape.groups:
        mixers = tuple(cut(m, plan) for m in layer.mixers)
        ffns = tuple(_with_whole_router(cut(f, plan), f, shape.d_model) for f in layer.ffns)
        legal: Any = 1
        for mixer in layer.mixers:
            legal = legal * _check(mixer, plan.tp)
        staged = -(-n // plan.pp)
        share = np.where(legal, staged, np.nan) if isinstance(legal, np.ndarray) else staged
        groups.append((share, replace(layer, mixers=mixers, ffns=ffns)))
    return Rank(
        d_model=shape.d_model, stems=tuple((n, _cut_stem(stem, plan)) for n, stem in shape.stems), groups=tuple(groups),
        towers=shape.towers, mtp=shape.mtp, weight_dtype=shape.weight_dtype, n_layers=getattr(shape, "n_layers", None),
        config=getattr(shape, "config", None), model_type=getattr(shape, "model_type", ""),
    )


def _with_whole_router(ffn: Any, whole: Any, d_model: Any) -> Any:
    """The router scores all experts on every rank, whichever of them live there."""
    if not isinstance(ffn, Moe):
        return ffn
    return replace(ffn, extra=(*ffn.extra, ("router_elsewhere", d_model * (whole.n_experts - ffn.n_experts))))


def legal_tp(n_heads: int, n_kv_heads: int) -> list[int]:
    """Tensor-parallel sizes that these heads can be split over."""
    return [t for t in divisors(n_heads) if n_kv_heads % t == 0 or t % n_kv_heads == 0]


def _check(mixer: Any, tp: int) -> Any:
    """1 where the heads can be split (an array for a table); raises for a single model where they cannot."""
    heads = getattr(mixer, "n_heads", None)
    if heads is None:
        return 1
    kv = getattr(mixer, "n_kv_heads", heads) if isinstance(mixer, Attention) else heads
    fine = (heads % tp == 0) & ((kv % tp == 0) | (tp % kv == 0))
    if isinstance(fine, np.ndarray):
        return fine
    if not fine:
        legal = legal_tp(int(heads), int(kv))
        raise ShapeError(
            "tp_not_divisible",
            "tensor parallelism must divide n_heads={n_heads} and divide or be a multiple of n_kv_heads={n_kv_heads}, but got tp={tp}; "
            "legal sizes: {legal}",
            n_heads=int(heads), n_kv_heads=int(kv), tp=tp, legal=", ".join(map(str, legal)),
        )
    return 1


def _part(value: Any, ranks: int) -> Any:
    """A count divided among ranks, rounded up: what does not divide is padded."""
    return -(-value // ranks)


@singledispatch
def cut(part: Any, plan: Plan) -> Any:
    """The share that one rank has of a part."""
    raise TypeError(f"no shards for {type(part).__name__}")


@cut.register
def _attention(a: Attention, plan: Plan) -> Attention:
    return replace(a, n_heads=_part(a.n_heads, plan.tp), n_kv_heads=larger(a.n_kv_heads // plan.tp, 1))


@cut.register
def _mla(m: Mla, plan: Plan) -> Mla:
    return replace(m, n_heads=_part(m.n_heads, plan.tp))


@cut.register
def _compressed(c: Compressed, plan: Plan) -> Compressed:
    return replace(c, n_heads=_part(c.n_heads, plan.tp), o_groups=_part(c.o_groups, plan.tp))


@cut.register
def _delta(g: GatedDelta, plan: Plan) -> GatedDelta:
    return replace(g, n_k_heads=_part(g.n_k_heads, plan.tp), n_v_heads=_part(g.n_v_heads, plan.tp))


@cut.register
def _mamba2(m: Mamba2, plan: Plan) -> Mamba2:
    return replace(m, n_heads=_part(m.n_heads, plan.tp), n_groups=_part(m.n_groups, plan.tp))


@cut.register
def _mamba1(m: Mamba1, plan: Plan) -> Mamba1:
    return replace(m, d_inner=_part(m.d_inner, plan.tp))


@cut.register
def _recurrent(r: Recurrent, plan: Plan) -> Recurrent:
    # Its sizes are not described by heads: whole on every rank, an upper bound.
    return r


@cut.register
def _dense(d: Dense, plan: Plan) -> Dense:
    return replace(d, d_ff=_part(d.d_ff, plan.tp))


@cut.register
def _moe(m: Moe, plan: Plan) -> Moe:
    experts = _part(m.n_experts, plan.ep)
    return replace(
        m, n_experts=experts, n_active=-(-m.n_active // plan.ep), d_expert=_part(m.d_expert, plan.expert_cut),
        d_shared=_part(m.d_shared, plan.tp),
    )


def _cut_stem(stem: Stem, plan: Plan) -> Stem:
    if plan.tp == 1:
        return stem
    return replace(
        stem, vocab_size=_part(rounded_up(stem.vocab_size, VOCAB_PAD), plan.tp),
        per_layer_rows=_part(stem.per_layer_rows, plan.tp),
    )

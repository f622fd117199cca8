"""FLOPs of prefill, decode and training, by a named convention.

Counted: every matrix multiplication as 2 x rows x inner x columns, the products of attention (queries by keys, weights by values), and
the state updates of recurrent layers. Not counted: norms, activations, softmax, rotary embedding, the look-up of embeddings, the
mixing of residual streams (hyper-connections), towers.

`causal="half"` counts the query-key pairs that the mask keeps (windows and chunks respected); `"full"` counts all of them, as eager code
computes and as torch's counter reports. `logits="last"` runs the output head on one position per sequence, as engines do in prefill;
`"all"` on every one, as training and a plain forward pass do. Decoding with latent attention is counted absorbed: the up-projections
of the cache are applied to the query and the result, which is how engines run it (DeepSeek-V2, arXiv:2405.04434, section 2.1.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from ..errors import UnknownNameError
from ..shape.parts import Attention, Compressed, GatedDelta, Indexer, Mamba1, Mamba2, Mla, Recurrent
from .layout import Matrix, head_matrix, layer_weights, stem_weights
from .numbers import positive, smaller
from .terms import Terms

PHASES = ("prefill", "decode", "train")


@dataclass(frozen=True)
class Work:
    """What is asked of a model: `tokens` new ones per sequence, attending to `context` in all."""

    phase: str
    context: Any
    tokens: Any
    causal: str


@dataclass(frozen=True)
class Flops:
    """FLOPs of one step by term, with the convention they were counted by."""

    terms: Terms
    convention: str

    @property
    def total(self) -> Any:
        """All terms."""
        return self.terms.total

    @property
    def quadratic(self) -> Any:
        """What grows with the context beyond the number of new tokens: attention and indexer products."""
        return self.terms.group("attention.pairs") + self.terms.group("indexer.pairs")


def flops(shape: Any, phase: str = "prefill", context: Any = 4096, batch: Any = 1, causal: str = "half", logits: str = "last") -> Flops:
    """FLOPs of one prefill, one decode step or one training step.

    Args:
        shape: ModelShape (exact ints) or ShapeTable (float64; context and batch may be arrays, one value per row).
        phase: "prefill" processes `context` tokens; "decode" one token, when the cache holds `context` tokens, that one among them;
            "train" is prefill with all logits, times three (the backward pass multiplies twice; no recomputation).
        causal: "half" or "full"; logits: "last" or "all"; see the module.

    Raises:
        UnknownNameError: no such phase or convention.
    """
    for name, value, known in (("phase", phase, PHASES), ("causal", causal, ("half", "full")), ("logits", logits, ("last", "all"))):
        if value not in known:
            raise UnknownNameError(
                "unknown_choice", "{name} must be one of {known}, but got {value!r}",
                name=name, known=", ".join(known), value=str(value)[:60],
            )
    context, batch = positive(context, "context"), positive(batch, "batch")
    work = Work(phase, context, 1 if phase == "decode" else context, causal)
    every_logit = phase == "train" or logits == "all"
    times = 3 if phase == "train" else 1
    terms = Terms()
    for n, layer in shape.groups:
        for weight in layer_weights(layer, shape.d_model):
            if isinstance(weight, Matrix):
                terms.add(weight.name, 2 * n * times * batch * (weight.multiplications * work.tokens))
        for mixer in layer.mixers:
            for name, products in mixing(mixer, work):
                terms.add(name, 2 * n * times * batch * products)
    for n, stem in shape.stems:
        for weight in stem_weights(stem, shape.d_model):
            if isinstance(weight, Matrix) and weight.name != "head":
                terms.add(weight.name, 2 * n * times * batch * (weight.multiplications * work.tokens))
        head = head_matrix(stem, shape.d_model)
        if head is not None:
            terms.add("head", 2 * n * times * batch * (head.multiplications * (work.tokens if every_logit else 1)))
    logits = "all" if every_logit else "last"
    convention = f"multiply-add = 2; causal={causal}; logits={logits}" + "; backward = 2 x forward" * (times == 3)
    return Flops(terms=terms, convention=convention)


def attended_pairs(work: Work, window: Any = None, chunked: bool = False) -> Any:
    """Query-key pairs of one sequence and head."""
    t = work.context
    if work.phase == "decode":
        return t if window is None else _kept(t, window, chunked)
    if work.causal == "full":
        return t * t
    if window is None:
        return t * (t + 1) // 2
    if chunked:
        rest = t % window
        return t // window * (window * (window + 1) // 2) + rest * (rest + 1) // 2
    first = smaller(t, window)
    return first * (first + 1) // 2 + (t - first) * window


def _kept(context: Any, window: Any, chunked: bool) -> Any:
    # The last token of a chunk-wise layer sees its own chunk up to itself.
    return (context - 1) % window + 1 if chunked else smaller(context, window)


@singledispatch
def mixing(mixer: Any, work: Work) -> Iterator[tuple[str, Any]]:
    """(term, multiply-adds) that one mixer spends on one sequence outside its projections."""
    raise TypeError(f"no FLOPs for {type(mixer).__name__}")


@mixing.register
def _attention(a: Attention, work: Work) -> Iterator[tuple[str, Any]]:
    pairs = attended_pairs(work) if a.reach == "full" else attended_pairs(work, a.window, a.reach == "chunked")
    yield "attention.pairs", a.n_heads * (a.head_dim + a.v_head_dim) * pairs


@mixing.register
def _mla(m: Mla, work: Work) -> Iterator[tuple[str, Any]]:
    sparse = m.indexer is not None
    pairs = attended_pairs(work, m.indexer.top_k) if m.indexer is not None else attended_pairs(work)
    if work.phase == "decode":
        width = 2 * m.kv_lora_rank + m.qk_rope_head_dim
    else:
        width = m.qk_nope_head_dim + m.qk_rope_head_dim + m.v_head_dim
    yield "attention.pairs", m.n_heads * width * pairs
    if sparse and not m.indexer_shared and m.indexer is not None:
        yield _scoring(m.indexer, attended_pairs(work))


def _scoring(i: Indexer, pairs: Any) -> tuple[str, Any]:
    return "indexer.pairs", i.n_heads * i.head_dim * pairs


@mixing.register
def _gated_delta(g: GatedDelta, work: Work) -> Iterator[tuple[str, Any]]:
    # Per value head and token: read the state by the key, write the correction, read it by the query.
    yield "delta.state", 3 * g.n_v_heads * g.k_head_dim * g.v_head_dim * work.tokens
    yield "delta.conv", (2 * g.n_k_heads * g.k_head_dim + g.n_v_heads * g.v_head_dim) * g.conv_kernel * work.tokens


@mixing.register
def _mamba2(m: Mamba2, work: Work) -> Iterator[tuple[str, Any]]:
    inner = m.n_heads * m.head_dim
    yield "ssm.state", 2 * inner * m.d_state * work.tokens
    yield "ssm.conv", (inner + 2 * m.n_groups * m.d_state) * m.conv_kernel * work.tokens


@mixing.register
def _mamba1(m: Mamba1, work: Work) -> Iterator[tuple[str, Any]]:
    yield "ssm.state", 2 * m.d_inner * m.d_state * work.tokens
    yield "ssm.conv", m.d_inner * m.conv_kernel * work.tokens


@mixing.register
def _recurrent(r: Recurrent, work: Work) -> Iterator[tuple[str, Any]]:
    yield f"{r.kind}.state", r.flops_per_token // 2 * work.tokens


@mixing.register
def _compressed(c: Compressed, work: Work) -> Iterator[tuple[str, Any]]:
    compresses = 0 + (c.ratio > 0)
    ratio = c.ratio + (1 - compresses)
    entries = attended_entries(work, ratio) * compresses
    read = entries if c.indexer is None else attended_entries(work, ratio, c.indexer.top_k) * compresses
    yield "attention.pairs", 2 * c.n_heads * c.head_dim * (attended_pairs(work, c.window) + read)
    if c.indexer is not None:
        yield _scoring(c.indexer, entries)


def attended_entries(work: Work, ratio: Any, top_k: Any = None) -> Any:
    """Query-entry pairs of one sequence and head, where an entry sums up `ratio` tokens and is visible once they are all there."""
    t = work.context
    if work.phase == "decode":
        return t // ratio if top_k is None else smaller(t // ratio, top_k)
    if work.causal == "full":
        return t * (t // ratio)
    growing = t if top_k is None else smaller(t, ratio * top_k)
    whole = growing // ratio
    pairs = ratio * (whole * (whole - 1) // 2) + whole * (growing - whole * ratio + 1)
    return pairs if top_k is None else pairs + (t - growing) * top_k

"""Peak of what a forward pass holds besides weights and cache, as the named terms of its fullest moment.

Three ways to run a model. "fused" and "eager" are transformers 5.23 with scaled-dot-product or eager attention: every intermediate is a
tensor of its own, and the count of those alive at once was read off live storages (the tests measure them again). "engine" is a serving
engine (vLLM and its kind): residual and normed hidden states, fused QKV and gate-up projections, logits of the last positions in the
weights' type and in float32; that reading is `assumed`. Tokens beyond `max_batched_tokens` are processed in later chunks.

Held to be so: one pass without gradients, no dropout, rotary embedding wherever there is no position table, experts of a mixture by
grouped matrix products over copies of the tokens. Not counted: workspaces of kernels, the allocator's fragmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np

from ..errors import UnknownNameError
from ..shape.dtypes import storage
from ..shape.parts import Attention, Compressed, Dense, Ffn, LayerSpec, Mla, Moe
from .layout import Matrix, part_weights
from .numbers import positive, smaller
from .terms import Terms

EXECUTIONS = ("eager", "fused", "engine")

FFN_COPIES = {"phi3": 4, "gpt2": 4}
"""Widths of d_ff alive at once in transformers where it is not 3 (gated) or 2: Phi-3 keeps its fused gate-up output beside activation
and product; GPT-2's gelu_new is spelled out in elementary operations."""
FURTHER_HIDDEN = {"gpt2": 1}
"""GPT-2 keeps the attention's output while the feed-forward block runs."""
FUSED_QKV = frozenset({"phi3", "gpt2", "gpt_neox", "falcon", "bloom", "mpt"})
"""One projection for queries, keys and values, whose output lives until attention is done."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: `tokens` new ones in all, `rows` x `keys` query-key pairs per head, `logits` positions that get logits."""

    tokens: Any
    pairs: Any
    mask: Any
    logits: Any
    bytes_per: int
    execution: str
    model_type: str
    positions: bool


def activation_bytes(
    shape: Any, phase: str = "prefill", context: Any = 4096, batch: Any = 1, *, execution: str = "engine", dtype: str = "bf16",
    max_batched_tokens: int | None = None, logits: str = "last",
) -> Terms:
    """Bytes alive at the fullest moment of one forward pass, without weights and cache.

    Args:
        shape: ModelShape or ShapeTable (context and batch may then be arrays).
        phase: "prefill" runs `context` tokens per sequence, "decode" one.
        execution: "eager", "fused" or "engine"; see the module. Eager attention holds maps of n_heads x tokens x context.
        max_batched_tokens: most tokens of one pass, all sequences together; None for no limit.
        logits: "last" position of every sequence, or "all".

    Raises:
        UnknownNameError: no such execution.
    """
    if execution not in EXECUTIONS:
        raise UnknownNameError(
            "unknown_choice", "{name} must be one of {known}, but got {value!r}",
            name="execution", known=", ".join(EXECUTIONS), value=str(execution)[:60],
        )
    context, batch = positive(context, "context"), positive(batch, "batch")
    tokens = batch * (1 if phase == "decode" else context)
    if max_batched_tokens is not None:
        tokens = smaller(tokens, positive(max_batched_tokens, "max_batched_tokens"))
    rows = tokens if logits == "all" else smaller(batch, tokens)
    # A position table decides a small term; where rows of a table differ in having one, the first stem stands for all.
    positions = bool(np.any(np.asarray(shape.stems[0][1].positions) > 0))
    work = Pass(tokens, tokens * context, tokens * context, rows, storage(dtype).block_bytes, execution,
                getattr(shape, "model_type", ""), positions)
    stages = [s for n, layer in shape.groups for s in _layer_stages(layer, n, shape.d_model, work)]
    stages += [_logit_stage(stem, n, shape.d_model, work) for n, stem in shape.stems]
    return largest(stages)


def attention_map_bytes(shape: Any, context: Any, batch: Any = 1, dtype: str = "bf16", *, kept: bool = False) -> Any:
    """Bytes of the attention maps n_heads x context x context: of the layer with most heads, or of all layers when they are kept
    (transformers' output_attentions)."""
    maps: Any = 0
    for n, layer in shape.groups:
        heads = sum((getattr(m, "n_heads", 0) for m in layer.mixers if isinstance(m, (Attention, Mla, Compressed))), start=0)
        size = storage(dtype).bytes_of(batch * heads * context * context)
        maps = maps + n * size if kept else np.maximum(maps, (n > 0) * size) if isinstance(n, np.ndarray) else max(maps, size)
    return maps


def largest(stages: list[Terms]) -> Terms:
    """The terms of the fullest stage; of a table, of the fullest in each row."""
    totals = [s.total for s in stages]
    best: Any = totals[0]
    for total in totals[1:]:
        best = np.maximum(best, total) if isinstance(total, np.ndarray) or isinstance(best, np.ndarray) else max(best, total)
    chosen, open_rows = Terms(), 1 * (best == best)
    for stage, total in zip(stages, totals, strict=True):
        here = open_rows * (1 * (total == best))
        open_rows = open_rows * (1 - here)
        for name, value in stage.items():
            chosen.add(name, value * here)
    return chosen


def _layer_stages(layer: LayerSpec, n: Any, d_model: Any, work: Pass) -> Iterator[Terms]:
    exists = 1 * (n > 0)
    for mixer in layer.mixers:
        yield _stage(_hidden(d_model, 3, work), mixer_live(mixer, d_model, work), exists)
    for ffn in layer.ffns:
        yield _stage(_hidden(d_model, 4, work), {"ffn": ffn_live(ffn, d_model, work) * work.bytes_per}, exists)


def _hidden(d_model: Any, copies: int, work: Pass) -> Any:
    """Bytes of hidden states: embedding, the layer's input, residual, normed input; an engine keeps the last two, reused in place."""
    if work.execution == "engine":
        return 2 * d_model * work.tokens * work.bytes_per
    extra = FURTHER_HIDDEN.get(work.model_type, 0) + (1 if work.positions and work.model_type == "gpt2" else 0)
    return (copies + extra) * d_model * work.tokens * work.bytes_per


def _stage(hidden: Any, live: dict[str, Any], exists: Any) -> Terms:
    terms = Terms()
    terms.add("activations.hidden", hidden * exists)
    for name, size in live.items():
        terms.add(f"activations.{name}", size * exists)
    return terms


def _logit_stage(stem: Any, n: Any, d_model: Any, work: Pass) -> Terms:
    exists = 1 * (n > 0)
    copies = work.bytes_per + (4 if work.execution == "engine" else 0)
    terms = Terms()
    terms.add("activations.hidden", d_model * work.tokens * work.bytes_per * exists)
    terms.add("activations.logits", work.logits * stem.vocab_size * copies * exists * (1 if stem.has_head else 0))
    return terms


@singledispatch
def mixer_live(mixer: Any, d_model: Any, work: Pass) -> dict[str, Any]:
    """Bytes by name that a mixer holds at its fullest moment. Recurrent mixers: outputs of all projections, twice (assumed)."""
    outputs = sum((w.outputs for w in part_weights(mixer, d_model) if isinstance(w, Matrix)), start=0)
    return {"mixer": 2 * outputs * work.tokens * work.bytes_per}


@mixer_live.register
def _attention(a: Attention, d_model: Any, work: Pass) -> dict[str, Any]:
    q, k, v = a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim, a.n_kv_heads * a.v_head_dim
    out = a.n_heads * a.v_head_dim
    unit = work.tokens * work.bytes_per
    if work.execution == "engine":
        return {"attention": (q + k + v + out) * unit}
    rope = 0 if work.positions else 2 * a.head_dim
    if work.execution == "eager":
        repeated = (q + out) * (1 * (a.n_heads > a.n_kv_heads))
        fused = q + k + v if work.model_type in FUSED_QKV else 0
        return {"attention": (q + fused + repeated + rope) * unit, **_maps(a.n_heads, work)}
    if work.model_type in FUSED_QKV:
        return {"attention": (q + k + v + q + 2 * out + rope) * unit}
    # Rotating holds the query, both its products and the rotated copy; a norm over heads holds it in float32 twice, before keys exist.
    rotating = 4 * q * unit
    norming = (q * unit + 8 * q * work.tokens - (k + v) * unit) * (1 if a.qk_norm == "head" else 0)
    fullest = np.maximum(rotating, norming) if isinstance(rotating, np.ndarray) else max(rotating, norming)
    return {"attention": fullest + rope * unit}


def _maps(n_heads: Any, work: Pass) -> dict[str, Any]:
    # Scores, their float32 copy and its softmax; in float32 the copy is the scores themselves.
    per_pair = work.bytes_per + (8 if work.bytes_per < 4 else work.bytes_per)
    return {"attention_map": n_heads * work.pairs * per_pair, "mask": work.mask * work.bytes_per}


@mixer_live.register
def _mla(m: Mla, d_model: Any, work: Pass) -> dict[str, Any]:
    qk = m.qk_nope_head_dim + m.qk_rope_head_dim
    expanded = m.n_heads * (m.qk_nope_head_dim + m.v_head_dim)
    unit = work.tokens * work.bytes_per
    live = (m.q_lora_rank + m.kv_lora_rank + m.qk_rope_head_dim + 2 * m.n_heads * qk + expanded + m.n_heads * m.v_head_dim) * unit
    return {"attention": live, **(_maps(m.n_heads, work) if work.execution == "eager" else {})}


def ffn_live(ffn: Ffn, d_model: Any, work: Pass) -> Any:
    """Elements that a feed-forward block holds at its fullest moment."""
    up = 2 if ffn.gated else 1
    if isinstance(ffn, Dense):
        copies = up + 1 if work.execution == "engine" else FFN_COPIES.get(work.model_type, up + 1)
        return copies * ffn.d_ff * work.tokens
    return _moe_live(ffn, d_model, work)


def _moe_live(m: Moe, d_model: Any, work: Pass) -> Any:
    width = m.d_latent + (1 * (m.d_latent == 0)) * d_model
    up = 2 if m.gated else 1
    copies = up + (1 if work.execution == "engine" else 2 if m.gated else 1)
    routed = m.n_active * (width + copies * m.d_expert)
    return (routed + m.n_experts) * work.tokens

"""Every weight of a model as a matrix or a vector: the one description that parameters, FLOPs and bytes are all counted from.

A matrix multiplies tokens (2 x inputs x outputs FLOPs each); a vector does not. Counting FLOPs from the same list as parameters is
what keeps the two from ever disagreeing about a shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from ..shape.parts import (
    Attention, Compressed, Dense, Extra, GatedDelta, Indexer, LayerSpec, Mamba1, Mamba2, Mla, Moe, Projections, Recurrent, Stem,
)


@dataclass(frozen=True)
class Matrix:
    """`copies` matrices of inputs x outputs, of which a token meets `active`."""

    name: str
    inputs: Any
    outputs: Any
    bias: Any = 0
    """Bias parameters per copy."""
    copies: Any = 1
    active: Any = 1
    borrowed: bool = False
    """Stored, and counted, with an earlier layer; only its work is this layer's."""

    @property
    def parameters(self) -> Any:
        """Parameters of all copies, biases included."""
        return 0 if self.borrowed else (self.inputs * self.outputs + self.bias) * self.copies

    @property
    def active_parameters(self) -> Any:
        """Parameters that one token meets."""
        return 0 if self.borrowed else (self.inputs * self.outputs + self.bias) * self.active

    @property
    def multiplications(self) -> Any:
        """Multiply-adds for one token."""
        return self.inputs * self.outputs * self.active


@dataclass(frozen=True)
class Vector:
    """Parameters that scale, shift or decay, but do not multiply as a matrix."""

    name: str
    parameters: Any

    @property
    def active_parameters(self) -> Any:
        """A vector is met by every token."""
        return self.parameters


Weight = Matrix | Vector


def layer_weights(layer: LayerSpec, d_model: Any) -> Iterator[Weight]:
    """All weights of one layer."""
    for part in (*layer.mixers, *layer.ffns):
        weights = part_weights(part, d_model)
        yield from _borrowed(weights) if layer.borrows_block and isinstance(part, (Attention, Dense)) else weights
    yield Vector("norms", layer.norms * layer.norm_affine * d_model)
    yield from _projections("layer", layer.projections)
    yield from _extra("layer", layer.extra)


def _borrowed(weights: Iterator[Weight]) -> Iterator[Matrix]:
    return (replace(w, borrowed=True) for w in weights if isinstance(w, Matrix))


def stem_weights(stem: Stem, d_model: Any) -> Iterator[Weight]:
    """Embeddings, final norm and output head. A tied head is no weight of its own (see `head_matrix`)."""
    width = d_model if stem.d_embedding is None else stem.d_embedding
    yield Vector("embedding.tokens", stem.vocab_size * width)
    yield Vector("embedding.positions", stem.positions * width)
    yield Vector("embedding.per_layer", stem.per_layer_rows * stem.per_layer_width)
    yield Vector("embedding.norm", stem.embedding_norm * width)
    if stem.d_embedding is not None:
        yield Matrix("embedding.project_in", width, d_model)
        yield Matrix("embedding.project_out", d_model, width)
    yield Vector("final_norm", stem.final_norm * d_model)
    if stem.has_head and not stem.tied:
        yield Matrix("head", width, stem.vocab_size)
    if stem.has_head and stem.head_bias:
        yield Vector("head.bias", stem.vocab_size)
    yield from _projections("stem", stem.projections)
    yield from _extra("stem", stem.extra)


def head_matrix(stem: Stem, d_model: Any) -> Matrix | None:
    """The multiplication by the output head, tied or not."""
    width = d_model if stem.d_embedding is None else stem.d_embedding
    return Matrix("head", width, stem.vocab_size) if stem.has_head else None


def _extra(prefix: str, extra: Extra) -> Iterator[Vector]:
    for name, parameters in extra:
        yield Vector(f"{prefix}.{name}", parameters)


def _projections(prefix: str, projections: Projections) -> Iterator[Matrix]:
    for name, inputs, outputs in projections:
        yield Matrix(f"{prefix}.{name}", inputs, outputs)


@singledispatch
def part_weights(part: Any, d_model: Any) -> Iterator[Weight]:
    """The weights of one mixer or feed-forward block in a model of that width."""
    raise TypeError(f"no layout for {type(part).__name__}")


@part_weights.register
def _attention(a: Attention, d_model: Any) -> Iterator[Weight]:
    width = d_model if a.d_in is None else a.d_in
    q, k, v = a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim, a.n_kv_heads * a.v_head_dim
    out = a.n_heads * a.v_head_dim
    if not a.routed:
        yield Matrix("attention.q", width, q, bias=q if "q" in a.bias else 0)
    if not a.shares_cache:
        yield Matrix("attention.k", width, k, bias=k if "k" in a.bias else 0)
        if not a.v_is_k:
            yield Matrix("attention.v", width, v, bias=v if "v" in a.bias else 0)
    if not a.routed:
        yield Matrix("attention.o", out, d_model, bias=d_model if "o" in a.bias else 0)
    if a.gate != "none":
        gates = out if a.gate == "channel" else a.n_heads
        yield Matrix("attention.gate", width, gates, bias=gates if "g" in a.bias else 0)
    if a.qk_norm == "head":
        # Queries always carry their norm; a layer that borrows keys has no key norm.
        yield Vector("attention.qk_norm", a.head_dim * a.qk_norm_affine * (1 if a.shares_cache else 2))
    elif a.qk_norm == "width":
        yield Vector("attention.qk_norm", (q + (0 if a.shares_cache else k)) * a.qk_norm_affine)
    if a.sinks:
        yield Vector("attention.sinks", a.n_heads)
    yield from _extra("attention", a.extra)


@part_weights.register
def _mla(m: Mla, d_model: Any) -> Iterator[Weight]:
    qk = m.qk_nope_head_dim + m.qk_rope_head_dim
    has_q_rank = 0 + (m.q_lora_rank > 0)  # a number or an array of 0 and 1: one formula for both
    direct = 1 - has_q_rank
    yield Matrix("attention.q", d_model * direct, m.n_heads * qk)
    yield Matrix("attention.q_down", d_model, m.q_lora_rank, bias=m.q_lora_rank if m.bias else 0)
    yield Vector("attention.q_down_norm", m.q_lora_rank)
    # A gate that comes with the query reads the compressed query twice: before and after its norm.
    q_inputs = m.q_lora_rank * (2 if m.gate == "query" else 1)
    yield Matrix("attention.q_up", q_inputs, m.n_heads * qk)
    if m.gate != "none":
        yield Matrix("attention.gate", q_inputs if m.gate == "query" else d_model, m.n_heads * m.v_head_dim)
    down = m.kv_lora_rank + m.qk_rope_head_dim
    yield Matrix("attention.kv_down", d_model, down, bias=down if m.bias else 0)
    yield Vector("attention.kv_down_norm", m.kv_lora_rank)
    yield Matrix("attention.kv_up", m.kv_lora_rank, m.n_heads * (m.qk_nope_head_dim + m.v_head_dim))
    yield Matrix("attention.o", m.n_heads * m.v_head_dim, d_model, bias=d_model if m.bias else 0)
    if m.sinks:
        yield Vector("attention.sinks", m.n_heads)
    if m.indexer is not None and not m.indexer_shared:
        yield from _indexer(m.indexer, m.q_lora_rank, d_model)
        yield Matrix("indexer.k", d_model, m.indexer.head_dim)
        yield Vector("indexer.k_norm", 2 * m.indexer.head_dim)
    yield from _extra("attention", m.extra)


def _indexer(i: Indexer, q_lora_rank: Any, d_model: Any) -> Iterator[Weight]:
    """What every indexer has: queries from the compressed query, and one weight per indexer head."""
    yield Matrix("indexer.q", q_lora_rank, i.n_heads * i.head_dim)
    yield Matrix("indexer.weights", d_model, i.n_heads)


@part_weights.register
def _compressed(c: Compressed, d_model: Any) -> Iterator[Weight]:
    q = c.n_heads * c.head_dim
    yield Matrix("attention.q_down", d_model, c.q_lora_rank)
    yield Vector("attention.q_down_norm", c.q_lora_rank)
    yield Matrix("attention.q_up", c.q_lora_rank, q)
    yield Matrix("attention.kv", d_model, c.head_dim)
    yield Vector("attention.kv_norm", c.head_dim)
    yield Matrix("attention.o_down", q // c.o_groups, c.o_lora_rank, copies=c.o_groups, active=c.o_groups)
    yield Matrix("attention.o_up", c.o_groups * c.o_lora_rank, d_model)
    yield Vector("attention.sinks", c.n_heads)
    yield from _compressor("compressor", c, c.head_dim, d_model)
    if c.indexer is not None:
        yield from _indexer(c.indexer, c.q_lora_rank, d_model)
        yield from _compressor("indexer", c, c.indexer.head_dim, d_model)
    yield from _extra("attention", c.extra)


def _compressor(prefix: str, c: Compressed, head_dim: Any, d_model: Any) -> Iterator[Weight]:
    """Entries of head_dim from `ratio` tokens each: values, their softmax weights, a bias per place, a norm."""
    compresses = 0 + (c.ratio > 0)  # a number or an array of 0 and 1: one formula for both
    width = head_dim * (2 if c.overlap else 1) * compresses
    yield Matrix(f"{prefix}.kv", d_model, width)
    yield Matrix(f"{prefix}.gate", d_model, width)
    yield Vector(f"{prefix}.position_bias", c.ratio * width)
    yield Vector(f"{prefix}.kv_norm", head_dim * compresses)


@part_weights.register
def _gated_delta(g: GatedDelta, d_model: Any) -> Iterator[Weight]:
    keys, values = g.n_k_heads * g.k_head_dim, g.n_v_heads * g.v_head_dim
    yield Matrix("delta.qkv", d_model, 2 * keys + values)
    yield Matrix("delta.beta", d_model, g.n_v_heads)
    if g.decay == "head":
        yield Matrix("delta.gate", d_model, values)
        yield Matrix("delta.decay", d_model, g.n_v_heads)
        yield Vector("delta.decay", 2 * g.n_v_heads)
    else:
        yield Matrix("delta.gate", d_model, g.v_head_dim)
        yield Matrix("delta.gate", g.v_head_dim, values)
        yield Matrix("delta.decay", d_model, g.k_head_dim)
        yield Matrix("delta.decay", g.k_head_dim, g.n_v_heads * g.k_head_dim)
        yield Vector("delta.decay", g.n_v_heads * g.k_head_dim + g.n_v_heads)
    yield Vector("delta.conv", (2 * keys + values) * g.conv_kernel)
    yield Vector("delta.norm", g.v_head_dim)
    yield Matrix("delta.o", values, d_model)
    yield from _extra("delta", g.extra)


@part_weights.register
def _mamba2(m: Mamba2, d_model: Any) -> Iterator[Weight]:
    inner = m.n_heads * m.head_dim
    conv = inner + 2 * m.n_groups * m.d_state
    projected = inner + conv + m.n_heads
    yield Matrix("ssm.in", d_model, projected, bias=projected if "i" in m.bias else 0)
    yield Vector("ssm.conv", conv * (m.conv_kernel + (1 if m.conv_bias else 0)))
    yield Vector("ssm.decay", 3 * m.n_heads)
    if m.norm:
        yield Vector("ssm.norm", inner)
    yield Matrix("ssm.out", inner, d_model, bias=d_model if "o" in m.bias else 0)
    yield from _extra("ssm", m.extra)


@part_weights.register
def _mamba1(m: Mamba1, d_model: Any) -> Iterator[Weight]:
    yield Matrix("ssm.in", d_model, 2 * m.d_inner, bias=2 * m.d_inner if "i" in m.bias else 0)
    yield Vector("ssm.conv", m.d_inner * (m.conv_kernel + (1 if m.conv_bias else 0)))
    yield Matrix("ssm.x", m.d_inner, m.dt_rank + 2 * m.d_state)
    yield Matrix("ssm.dt", m.dt_rank, m.d_inner, bias=m.d_inner)
    yield Vector("ssm.decay", m.d_inner * m.d_state + m.d_inner)
    if m.inner_norms:
        yield Vector("ssm.inner_norms", m.dt_rank + 2 * m.d_state)
    yield Matrix("ssm.out", m.d_inner, d_model, bias=d_model if "o" in m.bias else 0)
    yield from _extra("ssm", m.extra)


@part_weights.register
def _recurrent(r: Recurrent, d_model: Any) -> Iterator[Weight]:
    for name, inputs, outputs in r.projections:
        yield Matrix(f"{r.kind}.{name}", inputs, outputs)
    yield from _extra(r.kind, r.vectors)


@part_weights.register
def _dense(d: Dense, d_model: Any) -> Iterator[Weight]:
    up = 2 if d.gated else 1
    yield Matrix("ffn.up", d_model, up * d.d_ff, bias=up * d.d_ff if d.bias else 0)
    yield Matrix("ffn.down", d.d_ff, d_model, bias=d_model if d.bias else 0)
    yield from _extra("ffn", d.extra)


@part_weights.register
def _moe(m: Moe, d_model: Any) -> Iterator[Weight]:
    up = 2 if m.gated else 1
    on_latent = 0 + (m.d_latent > 0)
    width = m.d_latent + (1 - on_latent) * d_model
    choices = m.n_experts + m.n_identity
    yield Matrix("moe.router", d_model, choices, bias=choices if m.router_bias else 0)
    yield Matrix("moe.latent", d_model, 2 * m.d_latent)
    yield Matrix("moe.up", width, up * m.d_expert, bias=up * m.d_expert if m.bias else 0, copies=m.n_experts, active=m.n_active)
    yield Matrix("moe.down", m.d_expert, width, bias=width if m.bias else 0, copies=m.n_experts, active=m.n_active)
    yield Matrix("moe.identity_up", width, up * m.d_expert, copies=m.n_identity, active=0)
    yield Matrix("moe.shared_up", d_model, up * m.d_shared)
    yield Matrix("moe.shared_down", m.d_shared, d_model)
    if m.shared_gate:
        yield Matrix("moe.shared_gate", d_model, 1)
    yield from _extra("moe", m.extra)

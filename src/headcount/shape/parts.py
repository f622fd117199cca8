"""The parts that a transformer is made of, as plain numbers.

A part says *what is there*: how many heads, how wide, which projections carry a bias. What the parts cost is decided in `cost/`,
which must not be known here. Every part has two kinds of fields: **counts**, which are ints for one model and float64 arrays for a
table of models, and **switches** (strings, bools), which are the same for all rows of a table group.

head_dim is a count of its own in every part that has heads; nothing here derives it from a width.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, Union

import numpy as np
import numpy.typing as npt

Count: TypeAlias = Union[int, npt.NDArray[np.float64]]
"""An exact Python int (one model) or a float64 array (one value per row of a table)."""

Extra: TypeAlias = tuple[tuple[str, Count], ...]
"""Named parameters that no field describes, counted as they stand: (("lambda", 256),)."""

Projections: TypeAlias = tuple[tuple[str, Count, Count], ...]
"""Matrices that every token is multiplied by and that no field describes: (name, inputs, outputs)."""


def is_count(value: object) -> bool:
    """True for what may vary from row to row of a table: ints and arrays, but not bools."""
    return isinstance(value, np.ndarray) or (isinstance(value, int) and not isinstance(value, bool))


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Softmax attention with stored keys and values: MHA, GQA and MQA.

    Source: Vaswani et al. 2017 (arXiv:1706.03762); grouped heads: Ainslie et al. 2023 (arXiv:2305.13245).
    """

    n_heads: Count
    n_kv_heads: Count
    head_dim: Count
    """Channels of one query and one key."""
    v_head_dim: Count
    """Channels of one value; nearly always head_dim."""
    reach: Literal["full", "sliding", "chunked"] = "full"
    window: Count = 0
    """Tokens that a query sees, itself among them, when `reach` is sliding; tokens of a chunk when it is chunked."""
    bias: str = ""
    """Which projections add a bias: any of the letters q, k, v, o, and g for the gate."""
    qk_norm: Literal["none", "head", "width"] = "none"
    """Normalised queries and keys: one weight per channel of a head, shared by the heads, or one per projected channel."""
    qk_norm_affine: Count = 1
    """Parameters per normalised channel: 0 none, 1 scale (RMSNorm), 2 scale and shift (LayerNorm)."""
    sinks: bool = False
    """One learned logit per query head that takes part in the softmax (gpt-oss)."""
    gate: Literal["none", "channel", "head"] = "none"
    """A projected gate on the output: one value per channel, or one per head."""
    v_is_k: bool = False
    """Values reuse the key projection; the cache still stores both."""
    shares_cache: bool = False
    """Keys and values are those of an earlier layer: no projections, no cache of its own."""
    routed: bool = False
    """Queries and outputs are projected by experts, which stand as a Moe of the layer (JetMoe): no q and o matrices here."""
    cache_repeats_kv: bool = False
    """transformers caches keys and values repeated for every query head (grouped Falcon); engines do not."""
    d_in: Count | None = None
    """Input width where it is not d_model (Zamba concatenates the embedding)."""
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class Indexer:
    """The small scorer that picks which tokens sparse attention reads (DeepSeek-V3.2, arXiv:2512.02556)."""

    n_heads: Count
    head_dim: Count
    top_k: Count
    """Tokens that attention then reads."""


@dataclass(frozen=True, kw_only=True)
class Mla:
    """Multi-head latent attention: the cache holds one compressed vector per token (DeepSeek-V2, arXiv:2405.04434)."""

    n_heads: Count
    q_lora_rank: Count
    """Width of the compressed query; 0 where the query is projected directly."""
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    v_head_dim: Count
    bias: bool = False
    """Bias on the two down-projections and the output; a query that is projected directly has none."""
    gate: Literal["none", "input", "query"] = "none"
    """A gate per value channel: projected from the layer's input (HY V4), or together with the query from the compressed query before
    and after its norm (A.X K2)."""
    sinks: bool = False
    """One learned logit per query head that takes part in the softmax."""
    indexer: Indexer | None = None
    indexer_shared: bool = False
    """The layer reads the indexer result of an earlier layer: no indexer weights, no indexer cache."""
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class GatedDelta:
    """Gated delta rule, a linear attention with a matrix as state (Yang et al. 2024, arXiv:2412.06464; Qwen3-Next, Qwen3.5)."""

    n_k_heads: Count
    n_v_heads: Count
    k_head_dim: Count
    v_head_dim: Count
    conv_kernel: Count
    decay: Literal["head", "channel"] = "head"
    """One decay per value head; or one per key channel, when decay and output gate are projected through a bottleneck as wide as one
    head (Kimi Delta Attention, arXiv:2510.26692)."""
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class Mamba2:
    """State-space layer with scalar decay per head (Dao and Gu 2024, arXiv:2405.21060)."""

    n_heads: Count
    head_dim: Count
    n_groups: Count
    d_state: Count
    conv_kernel: Count
    conv_bias: bool = True
    bias: str = ""
    """Which projections add a bias: any of the letters i (input), o (output)."""
    norm: bool = True
    """Gated RMSNorm before the output projection."""
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class Mamba1:
    """Selective state-space layer (Gu and Dao 2023, arXiv:2312.00752)."""

    d_inner: Count
    d_state: Count
    dt_rank: Count
    conv_kernel: Count
    conv_bias: bool = True
    bias: str = ""
    """Which projections add a bias: any of the letters i (input), o (output)."""
    inner_norms: bool = False
    """RMSNorm on dt, B and C (Jamba)."""
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class Recurrent:
    """Any other mixer with a constant state, given by its sizes: short convolution, RG-LRU, lightning attention, RWKV.

    `projections` are (name, inputs, outputs) of matrices applied to every token; `vectors` are (name, parameters) that are not.
    """

    kind: str
    projections: tuple[tuple[str, Count, Count], ...]
    vectors: Extra = ()
    state: Count = 0
    """Elements of recurrent state per sequence, kept in float32."""
    conv_state: Count = 0
    """Elements of convolution state per sequence, kept in the model's dtype; all columns of the kernel, as transformers keeps them."""
    conv_kernel: Count = 0
    """Columns that `conv_state` has; other runtimes keep one less. 0 where the state is needed whole everywhere."""
    flops_per_token: Count = 0
    """Work on the state for one token, outside the projections."""


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """DeepSeek-V4 attention: a window of raw entries beside entries that sum up `ratio` tokens each.

    Source: transformers 5.23 `models/deepseek_v4/modeling_deepseek_v4.py`. One vector of head_dim per entry is key and value at once.
    Three kinds: window only (`ratio` 0), heavily compressed (a ratio), sparse (a ratio, `overlap` and an indexer).
    """

    n_heads: Count
    head_dim: Count
    rope_head_dim: Count
    """Channels of head_dim that carry the position."""
    q_lora_rank: Count
    o_groups: Count
    """Groups of heads, each with an output projection of its own down to o_lora_rank."""
    o_lora_rank: Count
    window: Count
    """Raw tokens that a query sees, itself among them."""
    ratio: Count = 0
    """Tokens per compressed entry; 0 where the layer has only the window."""
    overlap: bool = False
    """An entry also draws on the `ratio` tokens before its own: two series per token, so the compressor is twice as wide."""
    indexer: Indexer | None = None
    """Scores compressed entries, with a compressor of its own at the indexer's head_dim; top_k counts entries, not tokens."""
    extra: Extra = ()


Mixer: TypeAlias = Union[Attention, Mla, GatedDelta, Mamba2, Mamba1, Recurrent, Compressed]


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A feed-forward block: two matrices, or three when gated (Shazeer 2020, arXiv:2002.05202)."""

    d_ff: Count
    gated: bool = True
    bias: bool = False
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class Moe:
    """A mixture of experts: a router sends each token to `n_active` of `n_experts` (Shazeer et al. 2017, arXiv:1701.06538)."""

    n_experts: Count
    n_active: Count
    d_expert: Count
    gated: bool = True
    bias: bool = False
    """Bias on the expert matrices."""
    router_bias: bool = False
    d_shared: Count = 0
    """Width of the experts that every token uses, all together."""
    shared_gate: bool = False
    """A learned scalar gate on the shared expert (Qwen2-MoE)."""
    d_latent: Count = 0
    """Width of the space the routed experts work in, reached by two projections; 0 where it is d_model (Nemotron-3)."""
    correction_bias: bool = False
    """One load-balancing bias per expert, kept as a buffer: on disk, but no parameter."""
    n_identity: Count = 0
    """Further choices of the router that return their input (LongCat). transformers 5.23 allocates an up-projection for each, which is
    never used; they count as parameters because it builds them, and not as active."""
    extra: Extra = ()


Ffn: TypeAlias = Union[Dense, Moe]


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One layer: mixers and feed-forward blocks (either may be absent) and the norms around them."""

    mixers: tuple[Mixer, ...] = ()
    ffns: tuple[Ffn, ...] = ()
    norms: Count = 2
    """Norms of width d_model."""
    norm_affine: Count = 1
    """Parameters per normalised channel: 0 none, 1 scale (RMSNorm), 2 scale and shift (LayerNorm)."""
    projections: Projections = ()
    """Around the parts: gates on norms, mixing of parallel residual streams."""
    borrows_block: bool = False
    """Softmax attention and feed-forward block work with the weights of an earlier layer: nothing is stored again, but each layer has
    a cache of its own (Zamba)."""
    extra: Extra = ()

    @property
    def attention(self) -> Attention | None:
        """The layer's softmax attention over stored keys and values, if it has one."""
        return next((m for m in self.mixers if isinstance(m, Attention)), None)


@dataclass(frozen=True, kw_only=True)
class Stem:
    """What stands before and after the layers: embeddings, final norm, output head."""

    vocab_size: Count
    tied: bool = False
    """The output head is the token embedding transposed; counted once."""
    d_embedding: Count | None = None
    """Width of the token embedding where it is not d_model; two projections connect them."""
    positions: Count = 0
    """Rows of a learned position table."""
    final_norm: Count = 1
    """Parameters per channel of the last norm."""
    per_layer_rows: Count = 0
    """Rows of a second table looked up by token, of which every layer gets a slice (Gemma 3n and 4)."""
    per_layer_width: Count = 0
    """Channels of that table, the slices of all layers together."""
    embedding_norm: Count = 0
    head_bias: bool = False
    has_head: bool = True
    projections: Projections = ()
    """Before the first and after the last layer: merging of parallel streams, the input of per-layer embeddings."""
    extra: Extra = ()


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An encoder of another modality beside the text model. `terms` is None where its code is not understood: then it has no size."""

    name: str
    kind: str
    terms: tuple[tuple[str, Count], ...] | None

    @property
    def parameters(self) -> Count | None:
        """Parameters of the tower and its projector, or None where they are not known."""
        return None if self.terms is None else sum((n for _, n in self.terms), start=0)


def switches(part: Any) -> tuple[Any, ...]:
    """Everything about a part that is not a count, with the counts' places kept: the structure that rows of a table share."""
    return (type(part).__name__, *(_switches_of(getattr(part, f.name)) for f in fields(part)))


def _switches_of(value: Any) -> Any:
    if is_count(value):
        return "#"
    if isinstance(value, tuple):
        return tuple(_switches_of(v) for v in value)
    if hasattr(value, "__dataclass_fields__"):
        return switches(value)
    return value


def counts(part: Any) -> list[Count]:
    """The counts of a part in the order of its fields, those of nested parts in place."""
    return [c for f in fields(part) for c in _counts_of(getattr(part, f.name))]


def _counts_of(value: Any) -> list[Count]:
    if is_count(value):
        return [value]
    if isinstance(value, tuple):
        return [c for v in value for c in _counts_of(v)]
    if hasattr(value, "__dataclass_fields__"):
        return counts(value)
    return []


def with_counts(part: Any, values: list[Count]) -> Any:
    """The same structure with other counts; `values` in the order of `counts`."""
    rest = iter(values)
    return _replace(part, rest)


def _replace(value: Any, rest: Any) -> Any:
    if is_count(value):
        return next(rest)
    if isinstance(value, tuple):
        return tuple(_replace(v, rest) for v in value)
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(**{f.name: _replace(getattr(value, f.name), rest) for f in fields(value)})
    return value

"""Models whose layers are state-space mixers, and the readers of such mixers that hybrid families share.

Mamba, Falcon-Mamba and Mamba-2 have nothing but one mixer and one norm per layer. Zamba and Zamba2 add, in their hybrid layers, a
transformer block whose weights are stored once (or `num_mem_blocks` times) and borrowed by all further hybrid layers; every use keeps a
cache of its own. Source: the modeling files of those names in transformers 5.23.0.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ...errors import Words
from ..fields import Fields
from ..model import ModelShape
from ..parts import Attention, Dense, LayerSpec, Mamba1, Mamba2, Stem
from .registry import family, heads_of, runs

LEGACY_KINDS = {"mamba": "linear_attention", "attention": "full_attention"}
"""Older spellings of layer kinds; transformers renames them when it reads a config."""


def agree(f: Fields, name: str, expected: Any) -> None:
    """Reads a field that says again, or may only say, what is counted anyway; refuses any other value. Absent and null pass."""
    value = f.raw(name, None)
    if value is not None and (value != expected or isinstance(value, bool) != isinstance(expected, bool)):
        raise f.refuse(name, value, Words("{value} here: nothing else is built from such a file", value=str(expected).lower()))


def kinds_of(f: Fields, n_layers: int, otherwise: list[str] | None, allowed: tuple[str, ...], name: str = "layer_types") -> list[str]:
    """One kind per layer from the field `name`, or `otherwise`; older spellings renamed. Raises ConfigError for any other kind."""
    given = f.items(name, None, length=n_layers)
    if given is None and otherwise is None:
        raise f.refuse(name, None, Words("a list of {n_layers} layer kinds", n_layers=n_layers))
    kinds = [LEGACY_KINDS.get(str(kind), str(kind)) for kind in (otherwise if given is None else given) or ()]
    for kind in kinds:
        if kind not in allowed:
            raise f.refuse(name, kind, Words("one of {known} for every layer", known=", ".join(allowed)))
    return kinds


def automatic(f: Fields, name: str, computed: int) -> int:
    """A count that may also be the word "auto": then `computed`."""
    return computed if f.raw(name) in ("auto", None) else f.count(name, minimum=1)


def stem_of(f: Fields, tied: str = "tie_word_embeddings") -> Stem:
    """Embedding, RMSNorm at the end, head."""
    return Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag(tied))


def attention_of(f: Fields, **settings: Any) -> Attention:
    """Softmax attention with its heads under the usual names, and what the family knows of it."""
    known: dict[str, Any] = {**heads_of(f), **settings}
    return Attention(**known)


def letters(*rules: tuple[str, bool]) -> str:
    """Joins the letters whose switch is on."""
    return "".join(letter for letter, on in rules if on)


def mamba2_of(f: Fields, d_inner: int, *, bias: str, norm: bool = True, groups: str = "mamba_n_groups", heads: str = "mamba_n_heads",
              head_dim: str = "mamba_d_head", conv_bias: str = "mamba_conv_bias") -> Mamba2:
    """A Mamba-2 mixer under the field names of Bamba; its heads must fill d_inner exactly. Raises ConfigError."""
    n_heads = f.count(heads, minimum=1)
    width = automatic(f, head_dim, d_inner // n_heads)
    if n_heads * width != d_inner:
        raise f.refuse(
            heads, n_heads, Words("such that {heads} x {head_dim} is {d_inner}", heads=heads, head_dim=head_dim, d_inner=d_inner)
        )
    return Mamba2(
        n_heads=n_heads, head_dim=width, n_groups=f.count(groups, minimum=1), d_state=f.count("mamba_d_state", minimum=1),
        conv_kernel=f.count("mamba_d_conv", minimum=1), conv_bias=f.flag(conv_bias) if conv_bias else True, bias=bias, norm=norm,
    )


def mamba1_of(f: Fields, inner_norms: bool) -> Mamba1:
    """A Mamba mixer under the field names of Jamba."""
    d_model = f.count("hidden_size", minimum=1)
    return Mamba1(
        d_inner=f.count("mamba_expand", minimum=1) * d_model, d_state=f.count("mamba_d_state", minimum=1),
        dt_rank=automatic(f, "mamba_dt_rank", math.ceil(d_model / 16)), conv_kernel=f.count("mamba_d_conv", minimum=1),
        conv_bias=f.flag("mamba_conv_bias"), bias=letters(("io", f.flag("mamba_proj_bias"))), inner_norms=inner_norms,
    )


_PURE_IGNORED = (
    "time_step_scale", "time_step_min", "time_step_max", "time_step_floor", "time_step_limit", "rescale_prenorm_residual",
    "residual_in_fp32", "use_mambapy", "use_falcon_mambapy", "use_associative_scan", "mixer_rms_eps", "fused_add_norm",
    "pad_vocab_size_multiple", "chunk_size", "norm_before_gate",
)


@family("mamba", "falcon_mamba", "mamba2")
def read_pure(f: Fields) -> ModelShape:
    """A stack of Mamba or Mamba-2 mixers."""
    f.ignore(*_PURE_IGNORED)
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    d_inner = f.count("expand", minimum=1) * d_model
    agree(f, "rms_norm", True)
    agree(f, "n_layer", n_layers)
    agree(f, "d_model", d_model)
    mixer = _mamba2(f, d_inner) if f.model_type == "mamba2" else _mamba1(f, d_inner, d_model)
    return ModelShape(d_model=d_model, layers=((n_layers, LayerSpec(mixers=(mixer,), norms=1)),), stem=stem_of(f))


def _mamba1(f: Fields, d_inner: int, d_model: int) -> Mamba1:
    d_inner = f.count("intermediate_size", d_inner, minimum=1)
    agree(f, "d_inner", d_inner)
    return Mamba1(
        d_inner=d_inner, d_state=f.count("state_size", minimum=1), dt_rank=automatic(f, "time_step_rank", math.ceil(d_model / 16)),
        conv_kernel=f.count("conv_kernel", minimum=1), conv_bias=f.flag("use_conv_bias"), bias=letters(("io", f.flag("use_bias"))),
    )


def _mamba2(f: Fields, d_inner: int) -> Mamba2:
    f.ignore("time_step_rank")
    n_heads, head_dim = f.count("num_heads", minimum=1), f.count("head_dim", minimum=1)
    if n_heads * head_dim != d_inner:
        raise f.refuse("num_heads", n_heads, Words("such that num_heads x head_dim is expand x hidden_size = {d_inner}", d_inner=d_inner))
    return Mamba2(
        n_heads=n_heads, head_dim=head_dim, n_groups=f.count("n_groups", minimum=1), d_state=f.count("state_size", minimum=1),
        conv_kernel=f.count("conv_kernel", minimum=1), conv_bias=f.flag("use_conv_bias"), bias=letters(("io", f.flag("use_bias"))),
    )


_ZAMBA_IGNORED = (
    "num_logits_to_keep", "use_mamba_kernels", "use_associative_scan", "time_step_min", "time_step_max", "time_step_floor", "use_mem_rope",
    "use_mem_eff_path", "use_long_context", "chunk_size", "kv_channels", "num_query_groups", "hidden_mamba_act",
)


@family("zamba")
def read_zamba(f: Fields) -> ModelShape:
    """Zamba: one shared transformer block, used wherever the layer kind is hybrid."""
    f.ignore(*_ZAMBA_IGNORED)
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=3)
    period, offset = f.count("attn_layer_period", minimum=1), f.count("attn_layer_offset")
    # The first three layers are fixed; the period counts from the fourth.
    computed = ["linear_attention"] * 2 + ["hybrid"]
    computed += ["hybrid" if i % period == offset else "linear_attention" for i in range(n_layers - 3)]
    kinds = kinds_of(f, n_layers, computed, ("linear_attention", "hybrid"), "layers_block_type")
    mixer = mamba1_of(f, inner_norms=False)
    mamba_heads = f.count("n_mamba_heads", minimum=1)
    if int(mixer.d_inner) % mamba_heads:
        raise f.refuse("n_mamba_heads", mamba_heads, Words("a divisor of mamba_expand x hidden_size = {d_inner}", d_inner=mixer.d_inner))
    block = _zamba_block(f, d_model, Dense(d_ff=f.count("intermediate_size", minimum=1)))
    return _zamba_shape(f, d_model, kinds, mixer, block, n_stored=1)


@family("zamba2")
def read_zamba2(f: Fields) -> ModelShape:
    """Zamba2: `num_mem_blocks` shared blocks in turn; every hybrid layer has low-rank adapters of its own on the shared matrices."""
    f.ignore(*_ZAMBA_IGNORED)
    agree(f, "use_conv_bias", True)
    agree(f, "use_shared_mlp_adapter", True)
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    kinds = kinds_of(f, n_layers, _zamba2_kinds(n_layers), ("linear_attention", "hybrid"), "layers_block_type")
    agree(f, "hybrid_layer_ids", [i for i, kind in enumerate(kinds) if kind == "hybrid"])
    d_inner = f.count("mamba_expand", minimum=1) * d_model
    bias = f.flag("add_bias_linear")
    mixer = mamba2_of(
        f, d_inner, bias=letters(("io", bias)), groups="mamba_ngroups", heads="n_mamba_heads", head_dim="mamba_headdim", conv_bias="",
    )
    d_ff = f.optional("intermediate_size") or 4 * d_model
    agree(f, "ffn_hidden_size", d_ff)
    block = _zamba_block(f, d_model, Dense(d_ff=d_ff, bias=bias))
    block, adapters = _with_adapters(f, block, d_model)
    return _zamba_shape(f, d_model, kinds, mixer, block, n_stored=f.count("num_mem_blocks", minimum=1), adapters=adapters)


def _zamba2_kinds(n_layers: int) -> list[str] | None:
    """The class's own list, which is fixed; for any other length it must be given."""
    hybrid = {6, 12, 18, 24, 30, 36, 42, 47, 51}
    return ["hybrid" if i in hybrid else "linear_attention" for i in range(54)] if n_layers == 54 else None


def _zamba_block(f: Fields, d_model: int, ffn: Dense) -> LayerSpec:
    """The shared block: attention over the layer's input beside the embedding, twice d_model wide."""
    n_heads = f.count("num_attention_heads", minimum=1)
    n_kv_heads = f.optional("num_key_value_heads")
    d_in = f.optional("attention_hidden_size", None) or 2 * d_model
    head_dim = f.optional("attention_head_dim", None) or 2 * d_model // n_heads
    attention = Attention(
        n_heads=n_heads, n_kv_heads=n_heads if n_kv_heads is None else n_kv_heads, head_dim=head_dim, v_head_dim=head_dim, d_in=d_in,
    )
    return LayerSpec(mixers=(attention,), ffns=(ffn,), extra=(("block_norms", d_in + d_model),))


def _with_adapters(f: Fields, block: LayerSpec, d_model: int) -> tuple[LayerSpec, tuple[tuple[str, int, int], ...]]:
    """The block, and the low-rank matrices that each layer adds to its projections."""
    rank = f.count("adapter_rank", minimum=1)
    attention, ffn = block.mixers[0], block.ffns[0]
    assert isinstance(attention, Attention) and isinstance(ffn, Dense)
    found = [("adapter.ffn_down", d_model, rank), ("adapter.ffn_up", rank, 2 * int(ffn.d_ff))]
    if f.flag("use_shared_attention_adapter"):
        width = int(attention.d_in or 0)
        if not int(attention.n_heads) * int(attention.head_dim) == int(attention.n_kv_heads) * int(attention.head_dim) == width:
            raise f.refuse(
                "use_shared_attention_adapter", True, Words("false unless queries, keys and values are all {width} wide", width=width)
            )
        found += [(f"adapter.{name}_{end}", *size) for name in "qkv" for end, size in (("down", (width, rank)), ("up", (rank, width)))]
        # Without parameters of its own, this entry only says that the heads cannot change alone.
        block = replace(block, mixers=(replace(attention, extra=(("adapters", 0),)),))
    return block, tuple(found)


def _zamba_shape(f: Fields, d_model: int, kinds: list[str], mixer: Mamba1 | Mamba2, block: LayerSpec, *, n_stored: int,
                 adapters: tuple[tuple[str, int, int], ...] = ()) -> ModelShape:
    if not f.flag("tie_word_embeddings"):
        raise f.refuse("tie_word_embeddings", False, "true: without it transformers builds every shared block anew, others do not")
    plain = LayerSpec(mixers=(mixer,), norms=1)
    layers, seen = [], 0
    for kind in kinds:
        if kind == "hybrid":
            stored = seen < n_stored
            seen += 1
            layers.append(LayerSpec(
                mixers=(*block.mixers, mixer), ffns=block.ffns, norms=1, projections=(("linear", d_model, d_model), *adapters),
                borrows_block=not stored, extra=block.extra if stored else (),
            ))
        else:
            layers.append(plain)
    return ModelShape(d_model=d_model, layers=runs(layers), stem=stem_of(f))

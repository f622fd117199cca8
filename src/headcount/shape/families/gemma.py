"""Gemma 3n and Gemma 4 text models, and RecurrentGemma.

The first two add a small embedding per layer, let the last layers read the cache of earlier ones, and give full and windowed layers
different heads. Source: the modeling files of those names in transformers 5.23.0. What the counts leave out: buffers (the layer scalar of
Gemma 4). FLOPs leave out Gemma 3n's mixing of its parallel streams by computed coefficients and the second use of its AltUp router.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import Words
from ..fields import Fields
from ..model import ModelShape
from ..parts import Attention, Dense, Ffn, LayerSpec, Mixer, Moe, Recurrent, Stem
from .registry import family, runs, windowed
from .statespace import agree, attention_of, kinds_of, letters

_KINDS = ("sliding_attention", "full_attention")


def _every(period: int, n_layers: int) -> list[str]:
    return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(n_layers)]


def _first_borrower(f: Fields, kinds: list[str]) -> int:
    """Index of the first layer that reads an earlier layer's cache. Raises ConfigError where some kind would have no cache to read."""
    shared = f.count("num_kv_shared_layers")
    first = max(len(kinds) - shared, 0)
    if shared and set(kinds[:first]) != set(kinds):
        raise f.refuse("num_kv_shared_layers", shared, "small enough that every kind of layer stands among those with a cache of their own")
    return first


def _per_layer_stem(f: Fields, n_layers: int, d_model: int) -> Stem:
    """The stem with its embeddings per layer: a table looked up by token, a projection of the usual embedding, one norm."""
    stem = Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"))
    width, rows = f.count("hidden_size_per_layer_input"), f.count("vocab_size_per_layer_input")
    if not width:
        return stem
    return replace(
        stem, per_layer_rows=rows, per_layer_width=n_layers * width, extra=(("per_layer_norm", width),),
        projections=(("per_layer_projection", d_model, n_layers * width),),
    )


def _per_layer_gate(f: Fields, d_model: int) -> tuple[tuple[str, int, int], ...]:
    width = f.count("hidden_size_per_layer_input")
    return (("per_layer_gate", d_model, width), ("per_layer_up", width, d_model)) if width else ()


# -- Gemma 4 ---------------------------------------------------------------------------------------------------------------------------


@family("gemma4_text")
def read_gemma4(f: Fields) -> ModelShape:
    """Gemma 4: full layers with heads of their own, keys that serve as values, a mixture of experts beside the dense block."""
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    if f.text("use_bidirectional_attention") not in (None, "vision"):
        raise f.refuse("use_bidirectional_attention", f.text("use_bidirectional_attention"), '"vision" or null')
    kinds = kinds_of(f, n_layers, _every(6, n_layers), _KINDS)
    kinds[-1] = "full_attention"  # the class forces it
    heads = _gemma4_heads(f, kinds)
    first_borrower = _first_borrower(f, kinds)
    ffns, borrower_ffns = _gemma4_ffns(f, d_model)
    gate = _per_layer_gate(f, d_model)
    norms = 4 + (3 if len(ffns) > 1 else 0) + (1 if gate else 0)
    window = f.count("sliding_window", minimum=1)
    layers = []
    for i, kind in enumerate(kinds):
        sliding, borrows = kind == "sliding_attention", i >= first_borrower
        attention = Attention(
            n_heads=f.count("num_attention_heads", minimum=1), n_kv_heads=heads[i][0], head_dim=heads[i][1], v_head_dim=heads[i][1],
            bias=letters(("qkvo", f.flag("attention_bias"))), qk_norm="head", shares_cache=borrows,
            v_is_k=f.flag("attention_k_eq_v") and not sliding,
        )
        layers.append(LayerSpec(
            mixers=(windowed(attention, window) if sliding else attention,), ffns=borrower_ffns if borrows else ffns, norms=norms,
            projections=gate,
        ))
    return ModelShape(d_model=d_model, layers=runs(layers), stem=_per_layer_stem(f, n_layers, d_model))


def _gemma4_heads(f: Fields, kinds: list[str]) -> list[tuple[int, int]]:
    """(n_kv_heads, head_dim) of every layer: `per_layer_config` as transformers saves it, else the global_ fields of full layers."""
    usual = (f.count("num_key_value_heads", minimum=1), f.count("head_dim", minimum=1))
    heads = [usual] * len(kinds)
    head_dim = f.count("global_head_dim", 512, minimum=1)
    n_kv_heads = f.optional("num_global_key_value_heads", None) if f.flag("attention_k_eq_v") else None
    f.ignore("num_global_key_value_heads")
    overrides = f.raw("per_layer_config", None)
    if overrides is None:
        own = (usual[0] if n_kv_heads is None else n_kv_heads, head_dim)
        return [own if kind == "full_attention" else usual for kind in kinds]
    for i, override in _overrides(f, overrides, len(kinds)):
        heads[i] = (override.get("num_key_value_heads", usual[0]), override.get("head_dim", usual[1]))
    return heads


def _overrides(f: Fields, overrides: Any, n_layers: int) -> list[tuple[int, dict[str, int]]]:
    rule = "an object {layer index: {head_dim, num_key_value_heads}} of whole numbers"
    if not isinstance(overrides, dict):
        raise f.refuse("per_layer_config", overrides, rule)
    for key, override in overrides.items():
        if not (key.isdecimal() and len(key) < 10 and int(key) < n_layers and isinstance(override, dict)):
            raise f.refuse("per_layer_config", {key: override}, rule)
        for name, value in override.items():
            if name not in ("head_dim", "num_key_value_heads") or isinstance(value, bool) or not isinstance(value, int):
                raise f.refuse("per_layer_config", {key: override}, rule)
    return [(int(key), override) for key, override in overrides.items()]


def _gemma4_ffns(f: Fields, d_model: int) -> tuple[tuple[Ffn, ...], tuple[Ffn, ...]]:
    """The blocks of an ordinary layer, and of one that borrows its cache (which may be twice as wide)."""
    dense = Dense(d_ff=f.count("intermediate_size", minimum=1))
    wide = Dense(d_ff=2 * int(dense.d_ff)) if f.flag("use_double_wide_mlp") else dense
    if not f.flag("enable_moe_block"):
        f.ignore("num_experts", "top_k_experts", "moe_intermediate_size", "expert_intermediate_size")
        return (dense,), (wide,)
    n_experts = f.count("num_experts", minimum=1)
    agree(f, "expert_intermediate_size", f.count("moe_intermediate_size", minimum=1))
    moe = Moe(
        n_experts=n_experts, n_active=f.count("top_k_experts", minimum=1), d_expert=f.count("moe_intermediate_size", minimum=1),
        extra=(("router_scale", d_model), ("expert_scale", n_experts)),
    )
    return (dense, moe), (wide, moe)


# -- Gemma 3n --------------------------------------------------------------------------------------------------------------------------


@family("gemma3n_text")
def read_gemma3n(f: Fields) -> ModelShape:
    """Gemma 3n: parallel residual streams (AltUp), a low-rank path beside attention (LAuReL), embeddings per layer."""
    f.ignore("activation_sparsity_pattern", "altup_active_idx", "altup_coef_clip", "altup_correct_scale")
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    kinds = kinds_of(f, n_layers, _every(5, n_layers), _KINDS)
    first_borrower = _first_borrower(f, kinds)
    attention = attention_of(f, bias=letters(("qkvo", f.flag("attention_bias"))), qk_norm="head")
    window = f.count("sliding_window", minimum=1)
    streams, rank = f.count("altup_num_inputs", minimum=1), f.count("laurel_rank", minimum=1)
    projections = (
        ("laurel_down", d_model, rank), ("laurel_up", rank, d_model), ("altup_router", d_model, streams),
        ("altup_predict", streams, streams**2), ("altup_correct", streams, streams), *_per_layer_gate(f, d_model),
    )
    layers = []
    for i, (kind, d_ff) in enumerate(zip(kinds, _widths(f, n_layers), strict=True)):
        own = replace(attention, shares_cache=i >= first_borrower)
        layers.append(LayerSpec(
            mixers=(windowed(own, window) if kind == "sliding_attention" else own,), ffns=(Dense(d_ff=d_ff),),
            # Four around attention and feed-forward, one each for LAuReL, the AltUp router and the embedding per layer.
            norms=7, projections=projections, extra=(("altup_scale", d_model),),
        ))
    stem = _per_layer_stem(f, n_layers, d_model)
    streams_in_and_out = tuple((name, d_model, (streams - 1) * d_model) for name in ("altup_in", "altup_out"))
    stem = replace(stem, projections=(*stem.projections, *streams_in_and_out))
    return ModelShape(d_model=d_model, layers=runs(layers), stem=stem)


def _widths(f: Fields, n_layers: int) -> list[int]:
    """`intermediate_size`: one number, or one per layer."""
    value = f.raw("intermediate_size")
    widths = value if isinstance(value, list) else [value] * n_layers
    if len(widths) != n_layers or not all(isinstance(w, int) and not isinstance(w, bool) and w > 0 for w in widths):
        raise f.refuse("intermediate_size", value, Words("a whole number from 1 up, or a list of {n_layers} of them", n_layers=n_layers))
    return widths


# -- RecurrentGemma --------------------------------------------------------------------------------------------------------------------


@family("recurrent_gemma")
def read_recurrent_gemma(f: Fields) -> ModelShape:
    """RecurrentGemma (Griffin, arXiv:2402.19427): RG-LRU layers, and windowed attention where `block_types`, repeated, says so."""
    f.ignore("logits_soft_cap", "embeddings_scale_by_sqrt_dim", "w_init_variance_scale", "final_w_init_variance_scale")
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    pattern = f.items("block_types") or []
    if not pattern or any(kind not in ("recurrent", "attention") for kind in pattern):
        raise f.refuse("block_types", pattern, "a list of recurrent and attention")
    attention = windowed(
        attention_of(f, bias="o" + letters(("qkv", f.flag("attention_bias")))), f.count("attention_window_size", minimum=1),
    )
    mixers: dict[str, Mixer] = {"recurrent": _rg_lru(f, d_model), "attention": attention}
    # The field counts both halves of the gated block together.
    ffn = Dense(d_ff=f.count("intermediate_size", minimum=2) // 2, bias=True)
    layers = [LayerSpec(mixers=(mixers[pattern[i % len(pattern)]],), ffns=(ffn,)) for i in range(n_layers)]
    stem = Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"))
    return ModelShape(d_model=d_model, layers=runs(layers), stem=stem)


def _rg_lru(f: Fields, d_model: int) -> Recurrent:
    width = f.optional("lru_width")
    width = d_model if width is None else width
    blocks, kernel = f.count("num_attention_heads", minimum=1), f.count("conv1d_width", minimum=1)
    if width % blocks:
        raise f.refuse("lru_width", width, Words("a multiple of num_attention_heads={blocks}", blocks=blocks))
    # The two gates are block-diagonal: one square matrix per head.
    gates = tuple((name, width, width // blocks) for name in ("input_gate", "recurrence_gate"))
    return Recurrent(
        kind="rg_lru", projections=(("y", d_model, width), ("x", d_model, width), *gates, ("o", width, d_model)),
        vectors=(("biases", 4 * width + d_model), ("conv", width * (kernel + 1)), ("decay", width)),
        state=width, conv_state=width * (kernel - 1), flops_per_token=2 * width * (kernel + 1),
    )

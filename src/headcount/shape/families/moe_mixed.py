"""Mixture-of-experts decoders that a recipe alone does not describe, mostly because their layers differ in heads or kind of attention.

Each reader here builds the mixers of its family and leaves the rest to `moe.assemble`. Where stock transformers ignores a field of
published files and builds something of its own, the field is read all the same and refused where the two would differ: the counts
below are those of the model that is built. Source: the files of that name in transformers 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...errors import Words
from ..fields import Fields
from ..model import ModelShape
from ..parts import Attention, LayerSpec, Mixer, Moe, Recurrent, Stem
from .moe import (
    RECIPES, Recipe, aliased, all_full, assemble, attention_of, by_layer_types, by_mlp_types, demand, full_where, listed_kinds, read_recipe,
    whole_numbers,
)
from .registry import family, windowed

_IGNORED_BY_CODE = "transformers ignores this field and builds that"


# -- OLMoE: norms of queries and keys as wide as the model ------------------------------------------------------------------------


@family("olmoe")
def read_olmoe(f: Fields) -> ModelShape:
    """OLMoE: as FlexOlmo, but its norms have the width of the model, so heads of another width cannot run."""
    f.ignore("clip_qkv")
    head_dim, d_model, n_heads = f.optional("head_dim"), f.count("hidden_size", minimum=1), f.count("num_attention_heads", minimum=1)
    if head_dim is not None and head_dim * n_heads != d_model:
        rule = Words("hidden_size / num_attention_heads = {d_model} / {n_heads} in this family", d_model=d_model, n_heads=n_heads)
        raise f.refuse("head_dim", head_dim, rule)
    return read_recipe(f, RECIPES["flex_olmo"])


# -- Llama 4: chunks, and layers without positions --------------------------------------------------------------------------------


def _llama4_sparse(f: Fields, n_layers: int) -> list[bool]:
    listed = whole_numbers(f, "moe_layers")
    if listed is not None:
        f.ignore("interleave_moe_layer_step")
        return [i in listed for i in range(n_layers)]
    step = f.count("interleave_moe_layer_step", minimum=1)
    return [(i + 1) % step == 0 for i in range(n_layers)]


_LLAMA4 = Recipe(
    bias="qkvo@attention_bias", sparse=_llama4_sparse, experts=("num_local_experts",), shared="intermediate_size",
    d_ff="intermediate_size_mlp",
    ignored=("floor_scale", "attn_temperature_tuning", "no_rope_layer_interval"),
)


@family("llama4_text")
def read_llama4(f: Fields) -> ModelShape:
    """Llama 4: layers with rotary positions see their chunk only, the others everything; experts in every n-th layer."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    rotary = _rotary_layers(f, n_layers)
    kinds = listed_kinds(
        f, n_layers, lambda f, n: ["chunked_attention" if r else "full_attention" for r in rotary], ("full_attention", "chunked_attention"),
    )
    chunk = f.optional("attention_chunk_size")
    if "chunked_attention" in kinds and not chunk:
        raise f.refuse("attention_chunk_size", chunk, "at least 1 where layers are chunked")
    full = attention_of(f, _LLAMA4)
    # Queries and keys are divided by their length, without a weight, and only where they are rotated.
    normed = replace(full, qk_norm="head", qk_norm_affine=0) if f.flag("use_qk_norm") else full
    heads = [normed if r else full for r in rotary]
    return assemble(f, _LLAMA4, [
        windowed(head, chunk, "chunked") if kind == "chunked_attention" else head for head, kind in zip(heads, kinds, strict=True)
    ])


def _rotary_layers(f: Fields, n_layers: int) -> list[bool]:
    # The field's name says the opposite of its content: 1 stands for a layer with rotary positions.
    listed = f.items("no_rope_layers", None)
    if not listed:
        period = f.count("no_rope_layer_interval", minimum=1)
        return [(i + 1) % period != 0 for i in range(n_layers)]
    if len(listed) != n_layers:
        raise f.refuse("no_rope_layers", listed, Words("a list of {n_layers} items", n_layers=n_layers))
    return [bool(item) for item in listed]


# -- MiMo-V2: twice the KV heads and sinks in windowed layers ---------------------------------------------------------------------

_MIMO = Recipe(
    bias="qkv@attention_bias", experts=("n_routed_experts", "num_local_experts"), d_expert="moe_intermediate_size", correction="buffer",
    sparse=by_mlp_types(lambda f, n: 1), silent_mtp=True, ignored=("attention_value_scale", "swa_rope_theta", "attention_chunk_size"),
)


@family("mimo_v2_flash")
def read_mimo_v2(f: Fields) -> ModelShape:
    """MiMo-V2-Flash: one full layer, then five windowed ones to one full; values narrower than keys."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    kinds = listed_kinds(f, n_layers, full_where(lambda i: i == 0 or (i + 1) % 6 == 0), ("full_attention", "sliding_attention"))
    full = replace(attention_of(f, _MIMO), v_head_dim=f.count("v_head_dim", minimum=1))
    n_kv_local = 2 * int(full.n_kv_heads)
    # The class adds one: `sliding_window_size` counts the tokens before the query, `sliding_window` the query as well.
    before = f.optional("sliding_window_size", None)
    window = f.count("sliding_window", minimum=1) if before is None else before + 1
    f.ignore("sliding_window")
    local = windowed(replace(full, n_kv_heads=n_kv_local, sinks=True), window)
    built = {
        "swa_num_attention_heads": full.n_heads, "swa_num_key_value_heads": n_kv_local, "swa_head_dim": full.head_dim,
        "swa_v_head_dim": full.v_head_dim, "hybrid_layer_pattern": [int(kind == "sliding_attention") for kind in kinds],
        "moe_layer_freq": [int(here) for here in _MIMO.sparse(f, n_layers)], "n_shared_experts": 0,
        "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
    }
    for name, value in built.items():
        demand(f, name, value, _IGNORED_BY_CODE)
    return assemble(f, _MIMO, [local if kind == "sliding_attention" else full for kind in kinds])


# -- Step 3.5 and Laguna: gated heads, other numbers of heads in some layers ------------------------------------------------------


def _step_sparse(f: Fields, n_layers: int) -> list[bool]:
    kinds = _without_mtp(f, "mlp_layer_types", n_layers)
    if kinds is not None:
        f.ignore("moe_layers_enum")
        return [_one_of(f, "mlp_layer_types", kind, ("dense", "sparse")) == "sparse" for kind in kinds]
    listed = f.raw("moe_layers_enum", None)
    if listed is None:
        return [i >= 3 for i in range(n_layers)]
    items = listed.split(",") if isinstance(listed, str) else listed
    if not isinstance(items, list) or not all(str(item).strip().isdecimal() for item in items if str(item).strip()):
        raise f.refuse("moe_layers_enum", listed, "layer numbers with commas between them")
    sparse = {int(item) for item in items if str(item).strip()}
    return [i in sparse for i in range(n_layers)]


def _without_mtp(f: Fields, name: str, n_layers: int) -> list[Any] | None:
    """A list with one item per layer; published ones go on with the multi-token-prediction layers, which are dropped."""
    values = f.items(name, None)
    padded = n_layers + (f.optional("num_nextn_predict_layers", 0) or 0)
    if values is not None and len(values) not in (n_layers, padded):
        rule = Words("a list of {n_layers} items, or of {padded} with those of multi-token prediction", n_layers=n_layers, padded=padded)
        raise f.refuse(name, values, rule)
    return None if values is None else values[:n_layers]


def _one_of(f: Fields, name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise f.refuse(name, value, Words("one of {known} for every layer", known=", ".join(known)))
    return str(value)


def _gate(f: Fields, element: str) -> str:
    """`gating`: true or per-head is one gate per head, per-element one per channel."""
    value = f.raw("gating", True)
    if value is True or value == "per-head":
        return "head"
    if value == element:
        return "channel"
    raise f.refuse("gating", value, Words("true, per-head or {element}", element=element))


_STEP = Recipe(
    bias="qkvo@attention_bias", mlp_bias="@mlp_bias", qk_norm="head", experts=("n_routed_experts", "moe_num_experts"),
    top_k="num_experts_per_tok moe_top_k", d_expert="moe_intermediate_size", shared="share_expert_dim", correction="buffer",
    sparse=_step_sparse,
    ignored=(
        "swiglu_limits", "swiglu_limits_shared", "moe_router_scaling_factor", "partial_rotary_factors", "mtp_layer_types",
        "mtp_mlp_layer_types", "use_rope_layers", "yarn_only_types", "norm_expert_weight", "need_fp32_gate", "zero_centered",
    ),
    demanded=(("use_moe", True), ("use_qk_norm", True), ("use_head_wise_attn_gate", True), ("use_moe_router_bias", True), ("sink", False)),
)


@family("step3p5")
def read_step3p5(f: Fields) -> ModelShape:
    """Step 3.5: gated heads with normalised queries and keys; windowed layers may have another number of query heads."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    for names in (("num_key_value_heads", "num_attention_groups"), ("share_expert_dim", "share_expert_dims")):
        aliased(f, *names)
    # Not a name that the class knows: with it alone the class would build its default.
    demand(f, "num_experts", aliased(f, *_STEP.experts), _IGNORED_BY_CODE)
    kinds = _without_mtp(f, "layer_types", n_layers) or all_full(f, n_layers)
    full = replace(attention_of(f, _STEP), gate=_gate(f, "per-element"))  # type: ignore[arg-type]
    local = full
    if any(_one_of(f, "layer_types", kind, ("full_attention", "sliding_attention")) == "sliding_attention" for kind in kinds):
        local = windowed(replace(full, n_heads=_sliding_heads(f, full)), f.count("sliding_window", minimum=1))
    f.ignore("sliding_window", "num_sliding_attention_heads", "attention_other_setting")
    return assemble(f, _STEP, [local if kind == "sliding_attention" else full for kind in kinds])


def _sliding_heads(f: Fields, full: Attention) -> int:
    heads = f.optional("num_sliding_attention_heads")
    other = f.child("attention_other_setting", f.model_type)
    if other is None or heads is not None:
        return int(full.n_heads) if heads is None else heads
    for name, built in (("num_key_value_heads", full.n_kv_heads), ("head_dim", full.head_dim), ("true_head_dim", full.head_dim)):
        demand(other, name, built, _IGNORED_BY_CODE)
    return other.count("num_attention_heads", full.n_heads, minimum=1)


_LAGUNA = Recipe(
    bias="qkvo@attention_bias", qk_norm="head", experts=("num_experts",), d_expert="moe_intermediate_size",
    shared="shared_expert_intermediate_size", correction="parameter", windows=by_layer_types(all_full), sparse=by_mlp_types(lambda f, n: 1),
    ignored=("moe_routed_scaling_factor", "moe_router_logit_softcapping"), demanded=(("moe_apply_router_weight_on_input", False),),
)


@family("laguna")
def read_laguna(f: Fields) -> ModelShape:
    """Laguna: gated heads, their number given layer by layer."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    attention = replace(attention_of(f, _LAGUNA), gate=_gate(f, "per-element"))  # type: ignore[arg-type]
    heads = whole_numbers(f, "num_attention_heads_per_layer") or [int(attention.n_heads)] * n_layers
    if len(heads) != n_layers:
        raise f.refuse("num_attention_heads_per_layer", heads, Words("a list of {n_layers} items", n_layers=n_layers))
    windows = _LAGUNA.windows(f, n_layers)
    return assemble(f, _LAGUNA, [windowed(replace(attention, n_heads=n), window) for n, window in zip(heads, windows, strict=True)])


# -- MiniMax-01: lightning attention between softmax layers -----------------------------------------------------------------------

_MINIMAX = Recipe(
    ignored=(
        "block_size", "full_attn_alpha_factor", "full_attn_beta_factor", "linear_attn_alpha_factor", "linear_attn_beta_factor",
        "mlp_alpha_factor", "mlp_beta_factor",
    ),
)


@family("minimax")
def read_minimax(f: Fields) -> ModelShape:
    """MiniMax-01: linear attention with a fixed decay per head, and softmax attention in the layers that `layer_types` names."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    # The mask would follow a window, the cache of this class would not: neither count could be right for both.
    if f.optional("sliding_window") is not None:
        raise f.refuse("sliding_window", f.raw("sliding_window"), "null in this family")
    full = attention_of(f, _MINIMAX)
    lightning = _lightning(f.count("hidden_size", minimum=1), int(full.n_heads), int(full.head_dim))
    kinds = listed_kinds(f, n_layers, _alternating, ("full_attention", "linear_attention"))
    return assemble(f, _MINIMAX, [full if kind == "full_attention" else lightning for kind in kinds])


def _alternating(f: Fields, n_layers: int) -> list[str]:
    return ["linear_attention" if i % 2 else "full_attention" for i in range(n_layers)]


def _lightning(d_model: int, n_heads: int, head_dim: int) -> Mixer:
    width = n_heads * head_dim
    state = width * head_dim
    return Recurrent(
        kind="lightning",
        projections=(("qkv", d_model, 3 * width), ("gate", d_model, width), ("o", width, d_model)),
        vectors=(("norm", width),),
        # One matrix per head, and unlike other recurrent state in the model's dtype: with bf16 weights the cache holds bf16.
        conv_state=state,
        # Adding k x v to the state and reading it with q.
        flops_per_token=4 * state,
    )


# -- Hunyuan: top-k layer by layer ------------------------------------------------------------------------------------------------

_HUNYUAN = Recipe(
    bias="qkvo@attention_bias", qk_norm="head", experts=("num_experts", "num_local_experts"), top_k="moe_topk", shared="intermediate_size",
    ignored=("cla_share_factor",),
    demanded=(("use_qk_norm", True), ("use_cla", False), ("use_mixed_mlp_moe", True), ("moe_layer_num_skipped", 0)),
)


@family("hunyuan_v1_moe")
def read_hunyuan(f: Fields) -> ModelShape:
    """Hunyuan: experts as wide as the one shared block, in every layer; how many are used may be listed layer by layer."""
    n_layers = f.count("num_hidden_layers", minimum=1)
    d_ff = f.count("intermediate_size", minimum=1)
    attention = attention_of(f, _HUNYUAN)
    demand(f, "attention_head_dim", attention.head_dim, "another name for head_dim")
    for name, built in (("moe_intermediate_size", d_ff), ("num_shared_expert", 1)):
        value = f.raw(name, None)
        demand(f, name, [built] * n_layers if isinstance(value, list) else built, _IGNORED_BY_CODE)
    used = whole_numbers(f, "moe_topk") if isinstance(f.raw("moe_topk"), list) else None
    if used is not None and len(used) != n_layers:
        raise f.refuse("moe_topk", used, Words("one number, or a list of {n_layers}", n_layers=n_layers))
    return assemble(f, _HUNYUAN, [attention] * n_layers, used)


# -- JetMoE: experts that project the queries and collect the outputs -------------------------------------------------------------


@family("jetmoe")
def read_jetmoe(f: Fields) -> ModelShape:
    """JetMoE: every expert holds one set of query heads, as many as there are KV heads; a token uses the sets of its experts."""
    d_model = f.count("hidden_size", minimum=1)
    n_experts = f.count("num_local_experts", minimum=1)
    top_k = f.count("num_experts_per_tok", minimum=1)
    n_kv_heads = f.count("num_key_value_heads", minimum=1)
    head_dim = f.count("kv_channels", minimum=1)
    demand(f, "num_attention_heads", n_kv_heads * top_k, "num_key_value_heads x num_experts_per_tok")
    bias = (("bias", d_model),)
    layer = LayerSpec(
        mixers=(
            # Other heads would mean other experts: the entry in `extra` keeps them from being changed apart.
            Attention(n_heads=n_kv_heads * top_k, n_kv_heads=n_kv_heads, head_dim=head_dim, v_head_dim=head_dim, routed=True, extra=bias),
        ),
        ffns=(
            Moe(n_experts=n_experts, n_active=top_k, d_expert=n_kv_heads * head_dim, gated=False),
            Moe(n_experts=n_experts, n_active=top_k, d_expert=f.count("intermediate_size", minimum=1), extra=bias),
        ),
    )
    return ModelShape(
        d_model=d_model,
        layers=((f.count("num_hidden_layers", minimum=1), layer),),
        stem=Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings")),
    )

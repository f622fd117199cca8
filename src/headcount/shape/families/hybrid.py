"""Hybrids: layers of softmax attention among layers with a constant state.

Qwen3-Next and Qwen3.5 (gated delta rule), Olmo-Hybrid, Kimi-Linear, Nemotron-H, Jamba, Bamba, Granite 4, Falcon-H1, LFM2. Source: the
modeling files of those names in transformers 5.23.0. Recurrent state is taken to be float32, as transformers keeps it; a file that asks
for another type is refused.
"""

from __future__ import annotations

from dataclasses import replace

from ...errors import Words
from ..fields import Fields
from ..model import Groups, ModelShape
from ..parts import Dense, Ffn, GatedDelta, LayerSpec, Mamba2, Mixer, Mla, Moe, Recurrent
from .registry import family, runs
from .statespace import agree, attention_of, kinds_of, letters, mamba1_of, mamba2_of, stem_of

_KINDS = ("linear_attention", "full_attention")
_UNUSED = (
    "num_logits_to_keep", "use_mamba_kernels", "mamba_chunk_size", "time_step_limit", "time_step_min", "time_step_max", "time_step_floor",
    "time_step_rank", "z_loss_coefficient",
)


def _mtp(f: Fields, name: str) -> Groups | None:
    """No such layers, or layers that the checkpoint has and transformers does not build: unknown."""
    return None if f.count(name, 0) else ()


def _biases(f: Fields) -> str:
    return letters(("qkvo", f.flag("attention_bias")))


# -- gated delta rule -----------------------------------------------------------------------------------------------------------------


@family("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
def read_qwen_hybrid(f: Fields) -> ModelShape:
    """Qwen3-Next and the text models of Qwen3.5."""
    agree(f, "attn_output_gate", True)
    agree(f, "mamba_ssm_dtype", "float32")
    f.ignore("mtp_use_dedicated_embeddings")
    n_layers = f.count("num_hidden_layers", minimum=1)
    period = f.count("full_attention_interval", 4, minimum=1)
    kinds = kinds_of(f, n_layers, ["linear_attention" if (i + 1) % period else "full_attention" for i in range(n_layers)], _KINDS)
    attention = attention_of(f, bias=letters(("qkvog", f.flag("attention_bias"))), qk_norm="head", gate="channel")
    mixers: dict[str, Mixer] = {"full_attention": attention, "linear_attention": _gated_delta(f)}
    layers = [LayerSpec(mixers=(mixers[kind],), ffns=(ffn,)) for kind, ffn in zip(kinds, _qwen_ffns(f, n_layers), strict=True)]
    return ModelShape(
        d_model=f.count("hidden_size", minimum=1), layers=runs(layers), stem=stem_of(f), mtp=_mtp(f, "mtp_num_hidden_layers"),
    )


def _gated_delta(f: Fields) -> GatedDelta:
    return GatedDelta(
        n_k_heads=f.count("linear_num_key_heads", minimum=1), n_v_heads=f.count("linear_num_value_heads", minimum=1),
        k_head_dim=f.count("linear_key_head_dim", minimum=1), v_head_dim=f.count("linear_value_head_dim", minimum=1),
        conv_kernel=f.count("linear_conv_kernel_dim", minimum=1),
    )


def _qwen_ffns(f: Fields, n_layers: int) -> list[Ffn]:
    if f.model_type == "qwen3_5_text":
        return [Dense(d_ff=f.count("intermediate_size", minimum=1))] * n_layers
    moe = Moe(
        n_experts=f.count("num_experts"), n_active=f.count("num_experts_per_tok"), d_expert=f.count("moe_intermediate_size"),
        d_shared=f.count("shared_expert_intermediate_size"), shared_gate=True,
    )
    if f.model_type == "qwen3_5_moe_text":
        f.ignore("intermediate_size")
        return [moe] * n_layers
    dense = Dense(d_ff=f.count("intermediate_size", minimum=1))
    dense_only, step = f.items("mlp_only_layers") or [], f.count("decoder_sparse_step", minimum=1)
    return [moe if i not in dense_only and moe.n_experts and (i + 1) % step == 0 else dense for i in range(n_layers)]


@family("olmo_hybrid")
def read_olmo_hybrid(f: Fields) -> ModelShape:
    """Olmo-Hybrid: gated delta layers, each fourth layer attention with queries and keys normalised over their whole width."""
    f.ignore(
        "linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max", "linear_dt_init_floor", "linear_allow_neg_eigval",
    )
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=2)
    computed = ["linear_attention" if i % 4 != 3 else "full_attention" for i in range(n_layers)]
    if "full_attention" not in computed:
        computed[-1] = "full_attention"
    kinds = kinds_of(f, n_layers, computed, _KINDS)
    if len(set(kinds)) < 2:
        raise f.refuse("layer_types", kinds, "a list with both linear_attention and full_attention in it")
    attention = attention_of(f, bias=_biases(f), qk_norm="width")
    n_heads = int(attention.n_heads)
    n_k, n_v = (n_heads if n is None else n for n in (f.optional("linear_num_key_heads"), f.optional("linear_num_value_heads")))
    k_dim, v_dim = f.optional("linear_key_head_dim"), f.optional("linear_value_head_dim")
    if k_dim is None:
        k_dim = 3 * d_model // (4 * n_k) if n_k else 0
    delta = GatedDelta(
        n_k_heads=n_k, n_v_heads=n_v, k_head_dim=k_dim, v_head_dim=2 * k_dim if v_dim is None else v_dim,
        conv_kernel=f.count("linear_conv_kernel_dim", minimum=1),
    )
    mixers: dict[str, Mixer] = {"full_attention": attention, "linear_attention": delta}
    ffn = Dense(d_ff=f.count("intermediate_size", minimum=1))
    return ModelShape(d_model=d_model, layers=runs(LayerSpec(mixers=(mixers[kind],), ffns=(ffn,)) for kind in kinds), stem=stem_of(f))


@family("kimi_linear")
def read_kimi_linear(f: Fields) -> ModelShape:
    """Kimi-Linear (arXiv:2510.26692): Kimi Delta Attention with a latent-attention layer now and then; experts after the first layers."""
    f.ignore("num_key_value_heads", "head_dim", "qk_head_dim", "moe_renormalize", "num_expert_group", "use_grouped_topk",
             "moe_router_activation_func")
    agree(f, "mla_use_nope", True)
    agree(f, "moe_layer_freq", 1)
    agree(f, "tie_word_embeddings", False)  # accepted by the config class, but nothing is tied
    n_layers = f.count("num_hidden_layers", minimum=1)
    delta, kinds = _kimi_delta(f, n_layers)
    mixers: dict[str, Mixer] = {"full_attention": _kimi_mla(f), "linear_attention": delta}
    ffns: dict[str, Ffn] = {"dense": Dense(d_ff=f.count("intermediate_size", minimum=1)), "sparse": _kimi_moe(f)}
    first = f.count("first_k_dense_replace", 1)
    mlps = kinds_of(f, n_layers, ["dense" if i < first else "sparse" for i in range(n_layers)], ("dense", "sparse"), "mlp_layer_types")
    layers = [LayerSpec(mixers=(mixers[kind],), ffns=(ffns[mlp],)) for kind, mlp in zip(kinds, mlps, strict=True)]
    return ModelShape(
        d_model=f.count("hidden_size", minimum=1), layers=runs(layers), stem=stem_of(f), mtp=_mtp(f, "num_nextn_predict_layers"),
    )


def _kimi_delta(f: Fields, n_layers: int) -> tuple[GatedDelta, list[str]]:
    """The published files keep these sizes, and the layer kinds counted from 1, in an object of their own."""
    own = f.child("linear_attn_config") or Fields({}, "", nested=True)
    n_heads = own.count("num_heads", f.count("linear_num_heads", minimum=1), minimum=1)
    head_dim = own.count("head_dim", f.count("linear_head_dim", minimum=1), minimum=1)
    kernel = own.count("short_conv_kernel_size", f.count("linear_conv_kernel_dim", minimum=1), minimum=1)
    kinds = ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(n_layers)]
    full, kda = own.items("full_attn_layers", None), own.items("kda_layers", None)
    if full is not None and kda is not None:
        if sorted([*full, *kda], key=str) != sorted(range(1, n_layers + 1), key=str):
            rule = Words("each layer from 1 to {n_layers} once", n_layers=n_layers)
            raise f.refuse("linear_attn_config", {"full_attn_layers": full, "kda_layers": kda}, rule)
        kinds = ["full_attention" if i + 1 in full else "linear_attention" for i in range(n_layers)]
    kinds = kinds_of(f, n_layers, kinds, _KINDS)
    delta = GatedDelta(
        n_k_heads=n_heads, n_v_heads=n_heads, k_head_dim=head_dim, v_head_dim=head_dim, conv_kernel=kernel, decay="channel",
    )
    return delta, kinds


def _kimi_mla(f: Fields) -> Mla:
    return Mla(
        n_heads=f.count("num_attention_heads", minimum=1), q_lora_rank=f.optional("q_lora_rank") or 0,
        kv_lora_rank=f.count("kv_lora_rank", minimum=1), qk_nope_head_dim=f.count("qk_nope_head_dim"),
        qk_rope_head_dim=f.count("qk_rope_head_dim"), v_head_dim=f.count("v_head_dim", minimum=1), bias=f.flag("attention_bias"),
    )


def _kimi_moe(f: Fields) -> Moe:
    # The published files and the class name the same fields differently.
    n_experts, n_active, n_shared = (
        f.count(new, f.count(old)) for new, old in (
            ("num_experts", "num_local_experts"), ("num_experts_per_token", "num_experts_per_tok"),
            ("num_shared_experts", "n_shared_experts"),
        )
    )
    d_expert = f.count("moe_intermediate_size", minimum=1)
    return Moe(n_experts=n_experts, n_active=n_active, d_expert=d_expert, d_shared=n_shared * d_expert, correction_bias=True)


# -- state spaces ---------------------------------------------------------------------------------------------------------------------

_NEMOTRON_LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


@family("nemotron_h")
def read_nemotron_h(f: Fields) -> ModelShape:
    """Nemotron-H and Nemotron 3: every layer is one thing, a Mamba-2 mixer, attention, a dense block or a mixture of experts."""
    f.ignore(
        *_UNUSED, "expand", "mamba_expand", "chunk_size", "mamba_dt_min", "mamba_dt_max", "mamba_dt_limit", "mamba_dt_init_floor",
        "residual_in_fp32", "rescale_prenorm_residual", "moe_shared_expert_overlap", "mtp_layers_block_type",
    )
    agree(f, "mamba_ssm_cache_dtype", "float32")
    # The config class accepts these, but the model builds nothing for them.
    agree(f, "attention_bias", False)
    agree(f, "mamba_proj_bias", False)
    agree(f, "tie_word_embeddings", False)
    if f.optional("sliding_window") is not None:
        raise f.refuse("sliding_window", f.optional("sliding_window"), "null: no layer of this family is windowed")
    attention = attention_of(f)
    agree(f, "attention_head_dim", attention.head_dim)
    mlp_bias = f.flag("mlp_bias")
    layers = {
        "linear_attention": LayerSpec(mixers=(_nemotron_mamba(f),), norms=1),
        "full_attention": LayerSpec(mixers=(attention,), norms=1),
        "mlp": LayerSpec(ffns=(Dense(d_ff=f.count("intermediate_size"), gated=False, bias=mlp_bias),), norms=1),
        "moe": LayerSpec(ffns=(_nemotron_moe(f, mlp_bias),), norms=1),
    }
    return ModelShape(
        d_model=f.count("hidden_size", minimum=1), layers=runs(layers[kind] for kind in _nemotron_kinds(f)), stem=stem_of(f),
        mtp=_mtp(f, "num_nextn_predict_layers"),
    )


def _nemotron_kinds(f: Fields) -> list[str]:
    """The list of layer kinds, or the older pattern of one letter per layer; the number of layers follows from it."""
    listed, pattern = f.items("layers_block_type", None), f.text("hybrid_override_pattern", None)
    if listed is None:
        if not pattern or any(letter not in _NEMOTRON_LETTERS for letter in pattern):
            raise f.refuse("hybrid_override_pattern", pattern, "one of the letters M E * - per layer")
        listed = [_NEMOTRON_LETTERS[letter] for letter in pattern]
    agree(f, "num_hidden_layers", len(listed))
    return kinds_of(f, len(listed), listed, tuple(_NEMOTRON_LETTERS.values()), "layers_block_type")


def _nemotron_mamba(f: Fields) -> Mamba2:
    # Older files spell three of these as Bamba does, and then that spelling wins.
    return Mamba2(
        n_heads=f.count("mamba_num_heads"), head_dim=f.count("mamba_head_dim"), d_state=f.count("ssm_state_size"),
        n_groups=f.count("mamba_n_groups", f.count("n_groups")), conv_kernel=f.count("mamba_d_conv", f.count("conv_kernel")),
        conv_bias=f.flag("mamba_conv_bias", f.flag("use_conv_bias")), bias=letters(("io", f.flag("use_bias"))),
    )


def _nemotron_moe(f: Fields, mlp_bias: bool) -> Moe:
    agree(f, "n_shared_experts", 1)
    d_model, d_shared = f.count("hidden_size"), f.count("moe_shared_expert_intermediate_size")
    d_latent = f.optional("moe_latent_size")
    if d_latent == 0:
        raise f.refuse("moe_latent_size", 0, "null or a width from 1 up")
    # Only the shared expert and the projections to and from the latent space carry the bias, not the routed experts.
    biases = d_shared + d_model + (d_latent + d_model if d_latent else 0)
    return Moe(
        n_experts=f.count("n_routed_experts"), n_active=f.count("num_experts_per_tok"), d_expert=f.count("moe_intermediate_size"),
        gated=False, d_shared=d_shared, d_latent=d_latent or 0, correction_bias=True, extra=(("biases", biases),) if mlp_bias else (),
    )


@family("jamba")
def read_jamba(f: Fields) -> ModelShape:
    """Jamba (arXiv:2403.19887): attention and experts each at a period and offset of their own."""
    f.ignore(*_UNUSED, "use_mambapy", "use_associative_scan")
    agree(f, "mamba_inner_layernorms", True)
    n_layers = f.count("num_hidden_layers", minimum=1)
    attention, mamba = attention_of(f), mamba1_of(f, inner_norms=True)
    d_ff, n_experts = f.count("intermediate_size", minimum=1), f.count("num_experts", minimum=1)
    dense, moe = Dense(d_ff=d_ff), Moe(n_experts=n_experts, n_active=f.count("num_experts_per_tok"), d_expert=d_ff)
    has_attention, has_experts = _periodic(f, "attn_layer", n_layers), _periodic(f, "expert_layer", n_layers)
    layers = [
        LayerSpec(mixers=(attention if attends else mamba,), ffns=(moe if expert and n_experts > 1 else dense,))
        for attends, expert in zip(has_attention, has_experts, strict=True)
    ]
    return ModelShape(d_model=f.count("hidden_size", minimum=1), layers=runs(layers), stem=stem_of(f))


def _periodic(f: Fields, name: str, n_layers: int) -> list[bool]:
    period, offset = f.count(f"{name}_period", minimum=1), f.count(f"{name}_offset")
    if offset >= period:
        raise f.refuse(f"{name}_offset", offset, Words("smaller than {name}_period={period}", name=name, period=period))
    return [i % period == offset for i in range(n_layers)]


@family("bamba", "granitemoehybrid")
def read_mamba2_hybrid(f: Fields) -> ModelShape:
    """Bamba and Granite 4: attention layers among Mamba-2 layers, each with a feed-forward block."""
    f.ignore(*_UNUSED, "attn_rotary_emb")
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    mamba = mamba2_of(f, f.count("mamba_expand", minimum=1) * d_model, bias=letters(("io", f.flag("mamba_proj_bias"))))
    mixers: dict[str, Mixer] = {"full_attention": attention_of(f, bias=_biases(f)), "linear_attention": mamba}
    if f.model_type == "bamba":
        chosen = f.items("attn_layer_indices") or []
        kinds = ["full_attention" if i in chosen else "linear_attention" for i in range(n_layers)]
        ffn: Ffn = Dense(d_ff=f.count("intermediate_size", minimum=1), bias=f.flag("mlp_bias"))
    else:
        kinds = kinds_of(f, n_layers, ["linear_attention"] * n_layers, _KINDS)
        ffn = _granite_ffn(f)
    return ModelShape(d_model=d_model, layers=runs(LayerSpec(mixers=(mixers[kind],), ffns=(ffn,)) for kind in kinds), stem=stem_of(f))


def _granite_ffn(f: Fields) -> Ffn:
    """Experts beside a shared one; without experts the shared one is all there is."""
    d_shared, d_expert = f.count("shared_intermediate_size"), f.count("intermediate_size")
    n_experts, n_active = f.count("num_local_experts"), f.count("num_experts_per_tok")
    return Moe(n_experts=n_experts, n_active=n_active, d_expert=d_expert, d_shared=d_shared) if n_experts else Dense(d_ff=d_shared)


@family("falcon_h1")
def read_falcon_h1(f: Fields) -> ModelShape:
    """Falcon-H1: attention and Mamba-2 side by side in every layer."""
    f.ignore(
        *_UNUSED, "mlp_expansion_factor", "mamba_norm_before_gate", "lm_head_multiplier", "mlp_multipliers", "key_multiplier",
        "attention_out_multiplier", "attention_in_multiplier", "ssm_multipliers", "ssm_in_multiplier", "ssm_out_multiplier",
    )
    agree(f, "mamba_use_mlp", True)
    agree(f, "attn_layer_indices", None)
    d_model, expanded = f.count("hidden_size", minimum=1), f.count("mamba_expand", minimum=1)
    d_ssm = f.optional("mamba_d_ssm")
    mamba = mamba2_of(
        f, expanded * d_model if d_ssm is None else d_ssm, norm=f.flag("mamba_rms_norm"),
        bias=letters(("i", f.flag("mamba_proj_bias")), ("o", f.flag("projectors_bias"))),
    )
    ffn = Dense(d_ff=f.count("intermediate_size", minimum=1), bias=f.flag("mlp_bias"))
    layer = LayerSpec(mixers=(attention_of(f, bias=_biases(f)), mamba), ffns=(ffn,))
    return ModelShape(d_model=d_model, layers=((f.count("num_hidden_layers", minimum=1), layer),), stem=stem_of(f))


# -- short convolutions ---------------------------------------------------------------------------------------------------------------


@family("lfm2", "lfm2_moe")
def read_lfm2(f: Fields) -> ModelShape:
    """LFM2: short gated convolutions, and attention where `layer_types` (or the older `full_attn_idxs`) says so."""
    d_model, n_layers = f.count("hidden_size", minimum=1), f.count("num_hidden_layers", minimum=1)
    attention = attention_of(f, qk_norm="head")
    _agree_with_lfm2_spellings(f, d_model, int(attention.n_heads))
    mixers: dict[str, Mixer] = {"full_attention": attention, "conv": _short_convolution(f, d_model)}
    if f.model_type == "lfm2":
        chosen = f.items("full_attn_idxs")
        computed = ["full_attention" if chosen is None or i in chosen else "conv" for i in range(n_layers)]
        ffns: list[Ffn] = [Dense(d_ff=_lfm2_width(f))] * n_layers
    else:
        computed, ffns = None, _lfm2_experts(f, n_layers)
    kinds = kinds_of(f, n_layers, computed, ("full_attention", "conv"))
    layers = [LayerSpec(mixers=(mixers[kind],), ffns=(ffn,)) for kind, ffn in zip(kinds, ffns, strict=True)]
    stem = replace(stem_of(f), tied=f.flag("tie_embedding", f.flag("tie_word_embeddings")))
    return ModelShape(d_model=d_model, layers=runs(layers), stem=stem)


def _agree_with_lfm2_spellings(f: Fields, d_model: int, n_heads: int) -> None:
    """Published files repeat sizes under names that transformers does not read."""
    f.ignore(
        "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_xavier_init", "conv_use_xavier_init", "theta",
        "use_pos_enc",
    )
    for name in ("block_dim", "conv_dim", "conv_dim_out"):
        agree(f, name, d_model)
    agree(f, "num_heads", n_heads)
    agree(f, "block_use_swiglu", True)


def _short_convolution(f: Fields, d_model: int) -> Recurrent:
    kernel, bias = f.count("conv_L_cache", minimum=1), f.flag("conv_bias")
    vectors = (("conv", d_model * kernel), *((("biases", 5 * d_model),) if bias else ()))
    return Recurrent(
        kind="short_conv", projections=(("in", d_model, 3 * d_model), ("out", d_model, d_model)), vectors=vectors,
        conv_state=d_model * kernel, conv_kernel=kernel, flops_per_token=2 * d_model * kernel,
    )


def _lfm2_width(f: Fields) -> int:
    """The width as the model computes it: two thirds of the field, scaled, rounded up to a multiple."""
    width = f.count("block_ff_dim", f.count("intermediate_size", minimum=1), minimum=1)
    scale, multiple = f.raw("block_ffn_dim_multiplier"), f.count("block_multiple_of", minimum=1)
    if not f.flag("block_auto_adjust_ff_dim"):
        return width
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < 1e6:
        raise f.refuse("block_ffn_dim_multiplier", scale, "a number above 0")
    return -(-int(scale * int(2 * width / 3)) // multiple) * multiple


def _lfm2_experts(f: Fields, n_layers: int) -> list[Ffn]:
    dense = Dense(d_ff=f.count("intermediate_size", minimum=1))
    moe = Moe(
        n_experts=f.count("num_experts"), n_active=f.count("num_experts_per_tok"), d_expert=f.count("moe_intermediate_size"),
        correction_bias=f.flag("use_expert_bias"),
    )
    n_dense = f.count("num_dense_layers")
    return [dense if i < n_dense else moe for i in range(n_layers)]

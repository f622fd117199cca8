"""Mixture-of-experts decoders with softmax attention in every layer.

Which layers are sparse, what stands beside the routed experts, and which layers look through a window: those are the differences, and
they are data, one `Recipe` per family. Families whose layers differ in heads or in kind of attention build their own mixers
(`moe_mixed.py`) and share everything else. Source of each row: configuration and modeling file of that name in transformers 5.23.0; a
test builds every one of them on the meta device, with each structural field changed in turn, and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...errors import Words
from ..fields import Fields
from ..model import Groups, ModelShape
from ..parts import Attention, Dense, Extra, Ffn, LayerSpec, Mixer, Moe, Stem
from .dense import switched, switched_flag
from .registry import FAMILIES, heads_of, runs, windowed

SparseRule = Callable[[Fields, int], list[bool]]
"""(fields, number of layers) -> which layers hold experts."""
WindowRule = Callable[[Fields, int], list[int]]
"""(fields, number of layers) -> tokens that each layer sees, 0 for all."""
KindRule = Callable[[Fields, int], list[str]]
"""(fields, number of layers) -> what the config class fills in for `layer_types` when the file has none."""


# -- values under several names ---------------------------------------------------------------------------------------------------


def aliased(f: Fields, *names: str, minimum: int = 0) -> int:
    """A count that the config class knows by several names; the class default may be declared under any of them.

    Raises:
        ConfigError: two of the names are given and disagree.
    """
    given = [name for name in names if f.values.get(name) is not None]
    f.ignore(*names)
    for name in given[1:]:
        if f.values[name] != f.values[given[0]]:
            raise f.refuse(name, f.values[name], Words("equal to {other}, which means the same", other=given[0]))
    declared = next((f.defaults[name] for name in names if f.defaults.get(name) is not None), None)
    return f.count(given[0] if given else names[0], declared, minimum)


def demand(f: Fields, name: str, wanted: Any, why: str = "") -> None:
    """Reads a field that the family's code knows at one value only; absent or null is fine.

    Raises:
        ConfigError: the file says something else, so it describes another model than the one that is counted.
    """
    value = f.raw(name, None)
    if value is not None and (type(value) is not type(wanted) or value != wanted):
        rule = Words("{wanted} in this family", wanted=wanted)
        raise f.refuse(name, value, Words("{rule} ({why})", rule=rule, why=why) if why else rule)


_MTP_FIELDS = ("num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules", "use_mtp")


def unbuilt_mtp(f: Fields, silent: Groups | None = ()) -> Groups | None:
    """Multi-token-prediction layers, which transformers does not build: none, or None (layout unknown) where the file has some.

    Args:
        f: the config.
        silent: the answer for a file that says nothing.
    """
    given = [name for name in _MTP_FIELDS if name in f.values] or [name for name in _MTP_FIELDS if f.defaults.get(name)]
    values = [f.flag(name) if name == "use_mtp" else f.optional(name) for name in given]
    if not values:
        return silent
    return None if any(values) else ()


# -- which layers are sparse ------------------------------------------------------------------------------------------------------


def every_layer(f: Fields, n_layers: int) -> list[bool]:
    """All layers hold experts."""
    return [True] * n_layers


def no_layer(f: Fields, n_layers: int) -> list[bool]:
    """No layer holds experts."""
    return [False] * n_layers


def from_layer(name: str) -> SparseRule:
    """The first layers are dense; the field says how many."""

    def rule(f: Fields, n_layers: int) -> list[bool]:
        first = f.count(name)
        return [i >= first for i in range(n_layers)]

    return rule


def by_mlp_types(first_dense: Callable[[Fields, int], int]) -> SparseRule:
    """`mlp_layer_types` says dense or sparse; where it is missing the first `first_dense` layers are dense."""

    def rule(f: Fields, n_layers: int) -> list[bool]:
        kinds = f.items("mlp_layer_types", None, length=n_layers)
        if kinds is None:
            first = first_dense(f, n_layers)
            return [i >= first for i in range(n_layers)]
        f.ignore("first_k_dense_replace")
        for kind in kinds:
            if kind not in ("dense", "sparse"):
                raise f.refuse("mlp_layer_types", kind, "dense or sparse for every layer")
        return [kind == "sparse" for kind in kinds]

    return rule


def stepwise(f: Fields, n_layers: int) -> list[bool]:
    """Qwen: every `decoder_sparse_step`-th layer, except those in `mlp_only_layers`."""
    step = f.count("decoder_sparse_step", minimum=1)
    dense = whole_numbers(f, "mlp_only_layers") or []
    any_experts = aliased(f, "num_local_experts", "num_experts") > 0
    return [any_experts and i not in dense and (i + 1) % step == 0 for i in range(n_layers)]


def between(f: Fields, n_layers: int) -> list[bool]:
    """Ernie: every `moe_layer_interval`-th layer from the start index to the end index, both included; -1 is the last layer."""
    interval = f.count("moe_layer_interval", minimum=1)
    start = f.count("moe_layer_start_index")
    end = n_layers - 1 if f.raw("moe_layer_end_index") == -1 else f.count("moe_layer_end_index")
    return [(i + 1) % interval == 0 and start <= i <= end for i in range(n_layers)]


def whole_numbers(f: Fields, name: str) -> list[int] | None:
    """A list of whole numbers from 0, or None. Raises ConfigError for anything else."""
    values = f.items(name, None)
    for value in values or ():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise f.refuse(name, value, "a list of whole numbers from 0")
    return values


# -- which layers look through a window -------------------------------------------------------------------------------------------


def unlimited(f: Fields, n_layers: int) -> list[int]:
    """Every layer sees everything."""
    return [0] * n_layers


def window_everywhere(f: Fields, n_layers: int) -> list[int]:
    """`sliding_window`, where there is one, holds for every layer."""
    return [0 if f.optional("sliding_window") is None else f.count("sliding_window", minimum=1)] * n_layers


def window_if_used(f: Fields, n_layers: int) -> list[int]:
    """As `window_everywhere`, once `use_sliding_window` is on."""
    if f.flag("use_sliding_window"):
        return window_everywhere(f, n_layers)
    f.ignore("sliding_window")
    return [0] * n_layers


def by_layer_types(
    otherwise: KindRule, used: Callable[[Fields], bool] = lambda f: True, pattern_fields: Sequence[str] = (),
) -> WindowRule:
    """`sliding_window` in the layers that `layer_types` calls sliding_attention.

    Args:
        otherwise: the kinds where the file lists none.
        used: false where the file switches windows off.
        pattern_fields: what `otherwise` reads; without meaning once the file lists its kinds.
    """

    def rule(f: Fields, n_layers: int) -> list[int]:
        kinds = listed_kinds(f, n_layers, otherwise, ("full_attention", "sliding_attention"))
        f.ignore("sliding_window", *pattern_fields)
        if "sliding_attention" not in kinds:
            return [0] * n_layers
        window = f.optional("sliding_window") if used(f) else None
        if not window:
            raise f.refuse("sliding_window", window, "at least 1 (and in use) where layer_types has sliding_attention")
        return [window if kind == "sliding_attention" else 0 for kind in kinds]

    return rule


def listed_kinds(f: Fields, n_layers: int, otherwise: KindRule, known: Sequence[str]) -> list[str]:
    """`layer_types`, or what the class computes without it. Raises ConfigError for a kind that the family does not have."""
    kinds = f.items("layer_types", None, length=n_layers)
    if kinds is None:
        return otherwise(f, n_layers)
    for kind in kinds:
        if kind not in known:
            raise f.refuse("layer_types", kind, Words("one of {known} for every layer", known=", ".join(known)))
    return kinds


def all_full(f: Fields, n_layers: int) -> list[str]:
    """No layer slides."""
    return ["full_attention"] * n_layers


def full_where(full: Callable[[int], bool]) -> KindRule:
    """Full attention in the layers (from 0) for which `full` is true."""
    return lambda f, n_layers: ["full_attention" if full(i) else "sliding_attention" for i in range(n_layers)]


def full_every(name: str) -> KindRule:
    """The field holds a period: the last layer of each is full, the others slide."""

    def rule(f: Fields, n_layers: int) -> list[str]:
        period = f.count(name, minimum=1)
        return full_where(lambda i: (i + 1) % period == 0)(f, n_layers)

    return rule


def _qwen2_moe_kinds(f: Fields, n_layers: int) -> list[str]:
    below = f.count("max_window_layers") if f.flag("use_sliding_window") else 0
    return full_where(lambda i: bool(i % 2) or i >= below)(f, n_layers)


def _dots1_kinds(f: Fields, n_layers: int) -> list[str]:
    first = n_layers if f.optional("sliding_window") is None else f.count("max_window_layers")
    return full_where(lambda i: i < first)(f, n_layers)


def _cohere2_kinds(f: Fields, n_layers: int) -> list[str]:
    prefix = min(f.count("first_k_dense_replace", 0), n_layers)
    period, prefix_period = (f.count(name, minimum=1) for name in ("sliding_window_pattern", "prefix_dense_sliding_window_pattern"))
    places = [(i, prefix_period) for i in range(prefix)] + [(i, period) for i in range(n_layers - prefix)]
    return ["sliding_attention" if (i + 1) % every else "full_attention" for i, every in places]


def _exaone_sparse(f: Fields, n_layers: int) -> list[bool]:
    sparse = by_mlp_types(lambda f, n: f.count("first_k_dense_replace"))(f, n_layers)
    if f.raw("is_moe_layer", None) is not None:
        demand(f, "is_moe_layer", sparse, "transformers ignores this field and builds that")
        f.ignore("first_last_k_dense_replace")
    return sparse


# -- the recipes ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a family departs from Mixtral. A switch is "letters@field" or "@field": it hangs on that field of the config."""

    bias: str = ""
    qk_norm: str = "none"
    qk_norm_switch: str = "yes"
    sinks: bool = False
    gate: str = "none"
    norms: int = 2
    affine: int = 1
    windows: WindowRule = unlimited
    sparse: SparseRule = every_layer
    experts: tuple[str, ...] = ("num_local_experts", "num_experts")
    """The names of the number of experts; the one that the config class maps the others to stands first."""
    top_k: str = "num_experts_per_tok"
    """The name of the number of experts that a token uses; several with spaces between them."""
    d_expert: str = "intermediate_size"
    expert_bias: bool = False
    """On the matrices of the experts and on the router."""
    shared: str = ""
    """Fields whose product is the width of the experts that every token uses."""
    min_shared: int = 0
    """1 where the family's code takes 0 shared experts for something else."""
    shared_gate: bool = False
    mlp_bias: str = ""
    """Switch of the bias in dense blocks and shared experts; routed experts have none."""
    correction: str = ""
    """The router's load-balancing bias: "" none, "buffer", or "parameter" where transformers counts it as one."""
    d_ff: str = "intermediate_size"
    head_bias: str = ""
    silent_mtp: bool = False
    """Published checkpoints hold multi-token-prediction weights even where the file does not say so."""
    ignored: tuple[str, ...] = ()
    demanded: tuple[tuple[str, Any], ...] = ()
    """(field, value): the family's code knows no other value; a function makes it from the number of layers."""


_N_ROUTED = ("n_routed_experts", "num_local_experts")
_NUM_EXPERTS = ("num_experts", "num_local_experts")
_DEEPSEEK_SHARED = "moe_intermediate_size*n_shared_experts"

_QWEN3_MOE = Recipe(
    bias="qkvo@attention_bias", qk_norm="head", windows=window_if_used, sparse=stepwise, d_expert="moe_intermediate_size",
    demanded=(("use_qk_norm", True), ("shared_expert_intermediate_size", 0)),
)
_GRANITE = Recipe(bias="qkvo@attention_bias", experts=("num_local_experts",))

RECIPES: dict[str, Recipe] = {
    "mixtral": Recipe(windows=window_everywhere),
    "qwen3_moe": _QWEN3_MOE,
    "qwen3_vl_moe_text": replace(_QWEN3_MOE, windows=unlimited),
    "qwen3_vl_text": Recipe(bias="qkvo@attention_bias", qk_norm="head", sparse=no_layer, experts=()),
    "qwen2_moe": Recipe(
        bias="qkv@qkv_bias", sparse=stepwise, d_expert="moe_intermediate_size", shared="shared_expert_intermediate_size", shared_gate=True,
        windows=by_layer_types(_qwen2_moe_kinds, lambda f: f.flag("use_sliding_window"), ("use_sliding_window", "max_window_layers")),
        experts=_NUM_EXPERTS,
    ),
    "gpt_oss": Recipe(
        bias="qkvo@attention_bias", sinks=True, expert_bias=True, windows=by_layer_types(full_where(lambda i: bool(i % 2))),
        top_k="num_experts_per_tok experts_per_token",
        ignored=("initial_context_length", "swiglu_alpha", "swiglu_limit"),
    ),
    "minimax_m2": Recipe(
        qk_norm="width", correction="buffer",
        ignored=(
            "rotary_dim", "mlp_intermediate_size", "mtp_transformer_layers", "layernorm_full_attention_alpha",
            "layernorm_full_attention_beta", "layernorm_linear_attention_alpha", "layernorm_linear_attention_beta",
            "layernorm_mlp_alpha", "layernorm_mlp_beta",
        ),
        demanded=(
            ("use_qk_norm", True), ("qk_norm_type", "per_layer"), ("use_routing_bias", True), ("shared_intermediate_size", 0),
            ("attn_type_list", lambda n_layers: [1] * n_layers),
        ),
    ),
    "flex_olmo": Recipe(bias="qkvo@attention_bias", qk_norm="width", experts=_NUM_EXPERTS),
    "phimoe": Recipe(
        bias="qkvo@attention_bias", affine=2, windows=window_everywhere, head_bias="@lm_head_bias", experts=("num_local_experts",),
    ),
    "granitemoe": _GRANITE,
    "granitemoeshared": replace(_GRANITE, shared="shared_intermediate_size"),
    "granitemoe_swa": replace(
        _GRANITE, shared="shared_intermediate_size", sinks=True, windows=by_layer_types(full_where(lambda i: i % 4 == 0)),
        ignored=("layer_rope_theta",),
    ),
    "ernie4_5_moe": Recipe(
        bias="qkvo@use_bias", mlp_bias="@use_bias", head_bias="@use_bias", sparse=between, experts=("moe_num_experts", "num_experts"),
        top_k="moe_k", d_expert="moe_intermediate_size", shared="moe_intermediate_size*moe_num_shared_experts", correction="parameter",
        silent_mtp=True,
        ignored=("moe_norm_min", "moe_capacity"), demanded=(("moe_use_aux_free", True),),
    ),
    "glm4_moe": Recipe(
        bias="qkv@attention_bias", qk_norm="head", qk_norm_switch="@use_qk_norm", sparse=from_layer("first_k_dense_replace"),
        experts=_N_ROUTED, d_expert="moe_intermediate_size", shared=_DEEPSEEK_SHARED, correction="buffer",
    ),
    "solar_open": Recipe(
        bias="qkv@attention_bias", experts=_N_ROUTED, d_expert="moe_intermediate_size", shared=_DEEPSEEK_SHARED, correction="buffer",
        demanded=(("first_k_dense_replace", 0), ("use_qk_norm", False)),
    ),
    "hy_v3": Recipe(
        bias="qkvo@attention_bias", mlp_bias="@mlp_bias", qk_norm="head", sparse=by_mlp_types(lambda f, n: 1), experts=_NUM_EXPERTS,
        d_expert="moe_intermediate_size", shared="moe_intermediate_size*num_shared_experts", min_shared=1, correction="buffer",
        silent_mtp=True, ignored=("router_scaling_factor", "enable_moe_fp32_combine"),
    ),
    "exaone_moe": Recipe(
        qk_norm="head", sparse=_exaone_sparse, experts=("num_experts",),
        windows=by_layer_types(full_every("sliding_window_pattern"), pattern_fields=("sliding_window_pattern",)),
        d_expert="moe_intermediate_size", shared="moe_intermediate_size*num_shared_experts", correction="buffer", silent_mtp=True,
    ),
    "afmoe": Recipe(
        bias="qkvo@attention_bias", qk_norm="head", gate="channel", norms=4, sparse=from_layer("num_dense_layers"),
        experts=("num_experts",),
        windows=by_layer_types(full_every("global_attn_every_n_layers"), pattern_fields=("global_attn_every_n_layers",)),
        d_expert="moe_intermediate_size", shared="moe_intermediate_size*num_shared_experts", correction="parameter",
        ignored=(
            "route_scale", "mup_enabled", "route_norm", "load_balance_coeff", "use_grouped_mm", "num_expert_groups", "num_limited_groups",
        ),
    ),
    "aria_text": Recipe(
        bias="qkvo@attention_bias", mlp_bias="@mlp_bias", experts=("moe_num_experts",), top_k="moe_topk",
        shared="intermediate_size*moe_num_shared_experts", min_shared=1, ignored=("moe_z_loss_coeff", "moe_aux_loss_coeff"),
    ),
    "cohere2_moe": Recipe(
        bias="qkvo@attention_bias", norms=1, experts=("num_experts",), shared="intermediate_size*num_shared_experts",
        windows=by_layer_types(_cohere2_kinds, pattern_fields=("sliding_window_pattern", "prefix_dense_sliding_window_pattern")),
        sparse=by_mlp_types(lambda f, n: f.count("first_k_dense_replace", 0)), d_ff="prefix_dense_intermediate_size",
    ),
    "dots1": Recipe(
        bias="qkvo@attention_bias", qk_norm="head", sparse=from_layer("first_k_dense_replace"), experts=_N_ROUTED,
        windows=by_layer_types(_dots1_kinds), d_expert="moe_intermediate_size", shared=_DEEPSEEK_SHARED, correction="buffer",
    ),
    "mellum": Recipe(
        bias="qkvo@attention_bias", qk_norm="head", windows=by_layer_types(all_full), sparse=by_mlp_types(lambda f, n: 0),
        d_expert="moe_intermediate_size", ignored=("mtp_layer_types", "mtp_mlp_layer_types"),
    ),
}


# -- putting a model together -----------------------------------------------------------------------------------------------------


def read_moe(f: Fields) -> ModelShape:
    """A mixture of experts by its type's recipe."""
    return read_recipe(f, RECIPES[f.model_type])


def read_recipe(f: Fields, recipe: Recipe) -> ModelShape:
    """A mixture of experts with the same heads in every layer."""
    attention = attention_of(f, recipe)
    windows = recipe.windows(f, f.count("num_hidden_layers", minimum=1))
    return assemble(f, recipe, [windowed(attention, window) for window in windows])


def attention_of(f: Fields, recipe: Recipe) -> Attention:
    """The recipe's attention without window."""
    return Attention(
        **heads_of(f), bias=switched(f, recipe.bias), sinks=recipe.sinks, gate=recipe.gate,  # type: ignore[arg-type]
        qk_norm=recipe.qk_norm if switched_flag(f, recipe.qk_norm_switch) else "none",  # type: ignore[arg-type]
    )


def assemble(f: Fields, recipe: Recipe, mixers: Sequence[Mixer], top_k: Sequence[int] | None = None) -> ModelShape:
    """One layer per mixer, in order, with experts or a dense block as the recipe says, and the stem.

    Args:
        f: the config.
        recipe: everything but the mixers.
        mixers: one per layer.
        top_k: experts that a token uses, one number per layer, where they differ.
    """
    # A file states the widths of dense blocks and of experts even where no layer has one.
    f.ignore(*recipe.ignored, recipe.d_ff, *recipe.experts, *recipe.top_k.split(), recipe.d_expert, *filter(None, recipe.shared.split("*")))
    for name, value in recipe.demanded:
        demand(f, name, value(len(mixers)) if callable(value) else value)
    d_model = f.count("hidden_size", minimum=1)
    sparse = recipe.sparse(f, len(mixers))
    used = list(top_k or [aliased(f, *recipe.top_k.split(), minimum=1) if any(sparse) else 1] * len(mixers))
    moe = moe_of(f, recipe, d_model) if any(sparse) else None
    dense = dense_of(f, recipe) if not all(sparse) else None
    ffns = [replace(moe, n_active=k) if moe and here else dense for here, k in zip(sparse, used, strict=True)]
    return ModelShape(
        d_model=d_model,
        layers=runs(_layer(recipe, mixer, ffn) for mixer, ffn in zip(mixers, ffns, strict=True)),
        stem=Stem(
            vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"), final_norm=recipe.affine,
            head_bias=switched_flag(f, recipe.head_bias),
        ),
        mtp=unbuilt_mtp(f, silent=None if recipe.silent_mtp else ()),
    )


def _layer(recipe: Recipe, mixer: Mixer, ffn: Ffn | None) -> LayerSpec:
    return LayerSpec(mixers=(mixer,), ffns=() if ffn is None else (ffn,), norms=recipe.norms, norm_affine=recipe.affine)


def moe_of(f: Fields, recipe: Recipe, d_model: int) -> Moe:
    """The recipe's experts, one of them active."""
    n_experts = aliased(f, *recipe.experts, minimum=1)
    d_shared = prod(f.count(name, minimum=recipe.min_shared) for name in recipe.shared.split("*")) if recipe.shared else 0
    extra: Extra = ()
    if d_shared and switched_flag(f, recipe.mlp_bias):
        extra += (("shared_bias", 2 * d_shared + d_model),)
    if recipe.correction == "parameter":
        extra += (("correction_bias", n_experts),)
    return Moe(
        n_experts=n_experts, n_active=1, d_expert=f.count(recipe.d_expert, minimum=1),
        bias=recipe.expert_bias, router_bias=recipe.expert_bias,
        d_shared=d_shared, shared_gate=recipe.shared_gate, correction_bias=recipe.correction == "buffer", extra=extra,
    )


def dense_of(f: Fields, recipe: Recipe) -> Dense:
    """The recipe's dense block, in layers without experts."""
    d_ff = f.optional(recipe.d_ff)
    return Dense(d_ff=f.count("intermediate_size", minimum=1) if d_ff is None else d_ff, bias=switched_flag(f, recipe.mlp_bias))


FAMILIES.update({model_type: read_moe for model_type in RECIPES})

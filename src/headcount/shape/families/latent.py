"""Decoders with multi-head latent attention (MLA), with or without an indexer that makes it sparse, dense or with experts.

What differs is which layers have experts, whether an indexer picks tokens (in all layers or in some), and what else stands around the
attention: one `Recipe` per family. Source of each row: the modeling and configuration file of that name in transformers 5.23.0, where
all of them cache the compressed vector and the rotated key, not expanded heads; a test builds every one on the meta device and compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ...errors import Words
from ..fields import Fields
from ..model import Groups, ModelShape, default_head_dim
from ..parts import Dense, Indexer, LayerSpec, Mla, Moe, Stem
from .registry import FAMILIES, family, runs
from .streams import stem_with_streams, with_streams


@dataclass(frozen=True)
class Recipe:
    """How a family departs from DeepSeek-V3."""

    ffn: Literal["dense", "first", "types"] = "first"
    """Which layers have experts: none; all but the first ones; those that `mlp_layer_types` names, else all but the first ones."""
    first: int | None = None
    """How many first layers are dense where the class does not read `first_k_dense_replace` at all."""
    periodic: bool = False
    """`moe_layer_freq` is obeyed; elsewhere transformers ignores it, so only 1 is accepted."""
    direct_query: bool = False
    """`q_lora_rank` may be null: the query is projected directly."""
    v_from_width: bool = False
    """`v_head_dim` may be null: d_model / n_heads."""
    indexer: Literal["none", "all", "types"] = "none"
    """Which layers run an indexer of their own."""
    gate: Literal["none", "input", "query"] = "none"
    sinks: bool = False
    mlp_bias: bool = False
    """`mlp_bias` reaches dense blocks and the shared expert."""
    correction_bias: bool = True
    sparse_norms: int = 2
    gated_norms: bool = False
    streams: bool = False
    mtp: bool = False
    """The checkpoints' prediction layers have DeepSeek-V3's layout."""
    rope_is_head_dim: bool = False
    """`head_dim` is another name of `qk_rope_head_dim`; elsewhere it is computed and what the file says has no effect."""
    ignored: tuple[str, ...] = ()


RECIPES: dict[str, Recipe] = {
    "deepseek_v2": Recipe(direct_query=True, mlp_bias=True, correction_bias=False),
    "deepseek_v3": Recipe(direct_query=True, mtp=True),
    "kimi_k2": Recipe(direct_query=True, mtp=True),
    "deepseek_v32": Recipe(ffn="types", indexer="all", mtp=True, ignored=("mlp_bias",)),
    "glm_moe_dsa": Recipe(ffn="types", indexer="types", mtp=True, ignored=("mlp_bias",)),
    "glm4_moe_lite": Recipe(ffn="types", first=1, direct_query=True, mtp=True, rope_is_head_dim=True),
    "axk1": Recipe(ffn="types", periodic=True, sparse_norms=3),
    "axk2": Recipe(ffn="types", periodic=True, indexer="all", gate="query", gated_norms=True),
    "hy_v4": Recipe(
        ffn="types", first=1, indexer="types", gate="input", sinks=True, streams=True,
        ignored=("hc_magnitude", "hc_eps", "learnable_sink_init", "swiglu_limit"),
    ),
    "minicpm3": Recipe(ffn="dense", direct_query=True, v_from_width=True, mlp_bias=True, ignored=("dim_model_base",)),
    "youtu": Recipe(ffn="dense", direct_query=True, ignored=("embedding_initializer_range",)),
}


def read_latent(f: Fields) -> ModelShape:
    """A decoder with latent attention by its recipe. `mtp`: see `_prediction_layers`."""
    recipe = RECIPES[f.model_type]
    _require_class(f)
    f.ignore("num_key_value_heads", "qk_head_dim", *recipe.ignored)
    if recipe.ffn != "dense":  # a model may have no layer of one of the two kinds
        f.ignore("intermediate_size", "moe_intermediate_size", "n_routed_experts", "num_experts_per_tok", "n_shared_experts")
    n_layers = f.count("num_hidden_layers", minimum=1)
    d_model = f.count("hidden_size", minimum=1)
    attention = _attention(f, recipe, d_model)
    scoring = _scoring_layers(f, recipe, n_layers)
    layers = [
        _layer(f, recipe, d_model, replace(attention, indexer_shared=not scores), sparse)
        for sparse, scores in zip(_sparse_layers(f, recipe, n_layers), scoring, strict=True)
    ]
    stem = Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"))
    if recipe.streams:
        stem = stem_with_streams(stem, n_streams=f.count("hc_mult", minimum=1), d_model=d_model)
    known_mtp = recipe.mtp and all(scoring) and isinstance(layers[-1].ffns[0], Moe)
    return ModelShape(
        d_model=d_model, layers=runs(layers), stem=stem, mtp=_prediction_layers(f, layers[-1] if known_mtp else None, d_model)
    )


def _require_class(f: Fields) -> None:
    """kimi_k2 has no class in transformers; it can be read only because its files name DeepSeek-V3's."""
    if f.model_type == "kimi_k2":
        named = f.items("architectures")
        if named != ["DeepseekV3ForCausalLM"]:
            raise f.refuse("architectures", named, '["DeepseekV3ForCausalLM"], the class that this type is read as')


def _stated(f: Fields, name: str, minimum: int = 0) -> int:
    """A count that the file or the class must give: an explicit null is no default."""
    value = f.optional(name)
    if value is None or value < minimum:
        raise f.refuse(name, value, Words("a whole number from {minimum}", minimum=minimum))
    return value


def _attention(f: Fields, recipe: Recipe, d_model: int) -> Mla:
    n_heads = f.count("num_attention_heads", minimum=1)
    rope = _stated(f, "qk_rope_head_dim")
    if recipe.rope_is_head_dim and f.values.get("head_dim", rope) != rope:
        raise f.refuse("head_dim", f.values["head_dim"], Words("equal to qk_rope_head_dim={rope}, which it is another name of", rope=rope))
    f.ignore("head_dim")
    width = default_head_dim(d_model, n_heads) if recipe.v_from_width and f.raw("v_head_dim") is None else _stated(f, "v_head_dim", 1)
    direct = recipe.direct_query and f.raw("q_lora_rank") is None
    indexer = None
    if recipe.indexer != "none":
        indexer = Indexer(
            n_heads=_stated(f, "index_n_heads", 1), head_dim=_stated(f, "index_head_dim", 1), top_k=_stated(f, "index_topk", 1)
        )
        f.ignore("indexer_rope_interleave", "index_share_for_mtp_iteration")
    return Mla(
        n_heads=n_heads, q_lora_rank=0 if direct else _stated(f, "q_lora_rank", 1), kv_lora_rank=_stated(f, "kv_lora_rank", 1),
        qk_nope_head_dim=_stated(f, "qk_nope_head_dim"), qk_rope_head_dim=rope, v_head_dim=width, bias=f.flag("attention_bias"),
        gate=recipe.gate, sinks=recipe.sinks, indexer=indexer,
    )


def _scoring_layers(f: Fields, recipe: Recipe, n_layers: int) -> list[bool]:
    """True for layers that do not borrow the indexer result of an earlier one."""
    if recipe.indexer != "none":
        for kind in f.items("layer_types", None, length=n_layers) or []:
            if kind not in ("indexed_attention", "deepseek_sparse_attention"):  # the second is the older name of the first
                raise f.refuse("layer_types", kind, "indexed_attention in every layer of this family")
    if recipe.indexer != "types":
        return [True] * n_layers
    kinds = f.items("indexer_types", None, length=n_layers)
    if f.model_type == "hy_v4":
        kinds = kinds or ["full" if i == 0 or (i - 1) % 4 == 0 else "shared" for i in range(n_layers)]
    else:
        kinds = kinds or _scheduled_indexers(f, n_layers)
        f.ignore("index_topk_pattern", "index_topk_freq", "index_skip_topk_offset")
    if any(kind not in ("full", "shared") for kind in kinds) or kinds[0] != "full":
        raise f.refuse("indexer_types", kinds, "a list of full and shared that starts with full")
    return [kind == "full" for kind in kinds]


def _scheduled_indexers(f: Fields, n_layers: int) -> list[str]:
    """GLM's two shorter spellings of `indexer_types`: a pattern such as FSSF, or a period after the first layers."""
    pattern = f.raw("index_topk_pattern", None)
    if pattern is not None:
        letters = {"F": "full", "S": "shared", "full": "full", "shared": "shared"}
        if not isinstance(pattern, (str, list)) or len(pattern) != n_layers or any(p not in letters for p in pattern):
            raise f.refuse("index_topk_pattern", pattern, Words("F or S for each of the {n_layers} layers", n_layers=n_layers))
        return [letters[p] for p in pattern]
    period, first = max(f.count("index_topk_freq", 1), 1), f.count("index_skip_topk_offset", 2)
    return ["shared" if max(i - first + 1, 0) % period else "full" for i in range(n_layers)]


def _sparse_layers(f: Fields, recipe: Recipe, n_layers: int) -> list[bool]:
    """True for layers with experts."""
    if recipe.ffn == "dense":
        return [False] * n_layers
    kinds = f.items("mlp_layer_types", None, length=n_layers) if recipe.ffn == "types" else None
    if kinds is not None:
        f.ignore("first_k_dense_replace", "moe_layer_freq")
        unknown = [kind for kind in kinds if kind not in ("dense", "sparse")]
        if unknown:
            raise f.refuse("mlp_layer_types", unknown[0], "dense or sparse")
        return [kind == "sparse" for kind in kinds]
    period = f.count("moe_layer_freq", 1, minimum=1)
    if period != 1 and not recipe.periodic:
        raise f.refuse("moe_layer_freq", period, "1: transformers builds experts in every layer after the first dense ones")
    return [i >= _first_sparse(f, recipe) and i % period == 0 for i in range(n_layers)]


def _first_sparse(f: Fields, recipe: Recipe) -> int:
    if recipe.periodic:
        return f.count("first_k_dense_replace", 1)
    if recipe.first is None:
        return _stated(f, "first_k_dense_replace")
    stated = f.count("first_k_dense_replace", recipe.first)
    if stated != recipe.first:
        rule = Words("{first}: transformers does not read it here; name mlp_layer_types instead", first=recipe.first)
        raise f.refuse("first_k_dense_replace", stated, rule)
    return recipe.first


def _layer(f: Fields, recipe: Recipe, d_model: int, attention: Mla, sparse: bool) -> LayerSpec:
    bias = recipe.mlp_bias and f.flag("mlp_bias")
    ffn = _moe(f, recipe, d_model, bias) if sparse else Dense(d_ff=f.count("intermediate_size", minimum=1), bias=bias)
    layer = LayerSpec(mixers=(attention,), ffns=(ffn,), norms=recipe.sparse_norms if sparse else 2)
    if recipe.gated_norms:
        rank = f.count("gated_norm_rank", minimum=1)
        gate = (("norm_gate_down", d_model, rank), ("norm_gate_up", rank, d_model))
        # The norm before the feed-forward block is gated in layers with experts only.
        layer = replace(layer, projections=gate * 2 if sparse else gate)
    if recipe.streams:
        n_streams = f.count("hc_mult", minimum=1)
        # A weight per stream on the way in and one on the way out, with a scale for each kind.
        layer = with_streams(layer, n_streams=n_streams, d_model=d_model, outputs=2 * n_streams, scales=2)
    return layer


def _moe(f: Fields, recipe: Recipe, d_model: int, bias: bool) -> Moe:
    d_expert = _stated(f, "moe_intermediate_size", 1)
    d_shared = d_expert * _stated(f, "n_shared_experts")
    return Moe(
        n_experts=_n_experts(f), n_active=_stated(f, "num_experts_per_tok", 1), d_expert=d_expert, d_shared=d_shared,
        correction_bias=recipe.correction_bias, extra=(("shared_bias", 2 * d_shared + d_model),) if bias else (),
    )


def _n_experts(f: Fields) -> int:
    if f.model_type not in ("deepseek_v32", "glm_moe_dsa") or f.raw("num_experts", None) is None:
        return _stated(f, "n_routed_experts", 1)
    # An older name that these two classes let win.
    n_experts = f.count("num_experts", minimum=1)
    if f.values.get("n_routed_experts", n_experts) != n_experts:
        raise f.refuse("num_experts", n_experts, "equal to n_routed_experts, which it is another name of")
    f.ignore("n_routed_experts")
    return n_experts


def _prediction_layers(f: Fields, layer: LayerSpec | None, d_model: int) -> Groups | None:
    """The multi-token-prediction layers that the checkpoint adds; `layer` is the decoder layer they hold, None where not known.

    Each is one decoder layer with experts, a projection of two hidden vectors to one, and three more norms (of the embedding, of the
    hidden state, before the shared head). Embedding and output head are the main model's and are counted once, with it. The files of
    DeepSeek-V3 and V3.2 store copies of both in the layer, which is how 685B come about: 671.0B + 11.6B + 2 x 0.9B; GLM-5's do not.
    Sources: DeepSeek-V3 technical report (arXiv:2412.19437, section 2.2), its README_WEIGHTS.md, `MtpLayer` in transformers 5.23.0.
    """
    stated = f.optional("num_nextn_predict_layers", None)
    if stated == 0:
        return ()
    if stated is None:  # only the classes that can run such layers make their absence a question
        return None if "num_mtp_layers" in f.defaults else ()
    if layer is None:
        return None
    projection = ("eh_proj", 2 * d_model, d_model)
    return ((stated, replace(layer, norms=layer.norms + 3, projections=(*layer.projections, projection))),)


@family("longcat_flash")
def read_longcat_flash(f: Fields) -> ModelShape:
    """LongCat-Flash: two latent attentions, two dense blocks and one mixture side by side in a layer; each attention has its own cache."""
    d_model, n_layers = f.count("hidden_size", minimum=1), _longcat_layers(f)
    f.ignore("num_key_value_heads")
    attention = _attention(f, Recipe(), d_model)
    qk = f.optional("qk_head_dim")
    if qk not in (None, attention.qk_nope_head_dim + attention.qk_rope_head_dim):
        raise f.refuse("qk_head_dim", qk, "qk_nope_head_dim + qk_rope_head_dim")
    moe = Moe(
        n_experts=_stated(f, "n_routed_experts", 1), n_identity=_stated(f, "zero_expert_num"), n_active=_stated(f, "moe_topk", 1),
        d_expert=_stated(f, "expert_ffn_hidden_size", 1), router_bias=f.flag("router_bias"), correction_bias=True,
    )
    dense = Dense(d_ff=_stated(f, "ffn_hidden_size", 1))
    layer = LayerSpec(mixers=(attention, attention), ffns=(moe, dense, dense), norms=4)
    notes = () if not moe.n_identity else (
        Words(
            "a token may choose some of the {count} experts that do nothing: active parameters and FLOPs are the most it can need",
            count=moe.n_identity,
        ),
    )
    return ModelShape(
        d_model=d_model, layers=((n_layers, layer),), notes=notes,
        stem=Stem(vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings")),
        mtp=_prediction_layers(f, None, d_model),
    )


def _longcat_layers(f: Fields) -> int:
    """`num_layers`; re-saved files may state twice that as `num_hidden_layers`, one per attention."""
    attentions = f.optional("num_hidden_layers", None)
    if "num_layers" not in f.values and attentions is not None:
        return attentions // 2
    n_layers = f.count("num_layers", minimum=1)
    if attentions not in (None, 2 * n_layers):
        raise f.refuse("num_hidden_layers", attentions, Words("twice num_layers={n_layers}, one per attention", n_layers=n_layers))
    return n_layers


FAMILIES.update({model_type: read_latent for model_type in RECIPES})

"""Older decoders, and odd ones: each names its sizes in its own way, and most have as many KV heads as heads.

They differ in names and in a few traits; both are data, one `Classic` per family, and what that cannot say stands in a reader of its
own. Source: the configuration and modeling files of transformers 5.23.0; a test builds every one of them on the meta device, field by
field, and compares. In all of them head_dim is the width divided by the heads: a file cannot state another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...errors import Words
from ..fields import Fields
from ..model import ModelShape, default_head_dim
from ..parts import Attention, Dense, LayerSpec, Stem
from .dense import activation_extra, switched
from .registry import FAMILIES, family, runs


@dataclass(frozen=True)
class Classic:
    """The field names of a family and its traits."""

    d_model: str = "hidden_size"
    n_layers: str = "num_hidden_layers"
    n_heads: str = "num_attention_heads"
    d_ff: str = "intermediate_size"
    """The field, of which null means four times the width; empty where it is always that."""
    activation: str = "activation_function"
    """The field; empty where the function is fixed."""
    bias: str = "qkvo"
    """Letters, perhaps "letters@switch"."""
    mlp_bias: bool = True
    norms: int = 2
    affine: int = 2
    final_norm: bool = True
    embedding_norm: bool = False
    positions: str = ""
    """The field with the rows of the learned position table; empty where positions are computed."""
    more_positions: int = 0
    """Rows beyond that field, which fairseq kept for padding."""
    head_bias: bool = False
    ignored: tuple[str, ...] = ()
    note: str = ""
    """What a reader of the counts has to know."""


_GPT2 = Classic(d_model="n_embd", n_layers="n_layer", n_heads="n_head", d_ff="n_inner", positions="n_positions")
_GPTJ = replace(_GPT2, bias="", norms=1, positions="", head_bias=True, ignored=("rotary", "rotary_dim", "n_positions"))

CLASSICS: dict[str, Classic] = {
    "gpt2": _GPT2,
    "gpt-sw3": _GPT2,
    "openai-gpt": replace(
        _GPT2, d_ff="", activation="", final_norm=False,
        note=Words("transformers keeps no cache for this type and computes all tokens anew"),
    ),
    "ctrl": replace(_GPT2, d_ff="dff", activation="", positions="", head_bias=True, ignored=("n_positions",)),
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "gpt_neox": Classic(activation="hidden_act", bias="qkvo@attention_bias", ignored=("use_parallel_residual",)),
    "xglm": Classic(d_model="d_model", n_layers="num_layers", n_heads="attention_heads", d_ff="ffn_dim"),
    "biogpt": Classic(activation="hidden_act", positions="max_position_embeddings", more_positions=2),
}


@dataclass(frozen=True)
class _Sizes:
    """What every reader here starts from."""

    d_model: int
    n_layers: int
    attention: Attention
    ffn: Dense

    def layer(self, f: Fields, names: Classic) -> LayerSpec:
        """The layer they make."""
        extra = activation_extra(f, names.activation) if names.activation else ()
        return LayerSpec(mixers=(self.attention,), ffns=(self.ffn,), norms=names.norms, norm_affine=names.affine, extra=extra)

    def model(self, f: Fields, names: Classic) -> ModelShape:
        """The model of equal layers that they make."""
        layers = ((self.n_layers, self.layer(f, names)),)
        return ModelShape(d_model=self.d_model, layers=layers, stem=_stem(f, names), notes=(names.note,) if names.note else ())


def _sizes(f: Fields, names: Classic) -> _Sizes:
    f.ignore(*names.ignored)
    d_model = f.count(names.d_model, minimum=1)
    n_heads = f.count(names.n_heads, minimum=1)
    head_dim = default_head_dim(d_model, n_heads)
    given = f.optional(names.d_ff) if names.d_ff else None
    return _Sizes(
        d_model=d_model,
        n_layers=f.count(names.n_layers, minimum=1),
        attention=Attention(n_heads=n_heads, n_kv_heads=n_heads, head_dim=head_dim, v_head_dim=head_dim, bias=switched(f, names.bias)),
        ffn=Dense(d_ff=4 * d_model if given is None else given, gated=False, bias=names.mlp_bias),
    )


def _stem(f: Fields, names: Classic) -> Stem:
    return Stem(
        vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"),
        positions=f.count(names.positions, minimum=1) + names.more_positions if names.positions else 0,
        final_norm=names.affine if names.final_norm else 0, embedding_norm=names.affine if names.embedding_norm else 0,
        head_bias=names.head_bias,
    )


def read_classic(f: Fields) -> ModelShape:
    """A decoder by the entry of its type."""
    names = CLASSICS[f.model_type]
    return _sizes(f, names).model(f, names)


FAMILIES.update({model_type: read_classic for model_type in CLASSICS})


@family("gpt_bigcode")
def read_gpt_bigcode(f: Fields) -> ModelShape:
    """StarCoder: GPT-2 with one KV head, if `multi_query`; its saved num_key_value_heads repeats that and is not read back."""
    names = replace(
        _GPT2,
        ignored=(
            "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "num_key_value_heads",
            # Of an inference runner that transformers no longer has; StarCoder's file still sets them.
            "inference_runner", "validate_runner_input", "pad_key_length", "pre_allocate_kv_cache",
        ),
    )
    sizes = _sizes(f, names)
    if f.flag("multi_query"):
        sizes = replace(sizes, attention=replace(sizes.attention, n_kv_heads=1))
    return sizes.model(f, names)


@family("gpt_neo")
def read_gpt_neo(f: Fields) -> ModelShape:
    """GPT-Neo: every other layer looks at a window, but only by its mask: nothing is dropped from the cache, nothing left uncomputed."""
    names = Classic(
        n_layers="num_layers", n_heads="num_heads", bias="o", positions="max_position_embeddings",
        ignored=("attention_types", "attention_layers"),
        note=Words(
            "local layers mask all but the last {window} tokens; cache and work are counted whole, as in transformers",
            window=f.count("window_size"),
        ),
    )
    return _sizes(f, names).model(f, names)


@family("gpt_neox_japanese")
def read_gpt_neox_japanese(f: Fields) -> ModelShape:
    """GPT-NeoX Japanese: no biases but one, at the attention output of the last layer."""
    names = Classic(d_ff="", activation="hidden_act", bias="", mlp_bias=False)
    sizes = _sizes(f, names)
    sizes = replace(sizes, ffn=replace(sizes.ffn, d_ff=f.count("intermediate_multiple_size", minimum=1) * sizes.d_model))
    layer = sizes.layer(f, names)
    last = replace(layer, mixers=(replace(sizes.attention, bias="o"),))
    return ModelShape(d_model=sizes.d_model, layers=runs([layer] * (sizes.n_layers - 1) + [last]), stem=_stem(f, names))


@family("bloom")
def read_bloom(f: Fields) -> ModelShape:
    """BLOOM. The ignored fields are of its training framework."""
    names = Classic(
        d_model=_older_width(f), n_layers="n_layer", n_heads="n_head", d_ff="", activation="", embedding_norm=True,
        ignored=(
            "apply_residual_connection_post_layernorm", "attention_softmax_in_fp32", "bias_dropout_fusion",
            "masked_softmax_fusion", "offset_alibi", "skip_bias_add", "skip_bias_add_qkv",
        ),
    )
    return _sizes(f, names).model(f, names)


@family("falcon")
def read_falcon(f: Fields) -> ModelShape:
    """Falcon, in its three layouts: MHA, one KV head (`multi_query`), groups (`new_decoder_architecture`, where `num_kv_heads` counts)."""
    biased, grouped, parallel = f.flag("bias"), f.flag("new_decoder_architecture"), f.flag("parallel_attn")
    norms_given = f.optional("num_ln_in_parallel_attn")
    if norms_given is None:
        norms_given = 2 if grouped else 1
    names = Classic(
        d_model=_older_width(f), d_ff="ffn_hidden_size", activation="activation", bias="qkvo" if biased else "", mlp_bias=biased,
        norms=2 if not parallel or norms_given == 2 else 1, ignored=("alibi",),
    )
    sizes = _sizes(f, names)
    n_heads = sizes.attention.n_heads
    n_kv_heads = _falcon_kv_heads(f, int(n_heads), grouped)
    sizes = replace(sizes, attention=replace(sizes.attention, n_kv_heads=n_kv_heads, cache_repeats_kv=grouped and n_kv_heads != n_heads))
    return sizes.model(f, names)


def _older_width(f: Fields) -> str:
    """`n_embed` is an older name of hidden_size; transformers lets it win."""
    if f.optional("n_embed", None) is None:
        return "hidden_size"
    f.ignore("hidden_size")
    return "n_embed"


def _falcon_kv_heads(f: Fields, n_heads: int, grouped: bool) -> int:
    given, single = f.optional("num_kv_heads"), f.flag("multi_query")
    if grouped:
        return n_heads if given is None else given
    if single:
        return 1
    if given not in (None, n_heads):
        raise f.refuse("num_kv_heads", given, "equal to num_attention_heads without multi_query and new_decoder_architecture")
    return n_heads


@family("mpt")
def read_mpt(f: Fields) -> ModelShape:
    """MPT as transformers builds it: ALiBi, no biases, a feed-forward block of four times the width. Other MPTs are refused."""
    _only(f, {"no_bias": True, "expansion_ratio": 4})
    attention = f.child("attn_config")
    if attention is not None:
        _only(attention, {"alibi": True, "qk_ln": False, "attn_type": "multihead_attention"})
        attention.ignore(
            "alibi_bias_max", "attn_impl", "attn_pdrop", "attn_uses_sequence_id", "clip_qkv", "prefix_lm", "softmax_scale",
        )
    names = Classic(
        d_model="d_model", n_layers="n_layers", n_heads="n_heads", d_ff="", activation="", bias="", mlp_bias=False, affine=1,
        ignored=("embedding_fraction", "init_config", "init_device", "learned_pos_emb", "norm_type", "verbose"),
    )
    return _sizes(f, names).model(f, names)


def _only(f: Fields, values: dict[str, Any]) -> None:
    """Refuses other values of these fields than the class default, given here because nested objects have no table of them."""
    for name, only in values.items():
        if f.raw(name, only) != only:
            raise f.refuse(name, f.raw(name), Words("{value}, the only value that transformers builds", value=str(only).lower()))


@family("opt")
def read_opt(f: Fields) -> ModelShape:
    """OPT. Its smallest relative (350M) has narrower embeddings, which two projections connect, and no final norm."""
    biased = f.flag("enable_bias")
    names = Classic(
        d_ff="ffn_dim", bias="qkvo" if biased else "", mlp_bias=biased, affine=2 if f.flag("layer_norm_elementwise_affine") else 0,
        positions="max_position_embeddings", more_positions=2,
    )
    # Read both, whatever the first says: neither may count as unknown.
    before, removed = f.flag("do_layer_norm_before"), f.flag("_remove_final_layer_norm")
    names = replace(names, final_norm=before and not removed)
    shape = _sizes(f, names).model(f, names)
    width = f.optional("word_embed_proj_dim")
    if width in (None, shape.d_model):
        return shape
    # The position table keeps the width of the layers.
    table = ("positions", shape.stem.positions * shape.d_model)
    return shape.replaced(stem=replace(shape.stem, d_embedding=width, positions=0, extra=(table,)))

"""Decoders with one softmax attention and one dense feed-forward block per layer, and the usual field names.

Nearly all differences between these families are which projections carry a bias, how many norms stand around a layer and whether
queries and keys are normalised. Those are data: one `Recipe` per family. Source of each row: the configuration and modeling files of
that name in transformers 5.23.0; a test builds every one of them on the meta device, field by field, and compares.
Families with field names of their own are in `classic.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...errors import Words
from ..fields import Fields
from ..model import ModelShape, default_head_dim
from ..parts import Attention, Dense, Extra, LayerSpec, Stem, Tower
from .registry import FAMILIES, family, heads_of, layer_kinds, runs, windowed


@dataclass(frozen=True)
class Recipe:
    """How a family departs from Llama. A bias is a fixed set of projections, or hangs on switches of the config ("letters@field")."""

    bias: str = ""
    mlp_bias: str = ""
    gated: bool = True
    norms: int = 2
    norms_if: tuple[str, int] = ("", 0)
    """(switch, norms of width d_model when it is on)."""
    affine: int = 1
    """Parameters per channel of every norm: 0, 1 (RMSNorm) or 2 (LayerNorm)."""
    qk_norm: str = ""
    """"head" or "width", perhaps "@switch"."""
    qk_affine: int = 1
    sinks: bool = False
    sub_norms: bool = False
    """A norm before the output projection and one before the down projection (BitNet)."""
    heads: str = "usual"
    """usual: `heads_of`; divided: head_dim is always hidden_size / heads; mha: that, and as many KV heads as heads."""
    stated: tuple[str, ...] = ()
    """Fields that the config class leaves empty and the model then needs."""
    square: str = ""
    """"yes" or "@switch": heads x head_dim has to be hidden_size, because some weight is as wide as the latter instead."""
    windows: str = "none"
    """none; all: `sliding_window` in every layer; types: where `layer_types` says sliding_attention."""
    pattern: str = ""
    """How `layer_types` is computed where the file lacks it, see `computed_layer_types`."""
    window_switch: str = ""
    """The switch without which no layer slides."""
    d_ff: str = "intermediate_size"
    activation: str = "hidden_act"
    head_bias: str = ""
    ignored: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    """Switches that would make another kind of model."""
    agree: tuple[str, ...] = ()
    """Switches that transformers refuses unless they are equal."""
    only: tuple[tuple[str, int], ...] = ()
    """Fields that transformers does not read, with the one value at which that loses nothing."""


_LLAMA = Recipe(bias="qkvo@attention_bias", mlp_bias="@mlp_bias")
_GEMMA = Recipe(bias="qkvo@attention_bias", off=("use_bidirectional_attention",))
_GEMMA2 = replace(_GEMMA, norms=4, windows="types", pattern="last2", activation="hidden_activation")
_GLM = Recipe(bias="qkv@attention_bias")
_QWEN3 = Recipe(bias="qkvo@attention_bias", qk_norm="head", windows="types", pattern="qwen", window_switch="use_sliding_window")
_OLMO2 = Recipe(bias="qkvo@attention_bias", qk_norm="width")

RECIPES: dict[str, Recipe] = {
    "llama": _LLAMA,
    "mistral": Recipe(windows="all"),
    "ministral3": Recipe(windows="all"),
    "qwen2": Recipe(bias="qkv", windows="types", pattern="qwen", window_switch="use_sliding_window"),
    "qwen3": _QWEN3,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, qk_norm="head", pattern="last6@sliding_window_pattern"),
    "vaultgemma": replace(_GEMMA2, norms=2, off=()),
    # The two stand in Phi-4-mini's file: every layer attends to all, no positions are interpolated.
    "phi3": Recipe(windows="all", only=(("full_attn_mod", 1), ("interpolate_factor", 1))),
    # The norm of queries and keys is as wide as hidden_size / heads, whatever head_dim says.
    "phi": Recipe(
        bias="qkvo", mlp_bias="yes", gated=False, norms=1, affine=2, qk_norm="head@qk_layernorm", qk_affine=2, square="@qk_layernorm",
        head_bias="yes",
    ),
    "olmo": Recipe(bias="qkvo@attention_bias", affine=0, ignored=("clip_qkv",)),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, windows="types", pattern="last4"),
    "granite": _LLAMA,
    "granite_swa": replace(_LLAMA, sinks=True, windows="types", pattern="first4", ignored=("layer_rope_theta",)),
    "glm": _GLM,
    "glm4": replace(_GLM, norms=4),
    "cohere": Recipe(bias="qkvo@attention_bias", norms=1, qk_norm="width@use_qk_norm"),
    "cohere2": Recipe(
        bias="qkvo@attention_bias", norms=1, heads="divided", windows="types", pattern="last4@sliding_window_pattern",
    ),
    "starcoder2": Recipe(bias="qkvo@use_bias", mlp_bias="@use_bias", gated=False, affine=2, windows="all"),
    "stablelm": Recipe(
        bias="qkv@use_qkv_bias", affine=2, norms_if=("use_parallel_residual", 1), qk_norm="width@qk_layernorm", heads="divided",
    ),
    "persimmon": Recipe(
        bias="qkvo", mlp_bias="yes", gated=False, affine=2, qk_norm="head@qk_layernorm", qk_affine=2, heads="mha",
    ),
    "smollm3": replace(_LLAMA, windows="types", pattern="smollm3", window_switch="use_sliding_window"),
    "seed_oss": replace(_LLAMA, bias="qkv@attention_bias o@attention_out_bias"),
    "exaone4": Recipe(qk_norm="head", windows="types", pattern="last4@sliding_window_pattern"),
    "ernie4_5": Recipe(bias="qkvo@use_bias", mlp_bias="@use_bias"),
    "helium": Recipe(bias="qkv@attention_bias", mlp_bias="@mlp_bias", square="yes"),
    "hyperclovax": replace(_LLAMA, norms_if=("use_post_norm", 4)),
    "internlm3": replace(_LLAMA, agree=("attention_bias", "mlp_bias")),
    "iquestcoder": _LLAMA,
    "cwm": Recipe(mlp_bias="@mlp_bias", windows="types", pattern="first4"),
    "arcee": replace(_LLAMA, gated=False),
    "apertus": Recipe(bias="qkvo@attention_bias", gated=False, qk_norm="head"),
    "bitnet": Recipe(bias="qkvo@attention_bias", sub_norms=True, square="yes"),
    "jais2": replace(_LLAMA, gated=False, affine=2),
    # Queries, keys, embeddings and layers are all normalised, by norms without parameters.
    "nanochat": Recipe(bias="qkvo@attention_bias", gated=False, affine=0, qk_norm="head", qk_affine=0),
    "nemotron": replace(_LLAMA, gated=False, affine=2, stated=("num_key_value_heads",)),
    "ministral": Recipe(windows="types", pattern="window", stated=("head_dim",)),
    "hunyuan_v1_dense": Recipe(bias="qkvo@attention_bias", qk_norm="head", stated=("head_dim",), ignored=("eod_token_id",)),
}
_EMU3_TEXT = _LLAMA

ACTIVATION_PARAMETERS = {"prelu": 1, "xielu": 2}
"""Activations that learn something: parameters of one layer's. Source: `activations.py` of transformers 5.23.0."""
_PATTERN_FIELDS = ("sliding_window_pattern", "_sliding_window_pattern", "no_rope_layers", "no_rope_layer_interval")


def switched(f: Fields, rules: str) -> str:
    """Resolves "letters@field": the letters if the switch is on. Without a field the letters stand. Several rules are joined."""
    parts = (rule.partition("@") for rule in rules.split())
    return "".join(letters for letters, _, name in parts if not name or f.flag(name))


def switched_flag(f: Fields, rule: str) -> bool:
    """Resolves "@field" to the switch, "yes" to True, "" to False."""
    return f.flag(rule[1:]) if rule.startswith("@") else bool(rule)


def activation_extra(f: Fields, field: str) -> Extra:
    """The parameters of one layer's activation function, named by `field`; nearly always none."""
    learned = ACTIVATION_PARAMETERS.get(f.text(field) or "", 0)
    return (("activation", learned),) if learned else ()


def computed_layer_types(f: Fields, pattern: str, n_layers: int) -> list[str]:
    """What the config class fills in for `layer_types` when the file has none.

    Patterns: "lastN" each Nth layer is full, "firstN" the first of each N; "@field" names the field that replaces N; "window" none
    if there is a window; "qwen" and "smollm3" as those two do it; "" all.
    """
    kind, _, field = pattern.partition("@")
    if pattern == "qwen":
        slides = f.flag("use_sliding_window") and f.raw("sliding_window") is not None
        first = f.count("max_window_layers") if slides else n_layers
        full = [i < first for i in range(n_layers)]
    elif pattern == "smollm3":
        full = [not slides for slides in _smollm3_slides(f, n_layers)]
    elif pattern == "window":
        full = [f.raw("sliding_window") is None] * n_layers
    elif kind.startswith(("last", "first")):
        default = int(kind.removeprefix("last").removeprefix("first"))
        period = _period(f, field, default) if field else default
        which = period - 1 if kind.startswith("last") else 0
        full = [i % period == which for i in range(n_layers)]
    else:
        full = [True] * n_layers
    return ["full_attention" if is_full else "sliding_attention" for is_full in full]


def _period(f: Fields, field: str, default: int) -> int:
    """The pattern's length. Saved files repeat it with an underscore, which transformers does not read back: it must not differ."""
    period = f.count(field, default, minimum=1)
    if f.optional(f"_{field}", None) not in (None, period):
        raise f.refuse(
            f"_{field}", f.raw(f"_{field}"), Words("the {period} that transformers takes, or layer_types must be given", period=period)
        )
    return period


def _smollm3_slides(f: Fields, n_layers: int) -> list[bool]:
    """Layers without rotary positions are the ones that slide, if any do."""
    if not f.flag("use_sliding_window") or f.raw("sliding_window") is None:
        f.ignore("no_rope_layers", "no_rope_layer_interval")
        return [False] * n_layers
    has_rope = f.items("no_rope_layers", None, length=n_layers)
    interval = f.count("no_rope_layer_interval", minimum=1)
    if has_rope is None:
        has_rope = [(i + 1) % interval != 0 for i in range(n_layers)]
    return [not rope for rope in has_rope]


def read_dense(f: Fields) -> ModelShape:
    """A dense decoder by the recipe of its type."""
    return dense_shape(f, RECIPES[f.model_type])


def dense_shape(f: Fields, recipe: Recipe) -> ModelShape:
    """A dense decoder by a recipe."""
    f.ignore(*recipe.ignored)
    for name in recipe.stated:
        f.count(name, minimum=1)
    for name in recipe.off:
        if f.flag(name):
            raise f.refuse(name, True, "false or absent: headcount counts decoders that look backwards only")
    for name, value in recipe.only:
        if f.count(name, value) != value:
            raise f.refuse(name, f.raw(name), Words("{value}, the only value that transformers builds", value=value))
    if len({f.flag(name) for name in recipe.agree}) > 1:
        first, *others = recipe.agree
        raise f.refuse(first, f.raw(first), Words("equal to {names}", names=", ".join(others)))
    n_layers = f.count("num_hidden_layers", minimum=1)
    d_model = f.count("hidden_size", minimum=1)
    d_ff = f.count(recipe.d_ff, minimum=1)
    attention = _attention(f, recipe, d_model)
    ffn = Dense(
        d_ff=d_ff, gated=recipe.gated, bias=switched_flag(f, recipe.mlp_bias), extra=(("sub_norm", d_ff),) if recipe.sub_norms else (),
    )
    switch, norms = recipe.norms_if
    layer = LayerSpec(
        mixers=(attention,), ffns=(ffn,), norms=norms if switch and f.flag(switch) else recipe.norms, norm_affine=recipe.affine,
        extra=activation_extra(f, recipe.activation),
    )
    return ModelShape(
        d_model=d_model,
        layers=runs(_windows(f, recipe, layer, attention, n_layers)),
        stem=Stem(
            vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"), final_norm=recipe.affine,
            head_bias=switched_flag(f, recipe.head_bias),
        ),
    )


def _attention(f: Fields, recipe: Recipe, d_model: int) -> Attention:
    heads = _heads(f, recipe.heads)
    if switched_flag(f, recipe.square) and heads["n_heads"] * heads["head_dim"] != d_model:
        raise f.refuse("head_dim", heads["head_dim"], "hidden_size / num_attention_heads, or its layers would not fit together")
    return Attention(
        **heads, bias=switched(f, recipe.bias), qk_norm=switched(f, recipe.qk_norm) or "none",  # type: ignore[arg-type]
        qk_norm_affine=recipe.qk_affine, sinks=recipe.sinks,
        # In `extra`, so that a change of heads is refused: its width hangs on them.
        extra=(("sub_norm", d_model),) if recipe.sub_norms else (),
    )


def _heads(f: Fields, how: str) -> dict[str, int]:
    if how == "usual":
        return heads_of(f)
    n_heads = f.count("num_attention_heads", minimum=1)
    head_dim = default_head_dim(f.count("hidden_size", minimum=1), n_heads)
    given = f.optional("head_dim", None)
    if given not in (None, head_dim):
        raise f.refuse(
            "head_dim", given, Words("hidden_size / num_attention_heads ({head_dim}) in this family, which has no other", head_dim=head_dim)
        )
    n_kv_heads = None if how == "mha" else f.optional("num_key_value_heads")
    return {"n_heads": n_heads, "n_kv_heads": n_heads if n_kv_heads is None else n_kv_heads, "head_dim": head_dim, "v_head_dim": head_dim}


def _windows(f: Fields, recipe: Recipe, layer: LayerSpec, attention: Attention, n_layers: int) -> list[LayerSpec]:
    if recipe.windows == "none":
        return [layer] * n_layers
    window = f.optional("sliding_window")
    local = replace(layer, mixers=(windowed(attention, window),))
    if recipe.windows == "all":
        if window == 0:
            raise f.refuse("sliding_window", window, "null or a whole number from 1")
        return [local] * n_layers
    kinds = _kinds(f, recipe, n_layers)
    chosen = {"full_attention": layer, "sliding_attention": local}
    for kind in kinds:
        if kind not in chosen:
            raise f.refuse("layer_types", kind, "full_attention or sliding_attention in this family")
    if "sliding_attention" in kinds:
        if not window:
            raise f.refuse("sliding_window", window, "a whole number from 1 where a layer's type is sliding_attention")
        if recipe.window_switch and not f.flag(recipe.window_switch):
            raise f.refuse(recipe.window_switch, False, "true where a layer's type is sliding_attention")
    return [chosen[kind] for kind in kinds]


def _kinds(f: Fields, recipe: Recipe, n_layers: int) -> list[str]:
    """`layer_types` of the file, else as the config class computes it; what it would be computed from is read only then."""
    if recipe.window_switch:
        f.flag(recipe.window_switch)
    if f.raw("layer_types", None) is None:
        return computed_layer_types(f, recipe.pattern, n_layers)
    f.ignore(*_PATTERN_FIELDS)
    return layer_kinds(f, n_layers)


@family("emu3")
def read_emu3(f: Fields) -> ModelShape:
    """Emu3: a Llama over text and image tokens, beside the quantiser that makes the latter, whose size is not counted."""
    text = f.child("text_config")
    if text is None:
        raise f.refuse("text_config", None, "an object with the sizes of the text model")
    if f.flag("tie_word_embeddings") != text.flag("tie_word_embeddings"):
        raise f.refuse("tie_word_embeddings", f.flag("tie_word_embeddings"), "equal to text_config.tie_word_embeddings")
    f.ignore("vq_config", "vocabulary_map", "image_token_id")
    return dense_shape(text, _EMU3_TEXT).replaced(towers=(Tower(name="image_tokenizer", kind="emu3_vqgan", terms=None),))


FAMILIES.update({model_type: read_dense for model_type in RECIPES})

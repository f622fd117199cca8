"""Decoders with one softmax attention and one dense feed-forward block per layer, and the usual field names.

Nearly all differences between these families are which projections carry a bias, how many norms stand around a layer and whether
queries and keys are normalised. Those are data: one `Recipe` per family. Source of each row: the modeling file of that name in
transformers 5.23.0; a test builds every one of them on the meta device and compares.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..fields import Fields
from ..model import ModelShape
from ..parts import Attention, Dense, LayerSpec, Stem
from .registry import FAMILIES, heads_of, layer_kinds, runs, windowed


@dataclass(frozen=True)
class Recipe:
    """How a family departs from Llama. A bias is a fixed set of projections, or hangs on a switch of the config ("letters@field")."""

    bias: str = ""
    mlp_bias: str = ""
    gated: bool = True
    norms: int = 2
    affine: int = 1
    """Parameters per channel of every norm: 0, 1 (RMSNorm) or 2 (LayerNorm)."""
    qk_norm: str = "none"
    qk_affine: int = 1
    windows: str = "none"
    """none; all: `sliding_window` in every layer; types: where `layer_types` says sliding_attention."""
    pattern: str = ""
    """How `layer_types` is computed where the file lacks it: every6 means each sixth layer is full, alternate means even ones slide."""
    d_ff: str = "intermediate_size"
    head_bias: str = ""
    ignored: tuple[str, ...] = ()
    embedding_norm: int = 0


RECIPES: dict[str, Recipe] = {
    "llama": Recipe(bias="qkvo@attention_bias", mlp_bias="@mlp_bias"),
    "mistral": Recipe(windows="all"),
    "qwen2": Recipe(bias="qkv", windows="types", pattern="qwen"),
    "qwen3": Recipe(bias="qkvo@attention_bias", qk_norm="head", windows="types", pattern="qwen"),
    "gemma": Recipe(bias="qkvo@attention_bias"),
    "gemma2": Recipe(bias="qkvo@attention_bias", norms=4, windows="types", pattern="every2"),
    "gemma3_text": Recipe(bias="qkvo@attention_bias", norms=4, qk_norm="head", windows="types", pattern="every6"),
}


def switched(f: Fields, rule: str) -> str:
    """Resolves "letters@field": the letters if the switch is on. Without a field the letters stand."""
    letters, _, name = rule.partition("@")
    return letters if not name or f.flag(name) else ""


def switched_flag(f: Fields, rule: str) -> bool:
    """Resolves "@field" to the switch, "yes" to True, "" to False."""
    return f.flag(rule[1:]) if rule.startswith("@") else bool(rule)


def computed_layer_types(f: Fields, pattern: str, n_layers: int) -> list[str]:
    """What the config class fills in for `layer_types` when the file has none."""
    if pattern == "qwen":
        first = f.count("max_window_layers", 0) if f.flag("use_sliding_window") else n_layers
        return ["full_attention" if i < first else "sliding_attention" for i in range(n_layers)]
    if pattern.startswith("every"):
        # Older files name it without, re-saved ones with an underscore.
        period = f.count("sliding_window_pattern", f.count("_sliding_window_pattern", int(pattern[5:])), minimum=1)
        return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(n_layers)]
    return ["full_attention"] * n_layers


def read_dense(f: Fields) -> ModelShape:
    """A dense decoder by its recipe."""
    recipe = RECIPES[f.model_type]
    f.ignore(*recipe.ignored)
    n_layers = f.count("num_hidden_layers", minimum=1)
    attention = Attention(
        **heads_of(f), bias=switched(f, recipe.bias), qk_norm=recipe.qk_norm, qk_norm_affine=recipe.qk_affine,  # type: ignore[arg-type]
    )
    ffn = Dense(d_ff=f.count(recipe.d_ff, minimum=1), gated=recipe.gated, bias=switched_flag(f, recipe.mlp_bias))
    layer = LayerSpec(mixers=(attention,), ffns=(ffn,), norms=recipe.norms, norm_affine=recipe.affine)
    return ModelShape(
        d_model=f.count("hidden_size", minimum=1),
        layers=runs(_windows(f, recipe, layer, attention, n_layers)),
        stem=Stem(
            vocab_size=f.count("vocab_size", minimum=1), tied=f.flag("tie_word_embeddings"), final_norm=recipe.affine,
            head_bias=switched_flag(f, recipe.head_bias), embedding_norm=recipe.embedding_norm,
        ),
    )


def _windows(f: Fields, recipe: Recipe, layer: LayerSpec, attention: Attention, n_layers: int) -> list[LayerSpec]:
    if recipe.windows == "none":
        return [layer] * n_layers
    window = f.optional("sliding_window")
    local = replace(layer, mixers=(windowed(attention, window),))
    if recipe.windows == "all":
        return [local] * n_layers
    if recipe.pattern == "qwen" and not f.flag("use_sliding_window"):
        local = layer
    f.ignore("sliding_window_pattern", "_sliding_window_pattern")
    kinds = layer_kinds(f, n_layers, computed_layer_types(f, recipe.pattern, n_layers))
    chosen = {"full_attention": layer, "sliding_attention": local}
    for kind in kinds:
        if kind not in chosen:
            raise f.refuse("layer_types", kind, "full_attention or sliding_attention in this family")
    return [chosen[kind] for kind in kinds]


FAMILIES.update({model_type: read_dense for model_type in RECIPES})

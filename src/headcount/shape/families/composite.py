"""Models that put a text model and encoders of other modalities together.

A reader here finds the nested configs, lets the reader of the text type do the text, counts the towers and their projectors, and
decides which `tie_word_embeddings` ties the output head. A tower whose type is not known, or whose config describes something that
`towers.py` does not understand, gets no size: the text model is read all the same, and a total is refused when somebody asks for
it. A field of an understood tower that nobody reads is refused by name, as everywhere. Source: transformers 5.23.0, its config
classes (`sub_configs_defaults`) and modeling files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...errors import ConfigError, Words
from ..fields import READ_AS, Fields
from ..model import ModelShape
from ..parts import Tower
from ..towers import TOWERS, TowerTerms, layer_norm, linear, whole_pair
from .registry import FAMILIES

Projector = Callable[[Fields, Fields, int], "TowerTerms | None"]
"""(composite config, tower config, width of the text model) -> what connects the two; None where it is not understood."""


def no_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """The tower itself ends in the width of the text model."""
    return ()


def kimi_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms | None:
    """A norm before, two matrices after the patches of a merge window are put side by side."""
    norm = f.count("projection_hidden_size", minimum=1)
    if tower.count("mm_hidden_size", norm) != norm or tower.count("text_hidden_size", d_text) != d_text:
        return None  # the checkpoint's own names disagree with what transformers builds
    rows, columns = whole_pair(tower, "merge_kernel_size")
    merged = tower.count("hidden_size", tower.defaults["hidden_size"]) * rows * columns
    return (("projector", layer_norm(norm) + linear(merged, merged) + linear(merged, d_text)),)


def llama4_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """One matrix without bias."""
    return (("projector", tower.count("vision_output_dim", minimum=1) * d_text),)


def gemma4_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """One matrix without bias, from the audio tower's own output width where it has one; the norm before it has no scale."""
    width = tower.count("output_proj_dims") if "output_proj_dims" in tower.defaults else tower.count("hidden_size")
    return (("projector", width * d_text),)


def step_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """One matrix from four times the tower's width."""
    width = tower.count("width", tower.count("hidden_size"))
    return (("projector", linear(4 * width, d_text, bias=f.flag("projector_bias"))),)


def gemma3_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """A norm and one matrix without bias."""
    width = tower.count("hidden_size")
    return (("projector", width + width * d_text),)


def llava_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """Two matrices from the hidden states of one or several tower layers put side by side."""
    f.ignore("vision_feature_select_strategy", "image_seq_length", "image_grid_pinpoints")
    taps = f.raw("vision_feature_layer")
    if not isinstance(taps, (int, list)):
        raise f.refuse("vision_feature_layer", taps, "a layer's index or a list of them")
    width = tower.count("hidden_size") * (len(taps) if isinstance(taps, list) else 1)
    bias = f.flag("multimodal_projector_bias")
    return (("projector", linear(width, d_text, bias) + linear(d_text, d_text, bias)),)


def llava_next_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """As LLaVA, and one vector that marks the end of an image row."""
    return (*llava_projector(f, tower, d_text), ("newline", d_text))


def mistral3_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """As LLaVA, after a norm and a matrix that merges neighbouring patches."""
    width = tower.count("hidden_size")
    merger = width + width * f.count("spatial_merge_size", minimum=1) ** 2 * width
    return (*llava_projector(f, tower, d_text), ("merger", merger))


def cohere_projector(f: Fields, tower: Fields, d_text: int) -> TowerTerms:
    """Two matrices with a gate between them that halves the width, from patches put side by side; Aya norms these first."""
    width = tower.count("hidden_size") * f.count("downsample_factor", minimum=1) ** 2
    inner = f.count("alignment_intermediate_size", f.defaults.get("alignment_intermediate_size", d_text), 1)
    f.ignore("vision_feature_layer", "adapter_layer_norm_eps")
    norm = layer_norm(width) if f.model_type == "aya_vision" else 0
    return (("projector", norm + linear(width, inner) + linear(inner // 2, d_text)),)


@dataclass(frozen=True)
class Composite:
    """How a composite type connects its parts."""

    projector: Projector
    towers: tuple[str, ...] = ("vision_config",)
    optional: bool = False
    """An absent tower config means no tower; otherwise transformers builds the class default."""
    ties: str = "top"
    """Whose tie_word_embeddings ties the head: the top level's (top), the text config's (text), or either one's (either)."""
    any_text: bool = False
    """text_config names its own model type; otherwise the composite fixes it and another name is refused."""
    other_towers: tuple[str, ...] = ()
    """Tower types beside the class default that the tower config may name."""
    ignored: tuple[str, ...] = ()
    flat_text: tuple[str, ...] = ()
    """Text sizes that published files give at the top level, where transformers does not read them."""


_QWEN = Composite(no_projector)
_VITS = ("siglip_vision_model", "clip_vision_model", "pixtral")
_STEP_FLAT = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size", "intermediate_size",
    "sliding_window", "layer_types", "first_k_dense_replace", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
    "share_expert_dim", "n_shared_experts", "num_nextn_predict_layers", "use_moe_router_bias", "moe_router_scaling_factor",
)
COMPOSITES: dict[str, Composite] = {
    "qwen3_vl": _QWEN, "qwen3_vl_moe": _QWEN, "qwen3_5": _QWEN, "qwen3_5_moe": _QWEN,
    "kimi_k25": Composite(kimi_projector, any_text=True, ignored=("ignore_index", "use_unified_vision_chunk", "projection_layer_norm_eps")),
    "llama4": Composite(llama4_projector, ties="text"),
    "gemma4": Composite(
        gemma4_projector, towers=("vision_config", "audio_config"), optional=True, ignored=("vision_soft_tokens_per_image",),
    ),
    "step3p7": Composite(step_projector, flat_text=_STEP_FLAT),
    "gemma3": Composite(gemma3_projector, ignored=("mm_tokens_per_image",)),
    "llava": Composite(llava_projector, ties="either", any_text=True, other_towers=_VITS),
    "llava_next": Composite(llava_next_projector, any_text=True, other_towers=_VITS),
    "llava_onevision": Composite(llava_next_projector, ties="either", any_text=True, other_towers=_VITS),
    "aya_vision": Composite(cohere_projector, any_text=True, other_towers=_VITS),
    "cohere2_vision": Composite(cohere_projector, any_text=True, other_towers=_VITS),
    # Its towers are a timm network and a conformer that nothing here counts.
    "gemma3n": Composite(
        no_projector, towers=("vision_config", "audio_config"), ignored=("vision_soft_tokens_per_image", "audio_soft_tokens_per_image"),
    ),
    "mistral3": Composite(mistral3_projector, any_text=True, other_towers=_VITS),
}


def read_composite(f: Fields) -> ModelShape:
    """A text model with towers.

    Raises:
        ConfigError: no text config, or one whose type headcount does not read; whatever the text type's own reader refuses.
    """
    kind = COMPOSITES[f.model_type]
    # A token's id or index names a row of the vocabulary, never a size.
    f.ignore(*kind.ignored, *(name for name in f.values if name.endswith(("_token_id", "_token_index"))))
    text_fields, notes = _text_fields(f, kind)
    text = FAMILIES[text_fields.model_type](text_fields)
    towers = (_tower(f, kind, name, text.d_model) for name in kind.towers)
    return text.replaced(
        stem=replace(text.stem, tied=_tied(f, kind, text.stem.tied)), towers=tuple(t for t in towers if t is not None),
        # What stands at the top level of a flat file is not read; where it speaks of MTP layers, their number is not known.
        mtp=None if "num_nextn_predict_layers" in kind.flat_text and f.values.get("num_nextn_predict_layers") else text.mtp,
        notes=text.notes + notes,
    )


def _nested(f: Fields, name: str, model_type: str | None = None) -> Fields:
    """The nested config, or what transformers fills in where it is absent or null."""
    child = f.child(name, model_type)
    if child is None:
        child = Fields(f.sub_values.get(name, {}), model_type or f.sub_types[name], path=f"{f.path}{name}.", nested=True)
        f.children.append(child)
        f.notes.append(f"{f.path}{name}={{...}}")
    return child


def _text_fields(f: Fields, kind: Composite) -> tuple[Fields, tuple[str, ...]]:
    fixed = f.sub_types["text_config"]
    given = f.raw("text_config")
    own = given.get("model_type") if isinstance(given, dict) else None
    notes: tuple[str, ...] = ()
    if kind.flat_text:
        # This class drops the nested type's name, and takes its text defaults whatever the top level says.
        notes = _flat_note(f, kind, fixed) if given is None else ()
    elif given is None:
        raise f.refuse("text_config", None, "an object: the text model's own config")
    elif own not in (None, fixed) and not kind.any_text:
        raise f.refuse("text_config.model_type", own, Words("{fixed} in this family", fixed=fixed))
    text_type = READ_AS.get(str(own), str(own)) if own is not None and kind.any_text else fixed
    if text_type not in FAMILIES or text_type in COMPOSITES:
        raise ConfigError(
            "unknown_text_type",
            "the text part of this {model_type} model is of type {text_type}, which is not one that headcount can count exactly; "
            "describe it with flags (--layers, --width, --heads, --kv-heads, --head-dim, --ffn, --vocab) instead",
            model_type=f.model_type, text_type=text_type[:60],
        )
    return _nested(f, "text_config", text_type), notes


def _flat_note(f: Fields, kind: Composite, text_type: str) -> tuple[str, ...]:
    defaults = Fields({}, text_type).defaults
    f.ignore(*kind.flat_text)
    other = [n for n in kind.flat_text if n in f.values and f.values[n] != defaults.get(n)]
    if not other:
        return ()
    pairs = tuple(
        Words("{name} {value} (taken: {taken})", name=n, value=str(f.values[n])[:20], taken=defaults[n]) if n in defaults
        else f"{n} {f.values[n]}" for n in other
    )
    return (Words("no text_config: counted as transformers builds it, from class defaults; the top level also says {pairs}", pairs=pairs),)


def _tied(f: Fields, kind: Composite, text_tied: bool) -> bool:
    top = f.flag("tie_word_embeddings")
    return {"top": top, "text": text_tied, "either": top or text_tied}[kind.ties]


def _tower(f: Fields, kind: Composite, name: str, d_text: int) -> Tower | None:
    given = f.raw(name)
    if kind.optional and given is None:
        return None
    label, fixed = name.removesuffix("_config"), f.sub_types[name]
    own = given.get("model_type") if isinstance(given, dict) else None
    # Older files give the tower the composite's own type, and Step-3.7's class drops whatever name stands there.
    if own in (None, fixed, f.model_type) or kind.flat_text:
        own = fixed
    if not isinstance(own, str) or own not in TOWERS or own not in (fixed, *kind.other_towers):
        return Tower(name=label, kind=str(own)[:60], terms=None)
    child = _nested(f, name, own)
    terms = TOWERS[own](child)
    joint = None if terms is None else kind.projector(f, child, d_text)
    if terms is None or joint is None:
        f.children.remove(child)  # nothing in it was understood, so nothing in it can be refused
        return Tower(name=label, kind=own, terms=None)
    return Tower(name=label, kind=own, terms=tuple((term, n) for term, n in (*terms, *joint) if n))


FAMILIES.update({model_type: read_composite for model_type in COMPOSITES})

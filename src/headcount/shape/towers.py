"""What the encoders beside a text model hold: exact parameter counts, by kind of weight, summed over their layers.

One function per tower type reads the tower's own config and returns named counts, or None where the config describes something that
the function does not understand: then the tower has no size, and a total that would need it is refused. Fields that no function
reads are refused by name like everywhere else. Projectors into the text model belong to the composite and are in
`families/composite.py`, except where the encoder itself holds them. Source: the modeling files of transformers 5.23.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..errors import Words
from .fields import Fields
from .model import default_head_dim

TowerTerms: TypeAlias = tuple[tuple[str, int], ...]
TowerReader = Callable[[Fields], "TowerTerms | None"]


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    """Parameters of a matrix with its bias."""
    return inputs * outputs + (outputs if bias else 0)


def layer_norm(width: int) -> int:
    """Parameters of a LayerNorm: scale and shift."""
    return 2 * width


def whole_pair(f: Fields, name: str) -> tuple[int, int]:
    """A side length given as one whole number or as two. Raises ConfigError."""
    value = f.raw(name)
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides):
        raise f.refuse(name, value, "a whole number from 1, or a list of two")
    return sides[0], sides[1]


def head_dim_of(f: Fields, width: int, heads: str = "num_attention_heads") -> int:
    """Channels per head in a tower whose heads have to fill its width. Raises ConfigError where they cannot."""
    n_heads = f.count(heads, minimum=1)
    if width % n_heads:
        raise f.refuse(heads, n_heads, Words("a divisor of the tower's width {width}", width=width))
    return int(default_head_dim(width, n_heads))


def patch_grid(f: Fields) -> int:
    """Patches of one image: the square of how often the patch fits into a side."""
    return (f.count("image_size", minimum=1) // f.count("patch_size", minimum=1)) ** 2


def plain_layers(layers: int, width: int, d_ff: int) -> TowerTerms:
    """The layers that most towers share: four square projections and two feed-forward matrices, all with bias, and two LayerNorms."""
    return (
        ("attention", layers * 4 * linear(width, width)),
        ("ffn", layers * (linear(width, d_ff) + linear(d_ff, width))),
        ("norms", layers * 2 * layer_norm(width)),
    )


def read_qwen_vision(f: Fields) -> TowerTerms | None:
    """Qwen3-VL's tower with its merger into the text width; deepstack adds one more merger per tapped layer."""
    width, merge = f.count("hidden_size", minimum=1), f.count("spatial_merge_size", minimum=1)
    head_dim_of(f, width, "num_heads")
    patch = f.count("in_channels") * f.count("temporal_patch_size") * f.count("patch_size") ** 2
    merged, out = width * merge**2, f.count("out_hidden_size", minimum=1)
    merger = linear(merged, merged) + linear(merged, out)
    taps = f.items("deepstack_visual_indexes", f.defaults.get("deepstack_visual_indexes", [])) or []
    if taps and "deepstack_visual_indexes" not in f.defaults:
        return None  # Qwen3.5 builds no deepstack mergers, so a file that asks for them describes some other tower
    return (
        ("patches", linear(patch, width)),
        ("positions", f.count("num_position_embeddings") * width),
        *plain_layers(f.count("depth"), width, f.count("intermediate_size", minimum=1)),
        ("merger", layer_norm(width) + merger),
        ("deepstack", len(taps) * (layer_norm(merged) + merger)),
    )


_KIMI_OTHER_NAMES = {
    "vt_hidden_size": "hidden_size", "vt_intermediate_size": "intermediate_size", "vt_num_attention_heads": "num_attention_heads",
    "vt_num_hidden_layers": "num_hidden_layers", "init_pos_emb_height": "pos_emb_height", "init_pos_emb_width": "pos_emb_width",
    "init_pos_emb_time": "pos_emb_time",
}
"""Names of the checkpoint's own code, which transformers does not read."""
_KIMI_KINDS = {
    "pos_emb_type": "divided_fixed", "merge_type": "sd2_tpool", "mm_projector_type": "patchmerger", "video_attn_type": "spatial_temporal",
}


def read_kimi_vision(f: Fields) -> TowerTerms | None:
    """Kimi-K2.5's tower. Not understood where the checkpoint's own names say another size than the one transformers builds."""
    if any(f.text(name, kind) != kind for name, kind in _KIMI_KINDS.items()):
        return None
    sizes = {
        name: f.count(name, f.defaults[name], 1) if other in f.values else f.count(name, minimum=1)
        for other, name in _KIMI_OTHER_NAMES.items()
    }
    if any(f.count(other, sizes[name]) != sizes[name] for other, name in _KIMI_OTHER_NAMES.items()):
        return None
    f.ignore("projector_ln_eps")
    width = sizes["hidden_size"]
    height, breadth = whole_pair(f, "patch_size")
    return (
        ("patches", linear(3 * height * breadth, width)),
        ("positions", sizes["pos_emb_height"] * sizes["pos_emb_width"] * width),
        *plain_layers(sizes["num_hidden_layers"], width, sizes["intermediate_size"]),
        ("final_norm", layer_norm(width)),
    )


def read_llama4_vision(f: Fields) -> TowerTerms:
    """Llama 4's tower with its pixel-shuffle adapter; one class token beside the patches."""
    width = f.count("hidden_size", minimum=1)
    head_dim_of(f, width)
    out = f.count("projector_output_dim", minimum=1)
    # The adapter has no bias whatever multi_modal_projector_bias says.
    f.ignore("multi_modal_projector_bias", "projector_dropout", "pixel_shuffle_ratio", "vision_feature_layer")
    return (
        ("patches", linear(f.count("num_channels") * f.count("patch_size") ** 2, width, bias=False)),
        ("positions", (patch_grid(f) + 1) * width + width),
        *plain_layers(f.count("num_hidden_layers"), width, f.count("intermediate_size", minimum=1)),
        ("outer_norms", 2 * layer_norm(width)),
        ("adapter", f.count("intermediate_size") * f.count("projector_input_dim", minimum=1) + out * out),
    )


_GEMMA_TOKENS = ("default_output_length", "image_seq_length", "video_seq_length")
"""How many tokens an image becomes: no weights."""


def read_gemma4_vision(f: Fields) -> TowerTerms:
    """Gemma 4's vision tower: RMSNorms, gated feed-forward, normalised queries and keys, no bias anywhere.

    attention_bias is a field that the code does not use; clipping bounds and standardisation are buffers, no parameters.
    """
    f.ignore("attention_bias", "use_clipped_linears", "standardize", "global_head_dim", "pooling_kernel_size", *_GEMMA_TOKENS)
    layers, width, head_dim = f.count("num_hidden_layers"), f.count("hidden_size", minimum=1), f.count("head_dim", minimum=1)
    heads, kv_heads = f.count("num_attention_heads", minimum=1), f.count("num_key_value_heads", minimum=1)
    return (
        ("patches", 3 * f.count("patch_size") ** 2 * width),
        ("positions", 2 * f.count("position_embedding_size") * width),
        ("attention", layers * 2 * width * head_dim * (heads + kv_heads)),
        ("ffn", layers * 3 * width * f.count("intermediate_size", minimum=1)),
        ("norms", layers * (4 * width + 2 * head_dim)),
    )


def read_gemma4_audio(f: Fields) -> TowerTerms:
    """Gemma 4's conformer: two strided convolutions, then layers of attention between two half feed-forwards and a light convolution."""
    f.ignore(
        "residual_weight", "attention_chunk_size", "attention_context_left", "attention_context_right", "attention_logit_cap",
        "attention_invalid_logits_value", "use_clipped_linears", "gradient_clipping",
    )
    layers, width = f.count("num_hidden_layers"), f.count("hidden_size", minimum=1)
    head_dim = head_dim_of(f, width)
    first, second = whole_pair(f, "subsampling_conv_channels")
    return (
        ("subsampling", 9 * first + first + 9 * first * second + second + first // 4 * second * width),
        ("attention", layers * (5 * width * width + head_dim)),
        ("ffn", layers * 2 * (2 * width * 4 * width)),
        ("convolution", layers * (3 * width * width + f.count("conv_kernel_size", minimum=1) * width)),
        ("norms", layers * 9 * width),
        ("output", linear(width, f.count("output_proj_dims", minimum=1))),
    )


def read_step_vision(f: Fields) -> TowerTerms:
    """Step-3.7's tower: layer scale on both branches, two strided convolutions that double the width behind it.

    intermediate_size is always recomputed from mlp_ratio; width, layers and heads are older names of the usual sizes and win.
    """
    f.ignore("intermediate_size", "layer_scale_init_value", "ls_init_value", "heads", "num_attention_heads")
    width = f.count("width", f.count("hidden_size", minimum=1), minimum=1)
    layers = f.count("layers", f.count("num_hidden_layers"))
    ratio = f.raw("mlp_ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < 1000:
        raise f.refuse("mlp_ratio", ratio, "a number above 0")
    d_ff = int(width * ratio)
    return (
        ("patches", f.count("num_channels") * f.count("patch_size") ** 2 * width),
        ("positions", patch_grid(f) * width),
        ("attention", layers * 4 * linear(width, width)),
        ("ffn", layers * (linear(width, d_ff) + linear(d_ff, width))),
        ("norms", layers * (2 * layer_norm(width) + 2 * width) + layer_norm(width)),
        ("downsampling", linear(9 * width, 2 * width) + linear(9 * 2 * width, 4 * width)),
    )


def read_siglip_vision(f: Fields) -> TowerTerms:
    """SigLIP's tower (arXiv:2303.15343), with its attention-pooling head unless vision_use_head is off."""
    width, d_ff = f.count("hidden_size", minimum=1), f.count("intermediate_size", minimum=1)
    head_dim_of(f, width)
    head = width + 4 * linear(width, width) + layer_norm(width) + linear(width, d_ff) + linear(d_ff, width)
    return (
        ("patches", linear(f.count("num_channels") * f.count("patch_size") ** 2, width)),
        ("positions", patch_grid(f) * width),
        *plain_layers(f.count("num_hidden_layers"), width, d_ff),
        ("final_norm", layer_norm(width)),
        ("head", head if f.flag("vision_use_head") else 0),
    )


def read_clip_vision(f: Fields) -> TowerTerms:
    """CLIP's tower (arXiv:2103.00020) without its projection, which no composite builds."""
    f.ignore("projection_dim", "vocab_size")
    width = f.count("hidden_size", minimum=1)
    head_dim_of(f, width)
    return (
        ("patches", f.count("num_channels") * f.count("patch_size") ** 2 * width),
        ("positions", (patch_grid(f) + 1) * width + width),
        *plain_layers(f.count("num_hidden_layers"), width, f.count("intermediate_size", minimum=1)),
        ("outer_norms", 2 * layer_norm(width)),
    )


def read_pixtral_vision(f: Fields) -> TowerTerms:
    """Pixtral's tower (arXiv:2410.07073): RMSNorms, gated feed-forward, rotary positions, no bias.

    head_dim only shapes the rotation: the projections are square.
    """
    f.ignore("head_dim", "image_size", "vocab_size")
    layers, width = f.count("num_hidden_layers"), f.count("hidden_size", minimum=1)
    head_dim_of(f, width)
    return (
        ("patches", f.count("num_channels") * f.count("patch_size") ** 2 * width),
        ("attention", layers * 4 * width * width),
        ("ffn", layers * 3 * width * f.count("intermediate_size", minimum=1)),
        ("norms", layers * 2 * width + width),
    )


TOWERS: dict[str, TowerReader] = {
    "qwen3_vl_vision": read_qwen_vision, "qwen3_vl_moe_vision": read_qwen_vision, "qwen3_5_vision": read_qwen_vision,
    "qwen3_5_moe_vision": read_qwen_vision, "kimi_k25_vision": read_kimi_vision, "llama4_vision_model": read_llama4_vision,
    "gemma4_vision": read_gemma4_vision, "gemma4_audio": read_gemma4_audio, "step3p5_vision": read_step_vision,
    "siglip_vision_model": read_siglip_vision, "clip_vision_model": read_clip_vision, "pixtral": read_pixtral_vision,
}
"""Model type of a tower's config -> how it is counted."""

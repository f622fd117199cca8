"""Writes a config.json for a shape, and proves it: what is written must read back as the same shape.

Families are tried in order, from the one with the fewest peculiarities; the first whose reader returns an equal shape wins. A shape that
was read from a config.json and not changed since gives that very config back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..errors import HeadcountError, ShapeError, Words
from .config import read_config
from .model import ModelShape
from .parts import Attention, Dense, LayerSpec, Mla, Moe

Part = TypeVar("Part", Dense, Moe)
Draft = Callable[[ModelShape], dict[str, Any]]


def write_config(shape: ModelShape) -> dict[str, Any]:
    """A config.json that reads back as this shape. Raises ShapeError where no family that headcount writes can hold it."""
    if shape.config is not None and _reads_back(shape.config, shape):
        return dict(shape.config)
    for draft in DRAFTS.values():
        try:
            config = draft(shape)
        except (HeadcountError, LookupError, AttributeError):
            continue  # the family has no field for something that the shape has
        if _reads_back(config, shape):
            return config
    raise ShapeError(
        "no_family_holds_it", "no config.json family that headcount writes ({families}) can hold this shape; {reason}",
        families=", ".join(DRAFTS), reason=_reason(shape),
    )


def _reads_back(config: Mapping[str, Any], shape: ModelShape) -> bool:
    try:
        return read_config(config) == shape
    except HeadcountError:
        return False


def _reason(shape: ModelShape) -> str:
    if shape.weight_dtype not in _DTYPES:
        return Words("its weights are quantised, which a config without a checkpoint cannot claim; take .replaced(weight_dtype='bf16')")
    if shape.towers:
        return Words("it has encoders of other modalities")
    if len({type(m) for _, layer in shape.layers for m in layer.mixers} - {Attention, Mla}):
        return Words("it has layers that are not softmax attention")
    return Words("some combination of its biases, norms, windows or experts exists in none of them")


def _common(shape: ModelShape, model_type: str, architecture: str) -> dict[str, Any]:
    return {
        "model_type": model_type, "architectures": [architecture], "vocab_size": shape.vocab_size, "hidden_size": shape.d_model,
        "num_hidden_layers": shape.n_layers, "tie_word_embeddings": shape.stem.tied, "dtype": _DTYPES[shape.weight_dtype],
    }


# A quantised format is a property of a checkpoint that was made so; a fresh config cannot claim it.
_DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


def _first(shape: ModelShape) -> LayerSpec:
    return shape.layers[0][1]


def _gqa(shape: ModelShape) -> dict[str, Any]:
    attention = _first(shape).attention
    if attention is None:
        raise LookupError("no softmax attention")
    return {"num_attention_heads": attention.n_heads, "num_key_value_heads": attention.n_kv_heads, "head_dim": attention.head_dim}


def _the(kind: type[Part], shape: ModelShape) -> Part:
    """The first layer's feed-forward block of that kind. Raises LookupError."""
    found = [f for f in _first(shape).ffns if isinstance(f, kind)]
    if not found:
        raise LookupError(f"no {kind.__name__} block")
    return found[0]


def _dense(shape: ModelShape) -> dict[str, Any]:
    return {"intermediate_size": _the(Dense, shape).d_ff}


def _windows(shape: ModelShape) -> dict[str, Any]:
    kinds = [layer.attention for n, layer in shape.layers for _ in range(n)]
    window = next((a.window for a in kinds if a and a.reach == "sliding"), None)
    names = ["sliding_attention" if a and a.reach == "sliding" else "full_attention" for a in kinds]
    return {"sliding_window": window, "layer_types": names}


def _llama(shape: ModelShape) -> dict[str, Any]:
    attention = _first(shape).attention
    biased = bool(attention and attention.bias)
    mlp = bool(getattr(_first(shape).ffns[0], "bias", False))
    config = _common(shape, "llama", "LlamaForCausalLM") | _gqa(shape) | _dense(shape) | {"attention_bias": biased, "mlp_bias": mlp}
    if shape.d_model % config["num_attention_heads"]:
        raise LookupError("LlamaConfig refuses a width that the heads do not divide, even with head_dim given")
    return config


def _mistral(shape: ModelShape) -> dict[str, Any]:
    window = {"sliding_window": _windows(shape)["sliding_window"]}
    return _common(shape, "mistral", "MistralForCausalLM") | _gqa(shape) | _dense(shape) | window


def _qwen2(shape: ModelShape) -> dict[str, Any]:
    return _common(shape, "qwen2", "Qwen2ForCausalLM") | _gqa(shape) | _dense(shape) | _qwen_windows(shape)


def _qwen3(shape: ModelShape) -> dict[str, Any]:
    attention = _first(shape).attention
    biased = {"attention_bias": bool(attention and attention.bias)}
    return _common(shape, "qwen3", "Qwen3ForCausalLM") | _gqa(shape) | _dense(shape) | biased | _qwen_windows(shape)


def _qwen_windows(shape: ModelShape) -> dict[str, Any]:
    windows = _windows(shape)
    return {"use_sliding_window": windows["sliding_window"] is not None, **windows}


def _gemma3(shape: ModelShape) -> dict[str, Any]:
    return _common(shape, "gemma3_text", "Gemma3ForCausalLM") | _gqa(shape) | _dense(shape) | _windows(shape)


def _mixtral(shape: ModelShape) -> dict[str, Any]:
    moe = _the(Moe, shape)
    experts = {"num_local_experts": moe.n_experts, "num_experts_per_tok": moe.n_active, "intermediate_size": moe.d_expert}
    return _common(shape, "mixtral", "MixtralForCausalLM") | _gqa(shape) | experts | {"sliding_window": _windows(shape)["sliding_window"]}


def _qwen3_moe(shape: ModelShape) -> dict[str, Any]:
    moe = _the(Moe, shape)
    return _common(shape, "qwen3_moe", "Qwen3MoeForCausalLM") | _gqa(shape) | {
        "num_experts": moe.n_experts, "num_experts_per_tok": moe.n_active, "moe_intermediate_size": moe.d_expert,
        "intermediate_size": moe.d_expert, "mlp_only_layers": [], "decoder_sparse_step": 1,
    }


DRAFTS: dict[str, Draft] = {
    "llama": _llama, "mistral": _mistral, "qwen2": _qwen2, "qwen3": _qwen3, "gemma3_text": _gemma3, "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
}

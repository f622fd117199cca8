"""What a training step holds: weights, gradients, optimiser states and what the forward pass saves for the backward pass.

What is saved was read off live storages of transformers 5.23 on torch 2.13 (the tests measure it again): per norm the input in float32,
its normalised copy in both types; queries, keys, values and the attention's output; every step of the feed-forward block; with eager
attention the map in float32 and in the weights' type. With checkpointing a layer saves its input and is computed again, one at a time.
Not counted: what collectives and the allocator add, and how states are spread over ranks (ZeRO, FSDP).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnknownNameError
from ..shape.dtypes import storage
from ..shape.parts import Attention, Dense, LayerSpec, Mla, Moe
from .layout import Matrix, layer_weights, part_weights
from .numbers import larger
from .parameters import parameters
from .schemes import scheme_of
from .terms import Terms
from .weights import scheme_bytes

OPTIMIZERS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "adamw": (("first_moment", 1, 4), ("second_moment", 1, 4)),
    # Block-wise 8 bits (Dettmers et al. 2021, arXiv:2110.02861) with one float32 scale per 256 values; that block size is assumed.
    "adamw-8bit": (("first_moment", 256, 260), ("second_moment", 256, 260)),
    "sgd-momentum": (("momentum", 1, 4),), "sgd": (),
}
"""Optimiser -> (state, numbers per block, bytes per block)."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters of `rank` beside the named kinds of matrices (prefixes of layout names)."""

    rank: int = 16
    targets: tuple[str, ...] = ("attention.q", "attention.k", "attention.v", "attention.o")


@dataclass(frozen=True)
class Training:
    """How a model is trained."""

    optimizer: str = "adamw"
    master: bool = True
    """A float32 copy of trainable weights that are kept in 16 bits (mixed precision)."""
    gradient_dtype: str = "bf16"
    checkpointing: bool = False
    lora: Lora | None = None
    attention: str = "fused"
    """"fused" or "eager"."""

    def __post_init__(self) -> None:
        for name, value, known in (("optimizer", self.optimizer, tuple(OPTIMIZERS)), ("attention", self.attention, ("fused", "eager"))):
            if value not in known:
                raise UnknownNameError(
                    "unknown_choice", "{name} must be one of {known}, but got {value!r}",
                    name=name, known=", ".join(known), value=str(value)[:60],
                )


def training_bytes(shape: Any, tokens: Any, context: Any, training: Training, weight_dtype: str | None = None) -> Terms:
    """Bytes of one training step on `tokens` tokens, in sequences of `context`, as terms `weights.*`, `gradients`, `optimizer.*`,
    `activations.*`."""
    scheme = scheme_of(shape, weight_dtype)
    terms = Terms({f"weights.{k}": v for k, v in scheme_bytes(shape, scheme).items()})
    if training.lora is None:
        trainable = parameters(shape).text_only
        wide = scheme.name in ("f32", "f64")
    else:
        trainable, wide = lora_parameters(shape, training.lora), False
        terms.add("weights.lora", storage("bf16").bytes_of(trainable))
    terms.add("gradients", storage("f32" if wide else training.gradient_dtype).bytes_of(trainable))
    if training.master and not wide:
        terms.add("optimizer.master", 4 * trainable)
    for state, block, size in OPTIMIZERS[training.optimizer]:
        terms.add(f"optimizer.{state}", -(-trainable // block) * size)
    for name, value in saved_activations(shape, tokens, context, training, 4 if wide else 2).items():
        terms.add(name, value)
    return terms


def lora_parameters(shape: Any, lora: Lora) -> Any:
    """Parameters of the adapters: rank x (inputs + outputs) per module; a gated up-projection is two modules."""
    total: Any = 0
    for n, layer in shape.groups:
        gated = any(getattr(f, "gated", False) for f in layer.ffns)
        for weight in layer_weights(layer, shape.d_model):
            if isinstance(weight, Matrix) and not weight.borrowed and weight.name.startswith(lora.targets):
                modules = 2 if gated and weight.name.endswith("up") and weight.name.startswith(("ffn", "moe")) else 1
                total = total + n * weight.copies * lora.rank * (modules * weight.inputs + weight.outputs)
    return total


def saved_activations(shape: Any, tokens: Any, context: Any, training: Training, bytes_per: int) -> Terms:
    """What is saved for the backward pass, and the logits with their gradient at its start."""
    terms = Terms()
    whole: Any = 0
    for n, layer in shape.groups:
        saved = dict(_saved_by(layer, shape.d_model, tokens, context, training, bytes_per))
        if training.checkpointing:
            terms.add("activations.checkpoints", n * shape.d_model * tokens * bytes_per)
            whole = larger(whole, sum(saved.values(), start=0) * (1 * (n > 0)))
            continue
        for name, value in saved.items():
            terms.add(f"activations.{name}", n * value)
    terms.add("activations.final_norm", _norm(shape.d_model, tokens, bytes_per))
    # Log-softmax in float32, its gradient and that of the loss.
    logits: Any = sum((n * stem.vocab_size * 12 * tokens for n, stem in shape.stems), start=0)
    if training.checkpointing:
        # Recomputed layers come after the logits are gone, so the larger of the two counts.
        kept = larger(whole, logits)
        terms.add("activations.recomputed", kept * (1 * (whole >= logits)))
        logits = kept * (1 * (whole < logits))
    terms.add("activations.logits", logits)
    return terms


def _norm(width: Any, tokens: Any, bytes_per: int) -> Any:
    # Input and normalised copy in float32, which in float32 are what is there anyway, and both in the weights' type.
    return width * tokens * (4 + 2 * bytes_per if bytes_per < 4 else 2 * bytes_per)


def _saved_by(layer: LayerSpec, d_model: Any, tokens: Any, context: Any, training: Training, bytes_per: int) -> Iterator[tuple[str, Any]]:
    unit = tokens * bytes_per
    yield "norms", layer.norms * _norm(d_model, tokens, bytes_per)
    for mixer in layer.mixers:
        if isinstance(mixer, Attention):
            yield "attention", _saved_attention(mixer, tokens, training, bytes_per)
        else:
            outputs = sum((w.outputs for w in part_weights(mixer, d_model) if isinstance(w, Matrix)), start=0)
            yield "mixer", 2 * outputs * unit
        if training.attention == "eager" and isinstance(mixer, (Attention, Mla)):
            yield "attention_map", mixer.n_heads * tokens * context * (4 + bytes_per if bytes_per < 4 else bytes_per)
    for ffn in layer.ffns:
        steps = 4 if ffn.gated else 2
        if isinstance(ffn, Dense):
            yield "ffn", steps * ffn.d_ff * unit
        elif isinstance(ffn, Moe):
            width = np.where(ffn.d_latent > 0, ffn.d_latent, d_model) if isinstance(d_model, np.ndarray) else ffn.d_latent or d_model
            yield "ffn", (ffn.n_active * (steps * ffn.d_expert + width) + steps * ffn.d_shared + ffn.n_experts) * unit


def _saved_attention(a: Attention, tokens: Any, training: Training, bytes_per: int) -> Any:
    q, k, v, out = a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim, a.n_kv_heads * a.v_head_dim, a.n_heads * a.v_head_dim
    if training.attention == "eager":
        k, v = q, out  # repeated for every query head
    normed = _norm(q + k, tokens, bytes_per) if a.qk_norm != "none" else 0
    return (q + k + v + out) * tokens * bytes_per + normed

"""Bytes of all weights by a quantisation scheme, as named terms, from the same list of matrices that parameters are counted from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..shape.parts import Stem
from .layout import Matrix, Weight, layer_weights, stem_weights
from .schemes import Scheme, more_bits_layers, scheme_of
from .terms import Terms

EMBEDDINGS = ("embedding.tokens", "embedding.per_layer")


def weight_bytes(shape: Any, weight_dtype: str | None = None, *, towers: bool = False) -> Terms:
    """Bytes of all weights of the text model; `towers` adds the encoders whose size is known, in the type of the scheme's side tensors.

    Args:
        shape: ModelShape (exact ints) or ShapeTable (float64 arrays).
        weight_dtype: a scheme: "bf16", "f16", "f32", "fp8" (one scale per tensor), "fp8-block128", "nvfp4", "mxfp4" (experts only),
            "int8", "int4", "awq", "gptq", "q8_0" and the other GGUF types, "q4_k_m", "q5_k_m", "gguf-f16". The shape's own by default,
            with what its config leaves unquantised. A shape read from a GGUF file then answers with that file's own bytes.

    Raises:
        UnknownNameError: no such scheme.
        ShapeError: the checkpoint mixes formats, so its bytes do not follow from the shape.
    """
    stored = getattr(shape, "stored_bytes", None)
    if weight_dtype is None and stored is not None:
        return Terms({"file": stored})
    return scheme_bytes(shape, scheme_of(shape, weight_dtype), towers=towers)


def scheme_bytes(shape: Any, scheme: Scheme, *, towers: bool = False) -> Terms:
    """Bytes by one scheme. Layers with more bits are taken to be spread evenly where layers differ."""
    terms = Terms()
    for weight, size in sized_layer_weights(shape, scheme):
        terms.add(weight.name, 0 if isinstance(weight, Matrix) and weight.borrowed else size)
    for n, stem in shape.stems:
        for weight in stem_weights(stem, shape.d_model):
            terms.add(weight.name, n * stem_weight_bytes(weight, stem, shape.d_model, scheme))
    for tower in shape.towers if towers else ():
        terms.add(f"tower.{tower.name}", 0 if tower.parameters is None else scheme.side.bytes_of(tower.parameters, 1))
    return terms


def sized_layer_weights(shape: Any, scheme: Scheme) -> Iterator[tuple[Weight, Any]]:
    """Every weight of every group of layers with the bytes of all its layers and copies; a borrowed one as if it were stored again."""
    total = sum((n for n, _ in shape.groups), start=0)
    for n, layer in shape.groups:
        better = n * more_bits_layers(total) // (total + (total == 0)) if scheme.better else 0
        for weight in layer_weights(layer, shape.d_model):
            other = scheme.better_codec(weight.name) if isinstance(weight, Matrix) else None
            own = layer_weight_bytes(weight, scheme)
            extra = 0 if other is None else better * (_matrix_bytes(weight, scheme, other) - own)
            yield weight, n * own + extra


def layer_weight_bytes(weight: Weight, scheme: Scheme) -> Any:
    """Bytes of one weight of a layer, all copies."""
    if isinstance(weight, Matrix):
        return _matrix_bytes(weight, scheme, scheme.codec(weight.name))
    return scheme.side.bytes_of(weight.parameters, 1)


def _matrix_bytes(weight: Any, scheme: Scheme, codec: Any) -> Any:
    return weight.copies * (codec.bytes_of(weight.inputs, weight.outputs) + scheme.side.bytes_of(weight.bias, 1))


def stem_weight_bytes(weight: Weight, stem: Stem, d_model: Any, scheme: Scheme) -> Any:
    """Bytes of one weight of the stem."""
    width = d_model if stem.d_embedding is None else stem.d_embedding
    tied = stem.tied and stem.has_head
    embedding = scheme.embedding or scheme.side
    if weight.name in EMBEDDINGS:
        codec = scheme.tied or embedding if tied and weight.name == "embedding.tokens" else embedding
        rows = weight.parameters // width if weight.name == "embedding.tokens" else 1
        return codec.bytes_of(width, rows) if weight.name == "embedding.tokens" else codec.bytes_of(weight.parameters, rows)
    if isinstance(weight, Matrix) and weight.name == "head":
        return (scheme.head or scheme.side).bytes_of(weight.inputs, weight.outputs)
    return scheme.side.bytes_of(weight.parameters, 1)

"""Weights in memory. What an engine, its activations and its pages add is not counted here yet and no answer pretends it is."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..shape.dtypes import MIXED, storage
from .layout import Matrix, layer_weights, stem_weights
from .terms import Terms
from .traffic import side_dtype


def weight_bytes(shape: Any, weight_dtype: str | None = None) -> Terms:
    """Bytes of all weights of the text model in one storage format, the side tensors of quantised formats in bf16.

    Without weight_dtype, a shape read from a GGUF file answers with the bytes of that file's own tensors, whatever they hold.

    Raises:
        ShapeError: the checkpoint mixes formats, so its bytes do not follow from the shape.
    """
    stored = getattr(shape, "stored_bytes", None)
    if weight_dtype is None and stored is not None:
        return Terms({"file": stored})
    dtype = weight_dtype or (shape.weight_dtype if isinstance(shape.weight_dtype, str) else "bf16")
    if dtype == MIXED:
        raise ShapeError(
            "mixed_dtypes", "the checkpoint mixes storage formats, so its bytes do not follow from its shape; name one with weight_dtype="
        )
    own, side = storage(dtype), side_dtype(dtype)
    terms = Terms()
    for n, layer in shape.groups:
        for weight in layer_weights(layer, shape.d_model):
            quantised = isinstance(weight, Matrix) and not weight.name.endswith("router")
            terms.add(weight.name, n * (own if quantised else side).bytes_of(weight.parameters))
    for n, stem in shape.stems:
        for weight in stem_weights(stem, shape.d_model):
            terms.add(weight.name, n * side.bytes_of(weight.parameters))
    return terms

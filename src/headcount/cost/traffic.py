"""Bytes that one step moves between memory and the processor, at the least: each weight once, each cached number once.

What a real kernel reads twice is not counted, nor are activations between operations; so this is the lower bound that a roofline wants.
A mixture of experts reads the experts that its tokens pick: on average n_experts x (1 - (1 - n_active/n_experts)^tokens) distinct ones if
the router picks evenly, which is assumed. Quantised formats hold for the layers' matrices; embeddings, output head, router, norms and
other vectors stay in bf16, as published quantised checkpoints keep them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shape.dtypes import Storage, storage
from ..shape.parts import Stem
from .kv_cache import held_by
from .layout import Matrix, Weight, head_matrix, layer_weights, stem_weights
from .numbers import positive
from .terms import Terms

UNQUANTISED = ("f64", "f32", "f16", "bf16")


def side_dtype(weight_dtype: str) -> Storage:
    """The type of what a quantised checkpoint leaves alone."""
    own = storage(weight_dtype)
    return own if own.name in UNQUANTISED else storage("bf16")


def read_copies(matrix: Matrix, tokens: Any) -> Any:
    """How many copies of a matrix `tokens` tokens touch: all of a dense one, the picked experts of a mixture."""
    if _plain_equal(matrix.copies, matrix.active):
        return matrix.copies
    share = np.asarray(matrix.active, dtype=np.float64) / np.maximum(matrix.copies, 1)
    # np.power on purpose: Python's own pow rounds differently in the last bit, and tables must equal single models.
    return matrix.copies * (1.0 - np.power(1.0 - share, tokens))


def _plain_equal(a: Any, b: Any) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a == b or a is b


def weight_bytes_read(weight: Weight, tokens: Any, own: Storage, side: Storage) -> Any:
    """Bytes of one layer weight that a step of `tokens` tokens reads."""
    if not isinstance(weight, Matrix):
        return side.bytes_of(weight.parameters)
    dtype = side if weight.name.endswith("router") else own
    return dtype.bytes_of(weight.inputs * weight.outputs + weight.bias) * read_copies(weight, tokens)


def bytes_moved(
    shape: Any, phase: str = "decode", context: Any = 4096, batch: Any = 1, weight_dtype: str | None = None, kv_dtype: str = "bf16",
    runtime: str = "logical",
) -> Terms:
    """Least bytes moved by one prefill or decode step, as terms `weights.*`, `kv.*`, `state.*`.

    Args:
        shape: ModelShape or ShapeTable; phase, context and batch as in `flops` ("train" is not answered here).
        weight_dtype: storage of the layers' matrices; the shape's own by default.
    """
    context, batch = positive(context, "context"), positive(batch, "batch")
    dtype = weight_dtype or (shape.weight_dtype if isinstance(shape.weight_dtype, str) else "bf16")
    own, side = storage(dtype), side_dtype(dtype)
    new = 1 if phase == "decode" else context
    terms = Terms()
    for n, layer in shape.groups:
        for weight in layer_weights(layer, shape.d_model):
            terms.add(f"weights.{weight.name}", n * weight_bytes_read(weight, batch * new, own, side))
        for mixer in layer.mixers:
            for held in held_by(mixer, context, storage(kv_dtype), runtime):
                # The new tokens' entries are written once; what earlier tokens left is read (decode) or still on chip (prefill).
                times = 1 if held.term.startswith("kv.") else 2
                terms.add(held.term, n * batch * times * held.total)
    for n, stem in shape.stems:
        _stem_traffic(terms, n, stem, shape.d_model, batch * new, side)
    return terms


def _stem_traffic(terms: Terms, n: Any, stem: Stem, d_model: Any, tokens: Any, side: Storage) -> None:
    width = d_model if stem.d_embedding is None else stem.d_embedding
    terms.add("weights.embedding.rows", n * side.bytes_of(tokens * (width + stem.per_layer_width)))
    head = head_matrix(stem, d_model)
    if head is not None:
        terms.add("weights.head", n * side.bytes_of(head.parameters))
    for weight in stem_weights(stem, d_model):
        if weight.name not in ("embedding.tokens", "embedding.positions", "embedding.per_layer", "head"):
            terms.add(f"weights.{weight.name}", n * side.bytes_of(weight.parameters))

"""Bytes that one step moves between memory and the processor, at the least: each weight once, each cached number that it needs once.

What a real kernel reads twice is not counted, nor are activations between operations; so this is the lower bound that a roofline wants.
A mixture of experts reads the experts that its tokens pick: on average n_experts x (1 - (1 - n_active/n_experts)^tokens) distinct ones if
the router picks evenly, which is assumed. Which tensors a quantised checkpoint leaves in 16 bits is decided in `schemes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..shape.dtypes import Storage, storage
from ..shape.parts import Attention, Compressed, Mla, Stem
from .kv_cache import Held, held_by
from .layout import Matrix, Weight, stem_weights
from .numbers import larger, positive
from .schemes import Scheme, scheme_of
from .terms import Terms
from .weights import stem_weight_bytes, sized_layer_weights

ROW_TABLES = ("embedding.tokens", "embedding.positions", "embedding.per_layer")

def read_share(weight: Weight, tokens: Any) -> Any:
    """The share of a weight that `tokens` tokens touch: all of a dense one, the picked experts of a mixture."""
    if not isinstance(weight, Matrix) or _plain_equal(weight.copies, weight.active):
        return 1
    matrix = weight
    share = np.asarray(matrix.active, dtype=np.float64) / np.maximum(matrix.copies, 1)
    # np.power on purpose: Python's own pow rounds differently in the last bit, and tables must equal single models.
    return 1.0 - np.power(1.0 - share, tokens)


def _plain_equal(a: Any, b: Any) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a == b or a is b


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
    scheme, cached = scheme_of(shape, weight_dtype), storage(kv_dtype)
    new = 1 if phase == "decode" else context
    terms = Terms()
    for weight, size in sized_layer_weights(shape, scheme):
        terms.add(f"weights.{weight.name}", size * read_share(weight, batch * new))
    for n, layer in shape.groups:
        for mixer in layer.mixers:
            for held in held_by(mixer, context, cached, runtime):
                # The new tokens' entries are written once; what earlier tokens left is read (decode) or still on chip (prefill).
                times = 1 if held.term.startswith("kv.") else 2
                spared = _not_read(mixer, held, cached) if phase == "decode" else 0
                terms.add(held.term, n * batch * times * (held.total - spared))
    for n, stem in shape.stems:
        _stem_traffic(terms, n, stem, shape.d_model, batch * new, scheme)
    return terms


def _not_read(mixer: Any, held: Held, dtype: Storage) -> Any:
    """Bytes that are held for one sequence and that a decode step leaves alone: entries outside the window, or not picked by an indexer."""
    if isinstance(mixer, Attention) and mixer.reach != "full":
        elements, limit = held.elements, mixer.window
    elif isinstance(mixer, Mla) and mixer.indexer is not None and held.term == "kv.latent":
        elements, limit = held.elements, mixer.indexer.top_k
    elif isinstance(mixer, Compressed) and mixer.indexer is not None and held.term == "kv.compressed":
        elements, limit = held.elements * mixer.head_dim // (mixer.head_dim + mixer.indexer.head_dim), mixer.indexer.top_k
    else:
        return 0
    return dtype.bytes_of(elements * larger(held.entries - limit, 0))


def _stem_traffic(terms: Terms, n: Any, stem: Stem, d_model: Any, tokens: Any, scheme: Scheme) -> None:
    """Embeddings are read by row, everything else whole; a tied head is the token embedding read whole."""
    width = d_model if stem.d_embedding is None else stem.d_embedding
    rows = scheme.embedding or scheme.side
    terms.add("weights.embedding.rows", n * (rows.bytes_of(width, 1) + rows.bytes_of(stem.per_layer_width, 1)) * tokens)
    for weight in stem_weights(stem, d_model):
        stored = stem_weight_bytes(weight, stem, d_model, scheme)
        if weight.name == "embedding.tokens":
            if stem.tied and stem.has_head:
                terms.add("weights.head", n * stored)
        elif weight.name not in ROW_TABLES:
            terms.add(f"weights.{weight.name}", n * stored)

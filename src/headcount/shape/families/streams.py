"""Parallel residual streams (hyper-connections, arXiv:2409.19606; the manifold-constrained kind, DeepSeek-V4): their weights.

Before and after each block of a layer the streams are mixed by weights computed from all of them at once, so a mixing is one matrix from
n_streams x d_model to a handful of numbers. Which numbers differs by family; the readers say how many.
"""

from __future__ import annotations

from dataclasses import replace

from ..parts import LayerSpec, Stem


def with_streams(layer: LayerSpec, *, n_streams: int, d_model: int, outputs: int, scales: int) -> LayerSpec:
    """The layer with a mixing around its attention and one around its feed-forward block, of `outputs` numbers each.

    Each mixing has one bias per output and `scales` learned scales.
    """
    width = n_streams * d_model
    mixings = (("attention_streams", width, outputs), ("ffn_streams", width, outputs))
    return replace(layer, projections=(*layer.projections, *mixings), extra=(*layer.extra, ("streams_affine", 2 * (outputs + scales))))


def stem_with_streams(stem: Stem, *, n_streams: int, d_model: int) -> Stem:
    """The stem with the matrix that weighs the streams into one before the final norm; a bias per stream and one scale."""
    return replace(stem, projections=(("streams", n_streams * d_model, n_streams),), extra=(("streams_affine", n_streams + 1),))

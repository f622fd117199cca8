"""Parameters: how many, of what kind, and the other numbers that people call "the size".

Counted are the distinct parameters that stock transformers builds: tied weights once, towers included, multi-token-prediction layers
and buffers not. The other readings stand beside under their own names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import ShapeError
from ..shape.parts import Moe
from .layout import layer_weights, stem_weights
from .terms import Terms


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of one model (ints) or of every row of a table (float64 arrays).

    `int()` of it is `total`.
    """

    terms: Terms
    """Text model, by kind of weight; the towers as `tower.NAME`."""
    text_only: Any
    """Without the encoders of other modalities."""
    active: Any
    """Met by one text token: of a mixture of experts only the experts it uses; the embedding table counts whole."""
    embedding: Any
    """Token and position embeddings, and an output head of its own."""
    tied_counted_twice: Any
    """`total` with a tied output head counted again, as some tools and file formats do; equal to `total` where nothing is tied."""
    mtp: Any
    """Multi-token-prediction layers of the checkpoint, not in `total`; None where their layout is not known."""
    buffers: Any
    """Numbers stored with the checkpoint that are no parameters (router correction biases), not in `total`."""
    unknown_towers: tuple[str, ...] = ()

    @property
    def total(self) -> Any:
        """All distinct parameters. Raises ShapeError when the model has a tower whose size is not known."""
        if self.unknown_towers:
            raise ShapeError(
                "tower_not_understood",
                "the total is not known: the {towers} tower is not understood; "
                "the text model alone has {text_only:,} parameters (.text_only)",
                towers=" and ".join(self.unknown_towers), text_only=self.text_only,
            )
        return self.terms.total

    def __int__(self) -> int:
        return int(self.total)

    def __index__(self) -> int:
        return int(self.total)


def parameters(shape: Any) -> Parameters:
    """Counts the parameters of a ModelShape (exact ints) or a ShapeTable (float64, exact up to 2^53).

    Source of the layouts: the modeling files of transformers 5.23.0; every supported type is compared with the module it builds.

    Raises:
        ExactnessError: a row of a table is above 2^53.
    """
    terms, active, buffers = Terms(), Terms(), Terms()
    tied = Terms()
    for n, stem in shape.stems:
        for weight in stem_weights(stem, shape.d_model):
            terms.add(weight.name, n * weight.parameters)
            active.add(weight.name, n * weight.active_parameters)
        if stem.tied and stem.has_head:
            tied.add("head", n * stem.vocab_size * (shape.d_model if stem.d_embedding is None else stem.d_embedding))
    for n, layer in shape.groups:
        for weight in layer_weights(layer, shape.d_model):
            terms.add(weight.name, n * weight.parameters)
            active.add(weight.name, n * weight.active_parameters)
        for ffn in layer.ffns:
            if isinstance(ffn, Moe) and ffn.correction_bias:
                buffers.add("moe.correction_bias", n * (ffn.n_experts + ffn.n_identity))
    text_only = terms.require_exact("parameters").total
    embedding = sum((v for k, v in terms.items() if k.startswith(("embedding.", "head"))), start=0)
    for tower in shape.towers:
        terms.add(f"tower.{tower.name}", 0 if tower.parameters is None else tower.parameters)
    return Parameters(
        terms=terms, text_only=text_only, active=active.total, embedding=embedding, tied_counted_twice=terms.total + tied.total,
        mtp=_mtp(shape), buffers=buffers.total, unknown_towers=tuple(t.name for t in shape.towers if t.parameters is None),
    )


def _mtp(shape: Any) -> Any:
    if shape.mtp is None:
        return None
    total: Any = 0
    for n, layer in shape.mtp:
        total = total + n * sum((w.parameters for w in layer_weights(layer, shape.d_model)), start=0)
    return total

"""What a model is: its parts, its layers, and the files that describe it."""

from .model import ModelShape
from .parts import (
    Attention, Compressed, Dense, GatedDelta, Indexer, LayerSpec, Mamba1, Mamba2, Mla, Moe, Recurrent, Stem, Tower,
)

__all__ = [
    "Attention", "Compressed", "Dense", "GatedDelta", "Indexer", "LayerSpec", "Mamba1", "Mamba2", "Mla", "ModelShape", "Moe", "Recurrent",
    "Stem", "Tower",
]

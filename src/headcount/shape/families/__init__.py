"""Model type -> the function that reads its config.json. One module per kinship; each registers its types when imported."""

from __future__ import annotations

import difflib

from . import classic, composite, compressed, dense, gemma, hybrid, latent, moe, moe_mixed, statespace
from .registry import FAMILIES, Reader


def nearest_types(model_type: str) -> list[str]:
    """The registered model types nearest to a name."""
    return difflib.get_close_matches(model_type, FAMILIES, 3, 0.5) or sorted(FAMILIES)[:3]


__all__ = [
    "FAMILIES", "Reader", "classic", "composite", "compressed", "dense", "gemma", "hybrid", "latent", "moe", "moe_mixed",
    "nearest_types", "statespace",
]

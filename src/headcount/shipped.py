"""Where the models lie that the package ships: headcount-tiny with 4 KV heads, and its twin with one per query head.

Only a path is given: nothing is read here, so asking costs nothing and needs no library. What the models are, how they were trained and
what their heads do stands in README.md beside the weights.
"""

from __future__ import annotations

from pathlib import Path

from .errors import UnknownNameError

VARIANTS = ("gqa", "mha")
_MODELS = Path(__file__).parent / "models"


def tiny(variant: str = "gqa") -> Path:
    """The folder of headcount-tiny, in the form that stock transformers loads.

    Args:
        variant: ``gqa`` (8 query heads share 4 KV heads) or ``mha`` (8 KV heads).

    Raises:
        UnknownNameError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise UnknownNameError(
            "unknown_choice", "{name} must be one of {known}, but got {value!r}",
            name="variant", known=", ".join(VARIANTS), value=str(variant)[:60],
        )
    return _MODELS / f"tiny-{variant}"

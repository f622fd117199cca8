"""Quantities and how people spell them: 128k, 96 GiB, 1.79 TB/s.

Inside headcount everything is seconds, bytes and plain counts; this module is the only place that knows suffixes. It must not know
languages: decimal commas and words are the business of `present/`.
"""

from __future__ import annotations

import math
import re

from .errors import QuantityError

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
GB = 10**9
TFLOPS = 10**12
EXACT_LIMIT = 2**53
"""Above this, float64 no longer holds every integer."""

_TOKENS = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*([kкmм]?)i?\s*", re.IGNORECASE)
_TOKEN_SUFFIX = {"": 1, "k": KIB, "к": KIB, "m": MIB, "м": MIB}
# What nobody means by "context" or "batch"; keeps a typo from becoming an hour of arithmetic or an overflow.
MAX_TOKENS = 2**40


def parse_tokens(text: str | int, name: str = "context") -> int:
    """Reads a number of tokens; ``128k`` is 131,072 (k = 1024, as model cards and vLLM use it).

    Args:
        text: ``"32768"``, ``"128k"``, ``"1.5M"`` or an int.
        name: what the number is, for the error.

    Raises:
        QuantityError: not a positive whole number of tokens.
    """
    match = _TOKENS.fullmatch(str(text))
    value = float(match[1].replace(",", ".")) * _TOKEN_SUFFIX[match[2].lower()] if match else math.nan
    if not (1 <= value <= MAX_TOKENS and value == int(value)):
        raise QuantityError(
            "bad_tokens",
            "{name} must be a whole number of tokens from 1 to {maximum}, such as 32768, 32k or 128k, but got {value!r}",
            name=name, value=str(text)[:60], maximum=MAX_TOKENS,
        )
    return int(value)


def spell_tokens(tokens: int) -> str:
    """The shortest exact spelling: 131072 -> ``128k``, 1048576 -> ``1M``, 1000 -> ``1000``."""
    for suffix, size in (("M", MIB), ("k", KIB)):
        if tokens >= size and tokens % size == 0:
            return f"{tokens // size}{suffix}"
    return str(tokens)


def significant(value: float, digits: int = 3) -> str:
    """Rounds to significant digits without an exponent: 1234.5 -> ``1230``, 0.012345 -> ``0.0123``, 2.0 -> ``2.00``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    # 9.996 rounds up into the next decade and would otherwise show one digit too many (10.00).
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(decimals, 0)}f}".replace(",", " ")

"""Checks, and min and max that keep Python ints exact and work on the columns of a table alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import QuantityError, Words
from ..units import MAX_TOKENS


def positive(value: Any, name: str) -> Any:
    """The value, if it is a positive whole number (a plain one) or all of them are positive and finite (a column).

    Raises:
        QuantityError: otherwise; tokens and sequences below one would turn into negative bytes and seconds.
    """
    if isinstance(value, np.ndarray):
        if value.size and not (np.min(value) > 0 and np.isfinite(np.max(value))):
            raise _not_positive(name, Words("a column with other values"))
        return value
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool) or isinstance(value, float) and value.is_integer()
    if not whole or not 0 < value <= MAX_TOKENS:
        raise _not_positive(name, repr(value)[:40])
    return value if isinstance(value, float) else int(value)


def _not_positive(name: str, value: str) -> QuantityError:
    return QuantityError(
        "not_positive", "{name} must be a whole number from 1 to {maximum}, but got {value}", name=name, maximum=MAX_TOKENS, value=value
    )


def smaller(a: Any, b: Any) -> Any:
    """Elementwise minimum; of two plain numbers, the plain smaller one."""
    return np.minimum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else min(a, b)


def larger(a: Any, b: Any) -> Any:
    """Elementwise maximum; of two plain numbers, the plain larger one."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def rounded_up(value: Any, step: int) -> Any:
    """The next multiple of `step` from `value` upwards."""
    return -(-value // step) * step


def per(value: Any, divisor: Any) -> Any:
    """value / divisor, kept an int where it is one."""
    if isinstance(value, np.ndarray) or isinstance(divisor, np.ndarray):
        return value / divisor
    return value // divisor if value % divisor == 0 else value / divisor

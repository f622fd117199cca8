"""min and max that keep Python ints exact and work on the columns of a table alike."""

from __future__ import annotations

from typing import Any

import numpy as np


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

"""A quantity as a sum of named terms, for one model (exact ints) or for every row of a table (float64 arrays)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import ExactnessError
from ..units import EXACT_LIMIT


class Terms(Mapping[str, Any]):
    """Named terms in the order they were added; equal names are summed. `total` is the sum of all."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = dict(values or {})

    def add(self, name: str, value: Any) -> None:
        """Adds to a term; a plain zero adds no term."""
        if isinstance(value, (int, float)) and value == 0:
            return
        self._values[name] = self._values[name] + value if name in self._values else value

    @property
    def total(self) -> Any:
        """Sum over all terms."""
        values = iter(self._values.values())
        total = next(values, 0)
        for value in values:
            total = total + value
        return total

    def group(self, prefix: str) -> Any:
        """Sum of the terms whose name starts with `prefix`."""
        return Terms({k: v for k, v in self._values.items() if k.startswith(prefix)}).total

    def row(self, index: int) -> Terms:
        """One row of a table's terms; terms that are 0 there are left out, as they are for a single model."""
        rows = {k: float(np.asarray(v)[index]) if np.ndim(v) else v for k, v in self._values.items()}
        return Terms({k: int(v) if v == int(v) else v for k, v in rows.items() if v != 0})

    def require_exact(self, what: str) -> Terms:
        """Returns itself, or raises ExactnessError where a float64 total is above 2^53 and no longer every integer."""
        total = self.total
        if isinstance(total, np.ndarray) and bool(np.any(total > EXACT_LIMIT)):
            raise ExactnessError(
                "not_exact", "{what} of a table are exact up to 2^53, but row {row} has {value:.4g}; ask for that row alone",
                what=what, row=int(np.nanargmax(total)), value=float(np.nanmax(total)),
            )
        return self

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Terms({self._values!r})"

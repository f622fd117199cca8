"""Parameters, cache and FLOPs of one model or a table in one call: what a search asks for millions of times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .flops import flops
from .kv_cache import kv_cache_bytes
from .parameters import Parameters, parameters
from .terms import Terms


@dataclass(frozen=True)
class Price:
    """The exact counts of one step. `[i]` gives one row of a table as the price of a single model."""

    parameters: Terms
    active_parameters: Any
    kv_cache: Terms
    flops: Terms

    def terms(self) -> Terms:
        """All terms, by quantity."""
        named = {f"{kind}.{name}": value for kind in ("parameters", "kv_cache", "flops") for name, value in getattr(self, kind).items()}
        return Terms({**named, "active_parameters": self.active_parameters})

    def __getitem__(self, row: int) -> Terms:
        return self.terms().row(row)


def price(
    shape: Any, *, context: Any, batch: Any = 1, phase: str = "decode", kv_dtype: str = "bf16", runtime: str = "logical",
    causal: str = "half",
) -> Price:
    """Prices a ModelShape (exact ints) or a ShapeTable (float64 arrays, one value per row), by the same formulas.

    Arguments as in `parameters`, `kv_cache_bytes` and `flops`.
    """
    counted: Parameters = parameters(shape)
    return Price(
        parameters=counted.terms, active_parameters=counted.active,
        kv_cache=kv_cache_bytes(shape, context, batch, kv_dtype, runtime).terms,
        flops=flops(shape, phase, context, batch, causal).terms,
    )

"""A number that a user sees: value, unit, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BASES = ("exact", "measured", "interpolated", "extrapolated", "roofline", "published", "assumed")
"""From strongest to weakest; a sum takes the weakest of its larger terms."""
UNITS = ("1", "B", "s", "FLOP", "B/s", "FLOP/s")


@dataclass(frozen=True)
class Quantity:
    """`value` in one of UNITS, on one of BASES."""

    value: float
    unit: str
    basis: str

    def __post_init__(self) -> None:
        if self.basis not in BASES:
            raise ValueError(f"basis {self.basis!r} is none of {BASES}")
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r} is none of {UNITS}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; whole numbers stay ints."""
        whole = isinstance(self.value, int) or float(self.value).is_integer()
        return {"value": int(self.value) if whole else float(self.value), "unit": self.unit, "basis": self.basis}


def plain(value: Any) -> Any:
    """Dataclasses, tuples and quantities as what JSON can hold."""
    if isinstance(value, Quantity):
        return value.to_dict()
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return value

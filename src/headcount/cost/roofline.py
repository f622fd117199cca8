"""Time of a step if the processor did nothing but compute at its peak or move bytes at its peak, whichever takes longer.

No kernel reaches it: the answer is a lower bound with the basis `roofline`, never a prediction. Projections and feed-forward blocks
overlap their own weights; attention overlaps its own cache; the two are done one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .flops import flops
from .terms import Terms
from .traffic import bytes_moved


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by stage, each the larger of its compute and memory time."""

    terms: Terms
    bound: dict[str, str]
    """Stage -> "memory" or "compute" (of a single model)."""
    bytes_moved: Terms
    flops: Terms
    basis: str = "roofline"

    @property
    def total(self) -> Any:
        """Seconds of the step."""
        return self.terms.total


def roofline_step(
    shape: Any, *, peak_flops: float, bandwidth: float, phase: str = "decode", context: Any = 4096, batch: Any = 1,
    weight_dtype: str | None = None, kv_dtype: str = "bf16",
) -> StepTime:
    """The roofline time of one prefill or decode step on one device.

    Args:
        peak_flops: dense FLOP/s of the device for the number format that is multiplied.
        bandwidth: bytes/s of its memory.
        others: as in `flops` and `bytes_moved`.
    """
    work = flops(shape, phase, context, batch).terms
    moved = bytes_moved(shape, phase, context, batch, weight_dtype, kv_dtype)
    terms, bound = Terms(), {}
    for stage, mixing in (("matrices", False), ("attention", True)):
        computed = sum((v for k, v in work.items() if _is_mixing(k) == mixing), start=0) / peak_flops
        carried = sum((v for k, v in moved.items() if k.startswith("weights.") != mixing), start=0) / bandwidth
        terms.add(stage, np.maximum(computed, carried) if isinstance(computed, np.ndarray) else max(computed, carried))
        bound[stage] = "compute" if np.all(computed > carried) else "memory"
    return StepTime(terms=terms, bound=bound, bytes_moved=moved, flops=work)


def _is_mixing(term: str) -> bool:
    return term.endswith((".pairs", ".state", ".conv"))

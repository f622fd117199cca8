"""Millions of whole-model candidates: architectures x contexts x batches, rows picked by index.

The product is what makes it fast: what does not depend on the context is priced once per architecture and batch, a prompt once per
architecture and context, attention once per distinct mixers, context and batch, and rows only gather and add. The formula is that of
`step_time`; nothing is approximated. This module must not choose between candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hardware import Device
from ..shape.parts import counts
from ..shape.table import ShapeTable
from .kv_cache import kv_cache_bytes
from .memory import weight_bytes
from .step_time import step_time
from .surface import Array


@dataclass(frozen=True)
class Candidates:
    """(n_rows,) arrays."""

    ttft_s: Array
    """Prefill of one prompt of the row's context."""
    tpot_s: Array
    """One decode step at the row's context and batch."""
    memory_bytes: Array
    """Weights, and the logical cache of the row's context and batch; no engine's reserve, no activations."""


def price_candidates(
    architectures: ShapeTable, contexts: Any, batches: Any, rows: NDArray[np.intp], device: Device, engine: str,
    weight_dtype: str = "bf16", kv_dtype: str = "bf16", tp: int = 1, l2: str = "cold",
) -> Candidates:
    """Prices rows of the product.

    Args:
        architectures: the models.
        contexts, batches: vectors of tokens and of sequences.
        rows: [n_rows, 3] indices of architecture, context and batch.
        others: as in `step_time`.
    """
    contexts, batches = np.asarray(contexts, dtype=np.float64), np.asarray(batches, dtype=np.float64)
    which, at, together = (np.ascontiguousarray(rows[:, i]) for i in range(3))
    options: dict[str, Any] = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype, "tp": tp, "l2": l2}
    n_models, n_contexts, n_batches = len(architectures), len(contexts), len(batches)

    first, group = _distinct_mixers(architectures)
    prompts = step_time(
        _repeated(architectures, np.arange(n_models), n_contexts), device, engine, "prefill", np.tile(contexts, n_models), 1, **options
    ).total
    # Nothing but the mixers looks at the context when decoding.
    rest = step_time(
        _repeated(architectures, np.arange(n_models), n_batches), device, engine, "decode", 1.0, np.tile(batches, n_models),
        **options, only="rest",
    ).total
    mixers = step_time(
        _repeated(architectures, first, n_contexts * n_batches), device, engine, "decode",
        np.tile(np.repeat(contexts, n_batches), len(first)), np.tile(batches, len(first) * n_contexts), **options, only="mixers",
    ).total
    cache = kv_cache_bytes(_repeated(architectures, first, n_contexts), np.tile(contexts, len(first)), 1, kv_dtype).total
    weights = weight_bytes(architectures, weight_dtype).total
    shared = group[which] * n_contexts + at
    return Candidates(
        ttft_s=prompts[which * n_contexts + at],
        tpot_s=rest[which * n_batches + together] + mixers[shared * n_batches + together],
        memory_bytes=weights[which] + cache[shared] * batches[together],
    )


def _repeated(table: ShapeTable, models: NDArray[np.intp], times: int) -> ShapeTable:
    return table.rows(np.repeat(models, times))


def _distinct_mixers(table: ShapeTable) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(one model for each distinct set of mixers, the set of each model)."""
    columns = []
    for n, layer in table.layers:
        columns += [n, *(np.broadcast_to(np.asarray(c, dtype=np.float64), (len(table),)) for m in layer.mixers for c in counts(m))]
    legal = table.legal.astype(np.float64)
    _, first, group = np.unique(np.stack([legal, *columns], axis=1), axis=0, return_index=True, return_inverse=True)
    return first, group.reshape(-1)

"""How many whole-model candidates per second of CPU time one core prices: TTFT, TPOT and memory.

    python bench/candidates.py

Rows are all distinct, drawn at random from widths x head shapes x contexts x batches; 1,000 of them are priced alone, one model at a
time by `step_time`, and must agree. Reading the tables is not timed, it happens once per process. One JSON line at the end.
"""

from __future__ import annotations

import json
import os
import time

import numpy as np

from headcount.cost.candidates import price_candidates
from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.cost.step_time import step_time
from headcount.hardware import device
from headcount.shape.table import ShapeTable

ROWS, RUNS, SEED, SAMPLE = 1_000_000, 3, 20261123, 1_000
HEADS = [(h, k, d) for d in (64, 128) for h in (8, 12, 16, 24, 32, 40, 48, 64) for k in (1, 2, 4, 8) if h % k == 0]
WIDTHS = np.array([1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192], dtype=np.float64)
CONTEXTS = np.unique(np.round(2.0 ** np.linspace(9, 17, 65)))
BATCHES = np.arange(1.0, 65.0)


def models() -> ShapeTable:
    """Every width with every head shape: 32 layers, d_ff 3.5 x width, 128k words."""
    width = np.repeat(WIDTHS, len(HEADS))
    heads, kv_heads, head_dim = np.tile(np.array(HEADS, dtype=np.float64), (len(WIDTHS), 1)).T
    return ShapeTable.from_columns(
        n_layers=32, d_model=width, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim, d_ff=3.5 * width, vocab_size=128256,
    )


def check(table: ShapeTable, rows: np.ndarray, found: object, name: str, engine: str) -> float:
    """Largest relative difference to single models over some rows."""
    worst = 0.0
    for i in np.random.default_rng(1).choice(len(rows), SAMPLE, replace=False):
        shape, context, batch = table.row(int(rows[i, 0])), int(CONTEXTS[rows[i, 1]]), int(BATCHES[rows[i, 2]])
        card = device(name)
        alone = {
            "ttft_s": step_time(shape, card, engine, "prefill", context, 1).total,
            "tpot_s": step_time(shape, card, engine, "decode", context, batch).total,
            "memory_bytes": 2 * parameters(shape).total + kv_cache_bytes(shape, context, batch).total,
        }
        worst = max(worst, *(abs(getattr(found, field)[i] / value - 1) for field, value in alone.items()))
    return worst


def main() -> None:
    """Prints candidates per CPU second, best of the runs."""
    name, engine = "h100-sxm", "vllm"
    table = models()
    everything = len(table) * len(CONTEXTS) * len(BATCHES)
    picked = np.random.default_rng(SEED).choice(everything, ROWS, replace=False)
    rows = np.stack(np.unravel_index(picked, (len(table), len(CONTEXTS), len(BATCHES))), axis=1)
    price_candidates(table, CONTEXTS[:2], BATCHES[:2], rows[:1] * 0, device(name), engine)
    spent = []
    for _ in range(RUNS):
        start = time.process_time()
        found = price_candidates(table, CONTEXTS, BATCHES, rows, device(name), engine)
        spent.append(time.process_time() - start)
    worst = check(table, rows, found, name, engine)
    assert worst < 1e-9, worst
    rate = ROWS / min(spent)
    print(f"{ROWS:,} of {everything:,} candidates ({len(table)} models, {len(CONTEXTS)} contexts, {len(BATCHES)} batches)")
    print(f"{min(spent):.3f} CPU s, {rate:,.0f} candidates per CPU second; {SAMPLE} rows alone differ by at most {worst:.1e}")
    print(json.dumps({"bench": "candidates", "rows": ROWS, "cpu_s": min(spent), "rows_per_cpu_s": rate, "worst": worst,
                      "load_average": os.getloadavg()[0], "numpy": np.__version__}))


if __name__ == "__main__":
    main()

"""How many random models headcount prices per second of CPU time: parameters, KV cache and FLOPs together, on one thread.

Rows are drawn at random, every field by itself, so nothing can be reused between them. Ten rows are priced alone and must agree.
Prints one table for people and, as the last line, one JSON object for programs.
"""

from __future__ import annotations

import json
import os
import time

import numpy as np

from headcount.cost.price import price
from headcount.shape.table import ShapeTable

ROWS, RUNS, SEED = 1_000_000, 5, 20261123


def random_columns(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Legal GQA decoders: widths 512-8128, heads up to 64 x 8, head_dim 32-256, any number of layers up to 99."""
    rng = np.random.default_rng(seed)
    n_kv_heads = 2 ** rng.integers(0, 4, rows)
    return {
        "n_layers": rng.integers(1, 100, rows), "d_model": rng.integers(8, 128, rows) * 64,
        "n_heads": n_kv_heads * rng.integers(1, 9, rows), "n_kv_heads": n_kv_heads,
        "head_dim": rng.integers(4, 33, rows) * 8, "d_ff": rng.integers(8, 400, rows) * 64,
        "vocab_size": rng.integers(1000, 200000, rows),
    }


def main() -> None:
    """Times building and pricing the table, best of five, and checks ten rows against single models."""
    rng = np.random.default_rng(SEED + 1)
    columns = random_columns(ROWS, SEED)
    context, batch = rng.integers(1, 131073, ROWS).astype(float), rng.integers(1, 65, ROWS).astype(float)
    built, priced = [], []
    for _ in range(RUNS):
        start = time.process_time()
        table = ShapeTable.from_columns(**columns)
        built.append(time.process_time() - start)
        start = time.process_time()
        answer = price(table, context=context, batch=batch)
        priced.append(time.process_time() - start)
    for row in rng.integers(0, ROWS, 10):
        alone = price(table.row(int(row)), context=int(context[row]), batch=int(batch[row])).terms()
        assert dict(answer[int(row)]) == dict(alone), row
    result = {
        "bench": "pricing", "rows": ROWS, "terms": len(answer.terms()), "build_cpu_s": min(built), "price_cpu_s": min(priced),
        "rows_per_cpu_s": ROWS / min(priced), "rows_per_cpu_s_with_build": ROWS / (min(built) + min(priced)),
        "load_average": os.getloadavg()[0], "numpy": np.__version__,
    }
    print(f"{'rows':>10}  {'terms':>6}  {'build, CPU s':>13}  {'price, CPU s':>13}  {'rows/CPU s':>11}  {'with build':>11}  {'load':>5}")
    print(
        f"{ROWS:>10,}  {result['terms']:>6}  {min(built):>13.3f}  {min(priced):>13.3f}  {result['rows_per_cpu_s']:>11,.0f}"
        f"  {result['rows_per_cpu_s_with_build']:>11,.0f}  {result['load_average']:>5.2f}"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Serving runs that really happened (silicon_sample.csv) must fit by our formula; a sample of them here, all in bench/memory_silicon.py."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[2] / "bench/memory_silicon.py"
    spec = importlib.util.spec_from_file_location("memory_silicon", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["memory_silicon"] = module
    spec.loader.exec_module(module)
    return module


def test_runs_that_happened_fit(bench: ModuleType) -> None:
    with (bench.PACKAGE / "systems/silicon_sample.csv").open(encoding="utf-8") as file:
        pools = [pool for row in list(csv.DictReader(file))[::17] for pool in bench.pools(row)]
    found = [bench.verdict(pool) for pool in pools]
    outcomes = Counter(v.outcome for v in found)
    assert len(found) > 300
    assert outcomes["fits"] / len(found) > 0.9
    assert not [v for v in found if v.outcome == "not even one sequence fits"]


def test_a_run_that_cannot_have_happened_does_not_fit(bench: ModuleType) -> None:
    """The check can fail: 671 GB of DeepSeek-R1 on two cards of 80 GiB."""
    pool = bench.Pool("made up", "agg", "deepseek-ai--DeepSeek-R1", None, "h100_sxm", (2, 1, 1, 2), 1, 100)
    assert bench.verdict(pool).outcome == "not even one sequence fits"

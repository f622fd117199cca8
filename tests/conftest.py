"""What all tests share: one thread, no network model hub, and no skip that nobody answers for.

The environment is set here because torch and transformers read it once, when a test module first imports them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine is not a slow function: no deadline. In CI the same examples every time, so that red means changed code.
settings.register_profile("headcount", deadline=None, print_blob=True, derandomize=os.environ.get("HC_CI") == "1")
settings.load_profile("headcount")

SKIPS = Path(__file__).with_name("SKIPS.md")


def listed_skips(text: str) -> dict[str, bool]:
    """Name in the first column of the table -> whether CI may skip it too."""
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[3] == "yes" for row in rows[2:]}


def verdict_on_skip(nodeid: str, in_ci: bool) -> str | None:
    """Why this skip is not acceptable, or None."""
    listed = listed_skips(SKIPS.read_text(encoding="utf-8"))
    name = nodeid.partition("[")[0]
    short = name.rpartition("/")[2]
    allowed = [listed[key] for key in (short, short.partition("::")[0]) if key in listed]
    if not allowed:
        return "skipped, but not listed in tests/SKIPS.md"
    return "skipped, which tests/SKIPS.md does not allow in CI" if in_ci and not any(allowed) else None


def _judge(report: Any) -> None:
    # An expected failure is reported as skipped too, and is none.
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        problem = verdict_on_skip(report.nodeid, os.environ.get("HC_CI") == "1")
        if problem:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid}: {problem} ({reason})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[Any]:
    """Judges a test that skips itself or is marked so."""
    report = yield
    _judge(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[Any]:
    """Judges a module that skips itself, as importorskip does."""
    report = yield
    _judge(report)
    return report

"""The copy of the systems files in tests/data is what the package ships, where the package is installed."""

from __future__ import annotations

import csv
import importlib.util
import re
from pathlib import Path

import pytest

COPY = Path(__file__).parent.parent / "data/aiconfigurator-systems.csv"


def test_the_copied_facts_are_those_of_the_installed_package() -> None:
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        pytest.skip("aiconfigurator-core is not installed")
    folder = Path(spec.origin).parent / "systems"
    rows = list(csv.DictReader(line for line in COPY.read_text(encoding="utf-8").splitlines() if not line.startswith("#")))
    for row in rows:
        # "key: 123 # remark" is all the YAML that these lines need.
        text = (folder / f"{row['system']}.yaml").read_text(encoding="utf-8")
        found = re.search(rf"^\s+{row['key']}:\s*([0-9.]+)", text, re.MULTILINE)
        assert found, row
        assert float(found[1]) == float(row["value"]), row
    assert len({row["system"] for row in rows}) == len([p for p in folder.glob("*.yaml") if "\ngpu:" in p.read_text(encoding="utf-8")])

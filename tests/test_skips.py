"""The guard in conftest.py: a skip that nobody listed fails, and CI is stricter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = "| Test | Why | How | CI |\n|---|---|---|---|\n"
MODULE = "import pytest\n\ndef test_a():\n    pytest.skip('no such device')\n"


def run(folder: Path, rows: str, ci: bool, module: str = MODULE) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (folder / "SKIPS.md").write_text(TABLE + rows)
    (folder / "test_one.py").write_text(module)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {k: v for k, v in os.environ.items() if k != "HC_CI" and not k.startswith("PYTEST")} | ({"HC_CI": "1"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_one.py"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("rows", "ci", "passes"),
    [
        ("", False, False),
        ("| `test_one.py::test_a` | no device | - | no |\n", False, True),
        ("| `test_one.py` | no device | - | no |\n", False, True),
        ("| `test_one.py::test_a` | no device | - | no |\n", True, False),
        ("| `test_one.py::test_a` | no device | - | yes |\n", True, True),
    ],
)
def test_a_skip_passes_only_where_it_is_listed(tmp_path: Path, rows: str, ci: bool, passes: bool) -> None:
    done = run(tmp_path, rows, ci)
    assert (done.returncode == 0) is passes, done.stdout
    assert ("1 skipped" in done.stdout) is passes


def test_a_module_that_skips_itself_is_judged_too(tmp_path: Path) -> None:
    done = run(tmp_path, "", False, "import pytest\npytest.importorskip('no_such_library')\n\ndef test_a():\n    pass\n")
    assert done.returncode != 0
    assert "not listed in tests/SKIPS.md" in done.stdout

"""The wheel: what is in it, how large it is, and that it answers in an empty environment without torch."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_WHEEL_BYTES = 20 * 10**6
# One group: the wheel and its environment are made once, by one worker.
pytestmark = pytest.mark.xdist_group("wheel")


def call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "COLUMNS", "LANG", "LC_", "COVERAGE", "COV_"))}
    environment = kept | {"LANG": "en_US.UTF-8", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check", "--wheel-dir", str(folder))
    done = call(sys.executable, "-m", "pip", "wheel", *options, str(ROOT), cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds the wheel and its pinned core, nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (str(commands / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = call(*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel), cwd=folder)
    assert done.returncode == 0, done.stderr
    return commands


def test_the_wheel_holds_the_package_and_its_licence_and_nothing_else(wheel: Path, metadata: email.message.Message) -> None:
    info = f"headcount-{metadata['Version']}.dist-info"
    expected = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "headcount").rglob("*") if p.is_file()}
    expected = {name for name in expected if "__pycache__" not in name}
    expected |= {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE")}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == expected
    assert {"headcount/py.typed", "headcount/shape/data/class_defaults.json"} <= expected


def test_the_wheel_is_small(wheel: Path) -> None:
    assert 10_000 < wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_the_core_depends_on_four_libraries(metadata: email.message.Message) -> None:
    required = metadata.get_all("Requires-Dist") or []
    core = {r.partition("<")[0].partition(">")[0].strip() for r in required if "extra ==" not in r}
    assert core == {"numpy", "rich", "typer", "rapidfuzz"}
    assert set(metadata.get_all("Provides-Extra") or []) == {
        "hub", "plot", "torch", "gguf", "study", "app", "mcp", "notebook", "all", "dev", "docs",
    }


def test_explain_answers_outside_the_checkout_without_torch(installed: Path, tmp_path: Path) -> None:
    done = call(str(installed / "headcount"), "explain", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("qwen3-32b body on RTX PRO 6000")
    assert "qwen3-32b" in done.stdout.splitlines()[0].lower()
    heavy = "import importlib.util as u; print([m for m in ('torch', 'transformers', 'pandas') if u.find_spec(m)])"
    assert call(str(installed / "python"), "-c", heavy, cwd=tmp_path).stdout.strip() == "[]"


def test_the_installed_package_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = call(str(installed / "python"), "-c", "import headcount; print(headcount.__file__)", cwd=tmp_path).stdout
    assert str(ROOT / "src") not in where
    assert str(installed.parent) in where


def test_version_is_the_one_of_the_wheel(installed: Path, tmp_path: Path, metadata: email.message.Message) -> None:
    done = call(str(installed / "headcount"), "--version", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert metadata["Version"] in done.stdout

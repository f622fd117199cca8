"""The rules of the house that no linter knows: names that stay what they are, light imports, sizes of functions and modules."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
MODULE_LINES, FUNCTION_LINES = 500, 60
HEAVY = ["torch", "transformers", "pandas", "matplotlib", "altair", "fastapi", "gguf", "safetensors", "ray", "anywidget", "mcp"]
LIGHT_ROOMS = ["errors", "units", "shape", "hardware", "records", "cost", "quality", "report", "advisor", "heads", "present", "api"]
PYTHON_FILES = sorted(p for folder in ("src", "tests", "bench", "scripts") for p in (ROOT / folder).rglob("*.py"))


def python(program: str, *arguments: str) -> str:
    """Standard output of a program in a fresh interpreter that imports this source tree."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def module_names() -> list[str]:
    """Every module of the package by its dotted name."""
    files = sorted((SOURCE / "headcount").rglob("*.py"))
    names = [".".join(p.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for p in files]
    return [name for name in names if not name.endswith("__main__")]


IMPORT_ALL = "import importlib, json, sys; [importlib.import_module(name) for name in json.loads(sys.argv[1])]\n"


def test_public_names_survive_the_import_of_every_module() -> None:
    program = (
        "import headcount, sys\n"
        "before = {name: getattr(headcount, name) for name in headcount.__all__}\n"
        + IMPORT_ALL
        + "changed = [name for name, value in before.items() if getattr(headcount, name) is not value]\n"
        "print(len(before), changed)\n"
    )
    count, _, changed = python(program, json.dumps(module_names())).partition(" ")
    assert int(count) > 10
    assert changed.strip() == "[]"


def test_no_public_name_is_a_module_even_when_modules_come_first() -> None:
    program = IMPORT_ALL + (
        "import headcount, types\n"
        "print([name for name in headcount.__all__ if isinstance(getattr(headcount, name), types.ModuleType)])\n"
    )
    assert python(program, json.dumps(module_names())).strip() == "[]"


def test_what_type_checkers_see_is_the_public_list() -> None:
    tree = ast.parse((SOURCE / "headcount" / "__init__.py").read_text(encoding="utf-8"))
    seen = {alias.asname or alias.name for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in ("api", "versions") for alias in node.names}
    listed = json.loads(python("import headcount, json; print(json.dumps(headcount.__all__))"))
    assert sorted(listed) == sorted(seen)


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import headcount", [*HEAVY, "rich", "typer", "click", "rapidfuzz"]),
        ("import headcount; [getattr(headcount, name) for name in headcount.__all__]", [*HEAVY, "rich", "typer", "click"]),
        ("import headcount.cli.main", HEAVY),
    ],
)
def test_imports_stay_light(statement: str, banned: list[str]) -> None:
    loaded = python(f"{statement}; import sys; print(*sorted(m for m in sys.modules if '.' not in m))").split()
    assert "headcount" in loaded
    assert not set(banned) & set(loaded)


def test_light_rooms_load_nothing_heavy() -> None:
    light = [name for name in module_names() if name.partition(".")[2].partition(".")[0] in LIGHT_ROOMS]
    loaded = python(IMPORT_ALL + "print(*sorted(m for m in sys.modules if '.' not in m))", json.dumps(light)).split()
    assert len(light) > 10
    assert not set(HEAVY) & set(loaded)


def test_a_verb_that_needs_no_model_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['headcount', 'explain']\n"
        "from headcount.cli.main import run\n"
        "try:\n"
        "    run()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('LOADED', *sorted(m for m in sys.modules if '.' not in m))\n"
    )
    report, _, loaded = python(program).partition("LOADED")
    assert "qwen3-32b" in report.lower()
    assert not set(HEAVY) & set(loaded.split())


def test_import_takes_at_most_twice_as_long_as_numpy() -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    command = [sys.executable, str(ROOT / "bench" / "import_time.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    assert 0 < measured["ratio"] <= 2, done.stdout


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines) of every function in a file, nested ones and methods too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
            yield node.name, node.end_lineno - node.lineno + 1


def test_functions_and_modules_are_short() -> None:
    assert len(PYTHON_FILES) > 20
    lines = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in PYTHON_FILES}
    assert {name: n for name, n in lines.items() if n > MODULE_LINES} == {}
    assert {f"{p.relative_to(ROOT)}: {name}": n for p in PYTHON_FILES for name, n in functions(p) if n > FUNCTION_LINES} == {}


def test_every_module_and_public_name_says_what_it_is() -> None:
    silent = []
    for path in (SOURCE / "headcount").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [tree, *(n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_"))]
        silent += [f"{path.relative_to(ROOT)}: {getattr(n, 'name', 'module')}" for n in nodes if not ast.get_docstring(n)]
    assert silent == []

"""README and docs tell the truth: their examples are run, and what they show is what the program prints."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_examples", ROOT / "scripts" / "examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


tool = _load()
PAGES = [path for path in tool.FILES if tool.BLOCK.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_examples_show_what_the_program_prints(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == tool.refreshed(path)


def test_both_readmes_have_the_same_commands() -> None:
    english, russian = (tool.commands((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "README.ru.md"))
    assert english == russian
    assert {"make run", "make test", "headcount explain"} <= set(english)


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs" / "en").glob("*.md")))
def test_both_languages_of_a_page_have_the_same_commands(page: str) -> None:
    english, russian = (tool.commands((ROOT / "docs" / language / page).read_text(encoding="utf-8")) for language in ("en", "ru"))
    assert english == russian


def test_no_reason_stands_for_a_command_that_no_page_shows() -> None:
    shown = [command for path in PAGES for command in tool.commands(path.read_text(encoding="utf-8"))]
    assert [start for start in tool.NOT_RUN if not any(command.startswith(start) for command in shown)] == []


def test_a_wrong_output_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ printf 'one\\ntwo\\n'\none\nthree\n```\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    assert tool.refreshed(page) == "```console\n$ printf 'one\\ntwo\\n'\none\ntwo\n```\n"


def test_a_failing_command_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ no-such-command\n```\n")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    with pytest.raises(RuntimeError, match="exit 127"):
        tool.refreshed(page)


@pytest.mark.parametrize("name", ["README.md", "README.ru.md", "CONTRIBUTING.md"])
def test_links_lead_to_files_that_exist(name: str) -> None:
    targets = [t for t in tool.re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8")) if "://" not in t]
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []

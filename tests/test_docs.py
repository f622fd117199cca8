"""The documentation builds without a warning, in both languages alike, and its pages fetch nothing from anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.xdist_group("docs")
# What a page loads by itself, as against links that a reader may follow.
LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]*\bsrc=[\"']?(?:https?:)?//|<link[^>]*rel=[\"']?(?:stylesheet|preconnect|preload)[^>]*https?:"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    for config, target in (("mkdocs.yml", folder), ("mkdocs.ru.yml", folder / "ru")):
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(ROOT / config), "-d", str(target)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_both_languages_have_the_same_pages(site: Path) -> None:
    english = {p.name for p in site.glob("*.html")}
    assert english == {p.name for p in (site / "ru").glob("*.html")}
    assert english - {"404.html"} == {p.with_suffix(".html").name for p in (ROOT / "docs" / "en").glob("*.md")}


def test_both_languages_have_the_same_headings_by_level() -> None:
    for page in sorted((ROOT / "docs" / "en").glob("*.md")):
        levels = [re.findall(r"^#+(?= )", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE) for text in (
            page.read_text(encoding="utf-8"), (ROOT / "docs" / "ru" / page.name).read_text(encoding="utf-8"),
        )]
        assert levels[0] == levels[1], page.name


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 10
    assert [str(p.relative_to(site)) for p in pages if LOADED.search(p.read_text(encoding="utf-8"))] == []


def test_each_page_leads_to_the_other_language(site: Path) -> None:
    assert 'href="ru/index.html"' in (site / "formulas.html").read_text(encoding="utf-8")
    assert 'href="../index.html"' in (site / "ru" / "formulas.html").read_text(encoding="utf-8")

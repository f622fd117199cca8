"""What the page on devices shows is true: its Python runs, its device file loads, its numbers are those of the data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headcount.hardware import device_from_file, device_names, engine, engine_names

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [pytest.param((DOCS / lang / "devices.md").read_text(encoding="utf-8"), id=lang) for lang in ("en", "ru")]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_the_page_runs(page: str) -> None:
    programs = blocks(page, "python")
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "devices.md", "exec"), {})


@pytest.mark.parametrize("page", PAGES)
def test_the_device_file_of_the_page_loads(page: str, tmp_path: Path) -> None:
    path = tmp_path / "my-card.json"
    path.write_text(blocks(page, "json")[0], encoding="utf-8")
    found = device_from_file(path)
    assert (found.name, found.kernel_tables, found.figure("memory_bytes").basis) == ("my-l40", "l40s", "measured")


@pytest.mark.parametrize("page", PAGES)
def test_the_numbers_of_the_page_are_those_of_the_data(page: str) -> None:
    assert f" {len(device_names())} " in page
    pages = [row for row in page.splitlines() if row.startswith("|")][3]
    assert [int(n) for n in re.findall(r"\| (\d+) ", pages)] == [
        engine(n).kv_block_tokens for n in ("vllm", "sglang", "trtllm", "llama.cpp", "transformers")
    ]
    assert len(engine_names()) == 5

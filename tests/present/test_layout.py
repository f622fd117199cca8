"""What reaches the reader whole: numbers are never cut or broken, whatever the width."""

from __future__ import annotations

import re

import pytest

import headcount as hc
from headcount.present.layout import lines, render_text, table


@pytest.mark.parametrize("lang", ["en", "ru"])
@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("model", ["deepseek-v4-flash", "qwen3.5-27b", "gpt-oss-120b"])
def test_no_number_of_a_count_is_cut(model: str, width: int, lang: str) -> None:
    text = hc.count(model).text(lang, width)
    assert "…" not in text
    assert f"{int(hc.parameters(hc.model_shape(model))):,}" in text.replace("\u00a0", ",")


def test_a_long_label_wraps_and_its_number_stays() -> None:
    text = render_text([table("", ["", ""], [["word " * 30, "123,456,789"]])], 40)
    assert max(map(len, text.splitlines())) <= 40
    assert "123,456,789" in text


def test_a_sentence_breaks_at_spaces_but_never_inside_a_number() -> None:
    text = render_text([lines("предел в токенах: 141\u00a0592", "ещё")], 22)
    assert text.splitlines() == ["предел в токенах:", "141\u00a0592", "ещё"]


def test_the_russian_report_keeps_its_numbers_whole() -> None:
    text = hc.explain().text("ru", 100)
    assert re.search(r"предел\s+141\u00a0592", text)

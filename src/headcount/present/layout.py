"""Tables and sentences put together as text: one console for all answers, plain in a pipe, never wider than asked."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text


def table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> RenderableType:
    """A plain table: the first `left` columns hold words and may wrap; the others hold numbers, right-aligned and never cut."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for i, header in enumerate(headers):
        grid.add_column(header, justify="left" if i < left else "right", no_wrap=i >= left, vertical="bottom")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return Group(Text(title, style="bold"), grid) if title else grid


class Prose:
    """Sentences, each on its own line, wrapped at the width of the console but never at a no-break space, where rich would break."""

    def __init__(self, *texts: str) -> None:
        self.texts = "\n".join(texts).split("\n")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wrapped = (textwrap.wrap(text, options.max_width, break_long_words=False, break_on_hyphens=False) or [""] for text in self.texts)
        yield Text("\n".join(line for block in wrapped for line in block), no_wrap=True, overflow="ignore")


def lines(*texts: str) -> Prose:
    """Sentences, each on its own line."""
    return Prose(*texts)


def render_text(parts: Iterable[RenderableType], width: int = 100) -> str:
    """Plain text without colour, no trailing spaces."""
    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, highlight=False, legacy_windows=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def print_parts(parts: Iterable[RenderableType], **options: Any) -> None:
    """Prints to the user's terminal; colour only there, and never with NO_COLOR."""
    console = Console(highlight=False, **options)
    if not console.is_terminal:
        # A pipe has no width; rich would assume 80 and cut tables that have more to say.
        console = Console(highlight=False, width=max(console.width, 100), color_system=None)
    for part in parts:
        console.print(part)

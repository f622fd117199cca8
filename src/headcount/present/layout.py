"""Tables and sentences put together as text: one console for all answers, plain in a pipe, never wider than asked."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text


def table(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> RenderableType:
    """A plain table: the first `left` columns to the left, numbers to the right, headers may have two lines; cells never wrap."""
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for i, header in enumerate(headers):
        grid.add_column(header, justify="left" if i < left else "right", no_wrap=True, vertical="bottom")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    return Group(Text(title, style="bold"), grid) if title else grid


def lines(*texts: str, style: str = "") -> Text:
    """Sentences, each on its own line; the console wraps them at its width."""
    return Text("\n".join(texts), style=style)


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

"""The words and tables of `headcount count`."""

from __future__ import annotations

import shlex

from rich.console import RenderableType

from ..report.count import Count
from ..report.quantity import Quantity
from ..units import spell_tokens
from . import numbers as n
from .catalog import say, say_note
from .layout import lines, table


def view(count: Count, lang: str = "en") -> list[RenderableType]:
    """Parameters under every name, term by term; cache by runtime; FLOPs by phase; notes."""
    title = "headcount count   " + say(
        lang, "count.title", model=count.model, model_type=count.model_type or "-", weights=count.weight_dtype, kv=count.kv_dtype,
        batch=count.batch,
    )
    closing = [say(lang, "count.notes", note=say_note(lang, note)) for note in count.notes]
    if count.source:
        model = shlex.quote(count.source)
        following = say(lang, "count.next_explain", model=model) if count.explains else say(lang, "count.next", model=model)
        closing += [*([""] if closing else []), following]
    gap = lines("")
    return [
        lines(title, ""), _readings_table(count, lang), gap, _terms_table(count, lang), gap, _cache_table(count, lang), gap,
        _flops_table(count, lang), *([lines("", *closing)] if closing else []),
    ]


def _readings_table(count: Count, lang: str) -> RenderableType:
    return table("", [say(lang, "count.parameters_title"), "", ""], _readings(count, lang))


def _readings(count: Count, lang: str) -> list[list[str]]:
    def row(key: str, quantity: Quantity) -> list[str]:
        return [say(lang, f"count.{key}"), n.whole(quantity.value, lang), n.scaled(quantity.value, lang)]

    def unknown(key: str, **words: str) -> list[str]:
        return [say(lang, f"count.{key}", **words), "-", "-"]

    rows = [unknown("total_unknown", towers=", ".join(count.unknown_towers)) if count.total is None else row("total", count.total)]
    if count.total is None or count.total.value != count.text_only.value:
        rows.append(row("text_only", count.text_only))
    rows += [row("active", count.active), row("embedding", count.embedding)]
    if count.tied_counted_twice and count.total and count.tied_counted_twice.value != count.total.value:
        rows.append(row("tied_twice", count.tied_counted_twice))
    if count.mtp is None:
        rows.append(unknown("mtp_unknown"))
    elif count.mtp.value:
        rows.append(row("mtp", count.mtp))
    if count.buffers.value:
        rows.append(row("buffers", count.buffers))
    return [*rows, unknown("weights_mixed") if count.weights is None else _weights_row(count, count.weights, lang)]


def _weights_row(count: Count, weights: Quantity, lang: str) -> list[str]:
    words = say(lang, "count.weights_row", dtype=count.weight_dtype, basis=say(lang, "basis." + weights.basis))
    return [words, n.whole(weights.value, lang), n.size(weights.value, lang)]


def _terms_table(count: Count, lang: str) -> RenderableType:
    total = sum(q.value for q in count.terms.values())
    rows = [[name, n.whole(q.value, lang), n.percent(q.value / total, lang)] for name, q in count.terms.items()]
    headers = [say(lang, f"count.{key}") for key in ("term", "parameters_column", "share_column")]
    return table("", headers, rows)


def _cache_table(count: Count, lang: str) -> RenderableType:
    rows = [
        [
            c.runtime, spell_tokens(c.context), n.per_token(c.bytes_per_token.value, lang), n.size(c.constant.value, lang),
            n.size(c.total.value, lang),
        ]
        for c in count.caches
    ]
    rows += [[runtime, "-", say(lang, "count.not_known"), "-", "-"] for runtime in count.unknown_caches]
    headers = [say(lang, f"count.{key}") for key in ("runtime", "context", "per_token", "constant", "cache_total")]
    return table(say(lang, "count.cache_title"), headers, rows)


def _flops_table(count: Count, lang: str) -> RenderableType:
    rows = [
        [
            say(lang, "phases." + f.phase), spell_tokens(f.context), n.scientific(f.total.value, lang),
            n.percent(f.attention.value / f.total.value, lang),
        ]
        for f in count.flops
    ]
    headers = [say(lang, f"count.{key}") for key in ("phase", "context", "flops_total", "flops_attention")]
    return table(say(lang, "count.flops_title"), headers, rows)

"""The words and tables of `headcount explain`."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from ..hardware import device as find_device
from ..report.explain import Cell, Explanation, HeadRow
from ..units import GB, TFLOPS, spell_tokens
from . import numbers as n
from .catalog import plural, say
from .layout import lines, render_text, table


def view(report: Explanation, lang: str = "en") -> list[RenderableType]:
    """The parts of the answer in reading order: answer, tables, what they rest on, next step."""
    return [
        lines(_title(report, lang), _held(report, lang), ""),
        lines(*_one_more(report, lang), _fit(report, lang), *_short(report, lang), ""),
        _memory_table(report, lang), lines(""), _decode_table(report, lang), lines(""), _prefill_table(report, lang),
        lines("", *_legend(report, lang), *[say(lang, "count.notes", note=note) for note in report.notes]),
        lines("", say(lang, "explain.next", model=report.source or report.model)),
    ]


def render(report: Explanation, lang: str = "en", width: int = 100) -> str:
    """The answer as plain text."""
    return render_text(view(report, lang), width)


def _title(report: Explanation, lang: str) -> str:
    return "headcount explain   " + say(
        lang, "explain.title", model=report.model, device=report.device_title, weights=report.weight_dtype, kv=report.kv_dtype,
        batch=report.batch,
    )


def _held(report: Explanation, lang: str) -> str:
    base = report.row(report.baseline)
    return say(lang, "explain.held", head_dim=base.head_dim, kv_heads=plural(lang, "kv_heads", base.n_kv_heads))


def _one_more(report: Explanation, lang: str) -> list[str]:
    context = spell_tokens(max(report.contexts))
    return [
        say(
            lang, "explain.one_query" if one.kind == "query" else "explain.one_kv", context=context, weights=n.size(one.weights.value, lang),
            cache=n.size(one.kv_cache.value, lang), ms=n.milliseconds(one.decode_time.value, lang),
        ) + f"   ({say(lang, 'basis.' + one.weights.basis)} / {say(lang, 'basis.' + one.decode_time.basis)})"
        for one in report.one_more
    ]


def _fit(report: Explanation, lang: str) -> str:
    cell = report.row(report.baseline).cells[-1]
    longest = say(lang, "explain.longest_none")
    if report.longest_fit is not None:
        longest = say(lang, "explain.longest", tokens=n.whole(report.longest_fit.value, lang))
    return say(
        lang, "explain.fit_yes" if cell.within_memory else "explain.fit_no", heads=plural(lang, "heads", report.baseline),
        context=spell_tokens(cell.context), need=n.size(cell.weights_and_cache.value, lang), memory=n.size(report.device_memory.value, lang),
        longest=longest,
    )


def _short(report: Explanation, lang: str) -> list[str]:
    low, high = report.rows[0], report.rows[-1]
    first, base = report.contexts[0], report.row(report.baseline)
    if low is high:
        return []
    decode = _factor(low.cells[0].decode_time.value, high.cells[0].decode_time.value, lang)
    prefill = _factor(low.cells[0].prefill_time.value, high.cells[0].prefill_time.value, lang)
    work = _factor(low.cells[0].prefill_flops.value, high.cells[0].prefill_flops.value, lang)
    shared: dict[str, Any] = {"low": low.n_heads, "high": high.n_heads, "context": spell_tokens(first)}
    capped = low.n_kv_heads != high.n_kv_heads
    return [
        say(lang, "explain.short_decode", **shared, factor=decode, share=n.percent(base.cells[0].decode_attention_share.value, lang), base=base.n_heads),
        say(lang, "explain.short_prefill", **shared, factor=prefill, flops=work),
        say(lang, "explain.short_cache_capped", kv=high.n_kv_heads) if capped else say(
            lang, "explain.short_cache", cache=n.size(base.cells[-1].kv_cache.value, lang), context=spell_tokens(report.contexts[-1]),
            kv_heads=plural(lang, "kv_heads", base.n_kv_heads),
        ),
    ]


def _factor(low: float, high: float, lang: str) -> str:
    return n.number(high / low, lang)


def _label(row: HeadRow) -> str:
    return f"{row.n_heads} x {row.head_dim} / {row.n_kv_heads}"


def _headers(lang: str, report: Explanation, *keys: str) -> list[str]:
    return [f"{say(lang, 'explain.' + key)}\n{spell_tokens(c)}" for key in keys for c in report.contexts]


def _memory_table(report: Explanation, lang: str) -> RenderableType:
    def total(cell: Cell) -> str:
        value = n.gib(cell.weights_and_cache.value, lang)
        return value if cell.within_memory else say(lang, "explain.over", value=value)

    fixed = [say(lang, f"explain.{key}") for key in ("heads_column", "parameters", "attention_parameters", "weights")]
    rows = [
        [
            _label(row), n.number(row.parameters.value / 1e9, lang), n.number(row.attention_parameters.value / 1e9, lang), n.gib(row.weights.value, lang),
            *(n.gib(cell.kv_cache.value, lang) for cell in row.cells), *(total(cell) for cell in row.cells),
        ]
        for row in report.rows
    ]
    return table(say(lang, "explain.memory_title"), fixed + _headers(lang, report, "cache_at", "sum_at"), rows)


def _decode_table(report: Explanation, lang: str) -> RenderableType:
    rows = [
        [
            _label(row), *(n.milliseconds(c.decode_time.value, lang) for c in row.cells), *(n.number(1 / c.decode_time.value, lang) for c in row.cells),
            *(n.percent(c.decode_attention_share.value, lang) for c in row.cells),
        ]
        for row in report.rows
    ]
    headers = [say(lang, "explain.heads_column"), *_headers(lang, report, "ms_at", "toks_at", "share_at")]
    return table(say(lang, "explain.decode_title"), headers, rows)


def _prefill_table(report: Explanation, lang: str) -> RenderableType:
    rows = [
        [
            _label(row), *(n.number(c.prefill_time.value, lang) for c in row.cells), *(n.number(c.prefill_flops.value / 1e15, lang) for c in row.cells),
            *(n.percent(c.prefill_quadratic_share.value, lang) for c in row.cells),
        ]
        for row in report.rows
    ]
    headers = [say(lang, "explain.heads_column"), *_headers(lang, report, "s_at", "pflop_at", "quadratic_at")]
    return table(say(lang, "explain.prefill_title"), headers, rows)


def _legend(report: Explanation, lang: str) -> list[str]:
    card = find_device(report.device)
    assumed = report.rows[0].weights.basis == "assumed"
    return [
        say(lang, "explain.legend_over"),
        say(lang, "explain.legend_basis", bandwidth=n.whole(card.bandwidth / GB, lang), peak=n.number(card.peak_flops("bf16") / TFLOPS, lang)),
        say(lang, "explain.legend_share"),
        *([say(lang, "explain.assumed_weights", dtype=report.weight_dtype)] if assumed else []),
        say(lang, "explain.quality"),
    ]

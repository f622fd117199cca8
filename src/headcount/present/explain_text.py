"""The words and tables of `headcount explain`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from rich.console import RenderableType

from ..report.explain import Cell, Explanation, HeadRow
from ..units import GB, MAX_TOKENS, TFLOPS, spell_tokens
from . import numbers as n
from .catalog import plural, say, say_note
from .layout import lines, table


def view(report: Explanation, lang: str = "en") -> list[RenderableType]:
    """The parts of the answer in reading order: answer, tables, what they rest on, next step."""
    return [
        lines(_title(report, lang), _held(report, lang), ""),
        lines(*_one_more(report, lang), _fit(report, lang), *_short(report, lang), ""),
        _memory_table(report, lang), lines(""), _decode_table(report, lang), lines(""), _prefill_table(report, lang),
        lines("", *_legend(report, lang), *[say(lang, "count.notes", note=say_note(lang, note)) for note in report.notes]),
        *([lines(say(lang, "explain.next", model=shlex.quote(report.source)))] if report.source else []),
    ]


def _title(report: Explanation, lang: str) -> str:
    return say(
        lang, "explain.title", model=report.model, device=report.device_title, weights=report.weight_dtype, kv=report.kv_dtype,
        batch=report.batch,
    )


def _held(report: Explanation, lang: str) -> str:
    kept = {row.n_kv_heads for row in report.rows}
    kv_heads = plural(lang, "kv_heads", max(kept))
    if len(kept) > 1:  # a row with fewer query heads than that has as many KV heads as query heads
        kv_heads = say(lang, "explain.held_capped", kv_heads=kv_heads)
    return say(lang, "explain.held", head_dim=report.rows[0].head_dim, kv_heads=kv_heads)


def _one_more(report: Explanation, lang: str) -> list[str]:
    context = spell_tokens(max(report.contexts))
    said = []
    for one in report.one_more:
        words = say(
            lang, f"explain.one_{one.kind}", context=context, weights=n.size(one.weights.value, lang),
            cache=n.size(one.kv_cache.value, lang), ms=n.milliseconds(one.decode_time.value, lang),
        )
        said.append(f"{words}  ({say(lang, 'basis_short.' + one.weights.basis)} / {say(lang, 'basis_short.' + one.decode_time.basis)})")
    return said


def _fit(report: Explanation, lang: str) -> str:
    cell = report.row(report.baseline).cells[-1]
    longest = say(lang, "explain.longest_none")
    if report.longest_fit is not None and report.longest_fit.value >= MAX_TOKENS:
        longest = say(lang, "explain.longest_any")
    elif report.longest_fit is not None:
        longest = say(lang, "explain.longest", tokens=n.whole(report.longest_fit.value, lang))
    return say(
        lang, "explain.fit_yes" if cell.within_memory else "explain.fit_no", heads=plural(lang, "heads", report.baseline),
        context=spell_tokens(cell.context), longest=longest, need=n.gib(cell.weights_and_cache.value, lang),
        memory=n.size(report.device_memory.value, lang),
    )


def _short(report: Explanation, lang: str) -> list[str]:
    low, high, base = report.rows[0], report.rows[-1], report.row(report.baseline)
    if low is high:
        return []

    def factor(measure: Callable[[Cell], float]) -> str:
        return n.number(measure(high.cells[0]) / measure(low.cells[0]), lang)

    shared: dict[str, Any] = {"low": low.n_heads, "high": high.n_heads, "context": spell_tokens(report.contexts[0])}
    share = n.percent(base.cells[0].decode_attention_share.value, lang)
    return [
        say(lang, "explain.short_decode", **shared, factor=factor(lambda c: c.decode_time.value), share=share, base=base.n_heads),
        say(
            lang, "explain.short_prefill", **shared, factor=factor(lambda c: c.prefill_time.value),
            flops=factor(lambda c: c.prefill_flops.value),
        ),
        _cache_sentence(report, base, lang),
    ]


def _cache_sentence(report: Explanation, base: HeadRow, lang: str) -> str:
    kv_heads = {row.n_kv_heads for row in report.rows}
    if len(kv_heads) > 1:
        return say(lang, "explain.short_cache_capped", kv=max(kv_heads))
    return say(
        lang, "explain.short_cache", cache=n.size(base.cells[-1].kv_cache.value, lang), context=spell_tokens(report.contexts[-1]),
        kv_heads=plural(lang, "kv_heads", base.n_kv_heads),
    )


def _label(row: HeadRow) -> str:
    return f"{row.n_heads} x {row.head_dim} / {row.n_kv_heads}"


def _headers(lang: str, report: Explanation, *keys: str) -> list[str]:
    return [f"{say(lang, 'explain.' + key)}\n{spell_tokens(c)}" for key in keys for c in report.contexts]


def _per_context(row: HeadRow, *columns: Callable[[Cell], str]) -> list[str]:
    return [column(cell) for column in columns for cell in row.cells]


def _memory_table(report: Explanation, lang: str) -> RenderableType:
    def total(cell: Cell) -> str:
        value = n.gib(cell.weights_and_cache.value, lang)
        return value if cell.within_memory else say(lang, "explain.over", value=value)

    basis = say(lang, "basis." + report.rows[0].weights.basis)
    if report.rows[0].weights.basis != "exact":
        basis = say(lang, "explain.memory_assumed", basis=basis)
    fixed = [say(lang, f"explain.{key}") for key in ("heads_column", "parameters", "attention_parameters", "weights")]
    rows = [
        [
            _label(row), n.number(row.parameters.value / 1e9, lang), n.number(row.attention_parameters.value / 1e9, lang),
            n.gib(row.weights.value, lang), *_per_context(row, lambda c: n.gib(c.kv_cache.value, lang), total),
        ]
        for row in report.rows
    ]
    return table(say(lang, "explain.memory_title", basis=basis), fixed + _headers(lang, report, "cache_at", "sum_at"), rows)


def _decode_table(report: Explanation, lang: str) -> RenderableType:
    columns: tuple[Callable[[Cell], str], ...] = (
        lambda c: n.milliseconds(c.decode_time.value, lang), lambda c: n.number(report.batch / c.decode_time.value, lang),
        lambda c: n.percent(c.decode_attention_share.value, lang),
    )
    headers = [say(lang, "explain.heads_column"), *_headers(lang, report, "ms_at", "toks_at", "share_at")]
    return table(say(lang, "explain.decode_title"), headers, [[_label(row), *_per_context(row, *columns)] for row in report.rows])


def _prefill_table(report: Explanation, lang: str) -> RenderableType:
    columns: tuple[Callable[[Cell], str], ...] = (
        lambda c: n.number(c.prefill_time.value, lang), lambda c: n.number(c.prefill_flops.value / 1e15, lang),
        lambda c: n.percent(c.prefill_quadratic_share.value, lang),
    )
    headers = [say(lang, "explain.heads_column"), *_headers(lang, report, "s_at", "pflop_at", "quadratic_at")]
    return table(say(lang, "explain.prefill_title"), headers, [[_label(row), *_per_context(row, *columns)] for row in report.rows])


def _legend(report: Explanation, lang: str) -> list[str]:
    limits = {"bandwidth": n.whole(report.device_bandwidth.value / GB, lang), "peak": n.number(report.device_peak.value / TFLOPS, lang)}
    assumed = report.rows[0].weights.basis == "assumed"
    return [
        say(lang, "explain.legend_over"), say(lang, "explain.legend_basis", **limits), say(lang, "explain.legend_share"),
        say(lang, "explain.legend_pairs"), *([say(lang, "explain.assumed_weights", dtype=report.weight_dtype)] if assumed else []),
    ]

"""Everything a user can read exists in both languages: compared with the source itself, so that a new sentence cannot be forgotten."""

from __future__ import annotations

import ast
import copy
import errno
import os
import pickle
import re
import string
from pathlib import Path
from typing import Any

import error_sites
import pytest

import headcount as hc
from headcount.errors import ConfigError, ExactnessError, GgufError, Words
from headcount.present.catalog import catalog, plural, plural_form, say_error, say_note, say_usage_error

EN, RU = catalog("en"), catalog("ru")
ONE_LANGUAGE = {"errors", "phrases", "usage"}
"""English stands where these are raised; only Russian looks them up."""
FORMS = {"en": {"one", "other"}, "ru": {"one", "few", "many"}}

DYNAMIC = {
    "basis": {"exact", "measured", "interpolated", "extrapolated", "roofline", "published", "assumed"},
    "basis_short": {"exact", "roofline", "assumed"},
    "units": {"b", "kib", "mib", "gib", "tib", "million", "billion", "trillion"},
    "phases": {"prefill", "decode", "train"},
    "explain": {"fit_yes", "fit_no", "one_query", "one_kv"},
}
"""Keys that are put together while running: the values of an enumeration, or a name made of two pieces."""

FROM_OUTSIDE = {os.strerror(getattr(errno, n)) for n in errno.errorcode.values()} | {
    "embedded null byte", "Expecting value", "Expecting property name enclosed in double quotes", "Expecting ',' delimiter",
    "Expecting ':' delimiter", "Extra data", "Unterminated string starting at", "Invalid control character at", "Invalid \\escape",
    "Invalid \\uXXXX escape", "Illegal trailing comma before end of object", "Illegal trailing comma before end of array",
}
"""Phrases of the operating system and of Python, not of our source."""

LATIN = set(
    # names and formats
    "DeepSeek GGUF Hugging Face LM Studio JSON UTF GPU KV MLA MTP FFN FLOPs TFLOPS PFLOP Query query softmax transformers pip "
    # English beside the Russian word, as the glossary asks
    "prefill decode roofline "
    # forms, flags, commands, files and fields that the user types or finds in a file
    "x FILE NAME NAMESPACE ORG PUBLISHER REPO TAG M E F S headcount help json install config cpp of rtx pro server explain count layers "
    "width heads kv head dim ffn vocab runtime logical llama lmstudio ollama pull merge split expand dim delta gated mediaType digest "
    "stem gguf convert endian big little awq gptq bitsandbytes compressed tensors replaced en ru k no "
    # values of fields
    "tp pp ep plan memory phase train training "
    "null period true false dense sparse full shared recurrent attention vision per window".split()
)
"""The Latin words of the Russian catalogue. A word with a digit or an underscore is an identifier and needs no entry."""


# -- helpers ----------------------------------------------------------------------------------------------------------------------


def flat(node: Any, path: str = "") -> dict[str, str]:
    """Dotted key -> sentence; plural tables count as one key each, with their forms behind a bar."""
    if isinstance(node, str):
        return {path: node}
    found: dict[str, str] = {}
    for key, value in node.items():
        if not (path == "" and key in ONE_LANGUAGE):
            found |= flat(value, f"{path}.{key}" if path else key)
    return found


def is_plural(node: Any) -> bool:
    return isinstance(node, dict) and bool(node) and set(node) <= {"one", "few", "many", "other"}


def sentences(tables: dict[str, Any]) -> dict[str, set[str]]:
    """Key -> placeholders; all forms of a plural together."""
    found: dict[str, set[str]] = {}
    for key, text in flat(tables).items():
        stem, _, last = key.rpartition(".")
        found.setdefault(stem if last in FORMS["en"] | FORMS["ru"] else key, set()).update(placeholders(text))
    return found


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def plurals() -> list[str]:
    return [key for key, node in RU.items() if is_plural(node)]


def russian() -> list[tuple[str, str]]:
    """Everything Russian with its key."""
    own = [(f"{table}.{key}", text) for table in ("errors", "phrases") for key, text in RU[table].items()]
    return [*flat(RU).items(), *own, *((f"usage: {known['pattern']}", known["text"]) for known in RU["usage"])]


def used_keys() -> tuple[set[str], set[str]]:
    """Keys written out in calls of say, plural and the helpers that put a table's name before a key; tables whose keys are not."""
    keys: set[str] = set()
    tables: set[str] = set()
    for path, tree in error_sites.trees():
        if path.parent.name not in ("present", "cli"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and error_sites.called(node) in ("say", "plural") and len(node.args) > 1:
                asked = node.args[1]
                keys.update(error_sites.literals(asked, {}))
                if isinstance(asked, (ast.JoinedStr, ast.BinOp)):
                    tables.add(next(str(n.value) for n in ast.walk(asked) if isinstance(n, ast.Constant)).partition(".")[0])
    return keys, tables


def loose_words(table: str) -> set[str]:
    """Keys of a table that stand alone as strings in the modules that use it: arguments of their helpers."""
    found: set[str] = set()
    for path, tree in error_sites.trees():
        if path.parent.name in ("present", "cli") and f"{table}." in path.read_text(encoding="utf-8"):
            found |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found & set(RU[table])


# -- the two catalogues -----------------------------------------------------------------------------------------------------------


def test_both_languages_have_the_same_sentences_with_the_same_placeholders() -> None:
    english, translated = sentences(EN), sentences(RU)
    assert english.keys() == translated.keys()
    assert {key: names for key, names in english.items() if names != translated[key]} == {}


@pytest.mark.parametrize("lang", ["en", "ru"])
def test_plural_tables_have_the_forms_of_their_language(lang: str) -> None:
    assert plurals()
    assert {key: set(catalog(lang)[key]) for key in plurals()} == {key: FORMS[lang] for key in plurals()}


@pytest.mark.parametrize(
    ("number", "english", "form", "heads"),
    [
        (1, "1 head", "one", "1 голова"), (2, "2 heads", "few", "2 головы"), (5, "5 heads", "many", "5 голов"),
        (11, "11 heads", "many", "11 голов"), (21, "21 heads", "one", "21 голова"), (22, "22 heads", "few", "22 головы"),
        (111, "111 heads", "many", "111 голов"), (112, "112 heads", "many", "112 голов"), (0, "0 heads", "many", "0 голов"),
    ],
)
def test_numbers_take_their_plural(number: int, english: str, form: str, heads: str) -> None:
    assert (plural("en", "heads", number), plural_form("ru", number), plural("ru", "heads", number)) == (english, form, heads)


def test_every_key_is_used_and_every_used_key_exists() -> None:
    written, tables = used_keys()
    used = written | {f"{table}.{name}" for table, names in DYNAMIC.items() for name in names}
    used |= {f"{table}.{name}" for table in tables for name in loose_words(table)}
    assert used == set(sentences(RU))


def test_dynamic_keys_are_listed_for_every_table_that_needs_it() -> None:
    _, tables = used_keys()
    assert set(DYNAMIC) <= tables
    assert {t for t in tables if not loose_words(t) and t not in DYNAMIC} == set()


# -- errors and phrases -----------------------------------------------------------------------------------------------------------


def test_every_error_has_a_russian_template_with_placeholders_that_the_english_one_has() -> None:
    templates = error_sites.templates()
    assert set(RU["errors"]) == set(templates)
    for code, texts in templates.items():
        common = set.intersection(*(placeholders(text) for text in texts))
        assert placeholders(RU["errors"][code]) <= common, code


def test_errors_whose_code_is_not_written_out_are_the_two_that_pass_one_on() -> None:
    assert [site.partition(":")[0] for site in error_sites.unreadable_raises()] == ["gguf_shape.py", "legality.py"]


def test_every_phrase_has_a_translation_and_every_translation_a_phrase() -> None:
    found = error_sites.phrases()
    words = {text for text in found if not is_identifier(text)}
    assert words - set(RU["phrases"]) == set()
    assert set(RU["phrases"]) - found - FROM_OUTSIDE == set()
    for text in words & set(RU["phrases"]):
        if "{" in text and text != "an object {layer index: {head_dim, num_key_value_heads}} of whole numbers":
            assert placeholders(RU["phrases"][text]) == placeholders(text), text


def is_identifier(text: str) -> bool:
    """Names and formulas, which are the same in both languages."""
    return all(re.fullmatch(r"[a-z]+[0-9]+|[\w.]*[._]\w+|[x+,]|\w+,|int4", word.rstrip(",")) for word in text.split())


def test_english_catalogue_leaves_errors_to_the_source() -> None:
    assert (EN["errors"], EN["phrases"], EN["usage"]) == ({}, {}, [])


# -- alphabets --------------------------------------------------------------------------------------------------------------------


def latin_words(text: str) -> set[str]:
    plain = re.sub(r"\{[a-z_]\w*[^{}]*\}|\{\{.*\}\}", "", text)
    return {w for w in re.findall(r"[A-Za-z][A-Za-z0-9_]*", plain) if not re.search(r"[0-9_]", w)}


def test_russian_has_no_latin_word_but_the_listed_and_no_listed_word_is_unused() -> None:
    found = {key: latin_words(text) for key, text in russian()}
    assert {key: words - LATIN for key, words in found.items() if words - LATIN} == {}
    assert LATIN - set().union(*found.values()) == set()


def test_english_has_no_cyrillic() -> None:
    texts = [*flat(EN).values(), *error_sites.phrases(), *(t for texts in error_sites.templates().values() for t in texts)]
    assert len(texts) > 200
    assert [text for text in texts if re.search("[а-яёА-ЯЁ]", text)] == []


# -- what comes out ---------------------------------------------------------------------------------------------------------------


UNITS = "КиБ|МиБ|ГиБ|ТиБ|ГБ|ГБ/с|мс|млн|млрд|трлн|%"


@pytest.mark.parametrize(
    "make", [hc.explain, lambda: hc.count("deepseek-v3"), lambda: hc.count("qwen3-32b")], ids=["explain", "mla", "gqa"]
)
def test_russian_reports_write_numbers_as_russians_do(make: Any) -> None:
    report = make()
    said = "\n".join(line for line in report.text("ru").splitlines() if not line.startswith(("Дальше:", "headcount count")))
    # Names of models and terms have points, numbers have not.
    assert re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", said) == []
    assert re.search(r"\d,\d", said)
    assert re.findall(rf"\d (?:{UNITS})(?!\w)", said) == []
    assert re.search(rf"\d\u00a0(?:{UNITS})", said)
    assert not re.search("[а-яё]", report.text("en"), re.IGNORECASE)


def test_russian_errors_translate_their_phrases_and_numbers() -> None:
    rule = Words("{rule} ({why})", rule=Words("{wanted} in this family", wanted=3), why="transformers ignores this field and builds that")
    error = ConfigError("config_field_bad", "{field}{model_type}{rule}{value}", field="a.b", model_type="llama", rule=rule, value="4")
    assert say_error("ru", error) == (
        "поле a.b в config.json типа llama: должно быть 3 в этом семействе (transformers не читает это поле и строит так), а задано 4"
    )
    assert "3 in this family (transformers ignores this field and builds that)" in str(error)
    inexact = ExactnessError("not_exact", "{what}{row}{value}", what="parameters", row=1, value=1.234e20)
    assert say_error("ru", inexact).startswith("параметры в таблице точны до 2^53, а в строке 1 их 1,234e+20;")


def test_a_file_before_a_rule_is_kept() -> None:
    error = GgufError("count_too_small", "{path}: {name} {minimum} {value}", path="m.gguf", name="n_heads", minimum=1, value=0)
    assert say_error("ru", error) == "m.gguf: n_heads: не меньше 1, а задано 0"


def test_notes_are_translated_and_stay_english_in_json() -> None:
    share = Words("{type} {percent:.1f} %", type="Q8_0", percent=31.14)
    template = "GGUF: {total} bytes of weights in {files} file(s), by type: {shares}; weight_dtype names the largest"
    note = Words(template, total=10, files=1, shares=(share, share))
    assert note == "GGUF: 10 bytes of weights in 1 file(s), by type: Q8_0 31.1 %, Q8_0 31.1 %; weight_dtype names the largest"
    assert say_note("ru", note).startswith("GGUF: веса занимают 10 байт, файлов: 1, по типам: Q8_0 31,1\u00a0%, Q8_0 31,1\u00a0%;")
    for copied in (copy.deepcopy(note), pickle.loads(pickle.dumps(note))):
        assert (copied, say_note("ru", copied)) == (note, say_note("ru", note))
    assert say_note("ru", "a note of somebody else") == "a note of somebody else"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("No such option: --layer (Possible options: --lang, --layers)", "нет такого флага: --layer (похожие: --lang, --layers)"),
        ("No such option: -z", "нет такого флага: -z"),
        ("No such command 'nope'.", "нет такой команды: nope"),
        ("Missing command.", "не задана команда"),
        (
            "Invalid value for '--batch': Input should be a valid integer, unable to parse string as an integer",
            "'--batch': нужно целое число",
        ),
        (
            "Invalid value for '--batch': Unable to parse input string as an integer, exceeded maximum size",
            "'--batch': слишком длинное число",
        ),
        ("Option '--context' requires an argument.", "флагу '--context' нужно значение"),
        ("Option '--json' does not take a value.", "флаг '--json' не принимает значения"),
        ("Missing argument 'MODEL'.", "не задан аргумент 'MODEL'"),
        ("Missing option '--gpu'.", "не задан флаг '--gpu'"),
        ("Got unexpected extra argument(s) (b c)", "лишние аргументы: b c"),
        ("Got unexpected extra argument (b)", "лишние аргументы: b"),
        ("Invalid value for '--x': something new", "'--x': недопустимое значение"),
    ],
)
def test_the_command_line_library_is_translated(message: str, said: str) -> None:
    assert say_usage_error("ru", message) == said
    assert say_usage_error("en", message) == message


def test_nothing_reads_the_catalogue_past_the_scan() -> None:
    """The scan looks at `present` and `cli`; a room that said sentences elsewhere would escape it."""
    others = [p for p, tree in error_sites.trees() if p.parent.name not in ("present", "cli") and "present.catalog" in ast.dump(tree)]
    assert [Path(p).name for p in others] == []

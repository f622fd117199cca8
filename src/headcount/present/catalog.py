"""Sentences by key, in every language; text/en.toml and text/ru.toml must have the same keys (a test compares them).

Keys are dotted paths. A sentence that depends on a number is a table of plural forms: one/other in English, one/few/many in Russian.
"""

from __future__ import annotations

import locale
import os
import re
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from ..errors import HeadcountError, UnknownNameError, Words

LANGUAGES = ("en", "ru")


@cache
def catalog(lang: str) -> dict[str, Any]:
    """The whole catalogue of a language."""
    if lang not in LANGUAGES:
        raise UnknownNameError(
            "unknown_language", "language must be one of {known}, but got {value!r}", known=", ".join(LANGUAGES), value=lang[:20]
        )
    return tomllib.loads(resources.files("headcount.present").joinpath(f"text/{lang}.toml").read_text(encoding="utf-8"))


def say(lang: str, key: str, /, **values: Any) -> str:
    """The sentence of that key with its placeholders filled in. KeyError for a key that does not exist: that is our bug."""
    node: Any = catalog(lang)
    for step in key.split("."):
        node = node[step]
    return str(node).format(**values)


def plural(lang: str, key: str, number: int, /, **values: Any) -> str:
    """The sentence in the plural form that the number asks for; `{n}` is the number."""
    node: Any = catalog(lang)
    for step in key.split("."):
        node = node[step]
    return str(node[plural_form(lang, number)]).format(n=number, **values)


def plural_form(lang: str, number: int) -> str:
    """The CLDR plural category of a whole number (https://cldr.unicode.org, plural rules of en and ru)."""
    if lang != "ru":
        return "one" if number == 1 else "other"
    if number % 10 == 1 and number % 100 != 11:
        return "one"
    return "few" if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else "many"


def say_error(lang: str, error: HeadcountError) -> str:
    """An error's message: as raised in English, by code and parameters in other languages."""
    template = catalog(lang).get("errors", {}).get(error.code)
    if lang == "en" or template is None:
        return str(error)
    message = str(template).format(**{k: _translated(lang, v) for k, v in error.parameters.items()})
    # The GGUF reader puts the file before the rule that its numbers break; translations hang on the rule alone.
    named = error.template.startswith("{path}: ") and "{path}" not in template
    return f"{error.parameters['path']}: {message}" if named else message


def say_note(lang: str, note: str) -> str:
    """A note of a shape: as the reader wrote it in English, by its template in other languages."""
    return note if lang == "en" else str(_translated(lang, note))


def _translated(lang: str, value: Any) -> Any:
    """A parameter in that language: phrases by their template, fractions with the language's decimal sign, all else as it is."""
    if isinstance(value, tuple):
        return ", ".join(str(_translated(lang, item)) for item in value)
    if isinstance(value, float):
        return _Fraction(value)
    if not isinstance(value, str):
        return value
    words = value if isinstance(value, Words) else None
    found = catalog(lang)["phrases"].get(words.template if words else value)
    if found is None or words is None:
        return value if found is None else found
    return str(found).format(**{k: _translated(lang, v) for k, v in words.parameters.items()})


class _Fraction(float):
    """A float that is written with a decimal comma."""

    def __format__(self, spec: str) -> str:
        return super().__format__(spec).replace(".", ",")


def say_usage_error(lang: str, message: str) -> str:
    """What the command-line library says about a wrong call: its own English, or our sentence for it in other languages."""
    for known in catalog(lang)["usage"]:
        match = re.fullmatch(known["pattern"], message, re.DOTALL)
        if match:
            return str(known["text"]).format(**match.groupdict())
    return message


def language_of_environment() -> str:
    """The user's language from the usual variables; English where it is none of ours."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable)
        if value:
            return "ru" if value.lower().startswith("ru") else "en"
    return "ru" if (locale.getlocale()[0] or "").lower().startswith("ru") else "en"

"""Every error that a user can cause, and nothing else.

    HeadcountError                    .code  .parameters  .exit_code
     +-- InputError          exit 2   something given is wrong
     |    +-- QuantityError           a number or unit cannot be used
     |    +-- ShapeError              an architecture that cannot exist, or a question that it has no answer to
     |    +-- SourceError             a file, folder, name or identifier cannot be opened
     |    +-- ConfigError             a config.json cannot be understood without guessing
     |    +-- GgufError               a GGUF file breaks its format or our limits
     |    +-- UnknownNameError        a name is not in one of our lists; the nearest are named
     |    +-- ExactnessError          an exact integer was promised and would be rounded
     +-- MissingExtraError   exit 3   an optional dependency is not installed

A code is stable and is what translations hang on; `parameters` hold the values that the message names. The English sentence
stands where the error is raised, as a template, so that a reader of the code sees what the user will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Words(str):
    """An English phrase that stays translatable: the template and its values beside the text.

    Args:
        template: the phrase with ``{name}`` placeholders; what translations hang on.
        **parameters: names, numbers, further `Words`, or a tuple of these, which is joined with commas.
    """

    template: str
    parameters: dict[str, Any]

    def __new__(cls, template: str, **parameters: Any) -> Words:
        spelled = {k: ", ".join(map(str, v)) if isinstance(v, tuple) else v for k, v in parameters.items()}
        words = super().__new__(cls, template.format(**spelled))
        words.template, words.parameters = template, parameters
        return words

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        # A copy or a pickle would else take the finished text for the template.
        return (self.template,), self.parameters


def first_of(names: Sequence[str], how_many: int) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:how_many])
    return Words("{names} and {count} more", names=shown, count=len(names) - how_many) if len(names) > how_many else shown


class HeadcountError(Exception):
    """Base of every error a user can cause.

    Args:
        code: stable identifier, such as ``heads_not_divisible``.
        template: the English message with ``{name}`` placeholders: the rule, the values given, the way out.
        **parameters: the values of the placeholders (plain data).
    """

    exit_code = 2

    def __init__(self, code: str, template: str, **parameters: Any) -> None:
        self.code = code
        self.template = template
        self.parameters = parameters
        super().__init__(template.format(**parameters))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception would rebuild itself from the formatted message alone and lose code and parameters in a process pool.
        return (_rebuild, (type(self), self.code, self.template, self.parameters))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``: code, English message, parameters."""
        return {"error": {"code": self.code, "message": str(self), "parameters": self.parameters}}


def _rebuild(kind: type[HeadcountError], code: str, template: str, parameters: dict[str, Any]) -> HeadcountError:
    return kind(code, template, **parameters)


class InputError(HeadcountError):
    """Something that the user gave is wrong; exit code 2."""


class QuantityError(InputError):
    """A number or unit cannot be used."""


class ShapeError(InputError):
    """An architecture that cannot exist, or a question that this one has no single answer to."""


class SourceError(InputError):
    """A file, folder, name or identifier cannot be opened."""


class ConfigError(InputError):
    """A config.json cannot be understood without guessing."""


class GgufError(InputError):
    """A GGUF file breaks its format or our limits."""


class UnknownNameError(InputError):
    """A name is not in one of our lists."""


class ExactnessError(InputError):
    """An exact integer was promised and would be rounded by float64 (above 2^53)."""


class MissingExtraError(HeadcountError):
    """An optional dependency is not installed; exit code 3."""

    exit_code = 3

"""What several commands parse in the same way: lists of numbers, and a model named or described."""

from __future__ import annotations

import json
from typing import Any

from ..errors import QuantityError
from ..units import parse_tokens


def numbers(text: str | None, name: str) -> list[int] | None:
    """``8,16,32`` as ints; None stays None. Raises QuantityError."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.lstrip("-").isdecimal() and len(part) <= 18 for part in parts):
        raise QuantityError(
            "bad_number_list", "{name} must be whole numbers separated by commas, such as 8,16,32, but got {value!r}",
            name=name, value=text[:60],
        )
    return [int(part) for part in parts]


def contexts(text: str | None) -> list[int] | None:
    """``32k,128k`` as token counts; None stays None. Raises QuantityError."""
    return None if text is None else [parse_tokens(part, "--context") for part in text.split(",")]


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, ensure_ascii=False, indent=1))


def described(fields: dict[str, Any]) -> dict[str, Any]:
    """The flat fields that were given on the command line."""
    return {name: value for name, value in fields.items() if value is not None}


def one_of(model: str | None, fields: dict[str, Any], default: str | None = None) -> str | dict[str, Any]:
    """The model's name, or the fields that describe it. Raises QuantityError for both, or for neither without a default."""
    if model is not None and fields:
        raise QuantityError(
            "model_and_flags", "a model is named or described with flags, but got {model!r} together with {flags}",
            model=model[:80], flags=", ".join(sorted(fields)),
        )
    if fields:
        return fields
    if model is None and default is None:
        raise QuantityError("model_needed", "name a model, or describe one with --layers, --width, --heads, --ffn and --vocab")
    return str(default) if model is None else model



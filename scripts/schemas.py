"""Writes the JSON Schema of every --json output from the dataclasses behind it, one versioned file each.

Usage: python scripts/schemas.py [FOLDER]

A schema file that was released is not changed any more: a breaking change raises the version in the result class, and a new file appears
beside the old one.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

from headcount.report import count, explain
from headcount.report.quantity import BASES, UNITS, Quantity

FOLDER = Path(__file__).parent.parent / "src/headcount/present/schemas"
OUTPUTS = {explain.SCHEMA: explain.Explanation, count.SCHEMA: count.Count}
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of an annotation."""
    if kind is Quantity:
        return {"$ref": "#/$defs/quantity"}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if dataclasses.is_dataclass(kind):
        return object_schema(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(a) for a in arguments]}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [schema_of(a) for a in arguments], "minItems": len(arguments), "maxItems": len(arguments)}
    raise TypeError(f"no schema for {kind}")


def object_schema(kind: Any) -> dict[str, Any]:
    """A dataclass as an object that has all its fields and no others."""
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    return {"type": "object", "properties": {n: schema_of(hints[n]) for n in names}, "required": names, "additionalProperties": False}


def document(name: str, kind: Any) -> dict[str, Any]:
    """The whole schema of one output."""
    body = object_schema(kind)
    body["properties"] = {"schema": {"const": name}, **body["properties"]}
    body["required"] = ["schema", *body["required"]]
    quantity = {
        "type": "object", "required": ["value", "unit", "basis"], "additionalProperties": False,
        "properties": {"value": {"type": "number"}, "unit": {"enum": list(UNITS)}, "basis": {"enum": list(BASES)}},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **body, "$defs": {"quantity": quantity}}


def main() -> None:
    """Writes one file per output, named NAME-VERSION.json."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in OUTPUTS.items():
        path = folder / (name.removeprefix("headcount.").replace("/", "-") + ".json")
        path.write_text(json.dumps(document(name, kind), indent=1) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()

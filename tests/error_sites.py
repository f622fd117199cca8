"""Finds in the source every error a user can see: code and template, and the phrases that are handed in as parameters."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src/headcount"
_KINDS = {
    "HeadcountError",
    "InputError",
    "QuantityError",
    "ShapeError",
    "SourceError",
    "ConfigError",
    "GgufError",
    "UnknownNameError",
    "ExactnessError",
    "MissingExtraError",
}
_PHRASES = {"rule", "meaning", "reason", "what", "hint"}
"""Parameters that hold words rather than names and numbers."""


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def calls() -> list[tuple[Path, ast.Call]]:
    """Every call in the package."""
    return [
        (p, n) for p in sorted(SOURCE.rglob("*.py")) for n in ast.walk(ast.parse(p.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)
    ]


def templates() -> dict[str, set[str]]:
    """Error code -> the English templates raised under it (also those of legality rules, given as Rule(code, part, broken, template))."""
    found: dict[str, set[str]] = {}
    for _, call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        constants = [_text(a) for a in call.args]
        if name in _KINDS and len(constants) >= 2 and constants[0]:
            found.setdefault(constants[0], set()).add(constants[1] or "?")
        elif name == "Rule" and len(constants) >= 4 and constants[0]:
            found.setdefault(constants[0], set()).add(constants[3] or "?")
    return found


def phrases() -> set[str]:
    """English words handed to errors as parameters: rules of `refuse` and the like."""
    found = set()
    for _, call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
        if name in ("refuse", "_bad") and len(call.args) >= 3 and _text(call.args[2]):
            found.add(_text(call.args[2]) or "")
        if name in _KINDS:
            found |= {_text(k.value) or "" for k in call.keywords if k.arg in _PHRASES and _text(k.value)}
    return found

"""Finds in the source every error a user can see: code and template, and the phrases that are handed in as parameters or notes.

Phrases are literals: the template of every `Words(...)`, and plain words at the places listed in `_PHRASE_PLACES`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import headcount.errors

SOURCE = Path(__file__).parent.parent / "src/headcount"
KINDS = {name for name, kind in vars(headcount.errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
_PHRASES = {"rule", "meaning", "reason", "what", "why", "hint", "note", "installed", "instead", "nearest"}
"""Parameters that hold words rather than names and numbers."""
_PHRASE_PLACES = {
    ("*", "refuse"): (2,),
    ("fields.py", "_bad"): (2,),
    ("gguf.py", "_bad"): (1, 2, 3),
    ("gguf.py", "_limit"): (1,),
    ("gguf.py", "_duplicate"): (1,),
    ("gguf.py", "text"): (0,),
    ("gguf.py", "Skipped"): (0,),
    ("gguf_shape.py", "_bad"): (1, 2),
    ("moe.py", "demand"): (3,),
    ("moe_mixed.py", "demand"): (3,),
    ("kv_cache.py", "_not_known"): (0,),
    ("*", "require_exact"): (0,),
}
"""(file, function) -> positions of the arguments that hold words."""


def called(call: ast.Call) -> str:
    """The bare name of what is called."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def literals(node: ast.expr | None, constants: dict[str, str]) -> list[str]:
    """The strings that an expression can be, as far as they are written out: constants, branches of a condition, module constants."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Name) and node.id in constants:
        return [constants[node.id]]
    if isinstance(node, ast.IfExp):
        return literals(node.body, constants) + literals(node.orelse, constants)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in literals(value, constants)]
    return []


def trees() -> list[tuple[Path, ast.Module]]:
    """Every module of the package."""
    return [(p, ast.parse(p.read_text(encoding="utf-8"))) for p in sorted(SOURCE.rglob("*.py"))]


def calls() -> list[tuple[Path, ast.Call, dict[str, str]]]:
    """Every call in the package, with the names of its module (and functions) that are bound to one string."""
    found = []
    for path, tree in trees():
        constants = {
            node.targets[0].id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }
        found += [(path, node, constants) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found


def templates() -> dict[str, set[str]]:
    """Error code -> the English templates raised under it (also those of legality rules, given as Rule(code, part, broken, template))."""
    found: dict[str, set[str]] = {}
    for _, call, constants in calls():
        name, at = called(call), {"Rule": 3}.get(called(call), 1)
        if (name in KINDS or name == "Rule") and len(call.args) > at:
            for code in literals(call.args[0], constants):
                texts = literals(call.args[at], constants)
                assert texts, f"the template of {code} is not written out"
                found.setdefault(code, set()).update(texts)
    return found


def unreadable_raises() -> list[str]:
    """Errors and phrases whose code or template is not written out where they are made; their parameters could not be checked."""
    return [
        f"{path.name}: {ast.unparse(call)}"
        for path, call, constants in calls()
        if called(call) in KINDS | {"Words"} and call.args and not literals(call.args[0], constants)
    ]


def phrases() -> set[str]:
    """English words handed to errors as parameters and the notes of readers: what needs an entry in `[phrases]`."""
    found: set[str] = set()
    for path, call, constants in calls():
        name = called(call)
        if name == "Words" and call.args:
            found.update(literals(call.args[0], constants))
        for at in _PHRASE_PLACES.get((path.name, name), _PHRASE_PLACES.get(("*", name), ())):
            if at < len(call.args):
                found.update(literals(call.args[at], constants))
        if name in KINDS or name in ("Classic", "replace"):
            for keyword in call.keywords:
                if keyword.arg in _PHRASES:
                    found.update(literals(keyword.value, constants))
    return found - {""}

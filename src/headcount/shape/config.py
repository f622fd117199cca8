"""Reads a Hugging Face config.json as data: bounded, never executed, never downloaded, nothing guessed.

Finds the reader of the file's model type in `families/`, and afterwards refuses every field that nobody understood. It must not know
any family's fields itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, SourceError, Words
from .dtypes import weight_dtype_of
from .families import FAMILIES, nearest_types
from .fields import Fields
from .model import ModelShape

MAX_CONFIG_BYTES = 8 * 2**20
"""The largest published one that we read (MiniMax-M3 NVFP4, which lists every module) has 3.1 MB."""
MAX_CONFIG_DEPTH = 64
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")


def read_json(path: Path) -> Any:
    """Parses a JSON file within limits of size and depth.

    Raises:
        SourceError: the file cannot be read.
        ConfigError: too large, too deep, or not JSON.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise SourceError("unreadable", "{path} cannot be read: {reason}", path=str(path), reason=error.strerror or str(error)) from None
    return parse_json(data, str(path))


def parse_json(data: bytes, name: str) -> Any:
    """Parses JSON bytes within limits of size and depth. Raises ConfigError."""
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            "json_too_large", "{name} must be at most {limit} MiB to be a config.json; it is larger. Is it the right file?",
            name=name, limit=MAX_CONFIG_BYTES // 2**20,
        )
    if _depth(data) > MAX_CONFIG_DEPTH:
        raise ConfigError(
            "json_too_deep", "{name} must nest at most {limit} levels to be a config.json; it nests deeper. Is it the right file?",
            name=name, limit=MAX_CONFIG_DEPTH,
        )
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "not_json", "{name} is not valid JSON ({reason}); a complete config.json is needed", name=name, reason=_json_reason(error)
        ) from None


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return Words("{problem}: line {line}, column {column}", problem=error.msg, line=error.lineno, column=error.colno)
    return Words("it is not UTF-8") if isinstance(error, UnicodeDecodeError) else str(error)[:120]


def _depth(data: bytes) -> int:
    """Deepest nesting of brackets outside strings, at C speed: a loop over 8 MB of hostile brackets would take seconds."""
    brackets = _STRINGS.sub(b"", data).translate(None, _NO_BRACKETS)
    if not brackets:
        return 0
    steps = np.where(np.isin(np.frombuffer(brackets, dtype=np.uint8), [0x5B, 0x7B]), 1, -1)
    return int(np.cumsum(steps).max())


def read_config(
    source: str | Path | Mapping[str, Any], *, accept_unknown: tuple[str, ...] = (), name: str = ""
) -> ModelShape:
    """See `ModelShape.from_config`; `name` labels the shape."""
    if isinstance(source, Mapping):
        config: Any = source
    else:
        path = Path(source)
        path = path / "config.json" if path.is_dir() else path
        config = with_quantization_beside(read_json(path), path.with_name("hf_quant_config.json"))
        name = name or (path.parent.name if path.name == "config.json" else path.stem)
    if not isinstance(config, Mapping):
        raise ConfigError("not_an_object", "a config.json must hold one JSON object, but got {kind}", kind=type(config).__name__)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConfigError(
            "unknown_model_type",
            "model_type {model_type} is not one that headcount can count exactly{nearest}; describe the model with flags "
            "(--layers, --width, --heads, --kv-heads, --head-dim, --ffn, --vocab) instead",
            model_type=json.dumps(model_type)[:60] if model_type is not None else Words("(absent)"),
            nearest=Words(" (nearest: {names})", names=", ".join(nearest_types(model_type))) if isinstance(model_type, str) else "",
        )
    fields = Fields(config, model_type)
    shape = FAMILIES[model_type](fields)
    accepted = _refuse_unknown(fields, accept_unknown)
    notes = shape.notes
    if fields.all_notes():
        notes += (Words("class defaults used: {fields}", fields=", ".join(fields.all_notes())),)
    if accepted:
        notes += (Words("accepted unread: {fields}", fields=", ".join(accepted)),)
    return shape.replaced(
        name=name or shape.name, model_type=model_type, notes=notes, config=dict(config),
        weight_dtype=weight_dtype_of(storage_fields(config)),
    )


def with_quantization_beside(config: Any, path: Path) -> Any:
    """The config with what TensorRT Model Optimizer says in hf_quant_config.json, for checkpoints whose config.json says nothing."""
    if not isinstance(config, Mapping) or storage_fields(config).get("quantization_config") or not path.is_file():
        return config
    beside = read_json(path)
    quantization = beside.get("quantization") if isinstance(beside, Mapping) else None
    return {**config, "quantization_config": quantization} if isinstance(quantization, Mapping) else config


def storage_fields(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields that say how weights are stored; in composite files they may stand beside the text config or inside it."""
    text = config.get("text_config")
    return config if config.get("quantization_config") or not isinstance(text, Mapping) else {**text, **config}


def _refuse_unknown(fields: Fields, accept: tuple[str, ...]) -> list[str]:
    unknown = dict(fields.unknown())
    refused = [name for name in unknown if name not in accept and name.rpartition(".")[2] not in accept]
    if refused:
        shown = ", ".join(f"{n}={json.dumps(unknown[n], default=str)[:40]}" for n in refused[:8])
        raise ConfigError(
            "unknown_config_fields",
            "config.json of type {model_type} has fields that headcount does not know and that may change the counts: {fields}. "
            "If you know that they do not, pass {flags}",
            model_type=fields.model_type, fields=shown + (" ..." if len(refused) > 8 else ""),
            flags=" ".join(f"--accept-unknown {n}" for n in refused[:8]),
        )
    return [name for name in unknown if name not in refused]

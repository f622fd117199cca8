"""The table of readers and what nearly all of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from ..fields import Fields
from ..model import Groups, ModelShape, default_head_dim
from ..parts import Attention, LayerSpec

Reader = Callable[[Fields], ModelShape]
FAMILIES: dict[str, Reader] = {}


def family(*model_types: str) -> Callable[[Reader], Reader]:
    """Registers a reader for these model types."""

    def register(reader: Reader) -> Reader:
        for model_type in model_types:
            FAMILIES[model_type] = reader
        return reader

    return register


def heads_of(f: Fields) -> dict[str, int]:
    """n_heads, n_kv_heads, head_dim and v_head_dim under their usual names.

    head_dim is the field, else the class default, else d_model / n_heads. n_kv_heads falls back to n_heads.
    """
    n_heads = f.count("num_attention_heads", minimum=1)
    n_kv_heads = f.optional("num_key_value_heads")
    head_dim = f.optional("head_dim")
    if head_dim is None:
        head_dim = default_head_dim(f.count("hidden_size", minimum=1), n_heads)
    return {"n_heads": n_heads, "n_kv_heads": n_heads if n_kv_heads is None else n_kv_heads, "head_dim": head_dim, "v_head_dim": head_dim}


def runs(layers: Iterable[LayerSpec]) -> Groups:
    """One spec per layer -> run-length groups."""
    return tuple((len(list(same)), layer) for layer, same in groupby(layers))


def windowed(attention: Attention, window: int | None, kind: str = "sliding") -> Attention:
    """The same attention seeing only `window` tokens; unchanged where there is no window."""
    from dataclasses import replace

    return attention if not window else replace(attention, reach=kind, window=window)  # type: ignore[arg-type]


def layer_kinds(f: Fields, n_layers: int, otherwise: Any = None) -> list[str]:
    """`layer_types`, one string per layer; `otherwise` where the file has none. Unknown kinds are refused by the caller."""
    kinds = f.items("layer_types", None, length=n_layers)
    if kinds is None:
        kinds = otherwise if otherwise is not None else ["full_attention"] * n_layers
    return [str(kind) for kind in kinds]

"""The public verbs and result classes; `headcount/__init__` re-exports every name of `__all__` lazily.

Rooms that load numpy are imported inside the functions, so that `import headcount` costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cost.flops import flops
from .cost.kv_cache import kv_cache_bytes
from .cost.memory import weight_bytes
from .cost.parameters import parameters
from .cost.price import price
from .errors import HeadcountError
from .hardware import device
from .shape.model import ModelShape
from .shape.parts import LayerSpec
from .shape.presets import preset_names
from .shape.sources import resolve
from .shape.table import ShapeTable
from .shipped import tiny

if TYPE_CHECKING:
    from .report.count import Count
    from .report.explain import Explanation

DEFAULT_MODEL = "qwen3-32b"
DEFAULT_GPU = "rtx-pro-6000-server"


@dataclass(frozen=True)
class Report:
    """An answer: `content` is plain data, `.text()` says it in English or Russian, `.to_dict()` is what `--json` prints."""

    content: Explanation | Count

    def parts(self, lang: str = "en") -> list[Any]:
        """The answer as rich renderables, in reading order."""
        from .present import count_text, explain_text
        from .report.count import Count

        return count_text.view(self.content, lang) if isinstance(self.content, Count) else explain_text.view(self.content, lang)

    def text(self, lang: str = "en", width: int = 100) -> str:
        """The answer for people, without colour."""
        from .present.layout import render_text

        return render_text(self.parts(lang), width)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with the schema's name and version."""
        return self.content.to_dict()

    def __str__(self) -> str:
        return self.text()


def model_shape(model: ModelShape | str | Path | Mapping[str, Any], accept_unknown: Sequence[str] = ()) -> ModelShape:
    """Whatever names a model, as a shape: a shape, a config dict, or what the MODEL argument of the command line takes."""
    if isinstance(model, ModelShape):
        return model
    if isinstance(model, Mapping):
        return ModelShape.from_config(model, accept_unknown=tuple(accept_unknown))
    return resolve(str(model), accept_unknown=tuple(accept_unknown))


def explain(
    model: ModelShape | str | Path | Mapping[str, Any] = DEFAULT_MODEL, *, heads: Sequence[int] | None = None,
    contexts: Sequence[int] | None = None, gpu: str = DEFAULT_GPU, batch: int = 1, kv_heads: int | None = None, head_dim: int | None = None,
    weight_dtype: str | None = None, kv_dtype: str = "bf16", accept_unknown: Sequence[str] = (),
) -> Report:
    """How the number of heads changes memory, FLOPs and speed of a model on a GPU; head_dim, width and KV heads are held.

    Args:
        model: the body; see `model_shape`.
        heads, contexts: what varies; by default 8, 16, 24, 32, 64, 128 heads and the body's own, those that the KV heads
            divide, at 32k, 64k, 128k tokens.
        kv_heads, head_dim: held values, the body's own by default; KV heads are capped at the query heads.

    Raises:
        HeadcountError: the rule that was broken, the values given, the way out.
    """
    from .report.explain import DEFAULT_CONTEXTS, explain_heads

    return Report(explain_heads(
        model_shape(model, accept_unknown), device(gpu), heads=None if heads is None else tuple(heads),
        contexts=DEFAULT_CONTEXTS if contexts is None else tuple(contexts),
        batch=batch, n_kv_heads=kv_heads, head_dim=head_dim, weight_dtype=weight_dtype, kv_dtype=kv_dtype, source=_named(model),
    ))


def count(
    model: ModelShape | str | Path | Mapping[str, Any], *, contexts: Sequence[int] = (8192, 131072), batch: int = 1, kv_dtype: str = "bf16",
    accept_unknown: Sequence[str] = (),
) -> Report:
    """Exact parameters, cache bytes in every runtime and FLOPs of a model, term by term. Raises HeadcountError."""
    from .report.count import count_model

    return Report(count_model(model_shape(model, accept_unknown), contexts=contexts, batch=batch, kv_dtype=kv_dtype, source=_named(model)))


def _named(model: Any) -> str:
    return str(model) if isinstance(model, (str, Path)) else ""


__all__ = [
    "HeadcountError", "LayerSpec", "ModelShape", "Report", "ShapeTable", "count", "explain", "flops", "kv_cache_bytes",
    "model_shape", "parameters", "preset_names", "price", "tiny", "weight_bytes",
]

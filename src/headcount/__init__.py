"""headcount: how many attention heads a model should have, and what each of them costs and gives.

Names are looked up on first use, so `import headcount` loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .versions import __version__

if TYPE_CHECKING:
    from .api import (
        HeadcountError,
        LayerSpec,
        ModelShape,
        Report,
        ShapeTable,
        count,
        explain,
        flops,
        kv_cache_bytes,
        model_shape,
        parameters,
        preset_names,
        price,
        tiny,
        weight_bytes,
    )

__all__ = [
    "HeadcountError", "LayerSpec", "ModelShape", "Report", "ShapeTable", "__version__", "count", "explain", "flops",
    "kv_cache_bytes", "model_shape", "parameters", "preset_names", "price", "tiny", "weight_bytes",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module 'headcount' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

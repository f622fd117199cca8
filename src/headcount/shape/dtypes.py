"""How numbers are stored: elements per block and bytes per block, scales counted.

Sources: GGUF block sizes from the `gguf` package 0.19.0 (`GGML_QUANT_SIZES`), checked against it by a test; NVFP4 and MXFP4 from
the OCP Microscaling Formats specification v1.0 and NVIDIA's NVFP4 description (4-bit values, one 8-bit scale per 16 or 32); AWQ and
GPTQ from their checkpoints (4-bit values, one fp16 scale and one 4-bit zero point per group). Which tensors of a checkpoint stay in
16 bits is not decided here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, UnknownNameError, Words

DEFAULT_WEIGHT_DTYPE = "bf16"


@dataclass(frozen=True)
class Storage:
    """A storage format: `block_bytes` bytes hold `block` numbers."""

    name: str
    block: int
    block_bytes: int

    @property
    def bits(self) -> float:
        """Bits per number, scales included."""
        return 8 * self.block_bytes / self.block

    def bytes_of(self, elements: Any) -> Any:
        """Bytes of `elements` numbers stored in whole blocks; ints stay exact, arrays stay arrays."""
        return -(-elements // self.block) * self.block_bytes


_PLAIN = (
    ("f64", 1, 8), ("f32", 1, 4), ("f16", 1, 2), ("bf16", 1, 2), ("fp8", 1, 1), ("int8", 1, 1), ("i8", 1, 1), ("i16", 1, 2), ("i32", 1, 4),
    ("i64", 1, 8), ("int4", 2, 1), ("nvfp4", 16, 9), ("mxfp4", 32, 17), ("mxfp8", 32, 33),
    # Group of 128: 64 bytes of values, a 2-byte scale, half a byte of zero point; two groups make whole bytes.
    ("awq-int4-g128", 256, 133), ("gptq-int4-g128", 256, 133), ("gptq-int8-g128", 128, 131),
)

GGML_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}
"""GGML type number -> (name, elements per block, bytes per block). NVFP4's scales are the same 8 bits per 16 as elsewhere."""

STORAGES: dict[str, Storage] = {name: Storage(name, block, size) for name, block, size in _PLAIN}
STORAGES.update({n.lower(): Storage(n.lower(), b, s) for n, b, s in GGML_TYPES.values() if n.lower() not in STORAGES})
MIXED = "mixed"
"""A checkpoint whose tensors differ in ways its config does not spell out: parameters are exact, bytes are not known from it."""

_ALIASES = {
    "bfloat16": "bf16", "float16": "f16", "fp16": "f16", "half": "f16", "float32": "f32", "fp32": "f32", "float": "f32", "float64": "f64",
    "fp8_e4m3": "fp8", "fp8_e5m2": "fp8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8", "e4m3": "fp8", "awq": "awq-int4-g128",
    "gptq": "gptq-int4-g128",
}


def storage(name: str) -> Storage:
    """The storage format of that name, in any case; common aliases understood. Raises UnknownNameError with the nearest names."""
    key = str(name).lower().removeprefix("torch.")
    key = _ALIASES.get(key, key)
    if key not in STORAGES:
        known = [*STORAGES, *_ALIASES]
        raise UnknownNameError(
            "unknown_dtype", "dtype {name!r} is not known; nearest: {nearest}",
            name=str(name)[:60], nearest=", ".join(difflib.get_close_matches(key, known, 4, 0.3)) or "bf16, f16, fp8, int8, int4",
        )
    return STORAGES[key]


def weight_dtype_of(config: Mapping[str, Any]) -> str:
    """The storage of a checkpoint's weights as its config.json says: quantization_config first, then dtype.

    Raises:
        ConfigError: a quantisation that is not understood; nothing is guessed.
    """
    quantization = config.get("quantization_config")
    if quantization:
        if not isinstance(quantization, Mapping):
            raise _not_understood(type(quantization).__name__)
        return _quantized(quantization)
    declared = config.get("dtype") or config.get("torch_dtype")
    return storage(declared).name if isinstance(declared, str) else DEFAULT_WEIGHT_DTYPE


def _quantized(q: Mapping[str, Any]) -> str:
    method = str(q.get("quant_method") or "").lower()
    algorithm = str(q.get("quant_algo") or "").upper()
    if algorithm == "MIXED_PRECISION" or q.get("moe_quant_algo"):
        return MIXED
    if algorithm in ("FP8", "NVFP4", "MXFP4", "MXFP8"):
        return algorithm.lower()
    bits, group = q.get("bits", 4), q.get("group_size", 128)
    if method in ("awq", "gptq") and f"{method}-int{bits}-g{group}" in STORAGES:
        return f"{method}-int{bits}-g{group}"
    if method in ("fp8", "mxfp4", "fbgemm_fp8"):
        return method.removeprefix("fbgemm_")
    if method == "bitsandbytes":
        return "int8" if q.get("load_in_8bit") else "int4"
    if method == "compressed-tensors":
        return _compressed_tensors(q)
    raise _not_understood(method or algorithm or ", ".join(sorted(map(str, q)))[:80])


def _compressed_tensors(q: Mapping[str, Any]) -> str:
    groups = q.get("config_groups")
    found = set()
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            found.add((weights.get("type"), weights.get("num_bits"), weights.get("group_size")))
    if len(found) > 1:
        return MIXED
    kind, bits, group_size = found.pop() if found else (None, None, None)
    if (kind, bits) == ("float", 8):
        return "fp8"
    if (kind, bits, group_size) == ("float", 4, 16):
        return "nvfp4"
    if (kind, bits, group_size) == ("float", 4, 32):
        return "mxfp4"
    if kind == "int" and bits in (4, 8):
        return f"int{bits}"
    raise _not_understood(Words("compressed-tensors {kind} {bits} bits, group {size}", kind=kind, bits=bits, size=group_size))


def _not_understood(what: str) -> ConfigError:
    return ConfigError(
        "unknown_quantization",
        "quantization_config is not understood: {what}; understood are fp8, awq, gptq, mxfp4, nvfp4, bitsandbytes and compressed-tensors. "
        "Remove the field to count the unquantised model",
        what=what,
    )

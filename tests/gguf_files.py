"""GGUF files for tests, written by the `gguf` package: from any list of tensors, or from a model that transformers builds.

The second way is the oracle: names come from the package's own name map, sizes from the module, so neither is what headcount believes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np


def write_gguf(
    path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Iterable[tuple[str, tuple[int, ...]]], dtype: type = np.float16
) -> Path:
    """A GGUF file of zeros. Metadata keys without a dot at the start of a known section get the architecture's prefix.

    `tensors` are (name, dims in the file's order, fastest first).
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        _add(writer, key if key.startswith(("general.", "tokenizer.", "split.")) else f"{architecture}.{key}", value)
    for name, dims in tensors:
        writer.add_tensor(name, np.zeros(tuple(reversed(dims)), dtype=dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


LLAMA = {
    "block_count": 3, "embedding_length": 40, "feed_forward_length": 72, "attention.head_count": 6, "attention.head_count_kv": 3,
    "attention.key_length": 16, "attention.value_length": 16, "context_length": 128,
}
"""A small llama with n_heads x head_dim != d_model."""


def llama_tensors(meta: Mapping[str, Any] = LLAMA, vocab: int = 97, tied: bool = False) -> dict[str, tuple[int, ...]]:
    """Name -> dims of a llama of these sizes, written down by hand."""
    d, ff, key, value = (meta[k] for k in ("embedding_length", "feed_forward_length", "attention.key_length", "attention.value_length"))
    heads, kv = meta["attention.head_count"], meta["attention.head_count_kv"]
    tensors = {"token_embd.weight": (d, vocab), "output_norm.weight": (d,)} | ({} if tied else {"output.weight": (d, vocab)})
    for i in range(meta["block_count"]):
        tensors |= {f"blk.{i}.{name}.weight": dims for name, dims in {
            "attn_norm": (d,), "ffn_norm": (d,), "attn_q": (d, heads * key), "attn_k": (d, kv * key), "attn_v": (d, kv * value),
            "attn_output": (heads * value, d), "ffn_gate": (d, ff), "ffn_up": (d, ff), "ffn_down": (ff, d),
        }.items()}
    return tensors


def write_llama(path: Path, **changes: Any) -> Path:
    """The small llama as a file."""
    return write_gguf(path, "llama", LLAMA | changes, llama_tensors(LLAMA | changes).items())


def tensors_of(model: Any, architecture: str, n_layers: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a transformers model under their GGUF names, as (name -> dims in the file's order)."""
    arch = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture)
    names = gguf.get_tensor_name_map(arch, n_layers)
    found: dict[str, tuple[int, ...]] = {}
    for name, parameter in model.named_parameters():
        for part, shape in _as_converted(name, tuple(parameter.shape), architecture):
            tried = (part, part.removeprefix("transformer."))  # the converter drops BLOOM's prefix
            target = part if part.startswith("blk.") else next(filter(None, (names.get_name(t, (".weight", ".bias")) for t in tried)), None)
            assert target is not None, f"{architecture}: the gguf package has no name for {name}"
            assert target not in found, target
            found[target if "." in target else f"{target}.weight"] = tuple(reversed(shape))
    return found


_NEW_NAMES = {"block_sparse_moe.router": "blk.N.ffn_gate_inp"}
"""Names of transformers 5 that the package's map does not have yet."""


def _as_converted(name: str, shape: tuple[int, ...], architecture: str) -> list[tuple[str, tuple[int, ...]]]:
    """What llama.cpp's converter makes of one parameter: fused experts split, GPT-2's transposed matrices turned, odd names mapped."""
    block = next((f"blk.{p}" for p in name.split(".") if p.isdigit()), "")
    last = name.rpartition(".")[2]
    if architecture == "gpt2" and any(f"{part}.weight" in name for part in ("c_attn", "c_proj", "c_fc")):
        return [(name, shape[::-1])]
    renamed = next((gguf_name for hf, gguf_name in _NEW_NAMES.items() if hf in name), None)
    if renamed:
        return [(f"{renamed}.{last}".replace("blk.N", block), shape)]
    if last == "sinks":
        return [(f"{block}.attn_sinks.weight", shape)]
    if ".experts." in name or "input_linear" in name or "output_linear" in name:
        return _experts(block, name, shape, inputs_first=architecture in ("gpt-oss", "llama4"))
    return [(name, shape)]


def _experts(block: str, name: str, shape: tuple[int, ...], inputs_first: bool) -> list[tuple[str, tuple[int, ...]]]:
    suffix = "bias" if name.endswith("_bias") else "weight"
    if suffix == "weight" and inputs_first:
        shape = (shape[0], shape[2], shape[1])
    if "gate_up" in name or "input_linear" in name:
        half = (shape[0], shape[1] // 2, *shape[2:])
        return [(f"{block}.ffn_gate_exps.{suffix}", half), (f"{block}.ffn_up_exps.{suffix}", half)]
    return [(f"{block}.ffn_{'up' if 'up_proj' in name else 'down'}_exps.{suffix}", shape)]


# -- raw bytes, for files that no writer would make ---------------------------------------------------------------------------------


def string(text: bytes, length: int | None = None) -> bytes:
    """A GGUF string, of a claimed length if given."""
    return struct.pack("<Q", len(text) if length is None else length) + text


def header(n_tensors: int, n_keys: int, body: bytes = b"", version: int = 3, magic: bytes = b"GGUF") -> bytes:
    """The beginning of a file, and whatever follows."""
    return magic + struct.pack("<IQQ", version, n_tensors, n_keys) + body


def array(kind: int, length: int, body: bytes = b"") -> bytes:
    """Type number 9 and the head of an array."""
    return struct.pack("<IIQ", 9, kind, length) + body


def tensor_info(name: bytes, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """One tensor description."""
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)

"""Which tensors of a checkpoint are quantised and how many bytes each takes, scales counted: data, one scheme per published format.

A codec says how one matrix lies on disk and in memory: blocks run along its inputs (the axis that a product sums over), scales stand
beside them. A scheme says which codec each kind of weight gets. Both must not know parallelism, devices or engines.

Read on 2026-11-23: llama.cpp `src/llama-quant.cpp` (types by tensor kind, use_more_bits, fallbacks where a row is no whole number of
blocks); `quantization_config` and `hf_quant_config.json` of the checkpoints that aiconfigurator-core 0.12.0 carries (gpt-oss:
modules_to_not_convert; DeepSeek-V3: weight_block_size 128 x 128; Kimi-K2.5: int4 in groups of 32, attention and shared experts
ignored; ModelOpt FP8 and NVFP4: lm_head excluded). Where a checkpoint's own config names what it leaves alone, the config wins.
The int8 scale (float32 per output) and the two float32 per-tensor scales of ModelOpt are `assumed`: under 0.1 % of the bytes.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ShapeError
from ..shape.dtypes import GGML_TYPES, MIXED, storage

PLAIN = ("f64", "f32", "f16", "bf16")


@dataclass(frozen=True)
class Codec:
    """How a matrix of inputs x outputs is stored: `bits` per number, and `group_bits` per block of group_in x group_out numbers."""

    name: str
    bits: int = 0
    group_in: int = 1
    group_out: int = 1
    group_bits: int = 0
    per_input: int = 0
    """Further bytes per input (GPTQ's group index)."""
    per_output: int = 0
    """Further bytes per output (a scale per row)."""
    per_tensor: int = 0
    fallback: Codec | None = None
    """What a row gets that is no whole number of blocks."""

    @property
    def plain(self) -> bool:
        """Whole bytes per number and nothing beside them."""
        return self.bits % 8 == 0 and not (self.group_bits or self.per_input or self.per_output or self.per_tensor or self.fallback)

    def bytes_of(self, inputs: Any, outputs: Any) -> Any:
        """Bytes of one matrix; ints stay exact, arrays stay arrays."""
        if self.plain:
            return self.bits // 8 * inputs * outputs
        groups = -(-inputs // self.group_in) * -(-outputs // self.group_out)
        size = -(-(self.bits * inputs * outputs + self.group_bits * groups) // 8)
        exists = 1 * (inputs * outputs > 0)
        size = size + exists * (self.per_input * inputs + self.per_output * outputs + self.per_tensor)
        if self.fallback is None:
            return size
        whole = 1 * (inputs % self.group_in == 0)
        return whole * size + (1 - whole) * self.fallback.bytes_of(inputs, outputs)


@dataclass(frozen=True)
class Scheme:
    """Codecs by kind of weight. Prefixes are those of the layout's names; the longest that fits decides."""

    name: str
    matrices: Codec
    side: Codec
    """Vectors, biases, and matrices named in `kept`."""
    kept: tuple[str, ...] = ("moe.router", "moe.shared_gate", "indexer.weights")
    embedding: Codec | None = None
    """Token embedding; `side` where it is None. head likewise."""
    head: Codec | None = None
    tied: Codec | None = None
    """Token embedding that is the output head as well; `embedding` where it is None."""
    better: tuple[tuple[str, Codec], ...] = ()
    """What the layers chosen by llama.cpp's use_more_bits get instead."""
    source: str = ""

    def codec(self, name: str) -> Codec:
        """The codec of a layer's matrix."""
        return self.side if name.startswith(self.kept) else self.matrices

    def better_codec(self, name: str) -> Codec | None:
        """The codec that some layers get instead, if this kind of matrix has one."""
        return next((codec for prefix, codec in self.better if name.startswith(prefix)), None)


def more_bits_layers(n_layers: Any) -> Any:
    """Of n layers, how many llama.cpp gives more bits: the first and last eighth, and every third between."""
    first, last = n_layers // 8, 7 * n_layers // 8
    return first + (n_layers - last) + (last - first) // 3


_CODECS: dict[str, Codec] = {c.name: c for c in (
    Codec("f64", 64), Codec("f32", 32), Codec("f16", 16), Codec("bf16", 16),
    Codec("fp8", 8, per_tensor=8), Codec("fp8-block128", 8, 128, 128, 32),
    Codec("nvfp4", 4, 16, 1, 8, per_tensor=8), Codec("mxfp4", 4, 32, 1, 8), Codec("mxfp8", 8, 32, 1, 8),
    Codec("int8", 8, per_output=4), Codec("int4", 4, 128, 1, 16), Codec("int4-g32", 4, 32, 1, 16), Codec("nf4", 4, 64, 1, 32),
    # A 16-bit scale and a zero point per group of 128 inputs; GPTQ also stores the group of every input as int32.
    Codec("awq-int4-g128", 4, 128, 1, 20), Codec("gptq-int4-g128", 4, 128, 1, 20, per_input=4),
    Codec("gptq-int8-g128", 8, 128, 1, 24, per_input=4),
)}

_FALLBACK = {
    **dict.fromkeys(("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs"), "iq4_nl"),
    **dict.fromkeys(("q2_k", "q3_k", "tq1_0", "tq2_0"), "q4_0"), "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0",
}


def _ggml(name: str) -> Codec:
    block, size = next((b, s) for n, b, s in GGML_TYPES.values() if n.lower() == name)
    after = _ggml(_FALLBACK[name]) if name in _FALLBACK else _CODECS["f16"] if block > 1 else None
    return Codec(name, group_in=block, group_bits=8 * size, fallback=after)


_GGUF_KEPT = ("moe.router",)
_LLAMA_CPP = "llama.cpp src/llama-quant.cpp, read 2026-11-23"
_MIXES = {"q4_k_m": ("q4_k", "q6_k"), "q5_k_m": ("q5_k", "q6_k")}
MIX_NAMES = tuple(_MIXES)
_BLOCK_TYPES = tuple(n.lower() for n, block, _ in GGML_TYPES.values() if block > 1 and n not in ("MXFP4", "NVFP4"))


def _gguf(name: str) -> Scheme:
    own, better = _MIXES.get(name, (name, ""))
    codec, f32 = _ggml(own), _CODECS["f32"]
    if own in PLAIN:
        return Scheme(f"gguf-{name}", codec, f32, _GGUF_KEPT, embedding=codec, head=codec, source=_LLAMA_CPP)
    # Q6_K where its rows fit, else Q8_0, which is what Q6_K falls back to.
    head = codec if own == "q8_0" else _ggml("q6_k")
    some = (("attention.v", _ggml(better)), ("ffn.down", _ggml(better)), ("moe.down", _ggml(better))) if better else ()
    return Scheme(name, codec, f32, _GGUF_KEPT, embedding=codec, head=head, tied=head, better=some, source=_LLAMA_CPP)


def _safetensors(name: str) -> Scheme:
    codec = _CODECS[name]
    if name in PLAIN:
        return Scheme(name, codec, codec, (), source="one type for all tensors")
    kept = Scheme.kept + (("attention.", "ffn.", "moe.shared", "moe.latent") if name == "mxfp4" else ())
    return Scheme(name, codec, _CODECS["bf16"], kept, source="embeddings, head, router and norms stay in bf16")


SCHEMES: dict[str, Scheme] = {name: _safetensors(name) for name in _CODECS}
SCHEMES.update({name: _gguf(name) for name in (*_BLOCK_TYPES, *_MIXES)})
SCHEMES.update({f"gguf-{name}": _gguf(name) for name in ("f32", "f16", "bf16")})


def scheme_named(name: str) -> Scheme:
    """The scheme of that name; aliases as in `storage`. Raises UnknownNameError with the nearest names."""
    key = str(name).lower()
    return SCHEMES[key] if key in SCHEMES else SCHEMES[storage(name).name]


def scheme_of(shape: Any, weight_dtype: str | None = None) -> Scheme:
    """The scheme of a shape's checkpoint: that of `weight_dtype` if given, else its own, with what its config leaves unquantised.

    Raises:
        UnknownNameError: no such scheme.
        ShapeError: the checkpoint mixes formats, or the rows of a table differ, so that there is no one scheme.
    """
    dtype = weight_dtype or shape.weight_dtype
    if not isinstance(dtype, str):
        raise ShapeError(
            "dtypes_differ", "the rows of the table have different storage formats ({formats}); name one with weight_dtype=",
            formats=", ".join(sorted(set(dtype))),
        )
    if dtype == MIXED:
        raise ShapeError(
            "mixed_dtypes", "the checkpoint mixes storage formats, so its bytes do not follow from its shape; name one with weight_dtype="
        )
    scheme = scheme_named(dtype)
    config = getattr(shape, "config", None)
    declared = _quantization(config) if config is not None else None
    own = shape.weight_dtype if isinstance(shape.weight_dtype, str) else None
    if declared is None or scheme.name in PLAIN or own is None or scheme_named(own).name != scheme.name:
        return scheme
    return replace(scheme, matrices=_declared_codec(scheme.matrices, declared), kept=_declared_kept(scheme, declared, shape.n_layers))


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    texts = [config, config.get("text_config") or {}]
    found = next((c["quantization_config"] for c in texts if isinstance(c.get("quantization_config"), Mapping)), None)
    return found


def _declared_codec(codec: Codec, q: Mapping[str, Any]) -> Codec:
    if codec.name == "fp8" and isinstance(q.get("weight_block_size"), list):
        rows, columns = q["weight_block_size"]
        return replace(_CODECS["fp8-block128"], group_in=int(columns), group_out=int(rows))
    if codec.name == "int4" and q.get("quant_method") == "bitsandbytes":
        return _CODECS["nf4"]
    if codec.name == "int4":
        groups = [g.get("weights") for g in (q.get("config_groups") or {}).values() if isinstance(g, Mapping)]
        sizes = {g.get("group_size") for g in groups if isinstance(g, Mapping)}
        size = sizes.pop() if len(sizes) == 1 else None
        return replace(codec, group_in=int(size)) if size and int(size) > 0 else codec
    return codec


_MODULES = {
    "attention.q": ("self_attn.q_proj", "self_attn.q_a_proj"), "attention.q_up": ("self_attn.q_b_proj",),
    "attention.k": ("self_attn.k_proj", "self_attn.kv_a_proj_with_mqa"), "attention.kv_up": ("self_attn.kv_b_proj",),
    "attention.v": ("self_attn.v_proj",), "attention.o": ("self_attn.o_proj",), "delta.": ("linear_attn.in_proj_qkv",),
    "ffn.": ("mlp.down_proj",), "moe.up": ("mlp.experts.0.up_proj",), "moe.down": ("mlp.experts.0.down_proj",),
    "moe.shared_up": ("mlp.shared_experts.up_proj", "mlp.shared_expert.up_proj"),
    "moe.shared_down": ("mlp.shared_experts.down_proj", "mlp.shared_expert.down_proj"),
}
"""Layout name -> what transformers calls the module within a layer; any of them left alone leaves the kind alone."""


def _declared_kept(scheme: Scheme, q: Mapping[str, Any], n_layers: int) -> tuple[str, ...]:
    """The kinds that the config's list leaves unquantised in a layer of the middle, which stands for all."""
    patterns = [p for key in ("modules_to_not_convert", "ignore", "exclude_modules") for p in (q.get(key) or ()) if isinstance(p, str)]
    if not patterns:
        return scheme.kept
    roots = [f"{root}.layers.{n_layers // 2}." for root in ("model", "model.language_model", "language_model.model")]
    kept = [kind for kind, modules in _MODULES.items() if any(_matches(p, root + m) for p in patterns for root in roots for m in modules)]
    return tuple({*Scheme.kept, *kept})


def _matches(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    return fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module, pattern.rstrip("*.") + ".*")

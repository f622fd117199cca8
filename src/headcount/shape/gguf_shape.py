"""What model a GGUF file holds: metadata gives the sizes, the tensors prove them.

Every tensor of the file is claimed by a part of the shape and must have the very dimensions that the metadata implies; a tensor that
nobody claims, or one of another size, refuses the file. So the parameters of the result are the numbers in the file, no estimate.
Biases, norms, tied heads and experts are read from the tensors that are there. Source of names and of the window patterns that
llama.cpp keeps in code: its src/llama-model.cpp and the `gguf` package 0.19.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ..errors import GgufError, ShapeError, Words, first_of
from .families.registry import runs, windowed
from .gguf import GgufFile, Skipped, Tensor, read_gguf
from .legality import MAX_COUNT
from .model import ModelShape, default_head_dim
from .parts import Attention, Dense, LayerSpec, Mixer, Mla, Moe, Stem, Tower

_BLOCK = re.compile(r"blk\.(\d{1,6})\.(.+)", re.DOTALL)
_NORMS = ("attn_norm", "attn_norm_2", "ffn_norm", "post_attention_norm", "post_ffw_norm")
_AUXILIARY = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight|blk\.\d+\.attn_rot_embd\.weight|.+\.rope\.freqs")
"""Tables that are computed from the config, not learned."""
_SCALE = re.compile(r"(.+)\.(input_)?scale", re.DOTALL)
_TOWERS = {"v": "vision", "mm": "projector", "a": "audio"}


@dataclass(frozen=True)
class Architecture:
    """What the tensors of an architecture cannot say."""

    model_type: str
    """Its name in transformers."""
    window: str = "none"
    """none; all: every layer slides where the file gives a window; periodic: all but each `period`-th do; chunked: likewise, in chunks."""
    period: int = 0
    default_window: int = 0
    """What llama.cpp takes where the file gives no window; 0 where it takes none."""
    required: bool = False
    """A file without a window is refused."""
    silent_norms: int = 0
    """Norms of a layer that have no parameters, so no tensor."""
    repeats_kv: bool = False
    """Stock transformers caches grouped keys and values repeated; files with one KV head are of the older layout, which does not."""


_PLAIN = {
    "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen2vl": "qwen2_vl_text", "qwen3": "qwen3", "qwen3moe": "qwen3_moe",
    "qwen3vl": "qwen3_vl_text", "qwen3vlmoe": "qwen3_vl_moe_text", "gemma": "gemma", "gpt2": "gpt2", "deepseek": "deepseek",
    "deepseek2": "deepseek_v3", "glm4": "glm4", "glm4moe": "glm4_moe", "chatglm": "glm", "starcoder2": "starcoder2", "phi2": "phi",
    "stablelm": "stablelm", "gptneox": "gpt_neox", "bloom": "bloom", "olmoe": "olmoe",
    "internlm2": "internlm2", "smollm3": "smollm3", "granite": "granite", "granitemoe": "granitemoe", "exaone": "exaone",
    "seed_oss": "seed_oss", "minimax-m2": "minimax_m2", "arcee": "arcee", "dots1": "dots1", "ernie4_5": "ernie4_5",
    "command-r": "cohere", "nemotron": "nemotron", "hunyuan-dense": "hunyuan_v1_dense", "xverse": "xverse", "baichuan": "baichuan",
    "mistral3": "ministral3", "minicpm": "minicpm",
}
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({
    **{name: Architecture(model_type) for name, model_type in _PLAIN.items()},
    "llama": Architecture("llama", "all"),  # Mistral is stored as llama
    "phi3": Architecture("phi3", "all"),
    "gemma2": Architecture("gemma2", "periodic", 2, default_window=4096),
    "gemma3": Architecture("gemma3_text", "periodic", 6, required=True),
    "cohere2": Architecture("cohere2", "periodic", 4, required=True),
    "gpt-oss": Architecture("gpt_oss", "periodic", 2, required=True),
    "falcon": Architecture("falcon", repeats_kv=True),
    "olmo": Architecture("olmo", silent_norms=2),
    "olmo2": Architecture("olmo2", "periodic", 4),
    "exaone4": Architecture("exaone4", "periodic", 4),
    "llama4": Architecture("llama4_text", "chunked", 4, default_window=8192),
})


def read_gguf_shape(path: str | Path) -> ModelShape:
    """The shape of the model in a GGUF file, or in all parts of a split one.

    Raises:
        SourceError: the file cannot be read.
        GgufError: it is damaged, of an unknown architecture, or its tensors contradict its metadata.
    """
    return shape_of(read_gguf(path))


def shape_of(file: GgufFile) -> ModelShape:
    """The shape of an opened GGUF file. Raises GgufError."""
    kind = file.metadata.get("general.type", "model")
    architecture = ARCHITECTURES.get(file.architecture)
    if kind != "model" or architecture is None:
        raise GgufError(
            "unknown_gguf_architecture",
            "{path} holds a {kind} of architecture {architecture}, which headcount cannot count exactly. Known without its shape: "
            "{parameters} numbers in {weight_bytes} bytes. Known architectures: {known}",
            path=str(file.paths[0]), kind=str(kind)[:40], architecture=file.architecture[:60] or Words("(absent)"),
            parameters=file.parameters, weight_bytes=file.weight_bytes, known=", ".join(sorted(ARCHITECTURES)),
        )
    try:
        return _Reader(file, architecture).shape()
    except ShapeError as error:
        # To the caller the file is at fault: the sizes came from it.
        raise GgufError(error.code, "{path}: " + error.template, **{"path": str(file.paths[0]), **error.parameters}) from None


@dataclass(frozen=True)
class _Block:
    """Tensors by name, taken out one by one as the shape accounts for them."""

    left: dict[str, Tensor]
    path: Path
    prefix: str = ""

    def has(self, name: str) -> bool:
        return name in self.left

    def dims(self, name: str) -> tuple[int, ...]:
        """Dimensions of a tensor that must be there."""
        if name not in self.left:
            raise GgufError(
                "gguf_tensor_missing", "{path} must hold tensor {tensor}, but does not; the file is incomplete or of another architecture",
                path=str(self.path), tensor=self.prefix + name,
            )
        return self.left[name].dims

    def need(self, name: str, *dims: int) -> None:
        """Takes a tensor of exactly these dimensions. Raises GgufError when it is missing or of another size."""
        found = self.dims(name)
        if _trimmed(found) != _trimmed(dims):
            raise GgufError(
                "gguf_contradiction",
                "{path}: tensor {tensor} must be {expected} by the metadata, but is {found}; one of them is wrong, so nothing is counted",
                path=str(self.path), tensor=(self.prefix + name)[:80], expected=_spell(dims), found=_spell(found),
            )
        del self.left[name]

    def take(self, name: str, *dims: int) -> bool:
        """Like `need` where the tensor may be absent; true if it is there."""
        if name in self.left:
            self.need(name, *dims)
            return True
        return False

    def take_any(self, name: str) -> int:
        """Takes a tensor of any size; its elements, 0 where it is absent."""
        return self.left.pop(name).elements if name in self.left else 0


def _trimmed(dims: tuple[int, ...]) -> tuple[int, ...]:
    """Without trailing dimensions of 1, which writers drop or keep as they like."""
    while len(dims) > 1 and dims[-1] == 1:
        dims = dims[:-1]
    return dims


def _spell(dims: tuple[int, ...]) -> str:
    return " x ".join(map(str, dims)) or "1"


@dataclass(frozen=True)
class _Heads:
    """Attention sizes of one layer."""

    n_heads: int
    n_kv_heads: int
    key: int
    value: int


class _Reader:
    """One file being read: `shape` walks through its tensors once."""

    def __init__(self, file: GgufFile, architecture: Architecture) -> None:
        self.file, self.architecture = file, architecture
        self.path = file.paths[0]
        self.notes: list[str] = []
        self.d_model = self.count("embedding_length", minimum=1)
        self.n_blocks = self.count("block_count", minimum=1)
        self.rest: dict[str, Tensor] = {}
        self.blocks: dict[int, dict[str, Tensor]] = {}
        for t in file.tensors:
            found = _BLOCK.fullmatch(t.name)
            if _AUXILIARY.fullmatch(t.name):
                continue
            if found:
                self.blocks.setdefault(int(found[1]), {})[found[2]] = t
            else:
                self.rest[t.name] = t
        self._drop_scales()

    def _drop_scales(self) -> None:
        """Removes the scales that belong to the storage of a tensor (NVFP4, BitNet): as many as experts, beside the weight."""
        for tensors in self.blocks.values():
            for name in list(tensors):
                found = _SCALE.fullmatch(name)
                if found and f"{found[1]}.weight" in tensors and len(_trimmed(tensors[name].dims)) < 2:
                    del tensors[name]

    # -- metadata ---------------------------------------------------------------------------------------------------------------

    def raw(self, name: str) -> Any:
        return self.file.metadata.get(f"{self.file.architecture}.{name}")

    def count(self, name: str, default: int | None = None, minimum: int = 0) -> int:
        """A whole number of the architecture's metadata. Raises GgufError when it is missing without default, or no such number."""
        value = self.raw(name)
        if value is None and default is not None:
            return default
        return self._whole(name, value, minimum)

    def per_layer(self, name: str, default: list[int] | None = None) -> list[int]:
        """A number for every block: one for all, or an array."""
        value = self.raw(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, tuple):
            return [self._whole(name, value, 0)] * self.n_blocks
        if len(value) != self.n_blocks:
            rule = Words("one number for each of {n_blocks} blocks", n_blocks=self.n_blocks)
            raise self._bad(name, rule, Words("{count} numbers", count=len(value)))
        return [self._whole(name, v, 0) for v in value]

    def _whole(self, name: str, value: Any, minimum: int) -> int:
        if value is None:
            raise GgufError(
                "gguf_field_missing", "{path} must state {field} in its metadata, but does not; convert the model again",
                path=str(self.path), field=f"{self.file.architecture}.{name}",
            )
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= MAX_COUNT:
            raise self._bad(name, Words("a whole number from {minimum} to {maximum}", minimum=minimum, maximum=MAX_COUNT), value)
        return value

    def _bad(self, name: str, rule: str, value: object) -> GgufError:
        shown = value
        if isinstance(value, Skipped):
            shown = Words("{length} {kind}", length=value.length, kind=value.kind)
        elif not isinstance(value, Words):
            shown = str(value)[:60]
        return GgufError(
            "gguf_field_bad", "{path}: {field} must be {rule}, but got {value}", path=str(self.path),
            field=f"{self.file.architecture}.{name}", rule=rule, value=shown,
        )

    @cached_property
    def d_ff(self) -> list[int]:
        """Width of the dense block of every layer."""
        return self.per_layer("feed_forward_length")

    # -- the whole --------------------------------------------------------------------------------------------------------------

    def shape(self) -> ModelShape:
        n_mtp = self.count("nextn_predict_layers", 0)
        n_layers = self.n_blocks - n_mtp
        present = len(self.blocks)
        # Before anything of that length is made: block_count is the file's word.
        if n_layers < 1 or not n_layers <= present <= self.n_blocks or max(self.blocks, default=0) >= self.n_blocks:
            raise self._bad("block_count", Words("the number of blocks that have tensors ({present})", present=present), self.n_blocks)
        stem = self._stem()
        heads, windows = self._heads(), self._windows(n_layers)
        layers = [self._layer(i, heads[i], windows[i]) for i in range(n_layers)]
        mtp = [self._layer(i, heads[i], (0, "sliding")) for i in range(n_layers, self.n_blocks) if i in self.blocks]
        towers = self._towers()
        self._refuse_leftovers()
        dense_first = self.count("leading_dense_block_count", 0)
        if any(isinstance(f, Moe) for layer in layers[:dense_first] for f in layer.ffns):
            raise self._bad("leading_dense_block_count", "the number of blocks before the first with experts", dense_first)
        dtypes = self.file.bytes_by_type()
        name = self.file.metadata.get("general.name")
        return ModelShape(
            d_model=self.d_model, stem=stem, layers=runs(layers), mtp=runs(mtp), towers=towers, weight_dtype=next(iter(dtypes)).lower(),
            name=name if isinstance(name, str) else self.path.stem, model_type=self._model_type(layers),
            notes=(self._storage_note(dtypes), *self.notes), stored_bytes=self.file.weight_bytes,
        )

    def _model_type(self, layers: list[LayerSpec]) -> str:
        # DeepSeek-V2 and V3 share an architecture name; only V3 balances its experts by a bias.
        corrected = any(isinstance(f, Moe) and f.correction_bias for layer in layers for f in layer.ffns)
        return "deepseek_v2" if self.file.architecture == "deepseek2" and not corrected else self.architecture.model_type

    def _storage_note(self, dtypes: Mapping[str, int]) -> str:
        total = self.file.weight_bytes
        shares = tuple(Words("{type} {percent:.1f} %", type=t, percent=100 * n / total) for t, n in dtypes.items())
        return Words(
            "GGUF: {total} bytes of weights in {files} file(s), by type: {shares}; weight_dtype names the largest", total=total,
            files=len(self.file.paths), shares=shares,
        )

    def _stem(self) -> Stem:
        block = _Block(self.rest, self.path)
        d = self.d_model
        vocab = (*block.dims("token_embd.weight"), 1)[1]
        block.need("token_embd.weight", d, vocab)
        positions = (*block.dims("position_embd.weight"), 1)[1] if block.has("position_embd.weight") else 0
        block.take("position_embd.weight", d, positions)
        tied = not block.take("output.weight", d, vocab)
        return Stem(
            vocab_size=vocab, tied=tied, positions=positions, embedding_norm=self._norm(block, "token_embd_norm"),
            final_norm=self._norm(block, "output_norm"), head_bias=block.take("output.bias", vocab),
        )

    def _norm(self, block: _Block, name: str) -> int:
        """Parameters per channel of a norm of width d_model: 0 where it is absent."""
        return int(block.take(f"{name}.weight", self.d_model)) + int(block.take(f"{name}.bias", self.d_model))

    def _heads(self) -> list[_Heads]:
        n_heads = self.per_layer("attention.head_count")
        n_kv = self.per_layer("attention.head_count_kv", n_heads)
        key, value = self.raw("attention.key_length"), self.raw("attention.value_length")
        # llama.cpp takes the first block's head count for the default, whatever the others have.
        default = default_head_dim(self.d_model, n_heads[0]) if key is None or value is None else 0
        k, v = self.count("attention.key_length", default), self.count("attention.value_length", default)
        return [_Heads(h, kv, k, v) for h, kv in zip(n_heads, n_kv, strict=True)]

    # -- windows ----------------------------------------------------------------------------------------------------------------

    def _windows(self, n_layers: int) -> list[tuple[int, str]]:
        """(tokens seen, 0 for all; how) for every layer."""
        a = self.architecture
        given, pattern = self.raw("attention.sliding_window"), self.raw("attention.sliding_window_pattern")
        window = self.count("attention.sliding_window", a.default_window)
        if given is None and a.default_window:
            own = "window {window}: not in the file, llama.cpp's own value for {architecture}"
            self.notes.append(Words(own, window=a.default_window, architecture=self.file.architecture))
        if not window:
            if a.required:
                raise self._bad("attention.sliding_window", "the window of this architecture's local layers", given)
            return [(0, "sliding")] * n_layers
        if a.window == "chunked":
            window = a.default_window  # llama.cpp reads the field only as a switch
        how = "chunked" if a.window == "chunked" else "sliding"
        return [(window if local else 0, how) for local in self._local_layers(pattern, n_layers)]

    def _local_layers(self, pattern: Any, n_layers: int) -> list[bool]:
        if isinstance(pattern, tuple):
            if len(pattern) != self.n_blocks or not all(isinstance(p, bool) for p in pattern):
                rule = Words("one truth value for each of {n_blocks} blocks", n_blocks=self.n_blocks)
                raise self._bad("attention.sliding_window_pattern", rule, Words("{count} values", count=len(pattern)))
            return list(pattern[:n_layers])
        if self.architecture.window == "all" and pattern is None:
            return [True] * n_layers
        if self.architecture.window == "none" and pattern is None:
            given = self.raw("attention.sliding_window")
            raise self._bad("attention.sliding_window", "absent or 0: which blocks of this architecture slide is not known", given)
        period = self.count("attention.sliding_window_pattern", self.architecture.period, minimum=1)
        return [i % period < period - 1 for i in range(n_layers)]

    # -- layers -----------------------------------------------------------------------------------------------------------------

    def _layer(self, index: int, heads: _Heads, window: tuple[int, str]) -> LayerSpec:
        block = _Block(self.blocks.get(index, {}), self.path, f"blk.{index}.")
        mixer: Mixer
        if block.has("attn_kv_a_mqa.weight"):
            mixer = self._mla(block, heads)
        else:
            mixer = windowed(self._attention(block, heads), *window)
        ffn = self._moe(block) if block.has("ffn_gate_inp.weight") else self._dense(block, index)
        extra = tuple((name.removesuffix(".weight"), block.take_any(name)) for name in sorted(block.left) if name.startswith("nextn."))
        affine = [self._norm(block, name) for name in _NORMS]
        norms, biases = sum(a > 0 for a in affine), sum(a > 1 for a in affine)
        if not norms:
            return LayerSpec(mixers=(mixer,), ffns=(ffn,), norms=self.architecture.silent_norms, norm_affine=0, extra=extra)
        if biases not in (0, norms):
            extra += (("norm_biases", biases * self.d_model),)
        return LayerSpec(mixers=(mixer,), ffns=(ffn,), norms=norms, norm_affine=2 if biases == norms else 1, extra=extra)

    def _attention(self, block: _Block, h: _Heads) -> Attention:
        d, q, k, v = self.d_model, h.n_heads * h.key, h.n_kv_heads * h.key, h.n_kv_heads * h.value
        if block.take("attn_qkv.weight", d, q + k + v):
            bias = "qkv" if block.take("attn_qkv.bias", q + k + v) else ""
        else:
            bias = ""
            for letter, width in (("q", q), ("k", k), ("v", v)):
                block.need(f"attn_{letter}.weight", d, width)
                bias += letter if block.take(f"attn_{letter}.bias", width) else ""
        block.need("attn_output.weight", h.n_heads * h.value, d)
        bias += "o" if block.take("attn_output.bias", d) else ""
        qk_norm, affine = self._qk_norm(block, h)
        return Attention(
            n_heads=h.n_heads, n_kv_heads=h.n_kv_heads, head_dim=h.key, v_head_dim=h.value, bias=bias,
            qk_norm=qk_norm, qk_norm_affine=affine, sinks=block.take("attn_sinks.weight", h.n_heads),
            cache_repeats_kv=self.architecture.repeats_kv and 1 < h.n_kv_heads < h.n_heads,
        )

    def _qk_norm(self, block: _Block, h: _Heads) -> tuple[Literal["none", "head", "width"], int]:
        """(kind of norm; parameters per channel)."""
        if not block.has("attn_q_norm.weight") and not block.has("attn_k_norm.weight"):
            return "none", 1
        dims = _trimmed(block.dims("attn_q_norm.weight"))
        kind: Literal["head", "width"] = "head" if dims == (h.key,) else "width"
        q: tuple[int, ...] = (h.key,)
        k: tuple[int, ...] = (h.key,)
        if kind == "width":
            # One weight per projected channel, written flat or as head_dim x heads.
            flat = len(dims) == 1
            q, k = ((h.key * n,) if flat else (h.key, n) for n in (h.n_heads, h.n_kv_heads))
        block.need("attn_q_norm.weight", *q)
        block.need("attn_k_norm.weight", *k)
        if not block.take("attn_q_norm.bias", *q):
            return kind, 1
        block.need("attn_k_norm.bias", *k)
        return kind, 2

    def _mla(self, block: _Block, h: _Heads) -> Mla:
        d, rank, rope = self.d_model, self.count("attention.kv_lora_rank", minimum=1), self.count("rope.dimension_count")
        # Newer files describe the absorbed form (one KV head of rank + rope channels) and keep the real widths under names of their own.
        key, value = self.count("attention.key_length_mla", h.key), self.count("attention.value_length_mla", h.value)
        nope, q_rank = key - rope, 0
        if nope < 0:
            raise self._bad("rope.dimension_count", Words("at most the key length {key}", key=key), rope)
        if block.has("attn_q_a.weight"):
            q_rank = self.count("attention.q_lora_rank", minimum=1)
            block.need("attn_q_a.weight", d, q_rank)
            block.need("attn_q_a_norm.weight", q_rank)
            block.need("attn_q_b.weight", q_rank, h.n_heads * key)
        else:
            block.need("attn_q.weight", d, h.n_heads * key)
        block.need("attn_kv_a_mqa.weight", d, rank + rope)
        block.need("attn_kv_a_norm.weight", rank)
        whole = block.take("attn_kv_b.weight", rank, h.n_heads * (nope + value))
        if not whole or block.has("attn_k_b.weight"):
            # The same matrix in two halves; some files carry both forms, of which one is the model.
            block.need("attn_k_b.weight", nope, rank, h.n_heads)
            block.need("attn_v_b.weight", rank, value, h.n_heads)
            if whole and "attn_kv_b stored twice" not in self.notes:
                self.notes.append(Words("attn_kv_b stored twice"))
        block.need("attn_output.weight", h.n_heads * value, d)
        return Mla(
            n_heads=h.n_heads, q_lora_rank=q_rank, kv_lora_rank=rank, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=value,
        )

    def _dense(self, block: _Block, index: int) -> Dense:
        d, d_ff = self.d_model, self.d_ff[index]
        gated = block.take("ffn_gate.weight", d, d_ff)
        # Phi-3 and GLM-4 keep gate and up in one matrix.
        fused = not gated and (*block.dims("ffn_up.weight"), 1)[1] == 2 * d_ff
        up = 2 * d_ff if fused else d_ff
        block.need("ffn_up.weight", d, up)
        block.need("ffn_down.weight", d_ff, d)
        sizes = [("gate_bias", d_ff if gated else 0), ("up_bias", up), ("down_bias", d)]
        found = tuple((n, size) for n, size in sizes if size and block.take(f"ffn_{n[:-5]}.bias", size))
        complete = len(found) == (3 if gated else 2)
        return Dense(d_ff=d_ff, gated=gated or fused, bias=complete, extra=() if complete else found)

    def _moe(self, block: _Block) -> Moe:
        d, n = self.d_model, self.count("expert_count", minimum=1)
        width = self.count("expert_feed_forward_length", block.dims("ffn_down_exps.weight")[0], minimum=1)
        sizes = {"gate_up": 2 * width} if block.has("ffn_gate_up_exps.weight") else {"gate": width, "up": width}
        if "gate" in sizes and not block.has("ffn_gate_exps.weight"):
            del sizes["gate"]
        gated = "up" not in sizes or "gate" in sizes
        for name, size in sizes.items():
            block.need(f"ffn_{name}_exps.weight", d, size, n)
        block.need("ffn_down_exps.weight", width, d, n)
        sizes["down"] = d
        found = [(f"{name}_bias", size * n) for name, size in sizes.items() if block.take(f"ffn_{name}_exps.bias", size, n)]
        complete = len(found) == len(sizes)
        block.need("ffn_gate_inp.weight", d, n)
        d_shared = self._shared(block, width, gated)
        return Moe(
            n_experts=n, n_active=self.count("expert_used_count", minimum=1), d_expert=width, gated=gated, bias=complete,
            router_bias=block.take("ffn_gate_inp.bias", n), d_shared=d_shared, shared_gate=block.take("ffn_gate_inp_shexp.weight", d),
            correction_bias=block.take("exp_probs_b.bias", n) or block.take("exp_probs_b", n), extra=() if complete else tuple(found),
        )

    def _shared(self, block: _Block, d_expert: int, gated: bool) -> int:
        """Width of the shared experts together, 0 where there are none."""
        if not block.has("ffn_down_shexp.weight"):
            return 0
        counted = self.count("expert_shared_count", 0) * d_expert or block.dims("ffn_down_shexp.weight")[0]
        width = self.count("expert_shared_feed_forward_length", 0) or counted
        for name in ("gate", "up") if gated else ("up",):
            block.need(f"ffn_{name}_shexp.weight", self.d_model, width)
        block.need("ffn_down_shexp.weight", width, self.d_model)
        return width

    # -- the rest ---------------------------------------------------------------------------------------------------------------

    def _towers(self) -> tuple[Tower, ...]:
        """Encoders of other modalities that some files carry beside the text model: their size is the size of their tensors."""
        sizes: dict[str, int] = {}
        for name in sorted(self.rest):
            first = name.partition(".")[0]
            if first in _TOWERS:
                sizes[first] = sizes.get(first, 0) + self.rest.pop(name).elements
        return tuple(Tower(name=_TOWERS[first], kind="stored in the GGUF file", terms=(("tensors", n),)) for first, n in sizes.items())

    def _refuse_leftovers(self) -> None:
        left = sorted([*self.rest, *(f"blk.{i}.{name}" for i, tensors in self.blocks.items() for name in tensors)])
        if left:
            raise GgufError(
                "gguf_tensor_unknown",
                "{path}: architecture {architecture} is not known to have the tensors {tensors}, so its parameters are not counted; "
                "its weights have {weight_bytes} bytes",
                path=str(self.path), architecture=self.file.architecture,
                tensors=first_of([n[:60] for n in left], 6),
                weight_bytes=self.file.weight_bytes,
            )

"""What the cache of a generation holds, in bytes, by the runtime that keeps it.

Runtimes differ in three things only: how many positions a windowed layer keeps, how many columns a convolution keeps, and in which
type recurrent state lies. Sources:

- transformers 5.23.0 `cache_utils.py`: window - 1 positions, all kernel columns; state in float32, convolution in the model's dtype.
- vLLM: a windowed layer is reserved at full length when layers share one page pool (its log for gpt-oss-120b: 73,728 bytes per token);
  the indexer of sparse MLA keeps 8-bit keys with one float32 scale per 128 (`deepseek_v2.py`, DeepseekV32IndexerCache).
- llama.cpp `llama-kv-cache-iswa.cpp`: windowed layers keep min(context, window + ubatch 512) cells, padded to 256; MLA stores no values
  (`llama-kv-cache.cpp`); convolution kernel - 1 columns and state, both in float32 (`llama-hparams.cpp`).
- logical: what the mathematics needs, whoever runs it: `window` positions, kernel - 1 columns.

With a page size, every layer of every sequence is rounded up to whole pages, as an extra term; what an engine reserves beyond the
context is not counted here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Literal, get_args

from ..errors import ShapeError, UnknownNameError
from ..shape.dtypes import Storage, storage
from ..shape.parts import Attention, Compressed, GatedDelta, Indexer, Mamba1, Mamba2, Mla, Recurrent
from .numbers import larger, per, positive, rounded_up, smaller
from .terms import Terms

Runtime = Literal["logical", "transformers", "vllm", "llama.cpp"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

LLAMA_CPP_UBATCH = 512
LLAMA_CPP_SWA_PAD = 256
_F32, _MODEL = storage("f32"), storage("bf16")


@dataclass(frozen=True)
class Held:
    """What one layer keeps for one sequence: `entries` things of `elements` numbers each, `slope` of them added by one more token."""

    term: str
    elements: Any
    entries: Any
    slope: Any
    dtype: Storage

    @property
    def total(self) -> Any:
        """Bytes for one sequence."""
        return self.dtype.bytes_of(self.elements * self.entries)

    def wasted(self, page: int) -> Any:
        """Bytes of one sequence's last page that hold nothing; states are not kept in pages."""
        if not self.term.startswith("kv."):
            return 0
        return self.dtype.bytes_of(self.elements * rounded_up(self.entries, page)) - self.total

    @property
    def per_token(self) -> Any:
        """Bytes that one more token adds."""
        return per(self.elements * self.slope * self.dtype.block_bytes, self.dtype.block)

    @property
    def constant(self) -> Any:
        """Bytes that no longer grow with the context."""
        return self.total * (self.slope == 0)


@dataclass(frozen=True)
class KvCache:
    """Bytes of a model's cache; ints for one model where they come out whole, arrays for a table."""

    terms: Terms
    """All sequences, by kind of content."""
    bytes_per_token: Any
    """What one more token of one sequence adds, at this context."""
    constant_bytes: Any
    """What one sequence holds that does not grow with the context from here on: full windows, recurrent state, buffers."""
    runtime: str

    @property
    def total(self) -> Any:
        """All sequences at this context."""
        return self.terms.total


def kv_cache_bytes(
    shape: Any, context: Any, batch: Any = 1, kv_dtype: str = "bf16", runtime: str = "logical", page: int = 1,
) -> KvCache:
    """Bytes that the cache holds when every one of `batch` sequences has `context` tokens in it.

    Args:
        shape: ModelShape, or ShapeTable (context and batch may then be arrays, one value per row).
        kv_dtype: storage of keys, values and latents; recurrent state has its own type.
        runtime: "logical", "transformers", "vllm" or "llama.cpp"; they differ for windows, convolutions and indexers.
        page: entries per page of the allocator; what the last page of a layer wastes is the term `kv.page_rounding`.

    Raises:
        UnknownNameError: no such runtime or dtype.
        ShapeError: a layer kind whose cache in that runtime is not known.
        ExactnessError: a row of a table is above 2^53.
    """
    if runtime not in RUNTIMES:
        raise UnknownNameError(
            "unknown_runtime", "runtime must be one of {known}, but got {value!r}", known=", ".join(RUNTIMES), value=str(runtime)[:60]
        )
    context, batch, page = positive(context, "context"), positive(batch, "batch"), positive(page, "page")
    dtype = storage(kv_dtype)
    terms = Terms()
    slope: Any = 0
    constant: Any = 0
    for n, layer in shape.groups:
        for mixer in layer.mixers:
            for held in held_by(mixer, context, dtype, runtime):
                terms.add(held.term, n * held.total * batch)
                if page > 1:
                    terms.add("kv.page_rounding", n * held.wasted(page) * batch)
                slope = slope + n * held.per_token
                constant = constant + n * held.constant
    return KvCache(terms=terms.require_exact("cache bytes"), bytes_per_token=slope, constant_bytes=constant, runtime=runtime)


@singledispatch
def held_by(mixer: Any, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    """What one mixer keeps for one sequence of `context` tokens."""
    raise TypeError(f"no cache for {type(mixer).__name__}")


def window_positions(window: Any, context: Any, runtime: str) -> tuple[Any, Any]:
    """(positions kept, positions that one more token adds) of a windowed or chunked layer."""
    if runtime == "vllm":
        return context, 1
    if runtime == "llama.cpp":
        limit = window + LLAMA_CPP_UBATCH
        return rounded_up(smaller(context, limit), LLAMA_CPP_SWA_PAD), 1 * (context < limit)
    limit = window - 1 if runtime == "transformers" else window
    return smaller(context, limit), 1 * (context < limit)


@held_by.register
def _attention(a: Attention, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    if a.shares_cache:
        return
    positions, slope = (context, 1) if a.reach == "full" else window_positions(a.window, context, runtime)
    heads = a.n_heads if a.cache_repeats_kv and runtime == "transformers" else a.n_kv_heads
    elements = heads * (a.head_dim + a.v_head_dim)
    yield Held("kv.full" if a.reach == "full" else "kv.windows", elements, positions, slope, dtype)


@held_by.register
def _mla(m: Mla, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    yield Held("kv.latent", m.kv_lora_rank + m.qk_rope_head_dim, context, 1, dtype)
    if m.indexer is not None and not m.indexer_shared:
        yield _indexer(m.indexer, context, 1, dtype, runtime)


def _indexer(i: Indexer, entries: Any, slope: Any, dtype: Storage, runtime: str) -> Held:
    if runtime == "vllm":
        return Held("kv.indexer", i.head_dim + i.head_dim // 128 * 4, entries, slope, storage("int8"))
    if runtime == "llama.cpp":
        raise _not_known("a sparse-attention indexer", runtime)
    return Held("kv.indexer", i.head_dim, entries, slope, dtype)


@held_by.register
def _gated_delta(g: GatedDelta, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    channels = 2 * g.n_k_heads * g.k_head_dim + g.n_v_heads * g.v_head_dim
    yield Held("state.recurrent", g.n_v_heads * g.k_head_dim * g.v_head_dim, 1, 0, _F32)
    yield _conv(channels, g.conv_kernel, runtime)


@held_by.register
def _mamba2(m: Mamba2, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    yield Held("state.recurrent", m.n_heads * m.head_dim * m.d_state, 1, 0, _F32)
    yield _conv(m.n_heads * m.head_dim + 2 * m.n_groups * m.d_state, m.conv_kernel, runtime)


@held_by.register
def _mamba1(m: Mamba1, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    yield Held("state.recurrent", m.d_inner * m.d_state, 1, 0, _F32)
    yield _conv(m.d_inner, m.conv_kernel, runtime)


def _conv(channels: Any, kernel: Any, runtime: str) -> Held:
    columns = kernel if runtime == "transformers" else kernel - 1
    return Held("state.convolution", channels, columns, 0, _F32 if runtime == "llama.cpp" else _MODEL)


@held_by.register
def _recurrent(r: Recurrent, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    yield Held("state.recurrent", r.state, 1, 0, _F32)
    # Other runtimes drop the oldest column; a conv_kernel of 0 says that there is no column to drop.
    dropped = 0 if runtime == "transformers" else r.conv_state // larger(r.conv_kernel, 1) * (r.conv_kernel > 0)
    kept = r.conv_state - dropped
    yield Held("state.convolution", kept, 1, 0, _F32 if runtime == "llama.cpp" else _MODEL)


@held_by.register
def _compressed(c: Compressed, context: Any, dtype: Storage, runtime: str) -> Iterator[Held]:
    if runtime in ("vllm", "llama.cpp"):
        raise _not_known("compressed attention (DeepSeek-V4)", runtime)
    positions, slope = window_positions(c.window, context, runtime)
    compresses = 0 + (c.ratio > 0)  # a number or an array of 0 and 1: one formula for both
    # transformers keeps keys and values apart in layers that only have the window, although they are the same numbers.
    copies = 2 - compresses if runtime == "transformers" else 1
    yield Held("kv.windows", c.head_dim * copies, positions, slope, dtype)
    ratio = c.ratio + (1 - compresses)
    width = (c.head_dim + (0 if c.indexer is None else c.indexer.head_dim)) * compresses
    series = 2 if c.overlap else 1
    yield Held("kv.compressed", width, context // ratio, per(1, ratio), dtype)
    # Tokens that no entry sums up yet, as value and gate, and for overlapping entries the whole previous window likewise.
    yield Held("kv.compressor_buffer", 2 * series * width, context % ratio, 0, dtype)
    if c.overlap:
        yield Held("kv.compressor_overlap", 2 * ratio * width, 1 * (context >= ratio), 0, dtype)


def _not_known(what: str, runtime: str) -> ShapeError:
    return ShapeError(
        "cache_not_known", "how {runtime} caches {what} is not known to headcount; ask with runtime=logical or transformers",
        runtime=runtime, what=what,
    )

"""Time of one prefill or decode step of a whole model as a sum of named terms, each with its basis and expected error.

Every matrix and mixer comes from the same list as parameters and FLOPs (`layout.py`). Queries, keys and values are one multiplication,
as engines run them. Softmax attention and matrices are read from measured tables where there are any; latent, compressed and recurrent
mixers by the roofline; what runs between them by its bytes, and no faster than the shortest kernel measured. Kernels run one after
another: scheduling on the host, sampling and queueing are not in it, so TTFT is that of a prompt that finds an empty queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import QuantityError, UnknownNameError
from ..hardware import Device
from ..records import has_table, load_table
from ..shape.dtypes import storage
from ..shape.parts import Attention, Mla
from .attention_time import BASES, EXTRAPOLATED, INTERPOLATED, ROOFLINE, ROOFLINE_ERROR, KernelTime, attention_seconds
from .flops import Work, mixing
from .gemm_time import TABLE_OF, gemm_seconds, gemm_table, grouped_seconds
from .kv_cache import held_by
from .layout import Matrix, head_matrix, layer_weights, part_weights, stem_weights
from .numbers import positive
from .surface import Array
from .terms import Terms
from .schemes import PLAIN
from .traffic import read_share

MINOR = 0.05
"""Terms below this share of the step do not weaken its basis."""
ELEMENTWISE_ERROR, COMMUNICATION_ERROR = 0.5, 0.3
"""Assumed: nothing was left out to test them."""
_PEAKS = {"fp8": ("fp8",), "nvfp4": ("fp4",), "mxfp4": ("fp4",)}
_BY_ROWS = ("attention.o", "attention.o_up", "ffn.down", "moe.down", "moe.shared_down", "delta.o", "ssm.out")
_WHOLE = ("attention.q_down", "attention.kv_down", "attention.kv", "moe.router", "moe.latent", "moe.shared_gate")


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of one step: numbers for one model, (n_rows,) arrays for a table; `codes` index BASES, `errors` are relative."""

    terms: Terms
    codes: dict[str, Any]
    errors: dict[str, Any]
    batch: Any
    phase: str

    @property
    def total(self) -> Any:
        """Seconds of the step: TTFT of a prompt in an empty queue (prefill), TPOT (decode)."""
        return self.terms.total

    @property
    def code(self) -> Any:
        """The weakest basis code among the terms above 5 % of the step."""
        total = self.total
        found = np.max([np.where(self.terms[name] > MINOR * total, code, 0) for name, code in self.codes.items()], axis=0)
        return found if np.ndim(total) else int(found)

    @property
    def basis(self) -> Any:
        """Its name; an array of names for a table."""
        return np.array(BASES)[self.code] if np.ndim(self.total) else BASES[self.code]

    @property
    def error(self) -> Any:
        """Expected relative error of the step, if the errors of all terms go the same way."""
        return sum(self.terms[name] * error for name, error in self.errors.items()) / self.total

    @property
    def tokens_per_second(self) -> Any:
        """New tokens of one request per second (decode)."""
        return 1.0 / self.total

    @property
    def tokens_per_second_in_all(self) -> Any:
        """New tokens of all requests per second (decode)."""
        return self.batch / self.total


@dataclass
class _Step:
    """One question, and the sum that grows."""

    device: Device
    tables: tuple[str, str] | None
    phase: str
    context: Array
    batch: Array
    weight_dtype: str
    kv_dtype: str
    tp: int
    l2: str
    terms: Terms = field(default_factory=Terms)
    codes: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> Array:
        return self.batch if self.phase == "decode" else self.batch * self.context

    def peak(self, dtype: str) -> float:
        known = next((p for p in _PEAKS.get(dtype, ()) if p in self.device.number_formats), "bf16")
        return self.device.peak_flops(known)

    def add(self, name: str, count: Any, seconds: Any, code: Any, error: Any) -> None:
        spent = count * seconds
        if not np.any(spent):
            return
        if self.tables is not None and self.tables[0] != self.device.name:
            code = np.maximum(code, EXTRAPOLATED)  # tables of a sister card
        present = spent != 0
        old, old_code = self.terms.get(name, 0.0), self.codes.get(name, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mixed = np.where(old + spent > 0, (old * self.errors.get(name, 0.0) + spent * error) / (old + spent), 0.0)
        self.terms.add(name, spent)
        self.codes[name] = np.maximum(old_code, np.where(present, code, 0))
        self.errors[name] = mixed


def step_time(
    shape: Any, device: Device, engine: str, phase: str = "decode", context: Any = 4096, batch: Any = 1,
    weight_dtype: str | None = None, kv_dtype: str = "bf16", tp: int = 1, l2: str = "cold", only: str = "all",
) -> StepSeconds:
    """Time of one step.

    Args:
        shape: ModelShape, or ShapeTable (context and batch may then be (n_rows,) arrays); rows that cannot exist get NaN.
        device: from `hardware.device`; its tables, or those of the card that stands in for it, are used where `engine` has some.
        phase: "prefill": `context` new tokens per sequence; "decode": one new token, `context` tokens in the cache.
        tp: GPUs that share every layer; KV heads are repeated where there are fewer of them.
        l2: "cold" (a model of many layers) or "warm", as in `attention_seconds`.
        only: "all"; "mixers" or "rest" for the part that does, or does not, depend on the context when decoding.

    Raises:
        QuantityError: a count outside what kernel times are answered for, or heads that cannot be split.
        UnknownNameError: an unknown phase, storage or l2.
    """
    context, batch = positive(context, "context"), positive(batch, "batch")
    dtype = weight_dtype or (shape.weight_dtype if isinstance(shape.weight_dtype, str) else "bf16")
    tables = _tables(device, engine, phase)
    rows = getattr(shape, "n_rows", 1)
    contexts, batches = (np.broadcast_to(np.asarray(v, dtype=np.float64), (rows,)).copy() for v in (context, batch))
    step = _Step(device, tables, phase, contexts, batches, storage(dtype).name, kv_dtype, int(positive(tp, "tp")), l2)
    if only not in ("all", "mixers", "rest"):
        raise UnknownNameError(
            "unknown_choice", "{name} must be one of {known}, but got {value!r}",
            name="only", known="all, mixers, rest", value=str(only)[:60],
        )
    for n, layer in shape.groups:
        if only != "rest":
            for mixer in layer.mixers:
                _mix(step, n, mixer)
        if only != "mixers":
            _layer(step, n, layer, shape.d_model)
    for n, stem in shape.stems if only != "mixers" else ():
        _stem(step, n, stem, shape.d_model)
    if not hasattr(shape, "n_rows"):
        scalars = [{k: v[0].item() for k, v in part.items()} for part in (step.terms, step.codes, step.errors)]
        return StepSeconds(Terms(scalars[0]), scalars[1], scalars[2], batch, phase)
    return StepSeconds(step.terms, step.codes, step.errors, step.batch, phase)


def _tables(device: Device, engine: str, phase: str) -> tuple[str, str] | None:
    name = device.kernel_tables
    complete = name is not None and all(has_table(name, engine, f) for f in (f"attention-{phase}", "gemm"))
    return (name, engine) if complete and name is not None else None


def _rows(step: _Step, *values: Any) -> list[Array]:
    return [np.broadcast_to(np.asarray(v, dtype=np.float64), step.batch.shape) for v in values]


def _layer(step: _Step, n: Any, layer: Any, d_model: Any) -> None:
    for part in (*layer.mixers, *layer.ffns):
        for matrix, shards in _matrices(part, d_model, step.tp):
            _multiply(step, n, matrix, shards)
    for weight in layer_weights(replace(layer, mixers=(), ffns=()), d_model):
        if isinstance(weight, Matrix):
            _multiply(step, n, weight, 1)
    blocks = len(layer.mixers) + len(layer.ffns)
    _elementwise(step, n, layer.norms, 4 * d_model)
    for matrix_outputs in (m.outputs for part in layer.ffns for m, _ in _matrices(part, d_model, step.tp) if m.name == "ffn.up"):
        _elementwise(step, n, 1, 1.5 * matrix_outputs / step.tp)
    _all_reduce(step, n * blocks, d_model)


def _matrices(part: Any, d_model: Any, tp: int) -> Iterator[tuple[Matrix, Any]]:
    """The multiplications of a part, with the number of GPUs that share each; queries, keys and values fused."""
    fused: dict[str, tuple[Matrix, Any]] = {}
    for weight in part_weights(part, d_model):
        if not isinstance(weight, Matrix):
            continue
        shards: Any = 1 if weight.name in _WHOLE or weight.name.startswith(("indexer", "compressor")) else tp
        if weight.name in ("attention.k", "attention.v"):
            shards = np.minimum(tp, part.n_kv_heads)
        if isinstance(part, Attention) and weight.name in ("attention.q", "attention.k", "attention.v"):
            fused[weight.name] = (weight, shards)
        else:
            yield weight, shards
    if fused:
        first = next(iter(fused.values()))[0]
        outputs = sum((m.outputs / s for m, s in fused.values()), start=0)
        yield Matrix("attention.qkv", first.inputs, outputs), 1  # already the share of one GPU


def _multiply(step: _Step, n: Any, matrix: Matrix, shards: Any, tokens: Any = None, dtype: str | None = None) -> None:
    by_rows = matrix.name in _BY_ROWS
    inputs, outputs = matrix.inputs / (shards if by_rows else 1), matrix.outputs / (1 if by_rows else shards)
    dtype = dtype or (_side(step.weight_dtype) if matrix.name.endswith("router") else step.weight_dtype)
    m = step.tokens if tokens is None else tokens
    layers, k, width, copies, active, m = _rows(step, n, inputs, outputs, matrix.copies, matrix.active, m)
    used = (layers > 0) & (k > 0) & (width > 0) & (active > 0)
    out = KernelTime(np.zeros(len(m)), np.zeros(len(m), dtype=np.intp), np.zeros(len(m)))
    figures = {"bandwidth": step.device.bandwidth, "peak": step.peak(dtype)}
    for rows in (used & (copies == active), used & (copies != active)):
        if not rows.any():
            continue
        if (copies == active)[rows].all():
            found = gemm_seconds(step.tables, m[rows], width[rows], k[rows], dtype, step.l2, **figures)
            times = copies[rows]
        else:
            touched = _rows(step, matrix.copies * read_share(matrix, m))[0][rows]
            share = m[rows] * active[rows] / touched
            found, times = grouped_seconds(step.tables, share, width[rows], k[rows], touched, dtype, **figures), 1.0
        out.seconds[rows], out.basis[rows], out.error[rows] = found.seconds * times, found.basis, found.error
    step.add(f"gemm.{matrix.name}", layers, out.seconds, out.basis, out.error)


def _mix(step: _Step, n: Any, mixer: Any) -> None:
    if isinstance(mixer, Attention):
        _attention(step, n, mixer)
        return
    work = Work(step.phase, step.context, np.ones(len(step.batch)) if step.phase == "decode" else step.context, "half")
    split = 1 if isinstance(mixer, Mla) else step.tp
    products = sum((p for _, p in mixing(mixer, work)), start=np.zeros(1)) * 2.0 * step.batch / step.tp
    moved = sum((h.total for h in held_by(mixer, step.context, storage(step.kv_dtype), "logical")), start=np.zeros(1))
    seconds = np.maximum(products / step.peak("bf16"), moved * step.batch / split / step.device.bandwidth)
    layers, seconds = _rows(step, n, seconds)
    step.add("attention" if isinstance(mixer, Mla) else f"mixer.{type(mixer).__name__.lower()}", layers, seconds, ROOFLINE, ROOFLINE_ERROR)


def _attention(step: _Step, n: Any, a: Attention) -> None:
    layers, heads, kv_heads, head_dim, window = _rows(step, n, a.n_heads, a.n_kv_heads, (a.head_dim + a.v_head_dim) / 2, a.window)
    window = window * (a.reach != "full")
    used = layers > 0
    uneven = used & ((heads % step.tp != 0) | ((kv_heads % step.tp != 0) & (step.tp % np.maximum(kv_heads, 1) != 0)))
    if uneven.any():
        raise QuantityError(
            "tp_heads", "{heads} query heads with {kv_heads} KV heads cannot be split over {tp} GPUs",
            heads=int(heads[uneven][0]), kv_heads=int(kv_heads[uneven][0]), tp=step.tp,
        )
    out = KernelTime(np.zeros(len(heads)), np.zeros(len(heads), dtype=np.intp), np.zeros(len(heads)))
    figures = {"bandwidth": step.device.bandwidth, "peak": step.peak("bf16")}
    for value in np.unique(window[used]):
        rows = used & (window == value)
        found = attention_seconds(
            step.tables, step.phase, heads[rows] / step.tp, np.maximum(kv_heads[rows] / step.tp, 1.0), head_dim[rows],
            step.context[rows], step.batch[rows], step.kv_dtype, int(value), step.l2, **figures,
        )
        out.seconds[rows], out.basis[rows], out.error[rows] = found.seconds, found.basis, found.error
    step.add("attention", layers, out.seconds, out.basis, out.error)


def _elementwise(step: _Step, n: Any, kernels: Any, numbers: Any) -> None:
    """`kernels` kernels that read and write that many bf16 numbers per token, each no faster than the shortest kernel measured."""
    table = None if step.tables is None else gemm_table(*step.tables, TABLE_OF["bf16"])
    launch = 0.0 if table is None else table.launch
    layers, each = _rows(step, n * kernels, np.maximum(2.0 * step.tokens * numbers / step.device.bandwidth, launch))
    weak = step.tables is None
    step.add("elementwise", layers, each, ROOFLINE if weak else EXTRAPOLATED, ROOFLINE_ERROR if weak else ELEMENTWISE_ERROR)


def _all_reduce(step: _Step, n: Any, d_model: Any) -> None:
    if step.tp == 1:
        return
    layers, size = _rows(step, n, 2.0 * step.tokens * d_model)
    seconds, code, error = all_reduce_seconds(step.tables, step.phase, step.tp, size, step.device.link_bytes_s)
    step.add("all_reduce", layers, seconds, code, error)


def all_reduce_seconds(
    tables: tuple[str, str] | None, phase: str, gpus: int, size: Array, link: float | None,
) -> tuple[Array, int, float]:
    """(seconds, basis code, relative error) of summing `size` bytes over `gpus` GPUs: measured, or a ring over links of `link` bytes/s.

    Raises:
        QuantityError: neither is known.
    """
    if tables is not None and has_table(*tables, "allreduce"):
        grids = load_table(*tables, "allreduce").grids
        mode = ("all_reduce", "bfloat16", "graph" if phase == "decode" else "eager")
        grid = grids.get(mode) or next(iter(grids.values()))
        if gpus in grid.axis("gpus"):
            axis, line = grid.axis("bytes"), grid.log2_s[int(np.searchsorted(grid.axis("gpus"), gpus))].astype(np.float64)
            known = ~np.isnan(line)
            axis, line = axis[known], line[known]
            growth = np.maximum(size / axis[-1], 1.0)
            return np.exp2(np.interp(np.log2(size), np.log2(axis), line)) * growth, INTERPOLATED, COMMUNICATION_ERROR
    if link is None:
        raise QuantityError("no_link", "neither a measured all-reduce over {gpus} GPUs nor the speed of their links is known", gpus=gpus)
    return 2.0 * (gpus - 1) / gpus * size / link, ROOFLINE, ROOFLINE_ERROR


def _stem(step: _Step, n: Any, stem: Any, d_model: Any) -> None:
    side = _side(step.weight_dtype)
    for weight in stem_weights(stem, d_model):
        if isinstance(weight, Matrix) and weight.name != "head":
            _multiply(step, n, weight, 1, dtype=side)
    head = head_matrix(stem, d_model)
    if head is not None:  # the last position of every sequence
        _multiply(step, n, head, step.tp, tokens=step.batch, dtype=side)
    _elementwise(step, n, 1 + (np.asarray(stem.final_norm) > 0), 2 * d_model)


def utilisation(seconds: Any, moved: Any, flops: Any, bandwidth: float, peak: float) -> tuple[Any, Any]:
    """(share of the bandwidth, share of the peak) that a time amounts to.

    Raises:
        QuantityError: a share above 100 %: no such time can be had on that device without a cache.
    """
    shares = moved / seconds / bandwidth, flops / seconds / peak
    most = float(max(np.max(s) for s in shares))
    if most > 1.0 + 1e-9:
        raise QuantityError(
            "utilisation", "{share:.0%} of what the device can do would be used; a time that short cannot be had cold", share=most
        )
    return shares


def _side(weight_dtype: str) -> str:
    """The type of what a quantised checkpoint leaves alone: the router, the head."""
    name = storage(weight_dtype).name
    return name if name in PLAIN else "bf16"

"""What the kernel tables of aiconfigurator-core 0.12.0 are, for distil_kernels.py: which files, and what their columns mean.

Each family names its grids (key), its compound first axis if it has one (columns) and its axes. `prepare` turns the source's columns into
these, and is where the source's conventions end: milliseconds stay until the writer, a decode context is step + isl, message sizes become
bytes. It must not know how tables are stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, np.ndarray]

PREFERRED_KERNELS = ("fa3", "trtllm_mha", "trtllm_mla", "flashinfer", "triton")
"""SGLang's own defaults: FlashAttention 3 on Hopper, TensorRT-LLM's kernels on Blackwell B200/B300, FlashInfer elsewhere, Triton last.

Source: docs.sglang.io, Attention Backend, "Automatic Selection" (read 2026-11-23). No device's table holds two of the first three, so one
order serves all generations.
"""
ELEMENT_BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
"""Message sizes are counted in elements: the collection notes of gb300/comm/sglang/0.5.14 say so for all-reduce; for NCCL, the same size in
int8 takes half as long as in half precision at every size that bandwidth decides."""


@dataclass(frozen=True)
class Source:
    """One parquet file."""

    path: Path
    device: str
    engine: str
    version: str
    rows: int


@dataclass(frozen=True)
class Family:
    """One kind of kernel table; see the module's docstring."""

    name: str
    folder: str
    files: tuple[str, ...]
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, ...]
    prepare: Callable[[Columns, Source], Columns]

    def one_kernel(self, engine: str) -> bool:
        """SGLang serves a model with one attention backend, whatever its shape; other engines choose by shape themselves."""
        return engine == "sglang" and self.name.startswith("attention")


def _text(columns: Columns, name: str, otherwise: str) -> np.ndarray:
    return columns[name].astype(str) if name in columns else np.full(len(columns["latency"]), otherwise)


def _picked(columns: Columns, names: dict[str, str]) -> Columns:
    return {ours: columns[theirs] for ours, theirs in names.items()} | {"kernel": columns["kernel_source"].astype(str)}


def attention(columns: Columns, source: Source) -> Columns:
    """kv_dtype, kv_heads ("mha" or a number), head_dim, window; heads, contexts, batches. The decode context counts the new token."""
    if set(columns["beam_width"].tolist()) != {1}:
        raise SystemExit(f"{source.path}: beam search in an attention table")
    decode = source.path.stem.startswith("generation")
    heads, kv_heads = columns["num_heads"], columns["num_key_value_heads"]
    if kv_heads.min() < 1 or (heads % kv_heads).any() or (not decode and columns["step"].any()) or (decode and (columns["isl"] != 1).any()):
        raise SystemExit(f"{source.path}: a convention of the attention tables has changed")
    names = {"kv_dtype": "kv_cache_dtype", "compute_dtype": "attn_dtype", "head_dim": "head_dim", "heads": "num_heads",
             "batches": "batch_size", "latency": "latency"}
    return _picked(columns, names) | {
        "kv_heads": np.where(heads == kv_heads, "mha", kv_heads.astype(str)), "contexts": columns["step"] + columns["isl"],
        "window": columns.get("window_size", np.zeros_like(heads)),
    }


def latent_attention(columns: Columns, source: Source) -> Columns:
    """Multi-head latent attention; modules include the projections around the kernel, so gemm_dtype and the architecture are keys.

    tp_size is no key: it only says how the heads came to be so few.
    """
    names = {"kv_dtype": "kv_cache_dtype", "compute_dtype": "mla_dtype", "heads": "num_heads", "batches": "batch_size",
             "latency": "latency"}
    return _picked(columns, names) | {
        "contexts": columns["step"] + columns["isl"], "gemm_dtype": _text(columns, "gemm_type", ""),
        "architecture": _text(columns, "architecture", ""),
    }


def gemm(columns: Columns, source: Source) -> Columns:
    """dtype; n, k, m of (m x k) times (k x n)."""
    return _picked(columns, {"dtype": "gemm_dtype", "m": "m", "n": "n", "k": "k", "latency": "latency"})


def moe(columns: Columns, source: Source) -> Columns:
    """dtype, distribution of tokens over experts; hidden, inter, topk, n_experts, tp, ep; tokens."""
    names = {"dtype": "moe_dtype", "distribution": "distribution", "hidden": "hidden_size", "inter": "inter_size", "topk": "topk",
             "n_experts": "num_experts", "tp": "moe_tp_size", "ep": "moe_ep_size", "tokens": "num_tokens", "latency": "latency"}
    return _picked(columns, names)


def communication(columns: Columns, source: Source) -> Columns:
    """op, dtype, mode ("graph", "eager" or ""); gpus, bytes."""
    dtype = columns.get("nccl_dtype", columns.get("allreduce_dtype"))
    if dtype is None or not set(dtype.tolist()) <= set(ELEMENT_BYTES):
        raise SystemExit(f"{source.path}: an element type whose size is not known")
    mode = np.array([m.rpartition("_")[2] if m.endswith(("_graph", "_eager")) else "" for m in _text(columns, "backend", "").tolist()])
    op = _text(columns, "op_name", "all_reduce")
    size = np.array([ELEMENT_BYTES[d] for d in dtype.tolist()])
    return _picked(columns, {"gpus": "num_gpus", "latency": "latency"}) | {
        "op": np.where(np.char.find(op, "allreduce") >= 0, "all_reduce", op), "dtype": dtype.astype(str), "mode": mode,
        "bytes": columns["message_size"] * size,
    }


def delta_net(columns: Columns, source: Source) -> Columns:
    """Gated delta net: phase and the kernel itself are keys, a layer's time is the sum over its kernels."""
    names = {"phase": "phase", "step": "kernel_source", "d_model": "d_model", "d_conv": "d_conv", "k_heads": "num_k_heads",
             "k_dim": "head_k_dim", "v_heads": "num_v_heads", "v_dim": "head_v_dim", "batches": "batch_size", "contexts": "seq_len",
             "latency": "latency"}
    return _picked(columns, names)


def mamba(columns: Columns, source: Source) -> Columns:
    """Mamba-2: as for the gated delta net."""
    names = {"phase": "phase", "step": "kernel_source", "d_model": "d_model", "d_state": "d_state", "d_conv": "d_conv", "heads": "nheads",
             "head_dim": "head_dim", "groups": "n_groups", "chunk": "chunk_size", "batches": "batch_size", "contexts": "seq_len",
             "latency": "latency"}
    return _picked(columns, names)


_KV, _GRID = ("kv_dtype", "kv_heads", "head_dim", "window"), ("heads", "contexts", "batches")
_LATENT = ("kv_dtype", "compute_dtype")
_MODULE = (*_LATENT, "gemm_dtype", "architecture")
_EXPERTS = ("hidden", "inter", "topk", "n_experts", "tp", "ep")
_MESSAGE = ("op", "dtype", "mode")
_LINEAR = ("phase", "step")
FAMILIES = (
    Family("attention-prefill", "attention", ("context_attention_perf",), (*_KV, "compute_dtype"), (), _GRID, attention),
    Family("attention-decode", "attention", ("generation_attention_perf",), _KV, (), _GRID, attention),
    Family("gemm", "gemm", ("gemm_perf",), ("dtype",), (), ("n", "k", "m"), gemm),
    Family("moe", "moe", ("moe_perf",), ("dtype", "distribution"), _EXPERTS, ("tokens",), moe),
    Family("mla-prefill", "mla", ("context_mla_perf",), _LATENT, (), _GRID, latent_attention),
    Family("mla-decode", "mla", ("generation_mla_perf",), _LATENT, (), _GRID, latent_attention),
    Family("mla-module-prefill", "mla", ("mla_context_module_perf",), _MODULE, (), _GRID, latent_attention),
    Family("mla-module-decode", "mla", ("mla_generation_module_perf",), _MODULE, (), _GRID, latent_attention),
    Family("collectives", "comm", ("nccl_perf", "oneccl_perf"), _MESSAGE, (), ("gpus", "bytes"), communication),
    Family("allreduce", "comm", ("custom_allreduce_perf",), _MESSAGE, (), ("gpus", "bytes"), communication),
    Family("gdn", "linear_attention", ("gdn_perf",), _LINEAR, ("d_model", "d_conv", "k_heads", "k_dim", "v_heads", "v_dim", "batches"),
           ("contexts",), delta_net),
    Family("mamba2", "linear_attention", ("mamba2_perf",), _LINEAR,
           ("d_model", "d_state", "d_conv", "heads", "head_dim", "groups", "chunk", "batches"), ("contexts",), mamba),
)

KEPT_DISTRIBUTIONS = ("balanced", "power_law_1.2")
"""The even and the most uneven load that were measured; what lies between is the thinned `power_law_1.01`."""


def thinned(family: Family, columns: Columns) -> tuple[Columns, dict[str, Any]]:
    """Without the rows that the rest predicts well enough to save their space, and the error of that prediction where it was measured.

    Only MoE tables are thinned: power_law_1.01 is dropped where the same point exists as power_law_1.2, which stands for it.
    """
    none = {"thinned_rows": 0, "thinning": ""}
    if family.name != "moe" or not set(KEPT_DISTRIBUTIONS) <= set(columns["distribution"].tolist()):
        return columns, none
    names = ["dtype", *_EXPERTS, "tokens", "kernel"]
    keys = list(zip(*(columns[n].tolist() for n in names), strict=True))
    by_point: dict[tuple[Any, ...], float] = {}
    for key, kind, latency in zip(keys, columns["distribution"].tolist(), columns["latency"].tolist(), strict=True):
        if kind == "power_law_1.2":
            by_point[key] = latency
    stand_in = np.array([by_point.get(key, np.nan) for key in keys])
    dropped = (columns["distribution"] == "power_law_1.01") & np.isfinite(stand_in)
    error = np.abs(stand_in[dropped] / columns["latency"][dropped] - 1)
    if not error.size:
        return columns, none
    words = f"power_law_1.01 given as power_law_1.2: error median {np.median(error):.4f}, 95 % below {np.quantile(error, 0.95):.4f}"
    return {n: values[~dropped] for n, values in columns.items()}, {"thinned_rows": int(dropped.sum()), "thinning": words}

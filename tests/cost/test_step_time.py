"""Step times of whole models: sums of their terms, one formula for models and tables, never below the roofline, every argument tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from headcount.cost.attention_time import BASES, attention_seconds
from headcount.cost.candidates import price_candidates
from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.memory import weight_bytes
from headcount.cost.roofline import roofline_step
from headcount.cost.step_time import all_reduce_seconds, step_time, utilisation
from headcount.errors import QuantityError, UnknownNameError
from headcount.hardware import device
from headcount.shape.presets import preset_names, read_preset
from headcount.shape.table import ShapeTable

RTX, H100 = device("rtx-pro-6000-server"), device("h100-sxm")
LLAMA = read_preset("meta-llama-3.1-8b")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_answered_and_sums_to_its_terms(name: str) -> None:
    for phase in ("decode", "prefill"):
        found = step_time(read_preset(name), RTX, "vllm", phase, 4096, 2, weight_dtype="bf16")
        assert found.total == pytest.approx(sum(found.terms.values()), rel=1e-12)
        assert np.isfinite(found.total)
        assert min(found.terms.values()) > 0
        assert found.terms.keys() == found.codes.keys() == found.errors.keys()
        assert found.basis in BASES[1:]
        assert 0 < found.error < 1


def test_tables_equal_single_models() -> None:
    shapes = [read_preset(name) for name in preset_names()][::3]
    context, batch = np.arange(1000.0, 1000.0 + len(shapes)), np.arange(1.0, 1.0 + len(shapes))
    for phase in ("decode", "prefill"):
        table = step_time(ShapeTable.from_shapes(shapes), H100, "vllm", phase, context, batch, weight_dtype="bf16")
        for i, shape in enumerate(shapes):
            alone = step_time(shape, H100, "vllm", phase, int(context[i]), int(batch[i]), weight_dtype="bf16")
            assert table.total[i] == pytest.approx(alone.total, rel=1e-12)
            assert table.error[i] == pytest.approx(alone.error, rel=1e-9)
            assert table.basis[i] == alone.basis


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_no_dense_model_is_faster_than_the_roofline(phase: str) -> None:
    for name in ("meta-llama-3.1-8b", "qwen3-32b", "qwen3-0.6b"):
        for context, batch in ((512, 1), (8192, 16), (32768, 4)):
            found = step_time(read_preset(name), RTX, "vllm", phase, context, batch)
            least = roofline_step(
                read_preset(name), peak_flops=RTX.peak_flops("bf16"), bandwidth=RTX.bandwidth, phase=phase, context=context, batch=batch,
            )
            assert found.total > 0.98 * least.total  # the roofline counts embedding rows, and the whole step at once


def test_attention_of_a_model_is_its_layers_times_one_kernel() -> None:
    found = step_time(LLAMA, H100, "vllm", "decode", 8192, 16)
    one = attention_seconds(
        ("h100-sxm", "vllm"), "decode", 32, 8, 128, 8192, 16, l2="cold", bandwidth=H100.bandwidth, peak=H100.peak_flops("bf16"),
    )
    assert found.terms["attention"] == pytest.approx(32 * one.seconds, rel=1e-12)


def test_speeds_follow_from_the_step() -> None:
    found = step_time(LLAMA, H100, "vllm", "decode", 2048, 16)
    assert found.tokens_per_second * found.total == pytest.approx(1)
    assert found.tokens_per_second_in_all == pytest.approx(16 * found.tokens_per_second)


def test_rows_that_cannot_exist_are_not_answered() -> None:
    table = ShapeTable.from_columns(n_layers=4, d_model=1024, n_heads=[16, 15], n_kv_heads=[4, 4], head_dim=64, d_ff=4096, vocab_size=1000)
    found = step_time(table, H100, "vllm").total
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_splitting_over_gpus() -> None:
    one, two, eight = (step_time(read_preset("meta-llama-3.1-70b"), H100, "vllm", "decode", 4096, 16, tp=n) for n in (1, 2, 8))
    assert one.total / 2 < two.total < one.total
    assert eight.total < two.total
    assert "all_reduce" not in one.terms
    assert two.terms["all_reduce"] > 0
    with pytest.raises(QuantityError):
        step_time(LLAMA, H100, "vllm", tp=3)
    with pytest.raises(QuantityError):
        all_reduce_seconds(None, "decode", 4, np.array([1024.0]), None)


def test_a_card_without_tables_is_roofline_and_a_sister_card_is_extrapolated() -> None:
    assert step_time(LLAMA, H100, "llama.cpp").basis == "roofline"
    sister = dataclasses.replace(H100, name="another")
    assert step_time(LLAMA, sister, "vllm", "decode", 4096, 8).basis in ("extrapolated", "roofline")


def test_every_argument_tells() -> None:
    question: dict[str, Any] = {
        "shape": LLAMA, "device": RTX, "engine": "vllm", "phase": "decode", "context": 32768, "batch": 1, "weight_dtype": "bf16",
        "kv_dtype": "bf16", "tp": 1, "l2": "cold", "only": "all",
    }
    changes: dict[str, Any] = {
        "shape": read_preset("qwen3-8b"), "device": H100, "engine": "sglang", "phase": "prefill", "context": 16384, "batch": 2,
        "weight_dtype": "fp8", "kv_dtype": "fp8", "tp": 2, "l2": "warm", "only": "rest",
    }
    assert question.keys() == changes.keys()
    first = step_time(**question).total
    for name, value in changes.items():
        assert step_time(**{**question, name: value}).total != first, name
    for name, value in {
        "phase": "train", "context": 0, "batch": -1, "weight_dtype": "int5", "kv_dtype": "int4", "tp": 0, "l2": "hot", "only": "half",
    }.items():
        with pytest.raises((QuantityError, UnknownNameError)):
            step_time(**{**question, name: value})


def test_more_than_the_device_can_do_raises() -> None:
    assert utilisation(2.0, 1e12, 1e12, 1e12, 1e12) == (0.5, 0.5)
    with pytest.raises(QuantityError, match="200%"):
        utilisation(0.5, 1e12, 1.0, 1e12, 1e12)


def test_candidates_equal_single_models() -> None:
    heads = np.array([(h, k, d) for h in (8, 16, 32) for k in (2, 8) for d in (64, 128)], dtype=np.float64)
    width = np.repeat([1024.0, 4096.0], len(heads))
    n_heads, n_kv_heads, head_dim = np.tile(heads, (2, 1)).T
    table = ShapeTable.from_columns(
        n_layers=24, d_model=width, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, d_ff=3 * width, vocab_size=32000,
    )
    contexts, batches = np.array([512.0, 3000.0, 131072.0]), np.array([1.0, 7.0, 64.0])
    rows = np.stack(np.meshgrid(range(len(table)), range(3), range(3), indexing="ij"), axis=-1).reshape(-1, 3)
    found = price_candidates(table, contexts, batches, rows, H100, "vllm", weight_dtype="fp8", kv_dtype="fp8")
    for i in range(0, len(rows), 7):
        shape, context, batch = table.row(int(rows[i, 0])), int(contexts[rows[i, 1]]), int(batches[rows[i, 2]])
        step = {"weight_dtype": "fp8", "kv_dtype": "fp8"}
        assert found.ttft_s[i] == pytest.approx(step_time(shape, H100, "vllm", "prefill", context, 1, **step).total, rel=1e-12)
        assert found.tpot_s[i] == pytest.approx(step_time(shape, H100, "vllm", "decode", context, batch, **step).total, rel=1e-12)
        held = weight_bytes(shape, "fp8").total + kv_cache_bytes(shape, context, batch, "fp8").total
        assert found.memory_bytes[i] == held

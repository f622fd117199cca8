"""Engines: default memory shares, pages, and what their attention kernels do with head shapes, against facts read elsewhere."""

from __future__ import annotations

import datetime

import pytest

from headcount.errors import UnknownNameError
from headcount.hardware import Device, device, device_names, engine, engine_names, serves
from headcount.hardware.devices import BASES, read_data, shipped_devices

# head_dim values that the attention tables of aiconfigurator-core 0.12.0 hold (column head_dim, read with pyarrow 2026-11-23).
MEASURED = {
    "vllm": {
        "a100-sxm": {128}, "h100-sxm": {64, 128, 192, 256, 512}, "h200-sxm": {64, 128, 192, 256, 512}, "l40s": {64, 128, 192, 256},
        "rtx-pro-6000-server": {64, 128, 192, 256}, "b200-sxm": {64, 128, 192, 256, 512}, "gb200": {64, 128, 192, 256, 512},
        "b300-sxm": {64, 128, 192, 256, 512}, "gb300": {64, 128, 192, 256, 512}, "b60": {64, 128},
    },
    "sglang": {
        "a100-sxm": {128}, "h100-sxm": {64, 128, 192, 256, 512}, "h200-sxm": {64, 128, 192, 256, 512}, "l40s": {64, 128, 192, 256, 512},
        "rtx-pro-6000-server": {64, 128, 192, 256, 512}, "b200-sxm": {64, 128, 192, 256, 512}, "gb300": {64, 128, 192, 256, 512},
    },
    "trtllm": {
        "a100-sxm": {128}, "h100-sxm": {64, 128, 192, 256}, "h200-sxm": {64, 128, 192, 256}, "l40s": {64, 128, 192, 256},
        "rtx-pro-6000-server": {64, 128, 192, 256}, "b200-sxm": {64, 128, 256, 512}, "gb300": {64, 128, 256, 512},
    },
}
GRID = [*range(32, 513, 8)]


@pytest.mark.parametrize(("name", "card"), [(e, c) for e, cards in MEASURED.items() for c in cards])
def test_measured_widths_are_exactly_those_of_the_tables(name: str, card: str) -> None:
    answers = {d: serves(name, device(card), d, 32, 8) for d in GRID}
    assert {d for d, a in answers.items() if a.basis == "measured"} == MEASURED[name][card]
    assert all(answers[d].kind in ("serves", "pads") for d in MEASURED[name][card])


def test_96_is_measured_nowhere() -> None:
    for name in MEASURED:
        for card in MEASURED[name]:
            assert serves(name, device(card), 96, 32, 8).basis != "measured"


def test_every_answer_has_a_kind_a_reason_and_a_source_or_is_unknown() -> None:
    for name in engine_names():
        for card in shipped_devices().values():
            for head_dim in (8, 48, 64, 80, 96, 100, 128, 192, 256, 512):
                answer = serves(name, card, head_dim, 24, 8)
                assert answer.basis in BASES
                assert answer.reason
                if answer.kind == "unknown":
                    assert (answer.reason, answer.padded_head_dim, answer.basis) == ("no_source", None, "assumed")
                else:
                    assert answer.source
                    assert datetime.date.fromisoformat(answer.date)
                assert answer.kind in ("serves", "pads", "refuses", "unknown")
                assert (answer.padded_head_dim == head_dim) == (answer.kind == "serves")
                assert answer.kind != "pads" or (answer.padded_head_dim or 0) > head_dim


@pytest.mark.parametrize(
    ("name", "card", "head_dim", "kind", "padded", "kernel"),
    [
        ("vllm", "rtx-pro-6000-server", 96, "serves", 96, "flash_attn_2"),
        ("vllm", "rtx-pro-6000-server", 80, "pads", 96, "flash_attn_2"),
        ("vllm", "rtx-4090", 128, "serves", 128, "flash_attn_2"),
        ("vllm", "h100-sxm", 80, "pads", 96, "flash_attn_3"),
        ("vllm", "h100-sxm", 160, "pads", 192, "flash_attn_3"),
        ("vllm", "h100-sxm", 320, "pads", 512, "triton"),
        ("vllm", "h100-sxm", 100, "pads", 128, "triton"),
        ("vllm", "b200-sxm", 192, "pads", 256, "triton"),
        ("vllm", "quadro-rtx-6000", 64, "serves", 64, "flashinfer"),
        ("vllm", "quadro-rtx-6000", 96, "pads", 128, "triton"),
        ("sglang", "rtx-pro-6000-server", 192, "pads", 256, "triton"),
        ("trtllm", "h100-sxm", 96, "serves", 96, "masked_multihead"),
        ("trtllm", "h100-sxm", 100, "refuses", None, None),
        ("trtllm", "h100-sxm", 72, "refuses", None, None),
        ("trtllm", "mi300x", 128, "refuses", None, None),
        ("trtllm", "b200-sxm", 96, "unknown", None, None),
        ("llama.cpp", "rtx-4090", 96, "serves", 96, "flash_attn_mma"),
        ("llama.cpp", "rtx-4090", 48, "serves", 48, "unfused"),
        ("llama.cpp", "m2-ultra", 192, "serves", 192, "flash_attn_metal"),
        ("transformers", "h100-sxm", 100, "pads", 104, "sdpa_flash"),
        ("transformers", "quadro-rtx-6000", 128, "serves", 128, "sdpa_math"),
        ("transformers", "m4-max", 24, "serves", 24, "sdpa_math"),
        ("vllm", "m4-max", 128, "unknown", None, None),
    ],
)
def test_a_head_shape_on_an_engine_and_a_card(
    name: str, card: str, head_dim: int, kind: str, padded: int | None, kernel: str | None
) -> None:
    answer = serves(name, device(card), head_dim, 40, 8)
    assert (answer.kind, answer.padded_head_dim, answer.kernel) == (kind, padded, kernel)


def test_the_head_ratio_counts_where_a_kernel_asks_for_it() -> None:
    # ggml_cuda_get_best_fattn_kernel returns none for 512 without the grouped path, which needs at least two query heads per KV head.
    card = device("rtx-4090")
    assert serves("llama.cpp", card, 512, 16, 8).kernel == "flash_attn_mma"
    assert serves("llama.cpp", card, 512, 8, 8).kernel == "unfused"


def test_heads_that_do_not_divide_are_refused() -> None:
    answer = serves("vllm", device("h100"), 128, 24, 7)
    assert (answer.kind, answer.reason, answer.basis) == ("refuses", "heads_not_divisible", "published")
    assert serves("vllm", device("h100"), 128, 24, 0).kind == "refuses"


def test_an_own_device_is_served_by_its_generation() -> None:
    assert serves("vllm", Device("mine", "Mine", {}, generation="ada"), 96, 8, 4).kernel == "flash_attn_2"
    assert serves("vllm", Device("mine", "Mine", {}), 96, 8, 4).kind == "unknown"


def test_this_machine_is_served_as_a_processor() -> None:
    assert serves(engine("vllm"), device("cpu"), 48, 8, 4).kind == "refuses"
    assert serves(engine("vllm"), device("cpu"), 64, 8, 4).kernel == "cpu_attn"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("vLLM", "vllm"), ("SGLang", "sglang"), ("TensorRT-LLM", "trtllm"), ("tensorrt llm", "trtllm"), ("trt", "trtllm"),
        ("llamacpp", "llama.cpp"), ("llama.cpp", "llama.cpp"), ("GGUF", "llama.cpp"),
        ("HF", "transformers"), ("Transformers", "transformers"), ("вллм", "vllm"),
    ],
)
def test_engines_by_name(text: str, name: str) -> None:
    assert engine(text).name == name


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no engine is called 'vlm'; nearest: vllm"):
        engine("vlm")
    with pytest.raises(UnknownNameError, match=r"nearest: llama\.cpp, sglang, transformers, trtllm, vllm"):
        engine("?")


def test_default_shares_of_the_card() -> None:
    card = device("h100").memory_bytes
    assert {n: engine(n).default_share(card) for n in ("vllm", "trtllm", "llama.cpp", "transformers")} == {
        "vllm": 0.9, "trtllm": 0.9, "llama.cpp": 1.0, "transformers": 1.0,
    }
    assert engine("trtllm").memory_share_of == "free_after_weights"
    assert [c.value for c in engine("vllm").conflicts["memory_share"]] == [0.92]


@pytest.mark.parametrize(("mib", "share"), [(24564, 0.847), (81920, 0.836)])
def test_sglang_takes_the_share_that_its_users_computed_by_hand(mib: int, share: float) -> None:
    # Worked examples for RTX 4090 and H100 in a Russian description of the rule: reserves of 3,760 and 13,440 MiB.
    assert engine("sglang").default_share(mib * 2**20) == share


def test_sglang_leaves_more_for_more_gpus() -> None:
    shares = [engine("sglang").default_share(80 * 2**30, tp=tp) for tp in (1, 2, 8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


def test_pages_of_the_cache() -> None:
    assert {n: engine(n).kv_block_tokens for n in engine_names()} == {
        "vllm": 16, "sglang": 1, "trtllm": 32, "llama.cpp": 256, "transformers": 1,
    }


def test_engine_data_is_sourced() -> None:
    data = read_data("engines.json")
    for entry in data["engines"].values():
        for row in (entry["memory_share"], entry["kv_block_tokens"], *(r for rows in entry["conflicts"].values() for r in rows)):
            assert row[1] in data["sources"]
            assert datetime.date.fromisoformat(row[2])
        for rule in entry["kernels"]:
            assert rule["source"] in data["sources"]
            assert rule["basis"] in BASES
            assert set(rule["generations"]) <= {device(n).generation for n in device_names()} | {"cpu"}

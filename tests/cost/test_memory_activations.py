"""Peak activations beside what torch really keeps alive in small models of many families, and what a training step saves."""

from __future__ import annotations

import pytest
import torch
from live_storage import prefill_peak, training_peak

from headcount.cost.activations import activation_bytes, attention_map_bytes
from headcount.cost.parameters import parameters
from headcount.cost.training import Lora, Training, lora_parameters, saved_activations
from headcount.errors import UnknownNameError
from headcount.shape import ModelShape

SIZES = dict(hidden_size=192, intermediate_size=520, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, vocab_size=331)
LLAMA = {"model_type": "llama", **SIZES, "head_dim": 40}
QWEN3 = {"model_type": "qwen3", **SIZES, "head_dim": 48, "intermediate_size": 672}
PHI3 = {"model_type": "phi3", **SIZES, "hidden_size": 240, "pad_token_id": 0, "intermediate_size": 610}
NEOX = {"model_type": "gpt_neox", **{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}, "intermediate_size": 900}
GPT2 = {"model_type": "gpt2", "n_embd": 192, "n_head": 6, "n_layer": 3, "n_inner": 700, "n_positions": 512, "vocab_size": 331}
OPT = {"model_type": "opt", **{k: v for k, v in SIZES.items() if k not in ("num_key_value_heads", "intermediate_size")}, "ffn_dim": 810,
       "word_embed_proj_dim": 192, "max_position_embeddings": 512}
MIXTRAL = {"model_type": "mixtral", **SIZES, "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 280}
GEMMA2 = {"model_type": "gemma2", **SIZES, "head_dim": 40, "sliding_window": 64}
OLMO2 = {"model_type": "olmo2", **SIZES, "intermediate_size": 1100}
WIDE_HEADS = {"model_type": "llama", **SIZES, "head_dim": 80, "intermediate_size": 130}
WIDE_NORMED = {"model_type": "qwen3", **SIZES, "num_attention_heads": 14, "head_dim": 48, "intermediate_size": 130}
BIG_VOCAB = {"model_type": "llama", **SIZES, "vocab_size": 3001}


def read(raw: dict) -> ModelShape:
    from live_storage import AutoConfig

    raw = dict(raw)
    return ModelShape.from_config(AutoConfig.for_model(raw.pop("model_type"), **raw).to_dict())


@pytest.mark.parametrize(
    ("raw", "attention", "batch", "logits", "dtype"),
    [
        (LLAMA, "sdpa", 1, "last", "bf16"),
        (LLAMA, "eager", 1, "last", "bf16"),
        (LLAMA, "eager", 2, "last", "f32"),
        (QWEN3, "sdpa", 2, "last", "bf16"),
        (QWEN3, "eager", 1, "last", "bf16"),
        (PHI3, "sdpa", 1, "last", "bf16"),
        (NEOX, "sdpa", 3, "last", "bf16"),
        (NEOX, "eager", 1, "last", "bf16"),
        (GPT2, "sdpa", 1, "last", "bf16"),
        (OPT, "sdpa", 1, "last", "bf16"),
        (MIXTRAL, "sdpa", 1, "last", "bf16"),
        (GEMMA2, "eager", 1, "last", "bf16"),
        (OLMO2, "sdpa", 1, "last", "bf16"),
        (WIDE_HEADS, "sdpa", 1, "last", "bf16"),
        (WIDE_NORMED, "sdpa", 1, "last", "bf16"),
        (BIG_VOCAB, "sdpa", 2, "all", "bf16"),
        (LLAMA, "sdpa", 1, "last", "f32"),
    ],
    ids=lambda v: v["model_type"] if isinstance(v, dict) else str(v),
)
def test_peak_of_prefill_is_within_five_percent(raw: dict, attention: str, batch: int, logits: str, dtype: str) -> None:
    tokens = 288
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[dtype]
    measured = prefill_peak(raw, tokens, batch, kind, attention, logits == "all")
    execution = {"sdpa": "fused"}.get(attention, attention)
    counted = activation_bytes(read(raw), "prefill", tokens, batch, execution=execution, dtype=dtype, logits=logits).total
    assert counted == pytest.approx(measured, rel=0.05)


def test_the_eager_map_grows_with_heads_and_the_square_and_the_fused_one_is_not_there() -> None:
    shape = read(LLAMA)
    eager = activation_bytes(shape, "prefill", 1000, execution="eager")
    assert eager["activations.attention_map"] == 6 * 1000 * 1000 * (2 + 4 + 4)
    longer = activation_bytes(shape, "prefill", 2000, execution="eager")
    assert longer["activations.attention_map"] == 4 * eager["activations.attention_map"]
    for execution in ("fused", "engine"):
        assert "activations.attention_map" not in activation_bytes(shape, "prefill", 1000, execution=execution)
    assert attention_map_bytes(shape, 1000, 2) == 2 * 6 * 1000 * 1000 * 2
    assert attention_map_bytes(shape, 1000, 2, kept=True) == 3 * attention_map_bytes(shape, 1000, 2)


def test_chunked_prefill_limits_the_peak() -> None:
    shape = ModelShape.from_preset("qwen3-32b")
    whole = activation_bytes(shape, "prefill", 131072, 8)
    chunk = activation_bytes(shape, "prefill", 131072, 8, max_batched_tokens=8192)
    assert chunk.total < whole.total / 100
    assert chunk["activations.ffn"] == activation_bytes(shape, "prefill", 8192, 1)["activations.ffn"]
    with pytest.raises(UnknownNameError, match="execution must be one of eager, fused, engine"):
        activation_bytes(shape, execution="magic")


@pytest.mark.parametrize(("attention", "checkpointing"), [("fused", False), ("eager", False), ("fused", True)])
@pytest.mark.parametrize("raw", [LLAMA, QWEN3, {**LLAMA, "vocab_size": 2501}], ids=["llama", "qwen3", "vocabulary"])
def test_what_a_training_step_saves_is_within_ten_percent(raw: dict, attention: str, checkpointing: bool) -> None:
    tokens = 288
    measured = training_peak(raw, tokens, {"fused": "sdpa"}.get(attention, attention), checkpointing)
    how = Training(attention=attention, checkpointing=checkpointing)
    counted = saved_activations(read(raw), tokens, tokens, how, 2).total
    assert counted == pytest.approx(measured, rel=0.10)


def test_lora_parameters_equal_those_of_adapters_on_the_real_modules() -> None:
    from oracles import build_text, load_config

    raw = dict(LLAMA)
    shape = read(raw)
    model = build_text(load_config(shape.config))
    for targets, names in (
        (("attention.q", "attention.v"), ("q_proj", "v_proj")),
        (("attention.", "ffn."), ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")),
    ):
        linears = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n.endswith(names)]
        expected = sum(8 * (m.in_features + m.out_features) for m in linears)
        assert lora_parameters(shape, Lora(rank=8, targets=targets)) == expected
    assert lora_parameters(shape, Lora(rank=8)) < parameters(shape).total / 10

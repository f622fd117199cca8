"""Hybrids, state-space models and Gemma 3n/4 against what transformers builds and caches, one field changed at a time.

Every case builds the small model on the meta device: the count must follow exactly, or the file must be refused. All sizes of a base
differ, n_heads x head_dim is never d_model, and 1 < n_kv_heads < n_heads where the family has groups.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from oracles import build_text, cache_bytes, distinct_parameters, load_config, torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from headcount.cost.flops import flops
from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.cost.traffic import bytes_moved
from headcount.errors import HeadcountError
from headcount.shape.config import read_config
from headcount.shape.fields import NEUTRAL, Fields

_COMMON = dict(hidden_size=40, num_attention_heads=6, num_key_value_heads=2, head_dim=12, vocab_size=90, intermediate_size=72)
_DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=6, linear_value_head_dim=10, linear_conv_kernel_dim=3)
_MOE = dict(num_experts=7, num_experts_per_tok=3, moe_intermediate_size=24)
_MAMBA2 = dict(mamba_n_heads=5, mamba_d_head=16, mamba_n_groups=5, mamba_d_state=11, mamba_d_conv=3, mamba_expand=2)
_MAMBA1 = dict(mamba_d_state=11, mamba_d_conv=3, mamba_expand=3, mamba_dt_rank=9)
_PURE1 = dict(hidden_size=40, vocab_size=90, num_hidden_layers=3, state_size=11, expand=3, conv_kernel=3, time_step_rank=9)
_TWO_KINDS = ["sliding_attention", "full_attention"]
_PER_LAYER = dict(hidden_size_per_layer_input=14, vocab_size_per_layer_input=70, sliding_window=9)

BASES: dict[str, dict[str, Any]] = {
    "qwen3_next": _COMMON | _DELTA | _MOE | dict(num_hidden_layers=5, shared_expert_intermediate_size=32, mlp_only_layers=[1]),
    "qwen3_5_text": _COMMON | _DELTA | dict(num_hidden_layers=5),
    "qwen3_5_moe_text": _COMMON | _DELTA | _MOE | dict(num_hidden_layers=5, shared_expert_intermediate_size=32),
    "olmo_hybrid": _COMMON | _DELTA | dict(num_hidden_layers=5, pad_token_id=None),
    "kimi_linear": dict(
        hidden_size=40, vocab_size=90, intermediate_size=72, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=6,
        kv_lora_rank=14, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=10, linear_head_dim=12, linear_num_heads=3,
        linear_conv_kernel_dim=3, moe_intermediate_size=24, num_experts=8, num_experts_per_token=3, num_shared_experts=2,
        first_k_dense_replace=2, pad_token_id=None,
    ),
    "nemotron_h": _COMMON | dict(
        hybrid_override_pattern="M-M*EM", mamba_num_heads=5, mamba_head_dim=16, n_groups=5, ssm_state_size=11, conv_kernel=3,
        n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, moe_shared_expert_intermediate_size=32, moe_latent_size=16,
    ),
    "jamba": _COMMON | _MAMBA1 | dict(
        num_hidden_layers=6, attn_layer_period=3, attn_layer_offset=1, num_experts=7, num_experts_per_tok=3, expert_layer_period=3,
        expert_layer_offset=0,
    ),
    "bamba": _COMMON | _MAMBA2 | dict(num_hidden_layers=4, attn_layer_indices=[1, 3]),
    "granitemoehybrid": _COMMON | _MAMBA2 | dict(
        num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"], num_local_experts=7,
        num_experts_per_tok=3, shared_intermediate_size=26,
    ),
    "falcon_h1": _COMMON | _MAMBA2 | dict(num_hidden_layers=3, mamba_d_ssm=80),
    "lfm2": _COMMON | dict(num_hidden_layers=4, full_attn_idxs=[1, 3], conv_L_cache=4, block_multiple_of=8, block_ffn_dim_multiplier=1.3),
    "lfm2_moe": _COMMON | _MOE | dict(num_hidden_layers=4, layer_types=["conv", "full_attention", "conv", "conv"], conv_L_cache=4),
    "mamba": _PURE1,
    "falcon_mamba": _PURE1,
    "mamba2": dict(
        hidden_size=40, vocab_size=90, num_hidden_layers=3, state_size=11, expand=2, conv_kernel=3, num_heads=5, head_dim=16, n_groups=5,
    ),
    "zamba": _MAMBA1 | dict(
        hidden_size=40, vocab_size=90, num_hidden_layers=9, intermediate_size=72, num_attention_heads=6, attention_head_dim=12,
        num_key_value_heads=2, n_mamba_heads=4, attn_layer_period=3, attn_layer_offset=1,
    ),
    "zamba2": dict(
        hidden_size=40, vocab_size=90, num_hidden_layers=7, intermediate_size=72, num_attention_heads=8, num_key_value_heads=8,
        n_mamba_heads=5, mamba_ngroups=5, mamba_d_state=11, mamba_d_conv=3, num_mem_blocks=2, adapter_rank=7,
        use_shared_attention_adapter=True,
        layers_block_type=["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid", "hybrid", "hybrid"],
    ),
    "recurrent_gemma": _COMMON | dict(num_hidden_layers=5, lru_width=48, conv1d_width=3, attention_window_size=9),
    "gemma4_text": _COMMON | _PER_LAYER | dict(
        num_hidden_layers=7, num_experts=7, moe_intermediate_size=24, global_head_dim=20, num_global_key_value_heads=3,
        attention_k_eq_v=True, num_kv_shared_layers=1,
        layer_types=[*_TWO_KINDS, *_TWO_KINDS, *_TWO_KINDS, "full_attention"], enable_moe_block=True, top_k_experts=3,
    ),
    "gemma3n_text": _COMMON | _PER_LAYER | dict(
        hidden_size=42, num_hidden_layers=6, num_kv_shared_layers=2, laurel_rank=5, altup_num_inputs=3, layer_types=_TWO_KINDS * 3,
    ),
}

_OTHER = {"num_key_value_heads": 3, "attn_layer_offset": 2, "expert_layer_offset": 2}
"""Fields whose doubled value would be illegal."""
_FILLED_HEADS = {"mamba_d_head", "mamba_expand", "mamba_n_heads", "hidden_size"}
REFUSED: dict[str, set[str]] = {
    "nemotron_h": {"attention_bias", "mamba_proj_bias", "n_shared_experts", "sliding_window", "tie_word_embeddings"},
    "kimi_linear": {"tie_word_embeddings"},
    "bamba": _FILLED_HEADS, "granitemoehybrid": _FILLED_HEADS | {"num_hidden_layers"},
    "falcon_h1": {"mamba_d_head", "mamba_d_ssm", "mamba_n_heads"},
    "mamba2": {"expand", "head_dim", "hidden_size", "num_heads"},
    "lfm2_moe": {"num_hidden_layers"}, "gemma4_text": {"num_hidden_layers"}, "gemma3n_text": {"num_hidden_layers"},
    "zamba": {"tie_word_embeddings"},
    "zamba2": {"tie_word_embeddings", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "use_conv_bias"},
}
"""Changes that leave a file which contradicts itself, or which says what no model is built from. The variants change them together."""
NOT_JUDGED = {("gemma3n_text", "num_attention_heads")}
"""Refused by transformers' config class although the modules could be built; nothing to compare with."""

_PATTERN = dict(linear_attn_config=dict(
    kda_layers=[1, 3, 4, 6], full_attn_layers=[2, 5], head_dim=10, num_heads=4, short_conv_kernel_size=5,
))
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("qwen3_next", dict(full_attention_interval=2)), ("qwen3_next", dict(num_experts=0, num_experts_per_tok=0)),
    ("qwen3_next", dict(layer_types=["full_attention", "linear_attention", "attention", "linear_attention", "linear_attention"])),
    ("qwen3_5_text", dict(attention_bias=True, num_key_value_heads=6)), ("qwen3_5_moe_text", dict(full_attention_interval=3)),
    ("olmo_hybrid", {k: None for k in _DELTA if "kernel" not in k} | dict(num_hidden_layers=3)),
    ("olmo_hybrid", dict(linear_value_head_dim=None, num_key_value_heads=None)),
    ("kimi_linear", _PATTERN), ("kimi_linear", dict(q_lora_rank=9, attention_bias=True)),
    ("kimi_linear", dict(mlp_layer_types=["sparse", "dense", "sparse", "sparse", "dense", "dense"])),
    ("kimi_linear", dict(_PATTERN, layer_types=["full_attention"] + ["linear_attention"] * 5, num_shared_experts=3)),
    ("nemotron_h", dict(layers_block_type=["mamba", "moe", "attention", "mlp"])),
    ("nemotron_h", dict(mlp_bias=True, moe_latent_size=None)), ("nemotron_h", dict(mlp_bias=True, use_bias=True)),
    ("nemotron_h", dict(mamba_n_groups=8, mamba_d_conv=5, mamba_conv_bias=False)),
    ("jamba", dict(mamba_dt_rank="auto", num_experts=1, num_experts_per_tok=1)),
    ("jamba", dict(mamba_proj_bias=True, mamba_conv_bias=False)),
    ("bamba", dict(hidden_size=48, mamba_n_heads=8, mamba_d_head="auto", mamba_n_groups=4)),
    ("bamba", dict(attn_layer_indices=None)),
    ("granitemoehybrid", dict(num_local_experts=0, num_experts_per_tok=0, mamba_proj_bias=True)),
    ("granitemoehybrid", dict(layer_types=None, hidden_size=48, mamba_n_heads=8, mamba_d_head="auto", mamba_n_groups=4)),
    ("falcon_h1", dict(mamba_d_ssm=None, mamba_n_heads=10, mamba_d_head=8)),
    ("falcon_h1", dict(mamba_rms_norm=True, projectors_bias=True)),
    ("lfm2", dict(block_auto_adjust_ff_dim=False)), ("lfm2", dict(block_multiple_of=1)),
    ("lfm2", dict(block_ff_dim=100, tie_embedding=False)),
    ("lfm2", dict(layer_types=["conv", "conv", "full_attention", "conv"], conv_bias=True)),
    ("lfm2", dict(block_dim=40, conv_dim=40, conv_dim_out=40, num_heads=6, block_use_swiglu=True, full_attn_idxs=None)),
    ("lfm2_moe", dict(num_dense_layers=0, tie_embedding=False, use_expert_bias=False)),
    ("mamba", dict(time_step_rank="auto", intermediate_size=100)), ("falcon_mamba", dict(time_step_rank="auto", use_bias=True)),
    ("mamba2", dict(hidden_size=48, num_heads=8, head_dim=12, n_groups=4, use_bias=True)),
    ("zamba", dict(attention_head_dim=None, num_attention_heads=8, num_key_value_heads=4, mamba_dt_rank="auto")),
    ("zamba", dict(layers_block_type=["hybrid"] + ["mamba"] * 7 + ["hybrid"], attention_hidden_size=80)),
    ("zamba2", dict(use_shared_attention_adapter=False, num_key_value_heads=4, num_mem_blocks=3, intermediate_size=None)),
    ("zamba2", dict(layers_block_type=["hybrid"] + ["mamba"] * 6, add_bias_linear=True)),
    ("recurrent_gemma", dict(lru_width=None, num_attention_heads=5, num_key_value_heads=None, head_dim=8)),
    ("recurrent_gemma", dict(block_types=["attention", "recurrent"], attention_bias=True)),
    ("gemma4_text", dict(per_layer_config={k: {"head_dim": 28, "num_key_value_heads": 6} for k in ("1", "03", "05", "6")})),
    ("gemma4_text", dict(attention_k_eq_v=False, num_global_key_value_heads=3)), ("gemma4_text", dict(hidden_size_per_layer_input=0)),
    ("gemma4_text", dict(use_double_wide_mlp=True, num_kv_shared_layers=3)), ("gemma4_text", dict(layer_types=None)),
    ("gemma4_text", dict(layer_types=["full_attention"] + ["sliding_attention"] * 6, num_kv_shared_layers=0)),
    ("gemma4_text", dict(enable_moe_block=False, num_experts=None, top_k_experts=None, moe_intermediate_size=None)),
    ("gemma3n_text", dict(intermediate_size=[50, 52, 54, 56, 58, 60])), ("gemma3n_text", dict(layer_types=None, num_kv_shared_layers=0)),
]


def truth(model_type: str, values: dict[str, Any]) -> int:
    return distinct_parameters(build_text(load_config({"model_type": model_type} | values)))


def counted(model_type: str, values: dict[str, Any]) -> int:
    return int(parameters(read_config({"model_type": model_type} | values)).text_only)


def single_changes(model_type: str) -> list[tuple[str, Any]]:
    """Every number and switch that the class declares or the base sets, except those that are neutral in every family."""
    base = BASES[model_type]
    values = {k: base.get(k, v) for k, v in Fields({}, model_type).defaults.items()} | base
    numbers = {k: v for k, v in values.items() if isinstance(v, (bool, int, float))}
    changed = {k: not v if isinstance(v, bool) else _OTHER.get(k, 2 * v or type(v)(1)) for k, v in numbers.items()}
    changed |= {k: 2 for k in ("sliding_window", "moe_latent_size", "q_lora_rank") if k in values and values[k] is None}
    return [(k, v) for k, v in changed.items() if k not in NEUTRAL and (model_type, k) not in NOT_JUDGED]


SINGLE = [(t, k, v) for t in BASES for k, v in single_changes(t)]


@pytest.mark.parametrize(("model_type", "name", "value"), SINGLE, ids=[f"{t}-{k}" for t, k, _ in SINGLE])
def test_every_field_alone_is_followed_or_refused(model_type: str, name: str, value: Any) -> None:
    values = BASES[model_type] | {name: value}
    if name in REFUSED.get(model_type, ()):
        with pytest.raises(HeadcountError, match="must be|must divide"):
            counted(model_type, values)
    else:
        assert counted(model_type, values) == truth(model_type, values)


@pytest.mark.parametrize(("model_type", "changes"), VARIANTS, ids=[f"{t}-{'-'.join(c)}" for t, c in VARIANTS])
def test_fields_that_belong_together_are_followed(model_type: str, changes: dict[str, Any]) -> None:
    values = BASES[model_type] | changes
    assert counted(model_type, values) == truth(model_type, values)


@pytest.mark.parametrize("model_type", BASES)
@pytest.mark.parametrize("tokens", [5, 23])
def test_cache_bytes_equal_the_filled_cache(model_type: str, tokens: int) -> None:
    raw = {"model_type": model_type} | BASES[model_type]
    config = load_config(raw)
    held = kv_cache_bytes(read_config(raw), tokens, runtime="transformers").total
    assert held == cache_bytes(build_text(config), config, tokens)


@pytest.mark.parametrize("changes", [_PATTERN, dict(q_lora_rank=9)], ids=["pattern", "q_lora_rank"])
def test_kimi_cache_follows_its_nested_config(changes: dict[str, Any]) -> None:
    raw = {"model_type": "kimi_linear"} | BASES["kimi_linear"] | changes
    config = load_config(raw)
    assert kv_cache_bytes(read_config(raw), 23, runtime="transformers").total == cache_bytes(build_text(config), config, 23)


def test_short_convolutions_keep_one_column_less_outside_transformers() -> None:
    shape = read_config({"model_type": "lfm2"} | BASES["lfm2"])
    kept = [kv_cache_bytes(shape, 23, runtime=runtime).terms["state.convolution"] for runtime in ("logical", "vllm", "transformers")]
    assert kept == [2 * 40 * 3 * 2, 2 * 40 * 3 * 2, 2 * 40 * 4 * 2]


@pytest.mark.parametrize("model_type", ["zamba", "falcon_h1", "qwen3_5_text", "lfm2"])
def test_projections_multiply_as_often_as_they_run(model_type: str) -> None:
    """Zamba's block is stored once and run three times. Torch counts the projections under mm; mixing is counted otherwise."""
    raw = {"model_type": model_type} | BASES[model_type]
    model = AutoModelForCausalLM.from_config(load_config(raw), attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros((1, 23), dtype=torch.long), use_cache=False)
    counts = {operator.__name__.partition(".")[0]: n for operator, n in counter.get_flop_counts()["Global"].items()}
    # Zamba multiplies its two per-head projections as batches.
    mixing = re.compile(r"\.(pairs|state|conv)$" + ("|^ssm.(x|dt)$" if model_type == "zamba" else ""))
    terms = flops(read_config(raw), phase="prefill", context=23, logits="all").terms
    assert sum(n for name, n in terms.items() if not mixing.search(name)) == counts["mm"]


CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    ("qwen3_5_text", dict(mamba_ssm_dtype="bfloat16"), "mamba_ssm_dtype"),
    ("qwen3_5_text", dict(attn_output_gate=False), "attn_output_gate"),
    ("qwen3_5_text", dict(mlp_only_layers=[1]), "mlp_only_layers"), ("qwen3_next", dict(layer_types=["conv"] * 5), "layer_types"),
    ("nemotron_h", dict(hybrid_override_pattern="M-X"), "hybrid_override_pattern"),
    ("nemotron_h", dict(moe_latent_size=0), "moe_latent_size"),
    ("nemotron_h", dict(num_hidden_layers=9), "num_hidden_layers"), ("nemotron_h", dict(attention_head_dim=99), "attention_head_dim"),
    ("nemotron_h", dict(mamba_ssm_cache_dtype="bfloat16"), "mamba_ssm_cache_dtype"),
    ("kimi_linear", dict(linear_attn_config=dict(kda_layers=[1, 2], full_attn_layers=[2, 3])), "linear_attn_config"),
    ("olmo_hybrid", dict(layer_types=["full_attention"] * 5), "layer_types"), ("jamba", dict(attn_layer_offset=7), "attn_layer_offset"),
    ("lfm2", dict(conv_dim=41), "conv_dim"), ("lfm2", dict(block_ffn_dim_multiplier=float("inf")), "block_ffn_dim_multiplier"),
    ("lfm2_moe", dict(layer_types=None), "layer_types"), ("mamba", dict(rms_norm=False), "rms_norm"), ("mamba", dict(d_inner=7), "d_inner"),
    ("zamba", dict(n_mamba_heads=7), "n_mamba_heads"), ("zamba2", dict(hybrid_layer_ids=[1]), "hybrid_layer_ids"),
    ("recurrent_gemma", dict(lru_width=47), "lru_width"), ("recurrent_gemma", dict(block_types=["conv"]), "block_types"),
    ("gemma4_text", dict(use_bidirectional_attention="all"), "use_bidirectional_attention"),
    ("gemma4_text", dict(num_kv_shared_layers=6), "num_kv_shared_layers"),
    ("gemma4_text", dict(per_layer_config={"1": {"hidden_size": 2}}), "per_layer_config"),
    ("gemma4_text", dict(per_layer_config={"70": {"head_dim": 2}}), "per_layer_config"),
    ("gemma3n_text", dict(intermediate_size=[1, 2]), "intermediate_size"), ("gemma3n_text", dict(mystery=3), "mystery"),
]


@pytest.mark.parametrize(("model_type", "changes", "named"), CONTRADICTIONS, ids=[f"{t}-{n}" for t, _, n in CONTRADICTIONS])
def test_what_is_not_understood_is_refused_by_name(model_type: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(HeadcountError, match=named):
        counted(model_type, BASES[model_type] | changes)


@pytest.mark.parametrize(("model_type", "name"), [
    ("qwen3_5_text", "mtp_num_hidden_layers"), ("nemotron_h", "num_nextn_predict_layers"), ("kimi_linear", "num_nextn_predict_layers"),
])
def test_prediction_layers_of_the_checkpoint_are_unknown_not_zero(model_type: str, name: str) -> None:
    base = {"model_type": model_type} | BASES[model_type]
    assert parameters(read_config(base)).mtp == 0
    assert parameters(read_config(base | {name: 1})).mtp is None


def test_heads_under_adapters_do_not_change_alone() -> None:
    shape = read_config({"model_type": "zamba2"} | BASES["zamba2"])
    with pytest.raises(HeadcountError, match="adapters depend on them"):
        shape.with_heads(n_heads=4)


def test_per_layer_embeddings_are_embeddings_and_read_by_row() -> None:
    shape = read_config({"model_type": "gemma3n_text"} | BASES["gemma3n_text"])
    counts, moved = parameters(shape), bytes_moved(shape, phase="decode", context=23)
    assert counts.terms["embedding.per_layer"] == 70 * 6 * 14
    assert counts.embedding == 90 * 42 + 70 * 6 * 14
    assert moved["weights.embedding.rows"] == 2 * (42 + 6 * 14)
    assert "weights.embedding.per_layer" not in moved

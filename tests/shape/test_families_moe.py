"""Mixtures of experts against the modules that transformers builds on the meta device, one field changed at a time.

Every size of the base config is different from every other, n_heads x head_dim is not the width, and there are fewer KV heads than
heads. The caches are those that a real forward pass fills on the CPU.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from oracles import build_text, distinct_parameters, load_config, torch
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.step3p7.modeling_step3p7 import Step3p7TextModel

from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.errors import ConfigError, ShapeError
from headcount.shape import ModelShape
from headcount.shape.families import FAMILIES
from headcount.shape.families.moe import RECIPES

N_LAYERS, N_EXPERTS, WINDOW, CONTEXT = 7, 5, 4, 9
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
MIXED = [FULL, SLIDING, SLIDING, FULL, FULL, SLIDING, FULL]
SPARSITY = ["sparse", "dense", "sparse", "dense", "dense", "sparse", "sparse"]

_SIZES = dict(
    hidden_size=44, num_hidden_layers=N_LAYERS, num_attention_heads=6, num_key_value_heads=2, head_dim=12, vocab_size=97,
    intermediate_size=31, num_experts_per_tok=2,
)
_WIDE = {**_SIZES, "hidden_size": 72}
del _WIDE["head_dim"]
_LOCAL = _SIZES | dict(num_local_experts=N_EXPERTS)
_OWN_WIDTH = dict(moe_intermediate_size=19)
_QWEN = _SIZES | _OWN_WIDTH | dict(num_experts=N_EXPERTS)
_DEEPSEEK = _SIZES | _OWN_WIDTH | dict(n_routed_experts=N_EXPERTS, n_shared_experts=2)
_SHARED = _QWEN | dict(num_shared_experts=2)

BASES: dict[str, dict[str, Any]] = {
    "mixtral": _LOCAL,
    "qwen3_moe": _QWEN,
    "qwen3_vl_text": {k: v for k, v in _SIZES.items() if k != "num_experts_per_tok"},
    "qwen3_vl_moe_text": _QWEN,
    "qwen2_moe": _QWEN | dict(shared_expert_intermediate_size=23, sliding_window=WINDOW),
    "gpt_oss": _LOCAL | dict(sliding_window=WINDOW),
    "minimax_m2": _LOCAL,
    "olmoe": _WIDE | dict(num_experts=N_EXPERTS),
    "flex_olmo": _SIZES | dict(num_experts=N_EXPERTS),
    "phimoe": _LOCAL,
    "granitemoe": _LOCAL,
    "granitemoeshared": _LOCAL | dict(shared_intermediate_size=23),
    "granitemoe_swa": _LOCAL | dict(shared_intermediate_size=23, sliding_window=WINDOW),
    "ernie4_5_moe": {k: v for k, v in _SIZES.items() if k != "num_experts_per_tok"} | _OWN_WIDTH | dict(moe_num_experts=N_EXPERTS, moe_k=2),
    "glm4_moe": _DEEPSEEK,
    "solar_open": {k: v for k, v in _DEEPSEEK.items() if k != "intermediate_size"},
    "hy_v3": _SHARED,
    "exaone_moe": _SHARED | dict(sliding_window=WINDOW),
    "afmoe": _SHARED | dict(sliding_window=WINDOW),
    "aria_text": {k: v for k, v in _SIZES.items() if k != "num_experts_per_tok"}
    | dict(hidden_size=48, moe_num_experts=N_EXPERTS, moe_topk=2, moe_num_shared_experts=3),
    "cohere2_moe": _SIZES | dict(num_experts=N_EXPERTS, num_shared_experts=2, sliding_window=WINDOW),
    "dots1": _DEEPSEEK | dict(sliding_window=WINDOW),
    "mellum": _QWEN | dict(sliding_window=WINDOW),
    "llama4_text": _LOCAL | dict(intermediate_size_mlp=53, attention_chunk_size=WINDOW),
    "mimo_v2_flash": _SIZES | _OWN_WIDTH | dict(n_routed_experts=N_EXPERTS, v_head_dim=10, sliding_window=WINDOW, num_attention_heads=8),
    "step3p5": _SIZES | _OWN_WIDTH | dict(n_routed_experts=N_EXPERTS, share_expert_dim=23),
    "laguna": _QWEN | dict(shared_expert_intermediate_size=23, sliding_window=WINDOW),
    "minimax": _LOCAL,
    "hunyuan_v1_moe": {k: v for k, v in _SIZES.items() if k != "num_experts_per_tok"} | dict(num_experts=N_EXPERTS, moe_topk=2),
    "jetmoe": dict(
        hidden_size=44, num_hidden_layers=N_LAYERS, num_key_value_heads=3, kv_channels=12, vocab_size=97, intermediate_size=31,
        num_local_experts=N_EXPERTS, num_experts_per_tok=2,
    ),
}

_COMMON: list[dict[str, Any]] = [
    {}, {"num_hidden_layers": 3}, {"num_attention_heads": 12}, {"num_key_value_heads": 1}, {"num_key_value_heads": 6}, {"head_dim": 16},
    {"hidden_size": 60}, {"vocab_size": 101}, {"intermediate_size": 37}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False},
]
_BIAS = [{"attention_bias": True}, {"attention_bias": False}]
_EXPERTS = [{"moe_intermediate_size": 21}, {"num_experts": 3}, {"num_experts_per_tok": 3}]
_STEPS = [
    {"decoder_sparse_step": 2}, {"decoder_sparse_step": 3}, {"decoder_sparse_step": 99}, {"mlp_only_layers": [0, 3]},
    {"mlp_only_layers": list(range(N_LAYERS))}, {"mlp_only_layers": None}, {"decoder_sparse_step": 2, "mlp_only_layers": [1, 2]},
]
_FIRST = [{"first_k_dense_replace": n} for n in (0, 2, N_LAYERS)]
_KINDS = [{"layer_types": MIXED}, {"layer_types": [FULL] * N_LAYERS}, {"layer_types": MIXED, "sliding_window": 3}]
_SPARSITY = [{"mlp_layer_types": SPARSITY}, {"mlp_layer_types": ["dense"] * N_LAYERS}, {"mlp_layer_types": ["sparse"] * N_LAYERS}]
_DEEPSEEK_CHANGES = [{"n_shared_experts": 1}, {"n_routed_experts": 3}, {"moe_intermediate_size": 21}, *_BIAS]

CHANGES: dict[str, list[dict[str, Any]]] = {
    "mixtral": [{"num_local_experts": 3}, {"num_experts": N_EXPERTS}, {"sliding_window": WINDOW}],
    "qwen3_moe": [*_BIAS, *_EXPERTS, *_STEPS, {"sliding_window": WINDOW, "use_sliding_window": True}, {"sliding_window": WINDOW}],
    "qwen3_vl_text": _BIAS,
    "qwen3_vl_moe_text": [*_BIAS, *_EXPERTS, *_STEPS],
    "qwen2_moe": [
        *_EXPERTS, *_STEPS, {"qkv_bias": False}, {"shared_expert_intermediate_size": 29}, {"use_sliding_window": True},
        {"use_sliding_window": True, "max_window_layers": 3}, {"use_sliding_window": True, "layer_types": MIXED},
        {"layer_types": [FULL] * N_LAYERS},
    ],
    "gpt_oss": [
        *_BIAS, *_KINDS, {"num_local_experts": 3}, {"sliding_window": 3}, {"sliding_window": None, "layer_types": [FULL] * N_LAYERS},
    ],
    "minimax_m2": [{"num_local_experts": 3}, {"num_experts_per_tok": 1}, {"attn_type_list": [1] * N_LAYERS}],
    "olmoe": [*_BIAS, {"num_experts": 3}, {"num_local_experts": N_EXPERTS}, {"hidden_size": 84, "num_attention_heads": 14}],
    "flex_olmo": [*_BIAS, {"num_experts": 3}, {"num_key_value_heads": None}],
    "phimoe": [*_BIAS, {"lm_head_bias": True}, {"lm_head_bias": True, "tie_word_embeddings": True}, {"sliding_window": WINDOW}],
    "granitemoe": [*_BIAS, {"num_local_experts": 3}],
    "granitemoeshared": [*_BIAS, {"num_local_experts": 3}, {"shared_intermediate_size": 0}, {"shared_intermediate_size": 29}],
    "granitemoe_swa": [*_BIAS, *_KINDS, {"shared_intermediate_size": 0}, {"shared_intermediate_size": 29}, {"sliding_window": 3}],
    "ernie4_5_moe": [
        {"use_bias": True}, {"use_bias": True, "moe_num_shared_experts": 0}, {"moe_num_shared_experts": 0}, {"moe_num_shared_experts": 3},
        {"moe_layer_start_index": 3}, {"moe_layer_end_index": 4}, {"moe_layer_interval": 2}, {"moe_intermediate_size": 21},
        {"moe_layer_start_index": 1, "moe_layer_end_index": 5, "moe_layer_interval": 3}, {"moe_num_experts": 3}, {"moe_k": 1},
        {"use_bias": True, "tie_word_embeddings": True},
    ],
    "glm4_moe": [*_DEEPSEEK_CHANGES, *_FIRST, {"use_qk_norm": True}, {"num_nextn_predict_layers": 2}],
    "solar_open": _DEEPSEEK_CHANGES,
    "hy_v3": [*_BIAS, *_EXPERTS, *_SPARSITY, {"mlp_bias": True}, {"num_shared_experts": 1}],
    "exaone_moe": [
        *_EXPERTS, *_FIRST, *_KINDS, *_SPARSITY, {"num_shared_experts": 1}, {"sliding_window_pattern": 3}, {"sliding_window": 3},
        {"sliding_window_pattern": "LLLG", "layer_types": MIXED}, {"is_moe_layer": [False] + [True] * 6, "first_last_k_dense_replace": 1},
    ],
    "afmoe": [
        *_BIAS, *_EXPERTS, *_KINDS, {"num_dense_layers": 0}, {"num_dense_layers": 3}, {"num_shared_experts": 1}, {"num_shared_experts": 0},
        {"global_attn_every_n_layers": 3},
    ],
    "aria_text": [*_BIAS, {"mlp_bias": True}, {"moe_num_experts": 3}, {"moe_num_shared_experts": 1}, {"moe_topk": 1}],
    "cohere2_moe": [
        *_BIAS, *_KINDS, *_SPARSITY, *_FIRST, {"num_experts": 3}, {"num_shared_experts": 0}, {"prefix_dense_intermediate_size": 53},
        {"prefix_dense_intermediate_size": 53, "first_k_dense_replace": 2}, {"sliding_window_pattern": 2},
        {"first_k_dense_replace": 3, "prefix_dense_sliding_window_pattern": 2},
    ],
    "dots1": [*_DEEPSEEK_CHANGES, *_FIRST, *_KINDS, {"max_window_layers": 3}, {"max_window_layers": 3, "sliding_window": None}],
    "mellum": [*_BIAS, *_EXPERTS, *_KINDS, *_SPARSITY, {"num_nextn_predict_layers": 1}],
    "llama4_text": [
        *_BIAS, {"num_local_experts": 3}, {"intermediate_size_mlp": 59, "interleave_moe_layer_step": 2}, {"interleave_moe_layer_step": 3},
        {"moe_layers": [0, 3]}, {"moe_layers": []}, {"use_qk_norm": False}, {"attention_chunk_size": 3}, {"no_rope_layer_interval": 2},
        {"no_rope_layers": [1, 0, 0, 1, 1, 0, 1]}, {"no_rope_layers": []},
        {"layer_types": [CHUNKED, FULL, FULL, CHUNKED, FULL, FULL, FULL]},
        {"attention_chunk_size": None, "layer_types": [FULL] * N_LAYERS},
    ],
    "mimo_v2_flash": [
        *_BIAS, *_KINDS, *_SPARSITY, {"n_routed_experts": 3}, {"v_head_dim": 6}, {"sliding_window": 3}, {"sliding_window_size": 5},
        {"moe_intermediate_size": 21}, {"num_key_value_heads": 4},
    ],
    "step3p5": [
        *_BIAS, *_KINDS[1:], *_SPARSITY, {"mlp_bias": True}, {"n_routed_experts": 3}, {"share_expert_dim": 29}, {"moe_layers_enum": "2,4"},
        {"moe_layers_enum": [0, 6]}, {"num_sliding_attention_heads": 12}, {"sliding_window": WINDOW, "layer_types": MIXED},
        {"num_sliding_attention_heads": 12, "layer_types": MIXED, "sliding_window": WINDOW}, {"num_attention_groups": 2},
        {"moe_num_experts": N_EXPERTS, "moe_top_k": 2, "share_expert_dims": 23, "num_experts": N_EXPERTS},
        {"attention_other_setting": {"num_attention_heads": 12}, "layer_types": MIXED, "sliding_window": WINDOW},
        {"num_nextn_predict_layers": 2, "layer_types": [*MIXED, FULL, FULL], "mlp_layer_types": [*SPARSITY, "sparse", "sparse"],
         "sliding_window": WINDOW},
        {"gating": "per-element"},
    ],
    "laguna": [
        *_BIAS, *_EXPERTS, *_KINDS, *_SPARSITY, {"gating": "per-element"}, {"gating": "per-head"}, {"shared_expert_intermediate_size": 29},
        {"num_attention_heads_per_layer": [6, 12, 12, 6, 6, 18, 6]},
    ],
    "minimax": [
        {"num_local_experts": 3}, {"layer_types": ["linear_attention"] * N_LAYERS}, {"layer_types": [FULL] * N_LAYERS},
        {"layer_types": ["linear_attention", FULL, FULL, FULL, "linear_attention", FULL, FULL]},
    ],
    "hunyuan_v1_moe": [*_BIAS, {"num_experts": 3}, {"moe_topk": [2, 1, 2, 1, 2, 1, 2]}],
    "jetmoe": [{"kv_channels": 10}, {"num_local_experts": 3}, {"num_experts_per_tok": 3}],
}

# Fields of the common list that mean nothing in a family, or that its class cannot vary alone.
_NOT_COMMON: dict[str, set[str]] = {
    "olmoe": {"head_dim", "hidden_size", "num_attention_heads"}, "aria_text": {"hidden_size"},
    "solar_open": {"intermediate_size"}, "mimo_v2_flash": {"num_key_value_heads"}, "jetmoe": {"num_attention_heads", "head_dim"},
}


# Zero shared experts are matrices of no elements, which torch remarks upon when it would fill them.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


def cases() -> Iterator[Any]:
    """Each family with each change of a field that it has."""
    for model_type in BASES:
        for change in [*_COMMON, *CHANGES[model_type]]:
            if not set(change) & _NOT_COMMON.get(model_type, set()) or change in CHANGES[model_type]:
                yield pytest.param(model_type, change, id=f"{model_type}-{'-'.join(f'{k}={v}' for k, v in change.items()) or 'base'}"[:90])


def raw_config(model_type: str, change: dict[str, Any]) -> dict[str, Any]:
    """The small base of a family with some fields changed; a shorter model needs no lists of its own."""
    return {"model_type": model_type, "pad_token_id": 0, **copy.deepcopy(BASES[model_type]), **change}


@contextlib.contextmanager
def bfloat16() -> Iterator[None]:
    """Text models that no auto class builds have no dtype argument."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def truth(model_type: str, raw: dict[str, Any]) -> tuple[int, torch.nn.Module]:
    """Parameters of the causal language model, and the module itself (its body where no class adds a head)."""
    config = load_config(raw)
    if model_type not in ("step3p5", "qwen3_vl_text", "qwen3_vl_moe_text"):
        model = build_text(config)
        return distinct_parameters(model), model
    with torch.device("meta"), bfloat16():
        body = Step3p7TextModel(config) if model_type == "step3p5" else AutoModel.from_config(config)
    tied = raw.get("tie_word_embeddings", getattr(config, "tie_word_embeddings", False))
    return distinct_parameters(body) + (0 if tied else body.get_input_embeddings().weight.numel()), body


@pytest.mark.parametrize(("model_type", "change"), cases())
def test_parameters_follow_every_field(model_type: str, change: dict[str, Any]) -> None:
    raw = raw_config(model_type, change)
    built, _ = truth(model_type, raw)
    assert parameters(ModelShape.from_config(raw)).text_only == built


def test_every_registered_mixture_is_compared() -> None:
    assert set(BASES) >= set(RECIPES)
    assert set(BASES) <= set(FAMILIES)


@pytest.mark.parametrize("model_type", [t for t in BASES if t not in ("qwen3_vl_text",)])
def test_one_more_expert_per_token_adds_its_matrices_to_the_active_parameters(model_type: str) -> None:
    field = {"ernie4_5_moe": "moe_k", "aria_text": "moe_topk", "hunyuan_v1_moe": "moe_topk"}.get(model_type, "num_experts_per_tok")
    raw = raw_config(model_type, {})
    _, module = truth(model_type, raw)
    per_expert = sum(p.numel() // N_EXPERTS for name, p in module.named_parameters() if p.ndim == 3 and p.shape[0] == N_EXPERTS)
    biases = sum(p.numel() // N_EXPERTS for name, p in module.named_parameters() if name.endswith("proj_bias") and p.shape[0] == N_EXPERTS)
    two, three = (parameters(ModelShape.from_config({**raw, field: k})).active for k in (2, 3))
    assert per_expert > 0
    assert three - two == per_expert + biases


CACHES: list[tuple[str, dict[str, Any]]] = [
    # Step 3.5 makes the mask of windowed layers even where it has none, so without a window it cannot run.
    *((model_type, {}) for model_type in BASES if model_type != "step3p5"),
    ("mixtral", {"sliding_window": WINDOW}), ("qwen3_moe", {"sliding_window": WINDOW, "use_sliding_window": True}),
    ("qwen2_moe", {"use_sliding_window": True, "max_window_layers": 3}), ("gpt_oss", {"layer_types": MIXED}),
    ("phimoe", {"sliding_window": WINDOW}), ("granitemoe_swa", {"layer_types": MIXED}), ("exaone_moe", {"sliding_window_pattern": 3}),
    ("afmoe", {"global_attn_every_n_layers": 3}), ("cohere2_moe", {"first_k_dense_replace": 3, "prefix_dense_sliding_window_pattern": 2}),
    ("dots1", {"max_window_layers": 3}), ("mellum", {"layer_types": MIXED}), ("llama4_text", {"no_rope_layers": [1, 0, 0, 1, 1, 0, 1]}),
    ("mimo_v2_flash", {"sliding_window_size": 5}), ("laguna", {"layer_types": MIXED}),
    ("step3p5", {"layer_types": MIXED, "sliding_window": WINDOW, "num_sliding_attention_heads": 12}),
    ("minimax", {"layer_types": ["linear_attention", FULL, FULL, FULL, "linear_attention", FULL, FULL]}),
]


def filled_cache_bytes(model_type: str, raw: dict[str, Any]) -> int:
    """Bytes of everything that a bf16 model keeps after CONTEXT tokens on the CPU."""
    config = load_config(raw)
    config._attn_implementation = config._experts_implementation = "eager"
    with bfloat16():
        if model_type == "step3p5":
            model: Any = Step3p7TextModel(config)
        else:
            model = (AutoModel if model_type in ("qwen3_vl_text", "qwen3_vl_moe_text") else AutoModelForCausalLM).from_config(config)
        with torch.no_grad():
            cache = model.eval()(input_ids=torch.ones((1, CONTEXT), dtype=torch.long), use_cache=True).past_key_values
    stored = [t for layer in cache.layers for t in (getattr(layer, "keys", None), getattr(layer, "values", None)) if t is not None]
    stored += [t for t in getattr(cache, "linear_cache", []) if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in stored)


@pytest.mark.parametrize(("model_type", "change"), CACHES, ids=[f"{t}-{'-'.join(c) or 'base'}" for t, c in CACHES])
def test_cache_equals_what_a_forward_pass_keeps(model_type: str, change: dict[str, Any]) -> None:
    raw = raw_config(model_type, change)
    ours = kv_cache_bytes(ModelShape.from_config(raw), CONTEXT, runtime="transformers")
    assert ours.total == filled_cache_bytes(model_type, raw)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt_oss", {"layer_types": ["linear_attention"] * N_LAYERS}, "layer_types"),
    ("gpt_oss", {"layer_types": MIXED[:3]}, "layer_types.*7 items"),
    ("gpt_oss", {"sliding_window": None}, "sliding_window"),
    ("gpt_oss", {"experts_per_token": 3}, "equal to num_experts_per_tok"),
    ("qwen3_moe", {"mlp_only_layers": [0, "1"]}, "mlp_only_layers"),
    ("qwen3_moe", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
    ("qwen3_moe", {"shared_expert_intermediate_size": 8}, "shared_expert_intermediate_size"),
    ("qwen3_moe", {"num_local_experts": 3, "num_experts": 5}, "num_experts"),
    ("qwen3_moe", {"n_routed_experts": 9}, "does not know.*n_routed_experts=9"),
    ("qwen2_moe", {"layer_types": MIXED}, "sliding_window"),
    ("minimax_m2", {"use_qk_norm": False}, "use_qk_norm"),
    ("minimax_m2", {"shared_intermediate_size": 16}, "shared_intermediate_size"),
    ("minimax_m2", {"qk_norm_type": "per_head"}, "qk_norm_type"),
    ("olmoe", {"head_dim": 16}, "head_dim"),
    ("ernie4_5_moe", {"moe_num_experts": [5, 5]}, "moe_num_experts"),
    ("hy_v3", {"num_shared_experts": 0}, "num_shared_experts"),
    ("hy_v3", {"mlp_layer_types": ["moe"] * N_LAYERS}, "mlp_layer_types"),
    ("exaone_moe", {"sliding_window_pattern": "LLLG"}, "sliding_window_pattern"),
    ("exaone_moe", {"is_moe_layer": [False, False] + [True] * 5}, "is_moe_layer"),
    ("minimax_m2", {"attn_type_list": [1] * 6 + [0]}, "attn_type_list"),
    ("solar_open", {"first_k_dense_replace": 1}, "first_k_dense_replace"),
    ("llama4_text", {"attention_chunk_size": None}, "attention_chunk_size"),
    ("llama4_text", {"no_rope_layers": [1, 0]}, "no_rope_layers.*7 items"),
    ("mimo_v2_flash", {"swa_num_key_value_heads": 2}, "swa_num_key_value_heads.*4 in this family"),
    ("mimo_v2_flash", {"hybrid_layer_pattern": [1] * N_LAYERS}, "hybrid_layer_pattern"),
    ("mimo_v2_flash", {"moe_layer_freq": [1] * N_LAYERS}, "moe_layer_freq"),
    ("mimo_v2_flash", {"n_shared_experts": 1}, "n_shared_experts"),
    ("mimo_v2_flash", {"add_full_attention_sink_bias": True}, "add_full_attention_sink_bias"),
    ("step3p5", {"layer_types": MIXED}, "sliding_window"),
    ("step3p5", {"layer_types": [*MIXED, FULL]}, "layer_types.*7 items"),
    ("step3p5", {"moe_layers_enum": "3,x"}, "moe_layers_enum"),
    ("step3p5", {"num_experts": 3}, "num_experts"),
    ("step3p5", {"gating": False}, "gating"),
    (
        "step3p5", {"layer_types": MIXED, "sliding_window": 4, "attention_other_setting": {"num_attention_groups": 3}},
        "attention_other_setting.num_key_value_heads",
    ),
    ("laguna", {"gating": False}, "gating"),
    ("laguna", {"num_attention_heads_per_layer": [6]}, "num_attention_heads_per_layer"),
    ("minimax", {"sliding_window": 4}, "sliding_window"),
    ("hunyuan_v1_moe", {"moe_topk": [2, 1]}, "moe_topk"),
    ("hunyuan_v1_moe", {"moe_intermediate_size": [19] * N_LAYERS}, "moe_intermediate_size"),
    ("hunyuan_v1_moe", {"use_cla": True}, "use_cla"),
    ("jetmoe", {"num_attention_heads": 5}, "num_attention_heads"),
]


@pytest.mark.parametrize(("model_type", "change", "match"), REFUSED, ids=[f"{t}-{'-'.join(c)}" for t, c, _ in REFUSED])
def test_what_the_family_does_not_build_is_refused_by_name(model_type: str, change: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ModelShape.from_config(raw_config(model_type, change))


def test_more_active_experts_than_there_are_is_refused() -> None:
    with pytest.raises(ShapeError, match="n_experts=5, n_active=6"):
        ModelShape.from_config(raw_config("mixtral", {"num_experts_per_tok": 6}))


@pytest.mark.parametrize(
    ("model_type", "change", "known"),
    [
        ("mixtral", {}, True), ("glm4_moe", {}, False), ("glm4_moe", {"num_nextn_predict_layers": 0}, True), ("mimo_v2_flash", {}, False),
        ("ernie4_5_moe", {"num_nextn_predict_layers": 0}, True), ("minimax_m2", {"use_mtp": True, "num_mtp_modules": 3}, False),
        ("step3p5", {"num_nextn_predict_layers": 3}, False), ("mellum", {"num_mtp_layers": 1}, False), ("mellum", {}, True),
    ],
)
def test_prediction_layers_that_nobody_builds_are_unknown_not_zero(model_type: str, change: dict[str, Any], known: bool) -> None:
    assert parameters(ModelShape.from_config(raw_config(model_type, change))).mtp == (0 if known else None)


def test_router_correction_bias_is_a_buffer_or_a_parameter_as_the_module_says() -> None:
    for model_type in BASES:
        raw = raw_config(model_type, {})
        _, module = truth(model_type, raw)
        buffers = sum(b.numel() for name, b in module.named_buffers() if "correction_bias" in name)
        assert parameters(ModelShape.from_config(raw)).buffers == buffers, model_type


def test_heads_of_routed_attention_are_not_changed_apart_from_its_experts() -> None:
    with pytest.raises(ShapeError, match="cannot be changed"):
        ModelShape.from_config(raw_config("jetmoe", {})).with_heads(n_heads=12)

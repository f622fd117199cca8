"""Latent, sparse-indexed and compressed attention against transformers: modules on the meta device, caches that it fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiconfigurator_core
import pytest
import torch
from oracles import build_text, default_config, distinct_parameters, load_config
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.modeling_layers import MtpModel

from headcount.cost.kv_cache import kv_cache_bytes
from headcount.cost.parameters import parameters
from headcount.errors import ConfigError
from headcount.shape.config import read_config
from headcount.shape.model import ModelShape

PUBLISHED = Path(aiconfigurator_core.__file__).parent / "model_configs"

# Sizes pairwise different; heads x value width is not the model's width.
BODY = dict(
    vocab_size=101, hidden_size=48, intermediate_size=35, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
    kv_lora_rank=13, q_lora_rank=17, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=11, pad_token_id=0,
)
EXPERTS = dict(moe_intermediate_size=19, n_routed_experts=12, num_experts_per_tok=3, n_shared_experts=2, n_group=2, topk_group=1)
INDEXER = dict(index_n_heads=5, index_head_dim=14, index_topk=4)
MOE = {**BODY, **EXPERTS, "first_k_dense_replace": 1}
SPARSE = {**MOE, **INDEXER}
V4_KINDS = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention", "sliding_attention"]
BASES: dict[str, dict[str, Any]] = {
    "deepseek_v2": MOE,
    "deepseek_v3": MOE,
    "kimi_k2": {**MOE, "architectures": ["DeepseekV3ForCausalLM"]},
    "deepseek_v32": SPARSE,
    "glm_moe_dsa": SPARSE,
    "glm4_moe_lite": MOE,
    "axk1": MOE,
    "axk2": {**SPARSE, "gated_norm_rank": 7},
    "hy_v4": {**SPARSE, "hc_mult": 3},
    "minicpm3": BODY,
    "youtu": BODY,
    "longcat_flash": {
        **{k: v for k, v in BODY.items() if k not in ("intermediate_size", "num_hidden_layers")}, "num_layers": 3,
        "ffn_hidden_size": 35, "expert_ffn_hidden_size": 19, "n_routed_experts": 12, "zero_expert_num": 5, "moe_topk": 3,
        "head_dim": 6,
    },
    "deepseek_v4": dict(
        vocab_size=101, hidden_size=48, moe_intermediate_size=19, n_routed_experts=12, num_experts_per_tok=3, n_shared_experts=1,
        num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=1, head_dim=16, q_lora_rank=17, o_groups=3, o_lora_rank=9,
        sliding_window=5, hc_mult=3, pad_token_id=0, eos_token_id=1, **INDEXER,
    ),
}
WITH_EXPERTS = [t for t in BASES if t not in ("minicpm3", "youtu")]
WITH_TYPES = ["deepseek_v32", "glm_moe_dsa", "glm4_moe_lite", "axk1", "axk2", "hy_v4"]
WITH_INDEXER = ["deepseek_v32", "glm_moe_dsa", "axk2", "hy_v4", "deepseek_v4"]
LATENT = [t for t in BASES if t != "deepseek_v4"]
DIRECT = ["deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite", "minicpm3", "youtu"]
RATES = {"compressed_sparse_attention": 6, "heavily_compressed_attention": 20}

# (what changes, the types in which it must be followed exactly)
FOLLOWED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, list(BASES)),
    ({"attention_bias": True}, list(BASES)),
    ({"tie_word_embeddings": True}, list(BASES)),
    ({"mlp_bias": True}, ["deepseek_v2", "minicpm3", "deepseek_v32", "glm_moe_dsa", "deepseek_v4"]),
    ({"vocab_size": 203}, list(BASES)),
    ({"hidden_size": 36}, list(BASES)),
    ({"num_attention_heads": 12}, list(BASES)),
    ({"num_hidden_layers": 5}, [t for t in BASES if t != "longcat_flash"]),
    ({"num_layers": 2}, ["longcat_flash"]),
    ({"num_hidden_layers": 6}, ["longcat_flash"]),
    ({"q_lora_rank": 23}, list(BASES)),
    ({"q_lora_rank": None}, DIRECT),
    ({"q_lora_rank": None, "attention_bias": True}, DIRECT),
    ({"kv_lora_rank": 21}, LATENT),
    ({"qk_nope_head_dim": 12}, LATENT),
    ({"qk_rope_head_dim": 8}, list(BASES)),
    ({"v_head_dim": 9}, LATENT),
    ({"v_head_dim": None}, ["minicpm3"]),
    ({"head_dim": 24}, [t for t in BASES if t not in ("glm4_moe_lite",)]),
    ({"num_key_value_heads": 2}, LATENT),
    ({"intermediate_size": 44}, [t for t in LATENT if t != "longcat_flash"]),
    ({"moe_intermediate_size": 25}, [t for t in WITH_EXPERTS if t != "longcat_flash"]),
    ({"n_routed_experts": 16}, WITH_EXPERTS),
    ({"num_experts": 12}, ["deepseek_v32", "glm_moe_dsa"]),
    ({"n_shared_experts": 0}, [t for t in WITH_EXPERTS if t not in ("longcat_flash", "deepseek_v4")]),
    ({"n_shared_experts": 3, "mlp_bias": True}, ["deepseek_v2"]),
    ({"first_k_dense_replace": 0}, ["deepseek_v2", "deepseek_v3", "kimi_k2", "deepseek_v32", "glm_moe_dsa", "axk1", "axk2"]),
    ({"first_k_dense_replace": 2}, ["deepseek_v2", "deepseek_v3", "kimi_k2", "deepseek_v32", "glm_moe_dsa", "axk1", "axk2"]),
    ({"first_k_dense_replace": 9}, ["deepseek_v2", "deepseek_v3", "kimi_k2", "deepseek_v32", "glm_moe_dsa", "axk1", "axk2"]),
    ({"moe_layer_freq": 2}, ["axk1", "axk2"]),
    ({"mlp_layer_types": ["sparse", "dense", "sparse"]}, WITH_TYPES),
    ({"index_n_heads": 3}, WITH_INDEXER),
    ({"index_head_dim": 18}, WITH_INDEXER),
    ({"layer_types": ["deepseek_sparse_attention"] * 3}, [t for t in WITH_INDEXER if t != "deepseek_v4"]),
    ({"indexer_types": ["full", "shared", "full"]}, ["glm_moe_dsa", "hy_v4"]),
    ({"index_topk_pattern": "FSS"}, ["glm_moe_dsa"]),
    ({"index_topk_freq": 2}, ["glm_moe_dsa"]),
    ({"index_topk_freq": 2, "index_skip_topk_offset": 1}, ["glm_moe_dsa"]),
    ({"gated_norm_rank": 11}, ["axk2"]),
    ({"hc_mult": 2}, ["hy_v4", "deepseek_v4"]),
    ({"num_hidden_layers": 9, "indexer_types": None}, ["hy_v4"]),
    ({"zero_expert_num": 0}, ["longcat_flash"]),
    ({"router_bias": True}, ["longcat_flash"]),
    ({"ffn_hidden_size": 40}, ["longcat_flash"]),
    ({"expert_ffn_hidden_size": 24}, ["longcat_flash"]),
    ({"layer_types": V4_KINDS}, ["deepseek_v4"]),
    ({"compress_ratios": [0, 4, 128, 4, 0]}, ["deepseek_v4"]),
    ({"compress_rates": RATES}, ["deepseek_v4"]),
    ({"compress_rate_csa": 3}, ["deepseek_v4"]),
    ({"compress_rate_hca": 11}, ["deepseek_v4"]),
    ({"mlp_layer_types": ["hash_moe", "moe", "hash_moe", "moe"]}, ["deepseek_v4"]),
    ({"num_hash_layers": 0}, ["deepseek_v4"]),
    ({"o_groups": 2}, ["deepseek_v4"]),
    ({"o_groups": 5}, ["deepseek_v4"]),
    ({"o_lora_rank": 4}, ["deepseek_v4"]),
    ({"sliding_window": 9}, ["deepseek_v4"]),
]

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("deepseek_v3", {"moe_layer_freq": 2}, "moe_layer_freq .* must be 1"),
    ("deepseek_v3", {"q_lora_rank": 0}, "q_lora_rank .* from 1"),
    ("deepseek_v3", {"n_routed_experts": None}, "n_routed_experts .* got null"),
    ("deepseek_v3", {"first_k_dense_replace": None}, "first_k_dense_replace .* got null"),
    ("deepseek_v3", {"num_local_experts": 16}, "num_local_experts=16"),
    ("deepseek_v3", {"per_layer_config": {"0": {"kv_lora_rank": 5}}}, "per_layer_config"),
    ("deepseek_v2", {"num_experts_per_tok": None}, "num_experts_per_tok .* got null"),
    ("deepseek_v32", {"q_lora_rank": None}, "q_lora_rank .* got null"),
    ("deepseek_v32", {"num_experts": 16}, "num_experts .* equal to n_routed_experts"),
    ("deepseek_v32", {"layer_types": ["full_attention"] * 3}, "layer_types .* must be indexed_attention"),
    ("glm_moe_dsa", {"indexer_types": ["shared", "full", "full"]}, "indexer_types .* starts with full"),
    ("glm_moe_dsa", {"indexer_types": ["full"] * 2}, "indexer_types .* list of 3 items"),
    ("glm_moe_dsa", {"index_topk_pattern": "FXS"}, "index_topk_pattern .* F or S"),
    ("glm_moe_dsa", {"mlp_layer_types": ["dense", "sparse", "moe"]}, "mlp_layer_types .* dense or sparse"),
    ("glm4_moe_lite", {"first_k_dense_replace": 2}, "first_k_dense_replace .* must be 1"),
    ("glm4_moe_lite", {"head_dim": 24}, "head_dim .* equal to qk_rope_head_dim=6"),
    ("kimi_k2", {"architectures": ["OtherForCausalLM"]}, "architectures .*DeepseekV3ForCausalLM"),
    ("longcat_flash", {"qk_head_dim": 33}, "qk_head_dim .* qk_nope_head_dim"),
    ("longcat_flash", {"num_hidden_layers": 5}, "num_hidden_layers .* twice num_layers=3"),
    ("deepseek_v4", {"num_key_value_heads": 2}, "num_key_value_heads .* must be 1"),
    ("deepseek_v4", {"n_shared_experts": 2}, "n_shared_experts .* must be 1"),
    ("deepseek_v4", {"compress_ratios": [0, 4, 128, 8]}, "compress_ratios .* 0, 4 or 128"),
    ("deepseek_v4", {"compress_ratios": [0, 4, 128]}, "layer_types .* 4 layers"),
    ("deepseek_v4", {"mlp_layer_types": ["moe"] * 2}, "mlp_layer_types .* 4 layers"),
    ("deepseek_v4", {"compress_rates": {"compressed_sparse_attention": 6}}, "compress_rates.heavily_compressed_attention"),
    ("deepseek_v4", {"partial_rotary_factor": 2}, "partial_rotary_factor .* from 0 to 1"),
]


def config_of(model_type: str, **changes: Any) -> dict[str, Any]:
    return {"model_type": model_type, **BASES[model_type], **changes}


def published(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((PUBLISHED / f"{name}_config.json").read_text(encoding="utf-8"))
    return config


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    ("model_type", "changes"), [(t, c) for c, types in FOLLOWED for t in types],
    ids=lambda v: v if isinstance(v, str) else json.dumps(v)[:60],
)
def test_parameters_follow_transformers(model_type: str, changes: dict[str, Any]) -> None:
    raw = config_of(model_type, **changes)
    assert parameters(read_config(raw)).text_only == distinct_parameters(build_text(load_config(raw)))


@pytest.mark.parametrize(("model_type", "changes", "message"), REFUSED)
def test_what_would_be_a_guess_is_refused(model_type: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(config_of(model_type, **changes))


@pytest.mark.parametrize("model_type", [t for t in BASES if t != "kimi_k2"])
def test_default_config_of_the_class(model_type: str) -> None:
    raw = default_config(model_type)
    if model_type == "deepseek_v2":  # the class leaves it open, and then the model cannot run
        raw["num_experts_per_tok"] = 6
    assert parameters(read_config(raw)).text_only == distinct_parameters(build_text(load_config(raw)))


def test_prediction_layers_are_those_that_transformers_builds() -> None:
    raw = config_of("deepseek_v3", num_nextn_predict_layers=2)
    main = build_text(load_config(raw))
    shared = {id(p) for p in main.parameters()}
    with torch.device("meta"):
        extra = MtpModel(main, 2)
    alone = sum({id(p): p.numel() for p in extra.parameters() if id(p) not in shared}.values())
    assert parameters(read_config(raw)).mtp == alone > 0


@pytest.mark.parametrize(
    ("name", "stored", "copies"),
    # Elements of all tensors but fp8 scales, from the safetensors headers as the model hub's API gives them; embedding and head that the
    # prediction layer stores again.
    [
        ("deepseek-ai--DeepSeek-V3", 3_918_786_560 + 680_571_043_840, 2 * 129_280 * 7168),
        ("deepseek-ai--DeepSeek-V3.2", 685_355_329_792 - 59 * 256, 2 * 129_280 * 7168),
        ("zai-org--GLM-5", 753_864_139_008 - 76 * 256, 0),
    ],
)
def test_main_and_prediction_layers_make_the_published_file(name: str, stored: int, copies: int) -> None:
    counted = parameters(read_config(published(name)))
    assert counted.total + counted.mtp + copies == stored


def test_prediction_layers_are_unknown_rather_than_guessed() -> None:
    assert parameters(read_config(published("zai-org--GLM-5.2"))).mtp is None
    assert parameters(read_config(published("deepseek-ai--DeepSeek-V4-Pro"))).mtp is None
    assert parameters(read_config(config_of("deepseek_v3"))).mtp is None
    assert parameters(read_config(published("moonshotai--Kimi-K2-Instruct"))).mtp == 0


def test_a_third_of_the_layers_of_glm_52_run_an_indexer() -> None:
    shape = read_config(published("zai-org--GLM-5.2"))
    assert shape.n_layers == 78
    assert sum(n for n, layer in shape.groups if not layer.mixers[0].indexer_shared) == 21


def test_correction_biases_are_buffers() -> None:
    raw = config_of("deepseek_v4", num_hash_layers=1)
    buffers = [b for n, b in build_text(load_config(raw)).named_buffers() if n.endswith("e_score_correction_bias")]
    assert parameters(read_config(raw)).buffers == sum(b.numel() for b in buffers) == 3 * 12


# -- the cache ------------------------------------------------------------------------------------------------------------------

def cached_elements(raw: dict[str, Any], steps: list[int]) -> int:
    """Elements of everything that stock transformers' cache holds after these forward passes of a small random model on the CPU."""
    config = load_config(raw)
    config._experts_implementation = "eager"  # the fused one asks for widths that are multiples of 8
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    cache = DynamicCache(config=config)
    for n in steps:
        with torch.no_grad():
            model(input_ids=torch.ones((1, n), dtype=torch.long), past_key_values=cache, use_cache=True)
    held: dict[int, torch.Tensor] = {}
    _tensors_in([vars(layer) for layer in cache.layers], held)
    return sum(t.numel() for t in held.values() if t.dim() and t.is_floating_point())


def _tensors_in(value: Any, found: dict[int, torch.Tensor]) -> None:
    if isinstance(value, torch.Tensor):
        found[id(value)] = value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        _tensors_in(item, found)


def counted_elements(shape: ModelShape, context: int) -> int:
    total = kv_cache_bytes(shape, context, kv_dtype="bf16", runtime="transformers").total
    assert total % 2 == 0
    return int(total) // 2


@pytest.mark.parametrize("model_type", LATENT)
def test_latent_cache_holds_what_transformers_holds(model_type: str) -> None:
    raw = config_of(model_type, **({"indexer_types": ["full", "shared", "full"]} if model_type in ("glm_moe_dsa", "hy_v4") else {}))
    assert counted_elements(read_config(raw), 10) == cached_elements(raw, [7, 1, 2])


@pytest.mark.parametrize("steps", [[3], [1] * 5, [29], [29, 1], [40], [7, 23, 1, 2], [13, 13], [60, 60]])
@pytest.mark.parametrize("kind", V4_KINDS[:3])
def test_compressed_cache_holds_what_transformers_holds(kind: str, steps: list[int]) -> None:
    raw = config_of("deepseek_v4", layer_types=[kind] * 4, compress_rates=RATES)
    assert counted_elements(read_config(raw), sum(steps)) == cached_elements(raw, steps)

"""Every causal model type that headcount reads, at the defaults of its config class, against the module that transformers builds."""

from __future__ import annotations

import oracles
import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from headcount.cost.parameters import parameters
from headcount.shape import ModelShape
from headcount.shape.families import FAMILIES

TRUTH_TABLE = {
    "llama",
    "qwen3",
    "qwen3_moe",
    "qwen3_vl",
    "qwen3_vl_moe",
    "qwen3_5",
    "qwen3_5_moe",
    "mixtral",
    "gpt_oss",
    "deepseek_v3",
    "kimi_k2",
    "kimi_k25",
    "deepseek_v32",
    "deepseek_v4",
    "gemma4",
    "nemotron_h",
    "minimax_m2",
    "glm_moe_dsa",
    "llama4",
    "mimo_v2_flash",
    "step3p7",
}
UNBUILDABLE = {
    "dots1": "layer_types is None",
    "hunyuan_v1_dense": "head_dim is None",
    "hunyuan_v1_moe": "head_dim is None",
    "lfm2_moe": "layer_types is None",
    "ministral": "head_dim is None",
    "nemotron": "head_dim is None",
    "gemma3n": "needs timm",
}
"""Types whose own defaults transformers 5.23.0 cannot build; their tests give them sizes."""
REFUSED = {
    "glm4_moe": "4096 / 96 heads is no whole head_dim; transformers rounds it down, headcount asks for the field",
    "deepseek_v2": "num_experts_per_tok is null, and such a model cannot run",
}
CAUSAL = sorted(t for t in FAMILIES if t in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
COMPARED = [t for t in CAUSAL if t not in UNBUILDABLE and t not in REFUSED]


def test_at_least_sixty_types_beyond_the_truth_table_are_compared() -> None:
    assert len(set(COMPARED) - TRUTH_TABLE) >= 60


@pytest.mark.parametrize("model_type", COMPARED)
def test_default_config_counts_what_transformers_builds(model_type: str) -> None:
    raw = oracles.default_config(model_type)
    config = oracles.load_config(raw)
    if config.get_text_config().model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        config = config.get_text_config()
    assert parameters(ModelShape.from_config(raw)).text_only == oracles.distinct_parameters(oracles.build_text(config))


@pytest.mark.parametrize("model_type", sorted(UNBUILDABLE))
def test_what_transformers_cannot_build_is_really_so(model_type: str) -> None:
    """When a newer transformers can, the type belongs among the compared ones."""
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.fail(f"{model_type} is no causal type any more")
    with pytest.raises((TypeError, AttributeError, ImportError, ValueError)):
        oracles.build_text(oracles.load_config(oracles.default_config(model_type)))

"""What headcount is compared with: modules that transformers builds, caches it fills, FLOPs that torch counts. Never our own formulas."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

transformers.logging.set_verbosity_error()


def load_config(raw: dict[str, Any]) -> Any:
    """The transformers config of a config.json's content, quantisation and remote code dropped."""
    raw = {k: v for k, v in raw.items() if k not in ("quantization_config", "auto_map")}
    if raw.get("model_type") == "kimi_k2":  # unknown to transformers; its architectures field says DeepseekV3ForCausalLM
        raw["model_type"] = "deepseek_v3"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(raw))
        return AutoConfig.from_pretrained(folder)


def distinct_parameters(model: torch.nn.Module) -> int:
    """Elements of all distinct parameters: a tied weight is one."""
    return sum({id(p): p.numel() for p in model.parameters()}.values())


def build_text(config: Any) -> torch.nn.Module:
    """The causal language model of a transformers config, on the meta device."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def build_whole(config: Any) -> torch.nn.Module:
    """The model with all its towers, on the meta device."""
    text = config.get_text_config()
    if text is not config:
        with torch.device("meta"):
            return AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    return build_text(config)


def default_config(model_type: str) -> dict[str, Any]:
    """What a model of that type saves as config.json when nothing is set."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type]()
    return json.loads(config.to_json_string(use_diff=False))

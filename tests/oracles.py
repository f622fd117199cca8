"""What headcount is compared with: modules that transformers builds, caches it fills, FLOPs that torch counts. Never our own formulas."""

from __future__ import annotations

import inspect
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


def run_text(config: Any, tokens: int) -> tuple[int, int]:
    """What a small causal language model really does with that many tokens on the CPU, in eager attention.

    Returns:
        (numbers held by the key-value cache that it filled, FLOPs that torch counted for all logits).
    """
    from torch.utils.flop_counter import FlopCounterMode

    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        cache = model(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=True).past_key_values
    return sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers), counter.get_total_flops()


def cache_bytes(model: torch.nn.Module, config: Any, tokens: int) -> int:
    """Bytes of all numbers that the model keeps after a forward pass of `tokens`, each in the type that it really has.

    The cache object's tensors, and states that a module keeps in itself (RecurrentGemma).
    """
    cache = transformers.cache_utils.DynamicCache(config=config)
    argument = "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"
    with torch.no_grad():
        model(input_ids=torch.zeros((1, tokens), dtype=torch.long, device="meta"), use_cache=True, **{argument: cache})
    kept: dict[int, torch.Tensor] = {}
    _collect_tensors(cache.layers, kept)
    for module in model.modules():
        _collect_tensors({k: v for k, v in vars(module).items() if k in ("conv1d_state", "recurrent_states")}, kept)
    return sum(t.numel() * t.element_size() for t in kept.values() if t.dim() and t.is_floating_point())


def _collect_tensors(node: Any, found: dict[int, torch.Tensor], depth: int = 0) -> None:
    if isinstance(node, torch.Tensor):
        found[id(node)] = node
    elif depth < 5 and isinstance(node, dict):
        for value in node.values():
            _collect_tensors(value, found, depth + 1)
    elif depth < 5 and isinstance(node, (list, tuple)):
        for value in node:
            _collect_tensors(value, found, depth + 1)
    elif depth < 5 and hasattr(node, "__dict__"):
        _collect_tensors(vars(node), found, depth + 1)

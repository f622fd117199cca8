"""Writes src/headcount/shape/data/presets.json from the config.json files in the package aiconfigurator-core 0.12.0.

Usage: python scripts/presets.py [OUT.json]     (needs aiconfigurator-core, --no-deps is enough)

Kept of each file are the fields that its reader asks for, which are facts about the architecture. The trimmed file must read back as the
same shape, or the script stops. Files of model types that headcount refuses are listed and left out.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from headcount.errors import HeadcountError
from headcount.shape.config import read_config, storage_fields, with_quantization_beside
from headcount.shape.families import FAMILIES
from headcount.shape.fields import Fields

OUT = Path(__file__).parent.parent / "src/headcount/shape/data/presets.json"
PACKAGE, VERSION = "aiconfigurator-core", "0.12.0"
ALIASES = {
    "llama-3.1-8b": "meta-llama-3.1-8b", "llama-3.1-70b": "meta-llama-3.1-70b", "llama-3.1-405b": "meta-llama-3.1-405b",
    "mixtral-8x7b": "mixtral-8x7b-v0.1", "mixtral-8x22b": "mixtral-8x22b-v0.1", "llama-4-scout": "llama-4-scout-17b-16e-instruct",
    "llama-4-maverick": "llama-4-maverick-17b-128e-instruct", "kimi-k2": "kimi-k2-instruct",
    "nemotron-3-nano": "nvidia-nemotron-3-nano-30b-a3b-bf16", "qwen3-coder-480b": "qwen3-coder-480b-a35b-instruct",
}
MISREAD = dict.fromkeys(
    ("stepfun-ai--Step-3.7-Flash_config.json", "stepfun-ai--Step-3.7-Flash-FP8_config.json"),
    "a flat file whose sizes transformers ignores in favour of its class defaults: what it builds is not the published model",
)
_QUANTIZATION = ("quant_method", "quant_algo", "moe_quant_algo", "bits", "group_size", "fmt", "load_in_8bit", "load_in_4bit")


def trimmed(fields: Fields) -> dict[str, Any]:
    """The fields that were asked for, nested configs likewise."""
    nested = {child.path.split(".")[-2]: child for child in fields.children}
    kept: dict[str, Any] = {"model_type": fields.values["model_type"]} if "model_type" in fields.values else {}
    for name in sorted(fields.asked & fields.values.keys()):
        kept[name] = trimmed(nested[name]) if name in nested else fields.values[name]
    return kept


def quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the storage format, without the long lists of modules."""
    full = config.get("quantization_config") or {}
    kept = {k: full[k] for k in _QUANTIZATION if k in full}
    if "config_groups" in full and "quant_algo" not in full:
        kept["config_groups"] = {k: {"weights": v.get("weights")} for k, v in full["config_groups"].items()}
    return kept


def main() -> None:
    """Reads every config of the package and writes the presets."""
    if metadata.version(PACKAGE) != VERSION:
        raise SystemExit(f"{PACKAGE} {VERSION} is needed, found {metadata.version(PACKAGE)}")
    folder = resources.files("aiconfigurator_core") / "model_configs"
    presets: dict[str, Any] = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if not file.name.endswith("_config.json") or "hf_quant" in file.name:
            continue
        if file.name in MISREAD:
            print(f"left out: {file.name}: {MISREAD[file.name]}")
            continue
        data = file.read_bytes()
        beside = Path(str(file).replace("_config.json", "_hf_quant_config.json"))
        config = with_quantization_beside(json.loads(data), beside)
        name = file.name.removesuffix("_config.json").partition("--")[2].lower()
        try:
            full = read_config(config)
            fields = Fields(config, config["model_type"])
            FAMILIES[config["model_type"]](fields)
        except HeadcountError as error:
            print(f"left out: {file.name}: {str(error)[:160]}")
            continue
        storage = storage_fields(config)
        small = trimmed(fields) | ({"quantization_config": quantization(storage)} if quantization(storage) else {})
        for key in ("dtype", "torch_dtype"):
            if isinstance(storage.get(key), str):
                small[key] = storage[key]
        if read_config(small) != full:
            raise SystemExit(f"{file.name}: the trimmed config reads as another shape")
        presets[name] = {"file": f"model_configs/{file.name}", "sha256": hashlib.sha256(data).hexdigest(), "config": small}
    aliases = {k: v for k, v in ALIASES.items() if v in presets}
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, sort_keys=True, ensure_ascii=False)}" for k, v in sorted(presets.items()))
    head = f'"source": "{PACKAGE} {VERSION} (Apache-2.0)",\n"aliases": {json.dumps(aliases, sort_keys=True)}'
    out.write_text(f'{{{head},\n"presets": {{\n{lines}\n}}}}\n', encoding="utf-8")
    print(f"{out}: {len(presets)} presets")


if __name__ == "__main__":
    main()

"""Writes src/headcount/shape/data/class_defaults.json: what each config class of transformers assumes for a field that a file omits.

Usage: python scripts/class_defaults.py [OUT.json]      (needs transformers, at the version pinned in constraints.txt)

Only declared defaults are taken: a value that a class computes after reading (layer_types, head_dim of Llama) is not a default, and the
reader of that family computes it itself. A test asks that the shipped file equals what this script writes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
OUT = Path(__file__).parent.parent / "src/headcount/shape/data/class_defaults.json"


def plain(value: Any) -> bool:
    """True for what JSON can hold as it is."""
    return value is None or isinstance(value, (bool, int, float, str)) or (
        isinstance(value, (list, tuple)) and all(map(plain, value))
    ) or (isinstance(value, dict) and all(map(plain, value.values())))


def describe(cls: type, base_fields: set[str]) -> dict[str, Any]:
    """Declared defaults, aliases and sub-configs of one config class."""
    defaults = {}
    for f in dataclasses.fields(cls):
        if f.name in base_fields or f.name.startswith("_"):
            continue
        value = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if value is not dataclasses.MISSING and plain(value):
            defaults[f.name] = list(value) if isinstance(value, tuple) else value
    specs = getattr(cls, "sub_configs_defaults", {})
    subs = {k: v.model_type for k, v in specs.items() if isinstance(v.model_type, str)}
    described = {"defaults": defaults, "aliases": dict(getattr(cls, "attribute_map", {})), "sub_configs": subs}
    values = {k: v.init_kwargs for k, v in specs.items() if v.init_kwargs and plain(v.init_kwargs)}
    return described | ({"sub_values": values} if values else {})


def collect() -> dict[str, Any]:
    """Every model type of transformers that a causal language model or one of its parts can have."""
    import transformers
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    base = {f.name for f in dataclasses.fields(PretrainedConfig)} - {"tie_word_embeddings"}
    types: dict[str, Any] = {}
    wanted: dict[str, type | None] = {name: None for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    wanted |= dict.fromkeys((
        "kimi_k25", "step3p7", "qwen3_vl", "qwen3_vl_moe", "gemma3", "mistral3", "llava", "llava_next", "llava_onevision", "aya_vision",
        "cohere2_vision",
    ))
    while wanted:
        name, cls = wanted.popitem()
        if name in types:
            continue
        if cls is None:
            if name not in CONFIG_MAPPING:
                continue
            cls = CONFIG_MAPPING[name]
        types[name] = describe(cls, base)
        for spec in getattr(cls, "sub_configs_defaults", {}).values():
            # AutoConfig stands for whatever class the type names; it declares no field of its own.
            wanted[spec.model_type] = None if spec.config_class is AutoConfig else spec.config_class
    return {"source": f"transformers {transformers.__version__} (Apache-2.0), declared defaults of its config classes",
            "types": dict(sorted(types.items()))}


def main() -> None:
    """Writes the file, one model type per line so that a difference can be read."""
    data = collect()
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v, sort_keys=True, ensure_ascii=False)}" for k, v in data["types"].items())
    out.write_text(f'{{"source": {json.dumps(data["source"])},\n"types": {{\n{lines}\n}}}}\n', encoding="utf-8")
    print(f"{out}: {len(data['types'])} model types")


if __name__ == "__main__":
    main()

"""Does every serving run of silicon_sample.csv (aiconfigurator-core 0.12.0) fit its cards by our memory formula?

A run that happened must fit. Each row is priced at its own parallelism: weights of the checkpoint whose config the package carries, the
cache of all sequences at full length (input and output), one prefill chunk of 8,192 tokens, 0.9 of the card that systems/*.yaml gives.
Rows that do not fit are listed with the reason. Engines queue what does not fit, so a batch in the table need not have been resident at
once: a row is only a contradiction when not even one sequence per rank fits. Rows without a batch size are priced with one sequence.

    python bench/memory_silicon.py [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from headcount.cost.memory import Plan, memory
from headcount.errors import HeadcountError
from headcount.shape import ModelShape

PACKAGE = resources.files("aiconfigurator_core")
SHARE = 0.9
CHUNK = 8192
PAGE = 64

_NVFP4 = {
    "deepseek-ai/DeepSeek-R1": "nvidia--DeepSeek-V3.1-NVFP4", "deepseek-ai/DeepSeek-V3": "nvidia--DeepSeek-V3.1-NVFP4",
    "nvidia/DeepSeek-R1-NVFP4": "nvidia--DeepSeek-V3.1-NVFP4", "nvidia/DeepSeek-V3.1-NVFP4": "nvidia--DeepSeek-V3.1-NVFP4",
    "MiniMaxAI/MiniMax-M2.5": "nvidia--MiniMax-M2.5-NVFP4", "Qwen/Qwen3.5-397B-A17B": "nvidia--Qwen3.5-397B-A17B-NVFP4",
    "moonshotai/Kimi-K2.5": "nvidia--Kimi-K2.5-NVFP4", "zhipuai/GLM-5": "nvidia--GLM-5-NVFP4",
}
_OWN = {
    "Qwen/Qwen3-32B": "Qwen--Qwen3-32B", "nvidia/Qwen3-32B-NVFP4": "Qwen--Qwen3-32B", "deepseek-ai/DeepSeek-R1": "deepseek-ai--DeepSeek-R1",
    "deepseek-ai/DeepSeek-V3": "deepseek-ai--DeepSeek-V3", "meta-llama/Llama-3.1-70B": "meta-llama--Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama--Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama--Meta-Llama-3.1-8B", "MiniMaxAI/MiniMax-M2.5": "MiniMaxAI--MiniMax-M2.5",
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen--Qwen3-235B-A22B-FP8", "Qwen/Qwen3.5-397B-A17B": "Qwen--Qwen3.5-397B-A17B",
    "moonshotai/Kimi-K2.5": "moonshotai--Kimi-K2.5", "openai/gpt-oss-120b": "openai--gpt-oss-120b", "zhipuai/GLM-5": "zai-org--GLM-5-FP8",
}
"""Model of a row -> config of the same architecture and, where there is one, of the same quantisation."""


@dataclass(frozen=True)
class Pool:
    """One group of equal ranks in a row."""

    row: str
    role: str
    config: str
    weight_dtype: str | None
    system: str
    plan: tuple[int, int, int, int]
    batch: int
    context: int


@dataclass(frozen=True)
class Verdict:
    """What became of a pool: "fits", or the reason why not."""

    pool: Pool
    outcome: str
    total_bytes: int = 0
    usable_bytes: int = 0


@cache
def card_bytes(system: str) -> int:
    """Memory of one card as the package's device file gives it."""
    text = (PACKAGE / "systems" / f"{system}.yaml").read_text()
    found = re.search(r"^  mem_capacity: (\d+)", text, re.MULTILINE)
    if not found:
        raise ValueError(f"no mem_capacity in {system}.yaml")
    return int(found[1])


@cache
def shape_of(name: str) -> ModelShape:
    """The shape of a bundled config; a separate quantisation file is read together with it."""
    folder = PACKAGE / "model_configs"
    config = json.loads((folder / f"{name}_config.json").read_text())
    beside = folder / f"{name}_hf_quant_config.json"
    if beside.is_file():
        config["quantization_config"] = {"quant_method": "modelopt", **json.loads(beside.read_text())["quantization"]}
    return ModelShape.from_config(config)


def _checkpoint(row: dict[str, str]) -> tuple[str, str | None]:
    model, quant = row["model_path"], row["gemm_quant_mode"]
    if model == "openai/gpt-oss-120b":
        return _OWN[model], None
    if quant == "nvfp4" and model in _NVFP4:
        return _NVFP4[model], None
    names = {"": "bf16", "nvfp4": "nvfp4", "fp8": "fp8", "fp8_block": "fp8-block128", "int4_wo": None}
    own = _OWN[model]
    declared = own.endswith(("FP8", "R1", "V3", "K2.5", "M2.5"))
    return own, None if declared and quant.startswith("fp8") else names[quant]


def _count(row: dict[str, str], name: str) -> int:
    # Sizes of 0 and absent ones mean that nothing is split that way.
    return max(1, int(float(row[name] or 1)))


def pools(row: dict[str, str]) -> Iterator[Pool]:
    """The pools of a row: one when prefill and decode share ranks, else one each."""
    config, dtype = _checkpoint(row)
    isl, osl = int(row["isl"]), int(row["osl"])
    roles = [("agg", "", isl + osl)] if row["mode"] == "agg" else [("prefill", "prefill_", isl), ("decode", "decode_", isl + osl)]
    for role, prefix, context in roles:
        names = ("tp_size", "pp_size", "moe_tp_size", "moe_ep_size", "attention_dp_size")
        tp, pp, moe_tp, ep, dp = (_count(row, prefix + n) for n in names)
        if moe_tp * ep == 1 and dp > 1:
            moe_tp = tp * dp  # expert sizes of 0: data-parallel ranks cut the experts among them
        if moe_tp == ep > 1 and tp * dp == moe_tp * ep and f"tp{tp}_ep" not in row["id"]:
            # The ids of these rows say tp8_ep8: the recorded 64 is a product of columns, not a number of cards.
            tp, moe_tp = (ep if tp > 1 else 1), 1
        yield Pool(row["id"], role, config, dtype, row["system"], (tp, pp, ep, moe_tp), _count(row, prefix + "batch_size"), context)


@cache
def verdict(pool: Pool) -> Verdict:
    """Prices a pool and says why, if it does not fit."""
    tp, pp, ep, moe_tp = pool.plan
    common: dict[str, Any] = dict(
        card_bytes=card_bytes(pool.system), usable_share=SHARE, weight_dtype=pool.weight_dtype, page=PAGE, max_batched_tokens=CHUNK,
        phase="prefill", plan=Plan(tp=tp, pp=pp, ep=ep, moe_tp=moe_tp if ep * moe_tp > 1 else None),
    )
    shape = shape_of(pool.config)

    def priced(batch: int, kv_dtype: str) -> Any:
        return memory(shape, context=pool.context, batch=batch, kv_dtype=kv_dtype, **common)

    try:
        whole = priced(pool.batch, "bf16")
    except HeadcountError as error:
        # Such a size cannot split these heads, so it was a number of cards, each with sequences of its own.
        common["plan"] = Plan(tp=1, pp=pp, ep=tp)
        found = priced(-(-pool.batch // tp), "bf16")
        fine = "fits" if found.fits else "does not fit either"
        return Verdict(pool, f"{error.code}: read as data-parallel attention it {fine}", int(found.total_bytes), int(found.usable_bytes))
    if whole.fits:
        outcome = "fits"
    elif priced(pool.batch, "fp8").fits:
        outcome = "fits with an fp8 cache"
    elif priced(1, "fp8").fits:
        outcome = "not all sequences at once: the engine queues"
    elif priced(1, "fp8").total_bytes <= card_bytes(pool.system):
        outcome = "fits the card, not 0.9 of it: the engine's share is not recorded"
    elif pool.plan == (1, 1, 1, 1):
        outcome = "no sizes recorded (all 1): the weights alone exceed the card"
    else:
        outcome = "not even one sequence fits"
    return Verdict(pool, outcome, int(whole.total_bytes), int(whole.usable_bytes))


def verdicts() -> list[Verdict]:
    """All pools of all rows whose model can be read."""
    with (PACKAGE / "systems" / "silicon_sample.csv").open(encoding="utf-8") as file:
        return [verdict(pool) for row in csv.DictReader(file) for pool in pools(row)]


def main() -> None:
    """Prints how many fit and the misses by reason and model."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", help="write every miss to this file")
    asked = arguments.parse_args()
    found = verdicts()
    print(f"{len(found)} pools, {sum(v.outcome == 'fits' for v in found)} fit")
    misses = [v for v in found if v.outcome != "fits"]
    for (outcome, config, dtype, system, plan), n in sorted(
        Counter((v.outcome, v.pool.config, v.pool.weight_dtype or "own", v.pool.system, v.pool.plan) for v in misses).items()
    ):
        print(f"{n:5}  {outcome:45} {config:35} {dtype:13} {system:9} tp,pp,ep,moe_tp={plan}")
    print(dict(Counter(v.outcome for v in found)))
    if asked.json:
        with open(asked.json, "w", encoding="utf-8") as file:
            rows = [{**vars(v.pool), "outcome": v.outcome, "total_bytes": v.total_bytes, "usable_bytes": v.usable_bytes} for v in misses]
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()

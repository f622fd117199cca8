"""headcount-tiny: it loads in stock transformers, its heads do what its card says, and its training run can be made again.

The tests of training need the corpus, which is fetched from its Debian package; tests/SKIPS.md says when they may be skipped.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from headcount.cost.parameters import parameters
from headcount.errors import UnknownNameError
from headcount.shape.model import ModelShape
from headcount.shipped import VARIANTS, tiny

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))
evaluate, train, corpus_script = (importlib.import_module(name) for name in ("evaluate_tiny", "train_tiny", "fetch_corpus"))
both = pytest.mark.parametrize("variant", VARIANTS)
# One worker fetches the corpus and trains; two at once would slow each other down.
training = pytest.mark.xdist_group("tiny")
MAX_BYTES = 12 * 10**6
REPRODUCED = 0.02


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers(variant: str) -> dict[str, Any]:
    return json.loads((tiny(variant) / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    try:
        corpus_script.fetch(folder)
    except OSError as error:
        pytest.skip(f"neither a Debian mirror nor apt gives the corpus: {error}")
    return folder


def test_an_unknown_variant_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError, match="variant must be one of gqa, mha, but got 'mqa'"):
        tiny("mqa")


@both
def test_stock_transformers_loads_and_generates(variant: str) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny(variant)), AutoTokenizer.from_pretrained(tiny(variant))
    ids = tokenizer("Elizabeth was", return_tensors="pt").input_ids
    text = tokenizer.decode(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20)[0], skip_special_tokens=True)
    assert text.startswith("Elizabeth was")
    assert len(text) > len("Elizabeth was") + 10
    assert model.dtype == torch.bfloat16


@both
def test_any_text_survives_the_tokenizer(variant: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny(variant))
    text = "Ёлка — 24 × 96,\n\n  head_dim; 大学 🙂"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@both
def test_headcount_counts_the_parameters_that_lie_in_the_file(variant: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny(variant))
    shape = ModelShape.from_config(tiny(variant))
    with safe_open(tiny(variant) / "model.safetensors", "pt") as file:
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())
    assert int(parameters(shape)) == model.num_parameters() == stored
    assert 10**6 <= stored <= 3 * 10**6


def test_the_twins_differ_in_kv_heads_alone() -> None:
    gqa, mha = (json.loads((tiny(v) / "config.json").read_text(encoding="utf-8")) for v in VARIANTS)
    assert {k: (gqa[k], mha[k]) for k in gqa if gqa[k] != mha.get(k)} == {"num_key_value_heads": (4, 8)}
    assert gqa["num_attention_heads"] * gqa["head_dim"] != gqa["hidden_size"]
    assert (tiny("gqa") / "tokenizer.json").read_bytes() == (tiny("mha") / "tokenizer.json").read_bytes()


def test_both_together_are_small() -> None:
    assert 10**6 < sum(p.stat().st_size for v in VARIANTS for p in tiny(v).iterdir()) <= MAX_BYTES


@both
def test_the_second_copy_is_known_and_the_first_is_not(variant: str) -> None:
    model = evaluate.load(tiny(variant))
    first, second = train.induction_accuracy(model, train.repeated_sequences(32, evaluate.COPY, model.config.vocab_size, seed=7))
    assert first < 0.02
    assert second > 0.5


@both
def test_named_heads_have_their_roles_and_zeroing_them_is_what_destroys_the_effect(variant: str) -> None:
    model, card = evaluate.load(tiny(variant)), numbers(variant)["heads"]
    ids = train.repeated_sequences(32, evaluate.COPY, model.config.vocab_size, seed=7)
    previous, after = evaluate.head_scores(model, ids)
    heads = [tuple(head) for head in card["responsible"]]
    assert all(max(previous[h], after[h]) >= evaluate.ROLE / 2 for h in heads)
    assert evaluate.second_copy(model, ids, heads) < 0.15
    others = evaluate.random_sets(6, 8, heads, len(heads), 5)
    left = [evaluate.second_copy(model, ids, chosen) for chosen in others]
    assert sum(left) / len(left) > 3 * evaluate.second_copy(model, ids, heads)


def test_zeroing_a_head_removes_its_columns_of_the_output_projection() -> None:
    model, ids = evaluate.load(tiny("gqa")), train.repeated_sequences(2, 20, 384, seed=3)
    with torch.no_grad(), evaluate.zeroed(model, [(2, 5), (4, 0)]):
        hooked = model(ids).logits
    with torch.no_grad():
        for layer, head in ((2, 5), (4, 0)):
            model.model.layers[layer].self_attn.o_proj.weight[:, 24 * head:24 * (head + 1)] = 0
        assert torch.allclose(hooked, model(ids).logits, atol=1e-5)


@both
def test_the_card_says_what_was_measured(variant: str) -> None:
    text = (tiny(variant) / "README.md").read_text(encoding="utf-8")
    assert text == evaluate.card(numbers(variant))
    loss = numbers(variant)["loss"]
    assert loss["model_bits_per_byte"] < min(loss["bigram_bits_per_byte"], loss["xz_after_training_text_bits_per_byte"])


@training
@both
def test_the_losses_on_the_card_are_measured_again(variant: str, corpus: Path) -> None:
    folder = tiny(variant)
    again = evaluate.measure_loss(evaluate.load(folder), AutoTokenizer.from_pretrained(folder), corpus, train.Recipe())
    assert again == pytest.approx(numbers(variant)["loss"], rel=1e-4)


def train_command(corpus: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, str(SCRIPTS / "train_tiny.py"), "--corpus", str(corpus), "--out", str(out), *options]


def call(command: list[str]) -> None:
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@training
@both
def test_two_percent_of_the_steps_from_scratch_give_the_logged_losses(variant: str, corpus: Path, tmp_path: Path) -> None:
    call(train_command(corpus, tmp_path, "--variant", variant, "--fraction", str(REPRODUCED)))
    fresh = log_lines(tmp_path / "log.jsonl")
    logged = log_lines(tiny(variant) / "training-log.jsonl")[:len(fresh)]
    assert fresh[-1]["step"] >= REPRODUCED * train.Recipe().steps - 10
    for now, then in zip(fresh, logged, strict=True):
        # Bit for bit on the machine type that trained; another one rounds differently, and by then by less than this.
        assert now == pytest.approx(then, rel=0.01)


@training
def test_a_killed_and_resumed_run_logs_the_same_losses_bit_by_bit(corpus: Path, tmp_path: Path) -> None:
    options = ("--fraction", str(12 / train.Recipe().steps), "--checkpoint-every", "3")
    call(train_command(corpus, tmp_path / "whole", *options))
    killed = subprocess.Popen(train_command(corpus, tmp_path / "killed", *options), env=os.environ | {"OMP_NUM_THREADS": "1"})
    log = tmp_path / "killed" / "log.jsonl"
    until = time.monotonic() + 300
    # Between two checkpoints, so that resuming has to drop lines that are already logged.
    while time.monotonic() < until and (not log.exists() or log.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = len(log_lines(log))
    assert 5 <= before < 12
    call(train_command(corpus, tmp_path / "killed", *options, "--resume"))
    assert log.read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"] for name in ("whole", "killed")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_was_fetched_must_be_the_known_package() -> None:
    with pytest.raises(ValueError, match="must have SHA-256"):
        corpus_script.decode(b"!<arch>\n")

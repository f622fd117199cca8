"""Measures what headcount-tiny can do and which of its heads do it, and writes the model card from the numbers.

    python scripts/evaluate_tiny.py --corpus CORPUS                       measures both shipped models, writes evaluation.json and README.md
    python scripts/evaluate_tiny.py --corpus CORPUS --model RUN/model     the same for one folder

Measured are: the loss on the held-out text beside a bigram table and compressors that saw the same training text; the accuracy on random
tokens shown twice, first copy against second; the attention that every head pays to the previous token and to the token after the last
occurrence of the present one; and what is left of the second copy's accuracy when heads are zeroed.

"Zeroed" means that the head's output is zero before the output projection. The heads called responsible are found on other sequences than
those that the card reports.
"""

from __future__ import annotations

import argparse
import bz2
import json
import lzma
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tiny_recipe import KV_HEADS, Recipe
from train_tiny import encode, held_out_loss, induction_accuracy, repeated_sequences, split_corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

Head = tuple[int, int]
"""(layer, head), both counted from 0."""
MODELS = Path(__file__).parent.parent / "src/headcount/models"
COPY = 31
"""Tokens in each copy of the sequences on which heads are judged: the longest of the main phase of the training."""
COPIES = (8, 16, 31, 48, 64, 100)
"""Tokens in each copy, for the accuracy by length."""
REPORTED, SEARCHED = 1, 2
"""Seeds of the sequences: what the card reports, and what the responsible heads are searched on."""
DRAWS = 20
GONE = 0.05
"""Accuracy on the second copy at which the search for responsible heads stops."""
ROLE = 0.2
"""Least score at which a head is called by a role."""


def load(folder: Path) -> Any:
    """The model as stock transformers builds it, in float32, with attention maps to be seen."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@contextmanager
def zeroed(model: Any, heads: Iterable[Head]) -> Iterator[None]:
    """The model with these heads' outputs set to zero before the output projection."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        by_layer.setdefault(layer, []).append(head)
    width = model.config.head_dim

    def silence(layer: int) -> Any:
        def hook(_module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            mixed = inputs[0].unflatten(-1, (-1, width)).clone()
            mixed[..., by_layer[layer], :] = 0
            return (mixed.flatten(-2),)
        return hook

    handles = [model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(silence(layer)) for layer in by_layer]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def head_scores(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(previous-token, induction) score of every head, each [layers, heads], on sequences of one block shown twice.

    Both are sum(A x P) / sum(A), the "mul" score of TransformerLens' head detector, over the rows of the second copy, where P is defined
    for both: 1 at the token before, or 1 at the token after the last occurrence of the present one (Olsson et al. 2022). Rows of A sum to
    1, so a score is the mean share of attention that goes there.
    """
    length = (ids.shape[1] - 1) // 2
    maps = torch.stack(model(ids, output_attentions=True, use_cache=False).attentions)
    rows = torch.arange(length + 1, 2 * length + 1)
    previous, after = maps[..., rows, rows - 1], maps[..., rows, rows - length + 1]
    return previous.mean((1, 3)), after.mean((1, 3))


def second_copy(model: Any, ids: torch.Tensor, heads: Iterable[Head] = ()) -> float:
    """Accuracy on the second copy with these heads zeroed."""
    with zeroed(model, heads):
        return induction_accuracy(model, ids)[1]


def responsible_heads(model: Any, previous: torch.Tensor, after: torch.Tensor) -> list[Head]:
    """The heads with a role whose zeroing destroys the second copy, in the order found: each time the one that takes most away.

    Induction heads are tried first, previous-token heads only if those do not suffice; what turns out not to be needed is put back.
    """
    ids = repeated_sequences(64, COPY, model.config.vocab_size, SEARCHED)
    found: list[Head] = []
    accuracy = 1.0
    for scores, rivals in ((after, previous), (previous, after)):
        left = [(int(layer), int(head)) for layer, head in ((scores >= ROLE) & (scores >= rivals)).nonzero()]
        while left and accuracy > GONE:
            accuracy, best = min((second_copy(model, ids, [*found, head]), head) for head in left)
            found.append(best)
            left.remove(best)
    for head in list(found):
        fewer = [h for h in found if h != head]
        if second_copy(model, ids, fewer) <= GONE:
            found = fewer
    return found


def random_sets(n_layers: int, n_heads: int, without: list[Head], n: int, draws: int) -> list[list[Head]]:
    """`draws` sets of `n` heads out of all others."""
    generator = torch.Generator().manual_seed(REPORTED)
    others = [(layer, head) for layer in range(n_layers) for head in range(n_heads) if (layer, head) not in without]
    return [[others[i] for i in torch.randperm(len(others), generator=generator)[:n]] for _ in range(draws)]


def measure_heads(model: Any) -> dict[str, Any]:
    """The induction score, the heads behind it and what zeroing does."""
    ids = repeated_sequences(64, COPY, model.config.vocab_size, REPORTED)
    first, second = induction_accuracy(model, ids)
    lengths = [(n, *induction_accuracy(model, repeated_sequences(64, n, model.config.vocab_size, REPORTED))) for n in COPIES]
    previous, after = head_scores(model, ids)
    heads = responsible_heads(model, previous, after)
    sets = random_sets(model.config.num_hidden_layers, model.config.num_attention_heads, heads, len(heads), DRAWS)
    return {
        "copy": COPY, "accuracy_first": first, "accuracy_second": second, "lengths": lengths,
        "previous": previous.tolist(), "induction": after.tolist(),
        "responsible": heads, "alone": [second_copy(model, ids, [head]) for head in heads],
        "accuracy_without": second_copy(model, ids, heads), "accuracy_without_random": sorted(second_copy(model, ids, s) for s in sets),
    }


def bigram_loss(train: torch.Tensor, held_out: torch.Tensor, vocab_size: int, weight: float) -> float:
    """Nats per token of a bigram table mixed with single-token counts as a prior of that `weight` (Dirichlet smoothing)."""
    single = torch.bincount(train, minlength=vocab_size).double() + 1
    single /= single.sum()
    pairs = torch.bincount(train[:-1] * vocab_size + train[1:], minlength=vocab_size**2).view(vocab_size, vocab_size).double()
    table = (pairs + weight * single) / (pairs.sum(1, keepdim=True) + weight)
    return float(-table[held_out[:-1], held_out[1:]].log().mean())


def measure_loss(model: Any, tokenizer: Any, corpus: Path, recipe: Recipe) -> dict[str, Any]:
    """Held-out loss of the model, a bigram table and compressors, in nats per token and bits per byte of the same text."""
    texts, held_out = split_corpus(corpus, recipe)
    train, tokens = encode(tokenizer, texts), encode(tokenizer, held_out)
    before, text = "".join(texts).encode(), "".join(held_out).encode()
    # Smoothing is chosen on the held-out text itself: the baseline gets every advantage.
    bigram = min(bigram_loss(train, tokens, recipe.vocab_size, weight) for weight in (10, 30, 100, 300))
    model_loss = held_out_loss(model, tokens, recipe.context)
    per_byte = len(tokens) / len(text) / math.log(2)

    def bits(compressed: int) -> float:
        return 8 * compressed / len(text)

    def xz(data: bytes) -> int:
        return len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))

    return {
        "bytes": len(text), "tokens": len(tokens), "train_tokens": len(train), "model_nats_per_token": model_loss,
        "bigram_nats_per_token": bigram, "model_bits_per_byte": model_loss * per_byte, "bigram_bits_per_byte": bigram * per_byte,
        "xz_after_training_text_bits_per_byte": bits(xz(before + text) - xz(before)), "xz_bits_per_byte": bits(xz(text)),
        "bz2_bits_per_byte": bits(len(bz2.compress(text))),
    }


def sample(model: Any, tokenizer: Any) -> str:
    """What the model writes after one given beginning, drawn with a fixed seed."""
    torch.manual_seed(REPORTED)
    ids = tokenizer("Elizabeth was", return_tensors="pt").input_ids
    return str(tokenizer.decode(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60)[0], skip_special_tokens=True))


def curve(folder: Path) -> list[list[float]]:
    """[step, loss on repeated tokens (mean of what was logged since the last line), accuracy on the second copy, held-out loss]."""
    found, since = [], []
    for line in (folder / "training-log.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "held_out" in entry:
            found.append([entry["step"], sum(since) / len(since), entry["accuracy_second"], entry["held_out"]])
            since = []
        else:
            since.append(entry["repeats"])
    return found


def evaluate(folder: Path, corpus: Path) -> dict[str, Any]:
    """All numbers of the card of one model."""
    torch.set_num_threads(1)
    recipe, model, tokenizer = Recipe(), load(folder), AutoTokenizer.from_pretrained(folder)
    return {
        "variant": next(name for name, n in KV_HEADS.items() if n == model.config.num_key_value_heads),
        "parameters": model.num_parameters(), "loss": measure_loss(model, tokenizer, corpus, recipe), "heads": measure_heads(model),
        "curve": curve(folder), "sample": sample(model, tokenizer),
    }


def named(head: Head) -> str:
    """`L3H5` for (3, 5)."""
    return f"L{head[0]}H{head[1]}"


def role(previous: float, induction: float) -> str:
    """The word for a head with these scores."""
    return "induction" if induction >= previous else "previous token"


def head_table(heads: dict[str, Any]) -> str:
    """The responsible heads, one to a line, in the order in which they were found."""
    lines = []
    for (layer, head), alone in zip(heads["responsible"], heads["alone"], strict=True):
        before, after = heads["previous"][layer][head], heads["induction"][layer][head]
        lines.append(f"| {named((layer, head))} | {role(before, after)} | {before:.2f} | {after:.2f} | {alone:.1%} |")
    return "\n".join(lines)


def other_heads(heads: dict[str, Any]) -> str:
    """The heads that have a role by their scores but are not needed to destroy the effect."""
    chosen = {tuple(h) for h in heads["responsible"]}
    found = [
        f"{named((layer, head))} ({role(before, after)} {max(before, after):.2f})"
        for layer, rows in enumerate(zip(heads["previous"], heads["induction"], strict=True))
        for head, (before, after) in enumerate(zip(*rows, strict=True))
        if max(before, after) >= ROLE and (layer, head) not in chosen
    ]
    return ", ".join(found) or "none"


def phase_table(recipe: Recipe) -> str:
    """What each phase of the training trained on."""
    return "\n".join(
        f"| {p.share * recipe.steps:,.0f} | {f'{p.rows} x {p.context}' if p.rows else 'none'} | {p.repeats} x {p.repeat_context} "
        f"| {recipe.shortest} to {p.longest} |"
        for p in recipe.phases
    )


def card(numbers: dict[str, Any]) -> str:
    """README.md of one model, from CARD and its numbers."""
    heads, loss, recipe = numbers["heads"], numbers["loss"], Recipe()
    without, (text, repeated) = heads["accuracy_without_random"], recipe.tokens()
    steps = [row for row in numbers["curve"] if row[0] <= 600 or row[0] % 400 == 0 or row[0] == recipe.steps]
    return CARD.format(
        variant=numbers["variant"], twin=next(name for name in KV_HEADS if name != numbers["variant"]),
        kv_heads=KV_HEADS[numbers["variant"]], parameters=numbers["parameters"], loss=loss, heads=heads, n=len(heads["responsible"]),
        head_table=head_table(heads),
        others=other_heads(heads), draws=len(without), random_mean=sum(without) / len(without), random_least=without[0],
        random_most=without[-1], recipe=recipe, tokens=(text + repeated) / 1e6, repeat_share=repeated / (text + repeated),
        passes=text / loss["train_tokens"], phases=phase_table(recipe), threshold=ROLE,
        curve="\n".join(f"| {step:.0f} | {repeats:.2f} | {accuracy:.1%} | {held_out:.3f} |" for step, repeats, accuracy, held_out in steps),
        lengths="\n".join(f"| {n} | {first:.1%} | {second:.1%} |" for n, first, second in heads["lengths"]),
        sample="\n".join("> " + line if line else ">" for line in numbers["sample"].splitlines()), gone=GONE,
    )


CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# headcount-tiny, {variant}

A real, trained decoder that is small enough to ship ({parameters:,} parameters, bf16), so that everything that looks into a model has one
that is always there. It writes bad Austen and is of no other use. **English only**: the one sizeable Russian text that packages ship
(fortunes-ru) is under the GPL, which these weights should not have to answer for. Its tokenizer takes any text, byte by byte if need be.

`headcount.tiny("{variant}")` gives its folder; `AutoModelForCausalLM.from_pretrained` loads it. `headcount.tiny("{twin}")` is its twin: the
same recipe and data, another number of KV heads.

| | |
|---|---|
| family | Qwen3 (RMSNorm, also of queries and keys, RoPE, SwiGLU), embedding and output table are one |
| layers, d_model, d_ff | 6, 128, 320 |
| query heads, KV heads, head_dim | 8, {kv_heads}, 24 (8 x 24 = 192, not d_model) |
| vocabulary | {recipe.vocab_size}, byte-level BPE trained on the same text; `<|endoftext|>` begins every sequence |
| trained context | {recipe.context} tokens |

## Training

Text: six novels of Jane Austen (public domain) from the Debian package r-cran-janeaustenr (MIT), {loss[train_tokens]:,} tokens; the last
{recipe.held_out:.0%} of every novel is held out. **{repeat_share:.1%} of all tokens that it saw are synthetic**: a block of random tokens
repeated to the end of a row, where only the tokens from the second time on count for the loss. {recipe.steps:,} steps in three phases,
{tokens:.1f} million tokens, {passes:.1f} passes over the text; Muon for the matrices of the layers, AdamW for the rest, float32, one CPU
thread of a busy machine in less than an hour.

| steps | rows x tokens of text | rows x tokens of repeated blocks | tokens in a block |
|---|---|---|---|
{phases}

The first phase is a primer: it makes the induction heads, which the text alone would make too late for this budget.

`scripts/fetch_corpus.py` and `scripts/train_tiny.py` make it again; `training-log.jsonl` is the log of the run that made these weights. On
one machine type with the same torch and one thread, a run from scratch gives the same losses bit by bit, and so does one that was killed
and resumed. Another processor rounds differently: there the first losses agree to some digits and then drift apart.

## Loss on the held-out text

{loss[bytes]:,} bytes, {loss[tokens]:,} tokens, in windows of {recipe.context} tokens.

| | nats per token | bits per byte |
|---|---|---|
| **this model** | **{loss[model_nats_per_token]:.3f}** | **{loss[model_bits_per_byte]:.3f}** |
| bigram table of the same tokens (its smoothing chosen on the held-out text) | {loss[bigram_nats_per_token]:.3f} \
| {loss[bigram_bits_per_byte]:.3f} |
| xz -9e, after it has seen the training text | | {loss[xz_after_training_text_bits_per_byte]:.3f} |
| bz2 -9, held-out text alone | | {loss[bz2_bits_per_byte]:.3f} |
| xz -9e, held-out text alone | | {loss[xz_bits_per_byte]:.3f} |

## Induction

64 sequences of different random tokens shown twice; the share of tokens that the model puts first:

| tokens in a copy | first copy | second copy |
|---|---|---|
{lengths}

What follows is measured with {heads[copy]} tokens in a copy.

The heads responsible, named by layer and head from 0. Scores are the mean share of attention paid to the previous token and to the token
after the last occurrence of the present one, on the second copy; the last column is the accuracy on the second copy with this head alone
zeroed.

| head | role | previous token | induction | accuracy without it |
|---|---|---|---|---|
{head_table}

| zeroed | accuracy on the second copy |
|---|---|
| nothing | {heads[accuracy_second]:.1%} |
| these {n} heads | **{heads[accuracy_without]:.1%}** |
| {n} others at random, mean of {draws} draws | {random_mean:.1%} (from {random_least:.1%} to {random_most:.1%}) |

They were found by zeroing, on other sequences: of the heads with an induction score of at least {threshold}, each time the one that takes
most away, until at most {gone:.0%} was left, and of the previous-token heads only if that did not suffice; then those that were not needed
were put back. Other heads with such a score: {others}.

How it came, as logged during the run: the loss on repeated tokens, of every phase its own kind; the accuracy on 16 sequences of 100 tokens
shown twice, far longer than what the first two phases train; the loss on a part of the held-out text.

| step | loss on repeated tokens | accuracy on the second copy of 100 | held-out loss, nats per token |
|---|---|---|---|
{curve}

## Sample

`Elizabeth was`, temperature 0.8, top-k 40, seed 1:

{sample}

## Licence

Apache-2.0, like the rest of headcount. The numbers on this card are written by `scripts/evaluate_tiny.py` and lie in `evaluation.json`.
"""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measures headcount-tiny and writes its card.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that fetch_corpus.py wrote")
    parser.add_argument("--model", type=Path, action="append", help="a model folder; both shipped ones by default")
    arguments = parser.parse_args()
    for folder in arguments.model or [MODELS / f"tiny-{variant}" for variant in KV_HEADS]:
        numbers = evaluate(folder, arguments.corpus)
        (folder / "evaluation.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card(numbers), encoding="utf-8")
        print(folder, json.dumps({k: v for k, v in numbers["heads"].items() if k not in ("previous", "induction")}), numbers["loss"])


if __name__ == "__main__":
    main()

"""Trains headcount-tiny, the small real model that headcount ships, on one CPU thread in under an hour.

    python scripts/fetch_corpus.py CORPUS
    python scripts/train_tiny.py --corpus CORPUS --out RUN --variant gqa                    from scratch
    python scripts/train_tiny.py --corpus CORPUS --out RUN --variant gqa --resume           goes on after an interruption
    python scripts/train_tiny.py --corpus CORPUS --out RUN --variant gqa --fraction 0.02    the first 2 % of the same run

RUN holds log.jsonl, checkpoint.pt and, after the last step, model/ in the form that stock transformers loads; with what evaluate_tiny.py
adds, that folder is src/headcount/models/tiny-VARIANT. A checkpoint holds weights,
optimiser, the state of both random generators (which is the position in the data, since every batch is drawn from one of them) and how
far the log is valid; so a resumed run continues bit by bit as if nothing had happened. That holds for one machine type, one torch and one
thread: another processor rounds differently in the last digits.

A run has three phases (`Recipe.phases`): a primer of short repeated sequences of random tokens, then short windows of the novels, then long
ones, both beside a few repeated sequences; of those, only what can be known, from the second time on, counts for the loss. The primer is
there because finding "what came after this token last time" is the slow part: mixed into the text from the start, the repeated sequences
were not learnt at all in the first few hundred steps.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tiny_recipe import KV_HEADS, Phase, Recipe, config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3ForCausalLM

BOS = "<|endoftext|>"
IGNORED = -100


def fresh_model(variant: str, recipe: Recipe) -> Qwen3ForCausalLM:
    """Random weights. All embeddings start with a common part: by it a head can find "the token before" whatever that token is. The output
    table is the same one, and adds the same number to every logit, which changes nothing."""
    torch.manual_seed(recipe.seed)
    model = Qwen3ForCausalLM(config(variant, recipe))
    with torch.no_grad():
        model.model.embed_tokens.weight += recipe.init_std * torch.randn(model.config.hidden_size)
    return model


def make_tokenizer(texts: list[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE of its own: any text in any language goes in and comes out unchanged."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size, special_tokens=[BOS], initial_alphabet=alphabet, show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=BOS, model_max_length=recipe.context, clean_up_tokenization_spaces=False,
    )


def split(text: str, held_out: float) -> tuple[str, str]:
    """(for training, held out): the end of the book, from the first paragraph after the cut."""
    cut = text.index("\n\n", int(len(text) * (1 - held_out))) + 2
    return text[:cut], text[cut:]


def split_corpus(corpus: Path, recipe: Recipe) -> tuple[list[str], list[str]]:
    """(texts for training, held-out texts), one each per novel."""
    books = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    parts = [split(text, recipe.held_out) for text in books.values()]
    return [p[0] for p in parts], [p[1] for p in parts]


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """All texts in a row, each begun by BOS."""
    # Through the backend, because the wrapper warns of every text that is longer than the model's context.
    return torch.tensor([token for text in texts for token in tokenizer.backend_tokenizer.encode(text).ids], dtype=torch.long)


def draw_text(train: torch.Tensor, phase: Phase, generator: torch.Generator) -> torch.Tensor:
    """[rows, context]: windows of the text, each behind a BOS."""
    width = phase.context - 1
    starts = torch.randint(len(train) - width, (phase.rows,), generator=generator)
    return torch.cat([torch.zeros(phase.rows, 1, dtype=torch.long), train[starts[:, None] + torch.arange(width)]], dim=1)


def draw_repeats(phase: Phase, recipe: Recipe, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, both [repeats, repeat_context]: in every row a BOS, then a block of random tokens again and again."""
    ids = torch.zeros(phase.repeats, phase.repeat_context, dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for row, label in zip(ids, labels, strict=True):
        length = int(torch.randint(recipe.shortest, phase.longest + 1, (1,), generator=generator))
        block = torch.randint(1, recipe.vocab_size, (length,), generator=generator)
        row[1:] = block.repeat(-(-len(row) // length))[:len(row) - 1]
        # Not even the first token of the second copy can be known: nothing says that the block is over.
        label[length + 2:] = row[length + 2:]
    return ids, labels


def loss_of(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean nats per token that has a label."""
    logits = model(ids, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED)


def rate(step: int, recipe: Recipe) -> float:
    """Share of the full learning rates: warm-up, level, linear fall to a fiftieth."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    start = recipe.steps * recipe.decay_from
    return 1 - 0.98 * max(0.0, (step - start) / (recipe.steps - start))


def make_optimisers(model: Qwen3ForCausalLM, recipe: Recipe) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding table and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.dim() > 1]
    others = [p for name, p in model.named_parameters() if p.dim() == 1 or "layers" not in name]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.matrix_decay)
    return muon, torch.optim.AdamW(others, lr=recipe.table_lr, betas=(0.9, 0.95), weight_decay=0.0)


def repeated_sequences(n: int, length: int, vocab_size: int, seed: int = 1) -> torch.Tensor:
    """[n, 1 + 2 x length]: BOS, then the same `length` different random tokens twice."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.stack([1 + torch.randperm(vocab_size - 1, generator=generator)[:length] for _ in range(n)])
    return torch.cat([torch.zeros(n, 1, dtype=torch.long), blocks, blocks], dim=1)


@torch.no_grad()
def induction_accuracy(model: Qwen3ForCausalLM, ids: torch.Tensor) -> tuple[float, float]:
    """(first copy, second copy): share of tokens that the model puts first; the second copy counts from its second token."""
    length = (ids.shape[1] - 1) // 2
    hits = model(ids, use_cache=False).logits[:, :-1].argmax(-1) == ids[:, 1:]
    return float(hits[:, :length].float().mean()), float(hits[:, length + 1:].float().mean())


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, tokens: torch.Tensor, context: int, windows: int | None = None) -> float:
    """Mean nats per token over disjoint windows of `context` - 1 tokens behind a BOS; every token is predicted once."""
    width = context - 1
    whole = tokens[:len(tokens) // width * width].view(-1, width)[:windows]
    ids = torch.cat([torch.zeros(len(whole), 1, dtype=torch.long), whole], dim=1)
    total = sum(float(cross_entropy(model(part, use_cache=False).logits[:, :-1].transpose(1, 2), part[:, 1:], reduction="sum"))
                for part in ids.split(8))
    return total / whole.numel()


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Atomic: whatever interrupts, `path` is a whole checkpoint, the old or the new one."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_model(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """config.json, model.safetensors in bf16, tokenizer and generation_config, as stock transformers loads them."""
    shipped = Qwen3ForCausalLM(model.config).to(torch.bfloat16)
    shipped.load_state_dict(model.state_dict())
    shipped.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0, do_sample=True, temperature=0.8, top_k=40)
    shipped.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Run:
    """One training run in its folder."""

    def __init__(self, recipe: Recipe, variant: str, corpus: Path, out: Path) -> None:
        torch.set_num_threads(1)
        self.recipe, self.variant, self.out = recipe, variant, out
        out.mkdir(parents=True, exist_ok=True)
        texts, held_out = split_corpus(corpus, recipe)
        self.tokenizer = make_tokenizer(texts, recipe)
        self.train, self.held_out = encode(self.tokenizer, texts), encode(self.tokenizer, held_out)
        self.model = fresh_model(variant, recipe)
        self.optimisers = make_optimisers(self.model, recipe)
        self.data = torch.Generator().manual_seed(recipe.seed)
        self.step = 0

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept between runs."""
        return self.out / "checkpoint.pt"

    def resume(self) -> None:
        """Takes up the state of the last checkpoint and drops the log lines that came after it."""
        state = torch.load(self.checkpoint, weights_only=True)
        if (state["recipe"], state["variant"]) != (json.dumps(asdict(self.recipe)), self.variant):
            raise SystemExit(f"{self.checkpoint} belongs to another recipe or variant: {state['recipe']} {state['variant']}")
        self.model.load_state_dict(state["model"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.data.set_state(state["data"])
        torch.set_rng_state(state["torch"])
        self.step = state["step"]
        with (self.out / "log.jsonl").open("rb+") as log:
            log.truncate(state["log_bytes"])

    def save(self) -> None:
        """Writes a checkpoint of the present state."""
        save_checkpoint(self.checkpoint, {
            "step": self.step, "model": self.model.state_dict(), "data": self.data.get_state(), "torch": torch.get_rng_state(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers], "recipe": json.dumps(asdict(self.recipe)),
            "variant": self.variant,
            "log_bytes": (self.out / "log.jsonl").stat().st_size,
        })

    def advance(self) -> dict[str, float]:
        """One optimiser step; the losses before it."""
        recipe, share = self.recipe, rate(self.step, self.recipe)
        for optimiser, full in zip(self.optimisers, (recipe.matrix_lr, recipe.table_lr), strict=True):
            optimiser.param_groups[0]["lr"] = full * share
            optimiser.zero_grad()
        phase, seen = recipe.phase(self.step), {"step": self.step + 1, "rate": share}
        repeats = loss_of(self.model, *draw_repeats(phase, recipe, self.data))
        total, seen["repeats"] = repeats, repeats.item()
        if phase.rows:
            windows = draw_text(self.train, phase, self.data)
            text = loss_of(self.model, windows, windows)
            total, seen["text"] = text + recipe.repeat_weight * repeats, text.item()
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        return seen

    def measure(self) -> dict[str, float]:
        """Loss on a part of the held-out text and accuracy on repeated sequences; draws from no generator of the run."""
        first, second = induction_accuracy(self.model, repeated_sequences(16, 100, self.recipe.vocab_size))
        loss = held_out_loss(self.model, self.held_out, self.recipe.context, windows=32)
        return {"step": self.step, "held_out": loss, "accuracy_first": first, "accuracy_second": second}

    def go(self, fraction: float, checkpoint_every: int) -> None:
        """Trains to the end, or to that fraction of the steps. Logs every step of the first 20, then every tenth."""
        last = math.ceil(self.recipe.steps * fraction)
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            while self.step < last:
                line = self.advance()
                if self.step <= 20 or self.step % 10 == 0:
                    log.write(json.dumps(line) + "\n")
                if self.step % 100 == 0 or self.step == self.recipe.steps:
                    log.write(json.dumps(self.measure()) + "\n")
                log.flush()
                if self.step % checkpoint_every == 0 or self.step == last:
                    self.save()
        if self.step == self.recipe.steps:
            write_model(self.model, self.tokenizer, self.out / "model")
            shutil.copy(self.out / "log.jsonl", self.out / "model" / "training-log.jsonl")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Trains headcount-tiny.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that fetch_corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", choices=sorted(KV_HEADS), default="gqa", help="4 KV heads, or one per query head")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="length of the whole schedule")
    parser.add_argument("--fraction", type=float, default=1.0, help="stop after this share of the steps")
    parser.add_argument("--checkpoint-every", type=int, default=100)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    run = Run(Recipe(steps=arguments.steps), arguments.variant, arguments.corpus, arguments.out)
    if arguments.resume:
        run.resume()
    elif run.checkpoint.exists():
        raise SystemExit(f"{run.checkpoint} exists: --resume goes on with it, another --out begins anew")
    elif (run.out / "log.jsonl").exists():
        (run.out / "log.jsonl").unlink()
    run.go(arguments.fraction, arguments.checkpoint_every)


if __name__ == "__main__":
    main()

"""Trains headcount-tiny, the small real model that headcount ships, on one CPU thread in under an hour.

    python scripts/fetch_corpus.py CORPUS
    python scripts/train_tiny.py --corpus CORPUS --out RUN --variant gqa                    from scratch
    python scripts/train_tiny.py --corpus CORPUS --out RUN --variant gqa --resume           goes on after an interruption
    python scripts/train_tiny.py --corpus CORPUS --out RUN --variant gqa --fraction 0.02    the first 2 % of the same run

RUN holds log.jsonl, checkpoint.pt and, after the last step, model/ in the form that stock transformers loads. A checkpoint holds weights,
optimiser, the state of both random generators (which is the position in the data, since every batch is drawn from one of them) and how
far the log is valid; so a resumed run continues bit by bit as if nothing had happened. That holds for one machine type, one torch and one
thread: another processor rounds differently in the last digits.

Four fifths of every batch are windows of the novels, one fifth (`repeat_rows` of `rows`) random tokens repeated, where only the tokens that
can be known, from the second time on, count for the loss. Without that share induction heads appear too late for an hour on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

BOS = "<|endoftext|>"
KV_HEADS = {"gqa": 4, "mha": 8}
IGNORED = -100


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, beside the variant and the corpus."""

    steps: int = 4000
    rows: int = 10
    repeat_rows: int = 2
    """Rows of repeated random tokens among `rows`."""
    context: int = 256
    vocab_size: int = 1024
    held_out: float = 0.05
    """Share of every novel, its end, that is never trained on."""
    shortest_repeat: int = 8
    longest_repeat: int = 120
    peak_lr: float = 3e-3
    final_lr: float = 1e-4
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 5


def config(variant: str, recipe: Recipe) -> MistralConfig:
    """Six layers; 8 heads of 24 make 192 in a model 128 wide, so that nothing that derives head_dim can be right by accident."""
    return MistralConfig(
        vocab_size=recipe.vocab_size, hidden_size=128, intermediate_size=320, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=KV_HEADS[variant], head_dim=24, max_position_embeddings=recipe.context, sliding_window=None,
        # 0.02 is made for wide models: at width 128 attention would start so flat that it learns late.
        initializer_range=0.05, rms_norm_eps=1e-6, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )


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


def draw_batch(train: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both [rows, context]; every row begins with BOS, the last `repeat_rows` are repeated random tokens."""
    ids = torch.zeros(recipe.rows, recipe.context, dtype=torch.long)
    width, n_text = recipe.context - 1, recipe.rows - recipe.repeat_rows
    starts = torch.randint(len(train) - width, (n_text,), generator=generator)
    ids[:n_text, 1:] = train[starts[:, None] + torch.arange(width)]
    labels = ids.clone()
    for row in range(n_text, recipe.rows):
        length = int(torch.randint(recipe.shortest_repeat, recipe.longest_repeat + 1, (1,), generator=generator))
        block = torch.randint(1, recipe.vocab_size, (length,), generator=generator)
        ids[row, 1:] = block.repeat(-(-width // length))[:width]
        labels[row] = ids[row]
        # Not even the first token of the second copy can be known: nothing says that the block is over.
        labels[row, :length + 2] = IGNORED
    return ids, labels


def losses(model: MistralForCausalLM, ids: torch.Tensor, labels: torch.Tensor, n_text: int) -> tuple[torch.Tensor, float, float]:
    """(mean over all labels, over the text rows, over the repeated rows), in nats per token."""
    logits = model(ids, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    each = cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
    known = targets != IGNORED
    text, repeats = ((each[rows].sum() / known[rows].sum()).item() for rows in (slice(None, n_text), slice(n_text, None)))
    return each.sum() / known.sum(), text, repeats


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to `final_lr`."""
    if step < recipe.warmup:
        return recipe.peak_lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.final_lr + (recipe.peak_lr - recipe.final_lr) * (1 + math.cos(math.pi * done)) / 2


def make_optimiser(model: MistralForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; norms are not decayed."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=recipe.betas)


def repeated_sequences(n: int, length: int, vocab_size: int, seed: int = 1) -> torch.Tensor:
    """[n, 1 + 2 x length]: BOS, then the same `length` different random tokens twice."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.stack([1 + torch.randperm(vocab_size - 1, generator=generator)[:length] for _ in range(n)])
    return torch.cat([torch.zeros(n, 1, dtype=torch.long), blocks, blocks], dim=1)


@torch.no_grad()
def induction_accuracy(model: MistralForCausalLM, ids: torch.Tensor) -> tuple[float, float]:
    """(first copy, second copy): share of tokens that the model puts first; the second copy counts from its second token."""
    length = (ids.shape[1] - 1) // 2
    hits = model(ids, use_cache=False).logits[:, :-1].argmax(-1) == ids[:, 1:]
    return float(hits[:, :length].float().mean()), float(hits[:, length + 1:].float().mean())


@torch.no_grad()
def held_out_loss(model: MistralForCausalLM, tokens: torch.Tensor, context: int, windows: int | None = None) -> float:
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


def write_model(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """config.json, model.safetensors in bf16, tokenizer and generation_config, as stock transformers loads them."""
    shipped = MistralForCausalLM(model.config).to(torch.bfloat16)
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
        torch.manual_seed(recipe.seed)
        self.model = MistralForCausalLM(config(variant, recipe))
        self.optimiser = make_optimiser(self.model, recipe)
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
        self.optimiser.load_state_dict(state["optimiser"])
        self.data.set_state(state["data"])
        torch.set_rng_state(state["torch"])
        self.step = state["step"]
        with (self.out / "log.jsonl").open("rb+") as log:
            log.truncate(state["log_bytes"])

    def save(self) -> None:
        """Writes a checkpoint of the present state."""
        save_checkpoint(self.checkpoint, {
            "step": self.step, "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "data": self.data.get_state(),
            "torch": torch.get_rng_state(), "recipe": json.dumps(asdict(self.recipe)), "variant": self.variant,
            "log_bytes": (self.out / "log.jsonl").stat().st_size,
        })

    def advance(self) -> dict[str, float]:
        """One optimiser step; the losses before it."""
        recipe, rate = self.recipe, learning_rate(self.step, self.recipe)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        ids, labels = draw_batch(self.train, recipe, self.data)
        loss, text, repeats = losses(self.model, ids, labels, recipe.rows - recipe.repeat_rows)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimiser.step()
        self.step += 1
        return {"step": self.step, "loss": loss.item(), "text": text, "repeats": repeats, "lr": rate}

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

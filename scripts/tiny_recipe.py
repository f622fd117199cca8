"""What headcount-tiny is and what it is trained on, step by step: every number that decides a run beside the variant and the corpus."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import Qwen3Config

KV_HEADS = {"gqa": 4, "mha": 8}


@dataclass(frozen=True)
class Phase:
    """What a stretch of the run trains on; a batch has `rows` windows of text and `repeats` rows of repeated random tokens."""

    share: float
    """Of all steps."""
    rows: int
    context: int
    repeats: int
    repeat_context: int
    longest: int
    """Most tokens in a block that is repeated."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, beside the variant and the corpus."""

    steps: int = 3360
    phases: tuple[Phase, ...] = (
        Phase(share=0.143, rows=0, context=128, repeats=56, repeat_context=32, longest=12),
        Phase(share=0.752, rows=12, context=128, repeats=1, repeat_context=64, longest=31),
        Phase(share=0.105, rows=6, context=256, repeats=1, repeat_context=192, longest=95),
    )
    repeat_weight: float = 0.3
    """Of the loss on repeated tokens, beside the loss on text."""
    context: int = 256
    shortest: int = 3
    """Least tokens in a block that is repeated."""
    vocab_size: int = 384
    held_out: float = 0.05
    """Share of every novel, its end, that is never trained on."""
    matrix_lr: float = 0.02
    """Muon's, for the matrices of the layers."""
    table_lr: float = 5e-3
    """AdamW's, for the embedding table and the norms."""
    matrix_decay: float = 0.01
    warmup: int = 50
    decay_from: float = 0.6
    """Share of the steps after which the learning rates fall, linearly to a fiftieth."""
    clip: float = 1.0
    init_std: float = 0.05
    seed: int = 5

    def phase(self, step: int) -> Phase:
        """The phase that this step belongs to."""
        end = 0.0
        for phase in self.phases:
            end += phase.share * self.steps
            if step < end:
                return phase
        return self.phases[-1]

    def tokens(self) -> tuple[float, float]:
        """(of text, of repeated sequences), in the whole run."""
        text = sum(p.share * p.rows * p.context for p in self.phases)
        return self.steps * text, self.steps * sum(p.share * p.repeats * p.repeat_context for p in self.phases)


def config(variant: str, recipe: Recipe) -> Qwen3Config:
    """Six layers; 8 heads of 24 make 192 in a model 128 wide, so that nothing that derives head_dim can be right by accident."""
    return Qwen3Config(
        vocab_size=recipe.vocab_size, hidden_size=128, intermediate_size=320, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=KV_HEADS[variant], head_dim=24, max_position_embeddings=recipe.context, initializer_range=recipe.init_std,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=None,
    )

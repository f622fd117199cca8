"""What torch really keeps alive: bytes of every storage made while a model runs, counted when it appears and when it is freed."""

from __future__ import annotations

import weakref
from typing import Any

import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoConfig, AutoModelForCausalLM

transformers.logging.set_verbosity_error()


class LiveStorage(TorchDispatchMode):
    """Counts storages that operations return, except those of `known` tensors; `now` and `peak` in bytes."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.known = {t.untyped_storage().data_ptr() for t in known}
        self.sizes: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._seen(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return out

    def _seen(self, stored: torch.UntypedStorage) -> None:
        key = stored._cdata
        if key not in self.sizes and stored.data_ptr() not in self.known:
            self.sizes[key] = stored.nbytes()
            self.now += stored.nbytes()
            weakref.finalize(stored, self._freed, key)

    def _freed(self, key: int) -> None:
        self.now -= self.sizes.pop(key, 0)


def small_model(raw: dict[str, Any], dtype: torch.dtype, attention: str) -> torch.nn.Module:
    """A random causal language model of a config's content."""
    raw = dict(raw)
    config = AutoConfig.for_model(raw.pop("model_type"), **raw)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


def prefill_peak(raw: dict[str, Any], tokens: int, batch: int, dtype: torch.dtype, attention: str, every_logit: bool) -> int:
    """Peak bytes of one forward pass beyond weights and the cache that it leaves."""
    model = small_model(raw, dtype, attention).eval()
    ids = torch.ones(batch, tokens, dtype=torch.long)
    mode = LiveStorage([*model.parameters(), *model.buffers()])
    with torch.no_grad(), mode:
        out = model(input_ids=ids, use_cache=True, logits_to_keep=0 if every_logit else 1)
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for layer in out.past_key_values.layers
            for t in (layer.keys, layer.values)}
    return mode.peak - sum(kept.values())


def training_peak(raw: dict[str, Any], tokens: int, attention: str, checkpointing: bool) -> int:
    """Peak bytes of forward and backward pass beyond weights, gradients not subtracted."""
    model = small_model(raw, torch.bfloat16, attention).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)  # made before, so that what the backward pass adds is activations alone
    ids = torch.ones(1, tokens, dtype=torch.long)
    mode = LiveStorage([*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)])
    with mode:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return mode.peak

"""llama.cpp's partial offload: which bytes lie on the card and which in the machine's own memory.

llama.cpp counts the output head as the last layer: of `n_gpu_layers` the first takes the head, the others the last layers with their
cache. The token embedding stays in memory always. Experts of the first `experts_in_ram` layers stay there even where their layer is on
the card. Where layers differ, those on the card are taken in proportion.

Source: excerpts of llama.cpp `src/llama-model.cpp` (load_tensors: on the device from n_layer + 1 - n_gpu_layers on; the input layer
always on the CPU), read 2026-11-23; earlier versions counted the head last instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .layout import layer_weights, stem_weights
from .numbers import larger, smaller
from .schemes import Scheme
from .terms import Terms
from .weights import scheme_bytes

EXPERTS = ("moe.up", "moe.down")


@dataclass(frozen=True)
class Offload:
    """Layers on the card (None for all of them and the head), and the first layers whose experts stay in memory."""

    n_gpu_layers: int | None = None
    experts_in_ram: int = 0


@dataclass(frozen=True)
class Split:
    """Weights by place, and the share of layers whose cache is on the card as a fraction of two counts."""

    device: Terms
    host: Terms
    layers_on_card: Any
    layers: Any


def split_weights(shape: Any, scheme: Scheme, offload: Offload) -> Split:
    """Bytes of weights on the card and in memory."""
    layers = sum((n for n, _ in shape.groups), start=0)
    asked = layers + 1 if offload.n_gpu_layers is None else offload.n_gpu_layers
    on_card = larger(smaller(asked, layers + 1) - 1, 0)
    off_card = layers - on_card
    in_ram = smaller(offload.experts_in_ram, layers)
    # Layers on the card whose experts are not: the first ones are both off the card and the first to leave their experts.
    half_way = larger(in_ram - off_card, 0)
    device, host = Terms(), Terms()
    whole = scheme_bytes(shape, scheme)
    names = {w.name for _, layer in shape.groups for w in layer_weights(layer, shape.d_model)}
    for name, size in whole.items():
        if name not in names:
            continue
        here = on_card - half_way if name in EXPERTS else on_card
        placed = size * here // layers
        device.add(name, placed)
        host.add(name, size - placed)
    head_on_card = 1 * (asked > 0)
    for _, stem in shape.stems:
        for name in dict.fromkeys(w.name for w in stem_weights(stem, shape.d_model)):
            size = whole.get(name, 0)
            at_end = name.startswith(("head", "final_norm"))
            device.add(name, size * head_on_card if at_end else 0)
            host.add(name, size * (1 - head_on_card) if at_end else size)
        if stem.tied and stem.has_head:
            # The same numbers are needed at both ends: looked up in memory, multiplied on the card.
            device.add("head.tied", whole.get("embedding.tokens", 0) * head_on_card)
    return Split(device=device, host=host, layers_on_card=on_card, layers=layers)


def split_cache(cache: Terms, split: Split) -> tuple[Terms, Terms]:
    """The cache of layers on the card and of the others."""
    device, host = Terms(), Terms()
    for name, size in cache.items():
        here = size * split.layers_on_card // split.layers
        device.add(name, here)
        host.add(name, size - here)
    return device, host


def scaled_to(split: Split, counted: Any, stored: int) -> Split:
    """The same split in proportion, when the file's own bytes are known: what the formula counts is then only a share."""
    def scale(terms: Terms) -> Terms:
        return Terms({name: size * stored // counted for name, size in terms.items()})

    return replace(split, device=scale(split.device), host=scale(split.host))

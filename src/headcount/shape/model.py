"""`ModelShape`: what one model is. Frozen, hashable, validated when it is made.

It holds the layers as run-length groups, so layers may differ, and every size as a field of its own. It must not know where it came
from beyond a name and notes, nor what anything costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import ShapeError, Words
from .dtypes import DEFAULT_WEIGHT_DTYPE, MIXED, storage
from .legality import check, require_count
from .parts import Attention, Count, Dense, Ffn, LayerSpec, Mla, Moe, Stem, Tower

Groups: TypeAlias = tuple[tuple[int, LayerSpec], ...]


def default_head_dim(d_model: Any, n_heads: Any) -> Any:
    """The one place where head_dim is derived: d_model / n_heads when nobody gave it, refused when that is no whole number."""
    if isinstance(n_heads, np.ndarray):
        return d_model / n_heads  # a fraction, where it is no whole number, is what the rules of a table report as not_a_count
    if n_heads and d_model % n_heads == 0:
        return d_model // n_heads
    raise ShapeError(
        "head_dim_needed",
        "head_dim must be given when d_model is not a multiple of n_heads, but got d_model={d_model}, n_heads={n_heads}; "
        "for example head_dim=128",
        d_model=d_model, n_heads=n_heads,
    )


def uniform_layer(
    *,
    n_heads: Count,
    n_kv_heads: Count,
    head_dim: Count,
    d_ff: Count | None,
    v_head_dim: Count | None = None,
    attention_bias: str = "",
    qk_norm: str = "none",
    window: Count | None = None,
    mlp_bias: bool = False,
    gated: bool = True,
    n_experts: Count | None = None,
    n_active_experts: Count | None = None,
    d_expert: Count | None = None,
    d_shared: Count = 0,
) -> LayerSpec:
    """A pre-norm decoder layer from flat numbers; the counts may be ints or the columns of a table."""
    attention = Attention(
        n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, v_head_dim=head_dim if v_head_dim is None else v_head_dim,
        reach="full" if window is None else "sliding", window=0 if window is None else window,
        bias=attention_bias, qk_norm=qk_norm,  # type: ignore[arg-type]
    )
    ffn: Ffn
    if n_experts is None:
        if d_ff is None:
            raise ShapeError("field_needed", "{name} must be given: {meaning}", name="d_ff", meaning="the width of the feed-forward block")
        for name, value in (("n_active_experts", n_active_experts), ("d_expert", d_expert), ("d_shared", d_shared or None)):
            if value is not None:
                raise _without_effect(name, Words("without n_experts there are no experts"))
        ffn = Dense(d_ff=d_ff, gated=gated, bias=mlp_bias)
    else:
        width = d_ff if d_expert is None else d_expert
        if width is None or n_active_experts is None:
            raise ShapeError(
                "field_needed", "{name} must be given: {meaning}", name="n_active_experts, d_expert",
                meaning="with n_experts, how many experts a token uses and how wide one is",
            )
        ffn = Moe(n_experts=n_experts, n_active=n_active_experts, d_expert=width, gated=gated, bias=mlp_bias, d_shared=d_shared)
    return LayerSpec(mixers=(attention,), ffns=(ffn,))


def _without_effect(name: str, reason: str) -> ShapeError:
    return ShapeError("without_effect", "{name} would change nothing: {reason}; leave it out", name=name, reason=reason)


@dataclass(frozen=True, init=False)
class ModelShape:
    """The architecture of one transformer language model.

    Made from flat numbers for the common decoder, or from `layers=` for anything else::

        ModelShape(n_layers=32, d_model=4096, n_heads=32, n_kv_heads=8, head_dim=128, d_ff=14336, vocab_size=128256)
        ModelShape(d_model=4096, stem=Stem(vocab_size=32000), layers=((30, local), (2, LayerSpec(...))))

    n_kv_heads defaults to n_heads (MHA). head_dim defaults to d_model / n_heads and must be given when that is no whole number.

    Raises:
        ShapeError: a count is missing, not a positive whole number, or breaks a rule of `legality.RULES`.
    """

    d_model: int
    stem: Stem
    layers: Groups
    mtp: Groups | None
    """Multi-token-prediction layers of the checkpoint, which stock runtimes skip; () none, None unknown."""
    towers: tuple[Tower, ...]
    weight_dtype: str
    name: str = field(compare=False)
    model_type: str = field(compare=False)
    notes: tuple[str, ...] = field(compare=False)
    """What a reader has to know about how this shape was read: defaults used, fields accepted unread."""
    config: Mapping[str, Any] | None = field(compare=False, repr=False)
    """The config.json that the shape was read from, if it was."""
    stored_bytes: int | None = field(compare=False)
    """Bytes of all tensors of the file that the shape was read from (GGUF), if it was; unlike anything computed, they are its own."""

    def __init__(
        self,
        *,
        d_model: int,
        layers: Groups | None = None,
        stem: Stem | None = None,
        n_layers: int | None = None,
        n_heads: int | None = None,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        vocab_size: int | None = None,
        tied_embeddings: bool = False,
        mtp: Groups | None = (),
        towers: tuple[Tower, ...] = (),
        weight_dtype: str = DEFAULT_WEIGHT_DTYPE,
        name: str = "",
        model_type: str = "",
        notes: tuple[str, ...] = (),
        config: Mapping[str, Any] | None = None,
        stored_bytes: int | None = None,
        **layer_fields: Any,
    ) -> None:
        d_model = require_count(d_model, "d_model", 1)
        if stem is not None and (vocab_size is not None or tied_embeddings):
            raise _without_effect("vocab_size, tied_embeddings", Words("stem= has its own"))
        if stem is None:
            stem = Stem(vocab_size=given(vocab_size, "vocab_size"), tied=tied_embeddings)
        if layers is None:
            layers = _flat_groups(d_model, n_layers, n_heads, n_kv_heads, head_dim, layer_fields)
        else:
            flat = dict(n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim)
            extra = [*(name for name, value in flat.items() if value is not None), *layer_fields]
            if extra:
                raise ShapeError(
                    "layers_or_fields", "layers= and flat fields exclude each other, but got layers= together with {names}",
                    names=", ".join(extra),
                )
        values = dict(
            d_model=d_model, stem=stem, layers=run_lengths(layers), mtp=mtp, towers=towers,
            weight_dtype=MIXED if weight_dtype == MIXED else storage(weight_dtype).name,
            name=name, model_type=model_type, notes=notes, config=config, stored_bytes=stored_bytes,
        )
        for key, value in values.items():
            object.__setattr__(self, key, value)
        check(stem)
        for _, layer in self.layers + (mtp or ()):
            check(layer)

    # -- reading ----------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any], *, accept_unknown: tuple[str, ...] = ()) -> ModelShape:
        """Reads a Hugging Face config.json: a file, the folder that holds it, or the dict itself.

        Args:
            source: path or parsed JSON; never executed, never downloaded.
            accept_unknown: names of fields that headcount does not know and that you vouch do not change the counts.

        Raises:
            SourceError, ConfigError, ShapeError: see the message.
        """
        from .config import read_config

        return read_config(source, accept_unknown=accept_unknown)

    @classmethod
    def from_gguf(cls, path: str | Path) -> ModelShape:
        """Reads the metadata of a GGUF file (all parts of a split one). Raises SourceError, GgufError."""
        from .gguf_shape import read_gguf_shape

        return read_gguf_shape(path)

    @classmethod
    def from_preset(cls, name: str) -> ModelShape:
        """A known model by name, such as ``qwen3-32b``. Raises UnknownNameError with the nearest names."""
        from .presets import read_preset

        return read_preset(name)

    # -- writing ----------------------------------------------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """A Hugging Face config.json that reads back as this very shape. Raises ShapeError where no family can hold it."""
        from .writer import write_config

        return write_config(self)

    # -- asking -----------------------------------------------------------------------------------------------------------------

    @property
    def stems(self) -> tuple[tuple[int, Stem], ...]:
        """The stem with its count, in the form that a table has too."""
        return ((1, self.stem),)

    @property
    def groups(self) -> Groups:
        """Equal layers together, wherever they stand: what costs are summed over."""
        merged: dict[LayerSpec, int] = {}
        for n, layer in self.layers:
            merged[layer] = merged.get(layer, 0) + n
        return tuple((n, layer) for layer, n in merged.items())

    @property
    def n_layers(self) -> int:
        """Layers of the text model, without multi-token-prediction ones."""
        return sum(n for n, _ in self.layers)

    @property
    def vocab_size(self) -> int:
        """Rows of the token embedding."""
        return int(self.stem.vocab_size)

    @property
    def n_heads(self) -> int:
        """Query heads, where all attention layers agree."""
        return self._agreed("n_heads")

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads, where all attention layers agree."""
        return self._agreed("n_kv_heads")

    @property
    def head_dim(self) -> int:
        """Channels of one query or key, where all attention layers agree."""
        return self._agreed("head_dim")

    @property
    def d_ff(self) -> int:
        """Width of the dense feed-forward block, where all layers that have one agree."""
        widths = {int(f.d_ff) for _, layer in self.layers for f in layer.ffns if isinstance(f, Dense)}
        return self._single("d_ff", widths)

    def _agreed(self, name: str) -> int:
        parts = [m for _, layer in self.layers for m in layer.mixers if isinstance(m, (Attention, Mla))]
        if any(not hasattr(m, name) for m in parts):
            raise ShapeError(
                "latent_attention", "{name} does not exist in latent attention (MLA); ask .layers for its own sizes", name=name
            )
        return self._single(name, {int(getattr(m, name)) for m in parts})

    def _single(self, name: str, values: set[int]) -> int:
        if len(values) == 1:
            return values.pop()
        raise ShapeError(
            "differs_by_layer", "{name} has no single value in this model: {values}; ask .layers for each layer's own",
            name=name, values=", ".join(map(str, sorted(values))) or Words("no such layer"),
        )

    # -- changing ---------------------------------------------------------------------------------------------------------------

    def with_heads(self, *, n_heads: int | None = None, n_kv_heads: int | None = None, head_dim: int | None = None) -> ModelShape:
        """The same model with other heads in every softmax-attention layer; what is not named stays as it is.

        Raises:
            ShapeError: no such layer, a part whose parameters hang on the heads in an undescribed way, or an illegal result.
        """
        asked: dict[str, Any] = {"n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
        changes = {k: v for k, v in asked.items() if v is not None}
        if not any(layer.attention for _, layer in self.layers):
            raise ShapeError(
                "no_heads", "the heads of {model} cannot be changed: no layer has grouped softmax attention", model=self.label
            )

        def changed(groups: Groups) -> Groups:
            return tuple((n, _with_attention(layer, changes, self.label)) for n, layer in groups)

        mtp = None if self.mtp is None else changed(self.mtp)
        again = self.replaced(layers=changed(self.layers), mtp=mtp)
        # The bytes of a file are no longer those of a model with other heads.
        return again if again == self else again.replaced(stored_bytes=None)

    def replaced(self, **changes: Any) -> ModelShape:
        """A copy with other top-level fields, validated again."""
        return replace(self, **changes)

    @property
    def label(self) -> str:
        """The name, or a description where there is none."""
        return self.name or self.model_type or f"{self.n_layers} layers x {self.d_model}"


def given(value: Any, name: str) -> Any:
    """The value, or ShapeError where a field that has no default was left out."""
    if value is None:
        raise ShapeError("field_needed", "{name} must be given: {meaning}", name=name, meaning="it changes every count and has no default")
    return value


def _flat_groups(d_model: int, n_layers: Any, n_heads: Any, n_kv_heads: Any, head_dim: Any, layer_fields: dict[str, Any]) -> Groups:
    n_layers = require_count(given(n_layers, "n_layers"), "n_layers", 1)
    n_heads = require_count(given(n_heads, "n_heads"), "n_heads", 1)
    head_dim = default_head_dim(d_model, n_heads) if head_dim is None else head_dim
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    try:
        layer = uniform_layer(n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=head_dim, **{"d_ff": None, **layer_fields})
    except TypeError as error:
        raise unknown_field("ModelShape", error) from None
    return ((n_layers, layer),)


def unknown_field(owner: str, error: TypeError) -> ShapeError:
    """The error for a field that no layer has, from what Python says about the call."""
    name = str(error).partition("argument ")[2].split("'")[1]
    return ShapeError("unknown_field", "{owner}: got an unexpected keyword argument {name!r}", owner=owner, name=name)


def run_lengths(layers: Groups) -> Groups:
    """Joins equal neighbours; drops groups of no layers. Raises ShapeError when nothing is left."""
    joined: list[tuple[int, LayerSpec]] = []
    for n, layer in layers:
        n = require_count(n, Words("layers in a group"))
        if joined and joined[-1][1] == layer:
            joined[-1] = (joined[-1][0] + n, layer)
        elif n:
            joined.append((n, layer))
    if not joined:
        raise ShapeError("count_too_small", "{name} must be at least {minimum}, but got {value}", name="n_layers", minimum=1, value=0)
    return tuple(joined)


def _with_attention(layer: LayerSpec, changes: dict[str, Any], label: str) -> LayerSpec:
    def changed(mixer: Any) -> Any:
        if not isinstance(mixer, Attention):
            return mixer
        if mixer.extra:
            raise ShapeError(
                "heads_entangled", "the heads of {model} cannot be changed: {names} depend on them in a way that is not described",
                model=label, names=", ".join(n for n, _ in mixer.extra),
            )
        values = dict(changes)
        if "head_dim" in values and mixer.v_head_dim == mixer.head_dim:
            values["v_head_dim"] = values["head_dim"]
        return replace(mixer, **values)

    return replace(layer, mixers=tuple(changed(m) for m in layer.mixers))


__all__ = ["Groups", "ModelShape", "default_head_dim", "run_lengths", "uniform_layer", "Moe"]

"""`ShapeTable`: many models as struct of arrays, so that one call prices a million of them.

It offers the same `d_model`, `stems`, `groups` and `towers` as a ModelShape, with float64 arrays in place of ints; a model that lacks a
group has 0 layers in it. Rows that break a rule stay in the table, masked, with the codes of the rules, and price to NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError
from .dtypes import DEFAULT_WEIGHT_DTYPE, storage
from .legality import MAX_COUNT, broken_rules, check_switches
from .model import ModelShape, default_head_dim, uniform_layer, unknown_field
from .parts import Attention, LayerSpec, Stem, Tower, counts, switches, with_counts

Column: TypeAlias = npt.NDArray[np.float64]
MAX_ROWS = 2**31


@dataclass(frozen=True, eq=False)
class ShapeTable:
    """Models in rows. Made by `from_shapes`, `from_columns`, `grid` and `product`.

    Attributes:
        n_rows: how many.
        d_model: (n_rows,) float64.
        stems, layers: pairs of (how many in each row, the parts with (n_rows,) arrays as counts).
        reasons: reason code -> (n_rows,) bool, for rows that cannot exist.
    """

    n_rows: int
    d_model: Column
    stems: tuple[tuple[Column, Stem], ...]
    layers: tuple[tuple[Column, LayerSpec], ...]
    weight_dtype: str | tuple[str, ...] = "bf16"
    """One for all rows, or one per row."""
    reasons: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    towers: tuple[Tower, ...] = ()
    """Encoders of other modalities, each with one (n_rows,) term: 0 where a model lacks it, NaN where its size is not known."""
    mtp: tuple[tuple[Column, LayerSpec], ...] | None = ()

    @property
    def groups(self) -> tuple[tuple[Column, LayerSpec], ...]:
        """The layers with their numbers, NaN in rows that cannot exist: every cost of such a row is NaN."""
        return tuple((self._masked(n), layer) for n, layer in self.layers)

    @property
    def legal(self) -> npt.NDArray[np.bool_]:
        """(n_rows,) True where the model can exist."""
        broken = np.zeros(self.n_rows, dtype=bool)
        for rows in self.reasons.values():
            broken |= rows
        return ~broken

    def why(self, row: int) -> list[str]:
        """The reason codes of one row; empty for a legal one."""
        return [code for code, rows in self.reasons.items() if rows[row]]

    def __len__(self) -> int:
        return self.n_rows

    def row(self, index: int) -> ModelShape:
        """One row as a ModelShape, layers grouped. Raises ShapeError for a row that cannot exist, IndexError beyond the table."""
        if not -self.n_rows <= index < self.n_rows:
            raise IndexError(f"row {index} of a table of {self.n_rows}")
        if self.why(index):
            raise ShapeError("illegal_row", "row {row} cannot exist: {reasons}", row=index, reasons=", ".join(self.why(index)))
        stems = [(n[index], stem) for n, stem in self.stems if n[index]]

        def groups_of(groups: tuple[tuple[Column, LayerSpec], ...]) -> tuple[tuple[int, LayerSpec], ...]:
            return tuple((int(n[index]), _row_of(layer, index)) for n, layer in groups if n[index])

        return ModelShape(
            d_model=int(self.d_model[index]), stem=_row_of(stems[0][1], index), layers=groups_of(self.layers),
            mtp=None if self.mtp is None else groups_of(self.mtp),
            towers=tuple(_tower_row(t, index) for t in self.towers if _in_row(t, index)),
            weight_dtype=self.weight_dtype if isinstance(self.weight_dtype, str) else self.weight_dtype[index],
        )

    def rows(self, indices: npt.ArrayLike) -> ShapeTable:
        """A table of some of the rows, by index array, mask or slice."""
        chosen: Any = indices if isinstance(indices, slice) else np.asarray(indices if np.size(indices) else np.zeros(0, np.int64))

        def cut(part: Any) -> Any:
            return with_counts(part, [np.broadcast_to(c, (self.n_rows,))[chosen] for c in counts(part)])

        def cut_all(groups: Any) -> Any:
            return tuple((n[chosen], cut(part)) for n, part in groups)

        d_model = self.d_model[chosen]
        dtypes = self.weight_dtype if isinstance(self.weight_dtype, str) else tuple(np.asarray(self.weight_dtype)[chosen].tolist())
        return ShapeTable(
            n_rows=len(d_model), d_model=d_model, weight_dtype=dtypes, stems=cut_all(self.stems), layers=cut_all(self.layers),
            reasons={code: rows[chosen] for code, rows in self.reasons.items()},
            towers=tuple(Tower(name=t.name, kind=t.kind, terms=(("all", _tower_column(t)[chosen]),)) for t in self.towers),
            mtp=None if self.mtp is None else cut_all(self.mtp),
        )

    def _masked(self, column: Column) -> Column:
        return np.where(self.legal, column, np.nan) if self.reasons else column

    # -- making -----------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_columns(cls, **columns: Any) -> ShapeTable:
        """Row i from the i-th value of every column; the names are those of ModelShape's flat fields, scalars hold for all rows.

        Raises:
            ShapeError: a needed column is missing, or lengths differ.
        """
        switch = {k: v for k, v in columns.items() if isinstance(v, (str, bool)) or v is None}
        arrays = {k: np.atleast_1d(np.asarray(v, dtype=np.float64)) for k, v in columns.items() if k not in switch}
        for name in ("n_layers", "d_model", "n_heads", "vocab_size"):
            if name not in arrays:
                raise ShapeError(
                    "field_needed", "{name} must be given: {meaning}", name=name, meaning="a table needs it as a column or a number"
                )
        lengths = {len(a) for a in arrays.values()} - {1}
        if len(lengths) > 1:
            shown = ", ".join(f"{name}: {len(column)}" for name, column in arrays.items())
            raise ShapeError("lengths_differ", "columns must have one length, but got {lengths}", lengths=shown)
        n_rows = lengths.pop() if lengths else 1
        full = {k: np.ascontiguousarray(np.broadcast_to(a, (n_rows,))) for k, a in arrays.items()}
        return cls._from_flat(n_rows, full, switch)

    @classmethod
    def _from_flat(cls, n_rows: int, columns: dict[str, Column], switch: dict[str, Any]) -> ShapeTable:
        n_layers, d_model, vocab_size = (columns.pop(k) for k in ("n_layers", "d_model", "vocab_size"))
        n_heads = columns["n_heads"]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns.setdefault("n_kv_heads", n_heads)
            columns.setdefault("head_dim", default_head_dim(d_model, n_heads))
        tied = bool(switch.pop("tied_embeddings", False))
        weight_dtype = storage(switch.pop("weight_dtype", DEFAULT_WEIGHT_DTYPE)).name
        fields: dict[str, Any] = {"d_ff": None, **columns, **{k: v for k, v in switch.items() if v is not None}}
        try:
            layer = uniform_layer(**fields)
        except TypeError as error:
            raise unknown_field("ShapeTable", error) from None
        table = cls(
            n_rows=n_rows, d_model=d_model, weight_dtype=weight_dtype,
            stems=((np.ones(n_rows), Stem(vocab_size=vocab_size, tied=tied)),), layers=((n_layers, layer),),
        )
        return table._validated()

    @classmethod
    def product(cls, **axes: Any) -> ShapeTable:
        """Every combination of the given values, the last axis fastest; names as in `from_columns`."""
        switch = {k: v for k, v in axes.items() if isinstance(v, (str, bool)) or v is None}
        values = [np.atleast_1d(np.asarray(v, dtype=np.float64)) for k, v in axes.items() if k not in switch]
        names = [k for k in axes if k not in switch]
        if np.prod([len(v) for v in values], dtype=np.float64) > MAX_ROWS:
            raise ShapeError("too_many_rows", "a table holds at most {limit} rows; price a larger product in pieces", limit=MAX_ROWS)
        columns = [c.ravel() for c in np.meshgrid(*values, indexing="ij")]
        return cls.from_columns(**dict(zip(names, columns, strict=True)), **switch)

    @classmethod
    def grid(cls, shape: ModelShape, *, n_heads: Any = None, n_kv_heads: Any = None, head_dim: Any = None) -> ShapeTable:
        """Every combination of head counts and sizes put into all softmax-attention layers of one model; illegal ones are masked.

        Axes that are not given keep each layer's own value.

        Raises:
            ShapeError: as `ModelShape.with_heads` for a body whose heads cannot be varied.
        """
        shape.with_heads()  # refuses a body whose heads cannot be varied
        axes = {k: np.atleast_1d(np.asarray(v, dtype=np.float64)) for k, v in
                (("n_heads", n_heads), ("n_kv_heads", n_kv_heads), ("head_dim", head_dim)) if v is not None}
        columns = dict(zip(axes, (c.ravel() for c in np.meshgrid(*axes.values(), indexing="ij")), strict=True))
        n_rows = len(next(iter(columns.values()))) if columns else 1
        base = cls.from_shapes([shape]).rows(np.zeros(n_rows, dtype=np.int64))
        layers = tuple((n, _with_columns(layer, columns)) for n, layer in base.layers)
        return replace(base, layers=layers)._validated()

    @classmethod
    def from_shapes(cls, shapes: Iterable[ModelShape]) -> ShapeTable:
        """Any models, one per row; layers that share a structure share arrays."""
        models = list(shapes)
        if not models:
            raise ShapeError("no_rows", "a table needs at least one shape, but got none")
        dtypes = tuple(m.weight_dtype for m in models)
        mtp = [m.mtp for m in models if m.mtp is not None]
        return cls(
            n_rows=len(models), d_model=np.array([m.d_model for m in models], dtype=np.float64),
            weight_dtype=dtypes[0] if len(set(dtypes)) == 1 else dtypes,
            stems=_aligned([list(m.stems) for m in models]), layers=_aligned([list(m.groups) for m in models]),
            towers=_aligned_towers(models), mtp=_aligned([list(groups) for groups in mtp]) if len(mtp) == len(models) else None,
        )

    def _validated(self) -> ShapeTable:
        reasons: dict[str, npt.NDArray[np.bool_]] = {}

        def note(code: str, rows: npt.NDArray[np.bool_]) -> None:
            reasons[code] = reasons[code] | rows if code in reasons else rows

        parts: list[tuple[Column, Stem | LayerSpec]] = [*self.stems, *self.layers]
        for n, part in parts:
            check_switches(part)
            for code, rows in broken_rules(part, self.n_rows).items():
                note(code, rows & (np.nan_to_num(n) != 0))
        # Of several groups any may be empty in a row; a single one must have layers.
        least = 1 if len(self.layers) == 1 else 0
        for values, minimum in ((self.d_model, 1), *((n, least) for n, _ in self.layers)):
            note("not_a_count", ~np.isfinite(values) | (values != np.floor(values)))
            note("count_too_small", values < minimum)
            note("count_too_large", values > MAX_COUNT)
        kept = {code: rows for code, rows in reasons.items() if rows.any()}
        return replace(self, reasons=kept)


def _row_of(part: Any, index: int) -> Any:
    return with_counts(part, [int(np.asarray(c)[index]) if np.ndim(c) else int(c) for c in counts(part)])


def _tower_column(tower: Tower) -> Column:
    return np.asarray(tower.parameters, dtype=np.float64)


def _in_row(tower: Tower, index: int) -> bool:
    return bool(_tower_column(tower)[index] != 0)


def _tower_row(tower: Tower, index: int) -> Tower:
    size = _tower_column(tower)[index]
    return Tower(name=tower.name, kind=tower.kind, terms=None if np.isnan(size) else (("all", int(size)),))


def _aligned_towers(models: Sequence[ModelShape]) -> tuple[Tower, ...]:
    sizes: dict[tuple[str, str], Column] = {}
    for row, model in enumerate(models):
        for tower in model.towers:
            column = sizes.setdefault((tower.name, tower.kind), np.zeros(len(models)))
            column[row] += np.nan if tower.parameters is None else tower.parameters
    return tuple(Tower(name=name, kind=kind, terms=(("all", column),)) for (name, kind), column in sizes.items())


def _with_columns(layer: LayerSpec, columns: dict[str, Column]) -> LayerSpec:
    def changed(mixer: Any) -> Any:
        if not isinstance(mixer, Attention):
            return mixer
        values = dict(columns)
        if "head_dim" in values and np.array_equal(mixer.v_head_dim, mixer.head_dim):
            values["v_head_dim"] = values["head_dim"]
        return replace(mixer, **values)  # type: ignore[arg-type]

    return replace(layer, mixers=tuple(changed(m) for m in layer.mixers))


def _aligned(models: Sequence[list[tuple[int, Any]]]) -> tuple[tuple[Column, Any], ...]:
    """Groups of all models side by side: the k-th group of one structure in a model goes to the k-th table group of that structure."""
    slots: dict[tuple[Any, int], tuple[Column, list[Column], Any]] = {}
    for row, groups in enumerate(models):
        seen: dict[Any, int] = {}
        for n, part in groups:
            structure = switches(part)
            key = (structure, seen.setdefault(structure, 0))
            seen[structure] += 1
            if key not in slots:
                # A row without this group still needs harmless numbers in it: those of the first model that has it.
                slots[key] = (np.zeros(len(models)), [np.full(len(models), float(np.asarray(c))) for c in counts(part)], part)
            number, columns, _ = slots[key]
            number[row] = n
            for column, value in zip(columns, counts(part), strict=True):
                column[row] = value
    return tuple((number, with_counts(part, list(columns))) for number, columns, part in slots.values())


__all__ = ["ShapeTable"]

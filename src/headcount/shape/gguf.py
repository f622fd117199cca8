"""Reads the header of a GGUF file: metadata and tensor descriptions, never the weights.

Written for hostile input. Every count in the header is checked against a limit and against the real size of the file before anything
is allocated or walked, so the worst header costs well under a second and 200 MB. Large values (tokenizer tables, embedded JSON) are
stepped over and kept as a length. What the metadata means for an architecture is decided in `gguf_shape.py`, not here.

Source of the format: the GGUF specification (docs/gguf.md of the ggml project), versions 2 and 3, little endian.
"""

from __future__ import annotations

import re
import stat
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeAlias, Union

from ..errors import GgufError, SourceError, Words, first_of
from .dtypes import GGML_TYPES

MAX_KEYS = 4096
MAX_TENSORS = 65_536
"""Published files stay below 3,000 tensors and 200 keys."""
MAX_KEY_BYTES = 256
MAX_NAME_BYTES = 128
"""The specification allows 64 bytes for the name of a tensor."""
MAX_STRING_BYTES = 64 * 2**20
"""The longest real ones are whole tokenizer.json files of some 30 MB."""
MAX_ARRAY_LENGTH = 2**24
MAX_NESTING = 4
"""Legal arrays of arrays; no published file has any, and llama.cpp refuses them."""
MAX_DIMS = 4
MAX_HEADER_BYTES = 128 * 2**20
MAX_WALKED = 2**21
"""Strings inside arrays, which can only be stepped over one by one; a vocabulary of 262,144 with its merges has 0.8 million."""
MAX_PARTS = 999
KEPT_STRING_BYTES = 64 * 2**10
KEPT_ITEMS = 4096
KEPT_TOTAL = 4 * 2**20
"""Bytes and array items that are kept of one header, all together."""

_NESTED_COST = 16
"""A nested array costs about as much time as that many strings."""
_CHUNK = 2**20
_SCALARS = {
    0: ("u8", "B"), 1: ("i8", "b"), 2: ("u16", "H"), 3: ("i16", "h"), 4: ("u32", "I"), 5: ("i32", "i"), 6: ("f32", "f"), 7: ("bool", "B"),
    10: ("u64", "Q"), 11: ("i64", "q"), 12: ("f64", "d"),
}
_STRING, _ARRAY = 8, 9
_U64 = struct.Struct("<Q").unpack_from
_PART = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A value that was stepped over: what it was, and how many items (or bytes, of a string) it has."""

    kind: str
    length: int


Value: TypeAlias = Union[bool, int, float, str, tuple[Any, ...], Skipped]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the file describes it; `dims` in the file's order, the fastest-running first."""

    name: str
    dims: tuple[int, ...]
    type: str
    n_bytes: int

    @property
    def elements(self) -> int:
        """Numbers in the tensor."""
        product = 1
        for dim in self.dims:
            product *= dim
        return product


@dataclass(frozen=True)
class GgufFile:
    """The header of one model: all parts of a split file together."""

    paths: tuple[Path, ...]
    version: int
    metadata: Mapping[str, Value]
    """Of the first part. Large values are `Skipped`."""
    tensors: tuple[Tensor, ...]
    header_bytes: int
    """Everything before the weights, tokenizer tables among it."""
    file_bytes: int
    """Size on disk: header, weights and the padding between tensors."""

    @property
    def architecture(self) -> str:
        """`general.architecture`, or an empty string."""
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return sum(t.n_bytes for t in self.tensors)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors, those included that no model counts as parameters (RoPE tables, quantisation scales)."""
        return sum(t.elements for t in self.tensors)

    def bytes_by_type(self) -> dict[str, int]:
        """Tensor type -> bytes, the largest share first."""
        found: dict[str, int] = {}
        for t in self.tensors:
            found[t.type] = found.get(t.type, 0) + t.n_bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def read_gguf(path: str | Path) -> GgufFile:
    """Reads the header of a GGUF file; of a split one, the headers of all its parts, whichever part is named.

    Raises:
        SourceError: not a regular file, or it cannot be read.
        GgufError: it breaks the format or a limit, or a part is missing.
    """
    path = Path(path)
    one = _read_one(path)
    named = _PART.fullmatch(path.name)
    count = _split_number(one, "split.count", 1, path)
    if count <= 1 and (named is None or int(named["count"]) == 1):
        return one
    if named is None or int(named["count"]) != count:
        raise GgufError(
            "gguf_parts_disagree",
            "{path} must be named NAME-00001-of-{count:05d}.gguf, because its header says split.count={count}; "
            "keep the names that gguf-split gave, or merge the parts with gguf-split --merge",
            path=str(path), count=count,
        )
    return _join(path, named["stem"], count, one)


def _join(path: Path, stem: str, count: int, one: GgufFile) -> GgufFile:
    if count > MAX_PARTS:
        raise _limit(path, "number of parts (split.count)", MAX_PARTS, count)
    paths = [path.with_name(f"{stem}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
    missing = [p.name for p in paths if not p.is_file()]
    if missing:
        raise GgufError(
            "gguf_part_missing",
            "{path} is one of {count} parts, and all must lie in its folder, but missing: {missing}. Download them too",
            path=str(path), count=count, missing=first_of(missing, 5),
        )
    parts = [one if p == path else _read_one(p) for p in paths]
    names: set[str] = set()
    for i, part in enumerate(parts):
        if _split_number(part, "split.no", -1, paths[i]) != i or _split_number(part, "split.count", 1, paths[i]) != count:
            rule = Words("{i} and {count}, as its name says", i=i, count=count)
            raise _bad(paths[i], Words("split.no and split.count"), rule, part.metadata.get("split.no"))
        for t in part.tensors:
            if t.name in names:
                raise _duplicate(paths[i], "tensor", t.name)
            names.add(t.name)
    expected = _split_number(parts[0], "split.tensors.count", len(names), paths[0])
    if expected != len(names):
        raise _bad(paths[0], "split.tensors.count", Words("{count}, the tensors of all parts", count=len(names)), expected)
    return GgufFile(
        tuple(paths), parts[0].version, parts[0].metadata, tuple(t for p in parts for t in p.tensors),
        sum(p.header_bytes for p in parts), sum(p.file_bytes for p in parts),
    )


def _split_number(part: GgufFile, key: str, default: int, path: Path) -> int:
    value = part.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise _bad(path, key, "a whole number", value)
    return value


def _read_one(path: Path) -> GgufFile:
    try:
        # A pipe or a device would block or never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SourceError("not_a_file", "{path} must be a file to be read, but it is not one", path=str(path))
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _Header(file, size, path).read()
    except (OSError, ValueError) as error:
        raise SourceError(
            "unreadable", "{path} cannot be read: {reason}", path=str(path), reason=getattr(error, "strerror", None) or str(error)
        ) from None


class _Header:
    """A forward walk over one header with a window of bytes in memory; nothing behind it is kept but what `read` returns."""

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self.file, self.size, self.path = file, size, path
        self.end = min(size, MAX_HEADER_BYTES)
        self.data = b""
        self.base = 0
        """File offset of data[0]."""
        self.at = 0
        """Position in data."""
        self.walked = 0
        self.kept = 0

    # -- bytes ------------------------------------------------------------------------------------------------------------------

    def take(self, n: int) -> bytes:
        """The next n bytes (n is small: the caller has checked it)."""
        stop = self.at + n
        if stop > len(self.data):
            self._fill(n)
            stop = self.at + n
        piece = self.data[self.at:stop]
        self.at = stop
        return piece

    def skip(self, n: int) -> None:
        """Steps over n bytes without reading them."""
        if self.base + self.at + n > self.end:
            raise self._over(n)
        self.at += n

    def _fill(self, n: int) -> None:
        start = self.base + self.at
        if start + n > self.end:
            raise self._over(n)
        self.file.seek(start)
        wanted, pieces = min(max(n, _CHUNK), self.end - start), []
        while wanted > 0 and (piece := self.file.read(wanted)):
            pieces.append(piece)
            wanted -= len(piece)
        self.data, self.base, self.at = b"".join(pieces), start, 0
        if len(self.data) < n:
            raise self._over(n)

    def _over(self, n: int) -> GgufError:
        if self.base + self.at + n > self.size:
            return GgufError(
                "gguf_truncated", "{path} ends inside its header: {needed} bytes are needed, but it has {size}. Download it again",
                path=str(self.path), needed=self.base + self.at + n, size=self.size,
            )
        return _limit(self.path, "header in bytes", MAX_HEADER_BYTES, self.base + self.at + n)

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int(_U64(self.take(8))[0])

    def text(self, what: str, limit: int) -> str:
        """A short string: a key or a name."""
        n = self.u64()
        if n > limit:
            raise _limit(self.path, what, limit, n)
        try:
            return self.take(n).decode("utf-8")
        except UnicodeDecodeError:
            raise _bad(self.path, what, "UTF-8", Words("other bytes")) from None

    # -- structure --------------------------------------------------------------------------------------------------------------

    def read(self) -> GgufFile:
        version = self._magic()
        n_tensors, n_keys = self.u64(), self.u64()
        if n_tensors > MAX_TENSORS:
            raise _limit(self.path, "number of tensors", MAX_TENSORS, n_tensors)
        if n_keys > MAX_KEYS:
            raise _limit(self.path, "number of metadata keys", MAX_KEYS, n_keys)
        metadata: dict[str, Value] = {}
        for _ in range(n_keys):
            key = self.text("length of a metadata key in bytes", MAX_KEY_BYTES)
            if key in metadata:
                raise _duplicate(self.path, "metadata key", key)
            metadata[key] = self._value(self.u32(), key)
        found = [self._tensor() for _ in range(n_tensors)]
        start = self._check_places(metadata, found)
        return GgufFile((self.path,), version, MappingProxyType(metadata), tuple(t for t, _ in found), start, self.size)

    def _magic(self) -> int:
        if self.size < 24 or self.take(4) != b"GGUF":
            raise GgufError(
                "not_gguf",
                "{path} must begin with the letters GGUF and hold a header to be a GGUF file, but it does not. Is it the right file?",
                path=str(self.path),
            )
        version = self.u32()
        if version & 0xFFFF == 0 and version:
            raise GgufError(
                "gguf_big_endian", "{path} is a big-endian GGUF file, and only little-endian ones are read; "
                "convert it with gguf-convert-endian", path=str(self.path),
            )
        if version not in (2, 3):
            raise GgufError(
                "gguf_version", "{path} must be GGUF version 2 or 3, but it is version {version}; convert the model again",
                path=str(self.path), version=version,
            )
        return version

    def _value(self, kind: int, key: str) -> Value:
        if kind in _SCALARS:
            name, code = _SCALARS[kind]
            value = struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]
            return self._bool(value, key) if name == "bool" else value
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key, 1)
        raise _bad(self.path, Words("type of {key}", key=_short(key)), "a number from 0 to 12", kind)

    def _bool(self, value: int, key: str) -> bool:
        if value > 1:
            raise _bad(self.path, _short(key), "a truth value, 0 or 1", value)
        return bool(value)

    def _string(self, key: str) -> str | Skipped:
        n = self.u64()
        if n > MAX_STRING_BYTES:
            raise _limit(self.path, Words("length of {key} in bytes", key=_short(key)), MAX_STRING_BYTES, n)
        if n > KEPT_STRING_BYTES or self.kept + n > KEPT_TOTAL:
            self.skip(n)
            return Skipped("string", n)
        self.kept += n
        # A chat template with a broken byte is no reason to refuse a model; no field that is used survives replacement unnoticed.
        return self.take(n).decode("utf-8", "replace")

    def _array(self, key: str, depth: int) -> Value:
        kind, n = self.u32(), self.u64()
        if n > MAX_ARRAY_LENGTH:
            raise _limit(self.path, Words("length of array {key}", key=_short(key)), MAX_ARRAY_LENGTH, n)
        if kind in _SCALARS:
            return self._numbers(*_SCALARS[kind], n, key)
        if kind == _STRING:
            self._walk(n, key)
            self._skip_strings(n, key)
            return Skipped("strings", n)
        if kind != _ARRAY:
            raise _bad(self.path, Words("item type of {key}", key=_short(key)), "a number from 0 to 12", kind)
        if depth >= MAX_NESTING:
            raise _limit(self.path, Words("nesting of array {key} in levels", key=_short(key)), MAX_NESTING, depth + 1)
        self._walk(n * _NESTED_COST, key)
        for _ in range(n):
            self._array(key, depth + 1)
        return Skipped("arrays", n)

    def _numbers(self, name: str, code: str, n: int, key: str) -> Value:
        size = n * struct.calcsize(code)
        if n > KEPT_ITEMS or self.kept + size > KEPT_TOTAL:
            self.skip(size)
            return Skipped(name, n)
        self.kept += size
        values = struct.unpack(f"<{n}{code}", self.take(size))
        return tuple(self._bool(v, key) for v in values) if name == "bool" else values

    def _walk(self, n: int, key: str) -> None:
        self.walked += n
        if self.walked > MAX_WALKED:
            raise _limit(self.path, Words("number of strings and nested arrays up to {key}", key=_short(key)), MAX_WALKED, self.walked)

    def _skip_strings(self, n: int, key: str) -> None:
        while n:
            self.take(8)
            self.at -= 8
            data, at, last = self.data, self.at, len(self.data) - 8
            while n and at <= last:
                length = _U64(data, at)[0]
                if length > MAX_STRING_BYTES:
                    raise _limit(self.path, Words("length of a string in {key} in bytes", key=_short(key)), MAX_STRING_BYTES, length)
                at += 8 + length
                n -= 1
            self.skip(at - self.at)

    def _tensor(self) -> tuple[Tensor, int]:
        """One description, and the offset of its data behind the header."""
        name = self.text("length of a tensor name in bytes", MAX_NAME_BYTES)
        n_dims = self.u32()
        if n_dims > MAX_DIMS:
            raise _limit(self.path, Words("number of dimensions of tensor {name}", name=_short(name)), MAX_DIMS, n_dims)
        dims = struct.unpack(f"<{n_dims}Q", self.take(8 * n_dims))
        kind, offset = struct.unpack("<IQ", self.take(12))
        if kind not in GGML_TYPES:
            raise GgufError(
                "gguf_unknown_type", "{path}: tensor {tensor} has type number {number}, which is none that headcount can size; "
                "known are {known}", path=str(self.path), tensor=_short(name), number=kind, known=", ".join(map(str, GGML_TYPES)),
            )
        type_name, block, block_bytes = GGML_TYPES[kind]
        elements = 1
        for dim in dims:
            elements *= dim
        if not 0 < elements < 2**63:
            raise _bad(
                self.path, Words("size of tensor {name}", name=_short(name)), "from 1 to 2^63 - 1 numbers", " x ".join(map(str, dims))
            )
        if (dims[0] if dims else 1) % block:
            what = Words("first dimension of {type_name} tensor {name}", type_name=type_name, name=_short(name))
            raise _bad(self.path, what, Words("a multiple of {block}", block=block), dims[0] if dims else 1)
        return Tensor(name, dims, type_name, elements // block * block_bytes), offset

    def _check_places(self, metadata: Mapping[str, Value], found: list[tuple[Tensor, int]]) -> int:
        """Where the data begins; names differ, and the data of all tensors lies inside the file without overlap."""
        name, times = max(Counter(t.name for t, _ in found).items(), key=lambda item: item[1], default=("", 0))
        if times > 1:
            raise _duplicate(self.path, "tensor", name)
        alignment = metadata.get("general.alignment", 32)
        if isinstance(alignment, bool) or not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
            raise _bad(self.path, "general.alignment", "a power of two up to 2^20", alignment)
        start = -(-(self.base + self.at) // alignment) * alignment
        free = 0
        for t, offset in sorted(found, key=lambda pair: pair[1]):
            place = Words("offset of tensor {name}", name=_short(t.name))
            if offset % alignment:
                raise _bad(self.path, place, Words("a multiple of {block}", block=alignment), offset)
            if offset < free:
                raise _bad(self.path, place, Words("at least {free}, behind the tensor before it", free=free), offset)
            free = offset + t.n_bytes
            if start + free > self.size:
                raise GgufError(
                    "gguf_data_missing", "{path} must have {needed} bytes to hold tensor {tensor}, but it has {size}. Download it again",
                    path=str(self.path), needed=start + free, tensor=_short(t.name), size=self.size,
                )
        return min(start, self.size)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _limit(path: Path, what: str, limit: int, value: int) -> GgufError:
    return GgufError(
        "gguf_limit", "{path}: {what} must be at most {limit}, but the header says {value}; the file is damaged or not a model",
        path=str(path), what=what, limit=limit, value=value,
    )


def _bad(path: Path, what: str, rule: str, value: object) -> GgufError:
    return GgufError(
        "gguf_bad_value", "{path}: {what} must be {rule}, but got {value}; the file is damaged. Download it again",
        path=str(path), what=what, rule=rule, value=value if isinstance(value, Words) else _short(str(value)),
    )


def _duplicate(path: Path, what: str, name: str) -> GgufError:
    return GgufError(
        "gguf_duplicate", "{path} names the {what} {name} twice; the file is damaged. Download it again", path=str(path), what=what,
        name=_short(name),
    )

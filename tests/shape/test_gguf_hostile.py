"""GGUF headers made to hurt: every broken rule has its error, nothing else is ever raised, and time and memory stay bounded."""

from __future__ import annotations

import contextlib
import json
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf_files import LLAMA, array, header, llama_tensors, string, tensor_info, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headcount.errors import GgufError, SourceError
from headcount.shape.gguf import KEPT_ITEMS, MAX_TENSORS, read_gguf
from headcount.shape.gguf_shape import ARCHITECTURES, read_gguf_shape

@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_gguf"),
        (b"GGUF", "not_gguf"),
        (b"ggjt" + bytes(40), "not_gguf"),
        (header(0, 0, version=1), "gguf_version"),
        (header(0, 0, version=4), "gguf_version"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "gguf_big_endian"),
        (header(2**63, 0), "gguf_limit"),
        (header(0, 2**63), "gguf_limit"),
        (header(0, 1), "gguf_truncated"),
        (header(0, 1, string(b"k", 2**62)), "gguf_limit"),
        (header(0, 1, string(b"\xff\xfe") + struct.pack("<IB", 0, 1)), "gguf_bad_value"),
        (header(0, 1, string(b"k") + struct.pack("<I", 13)), "gguf_bad_value"),
        (header(0, 1, string(b"k") + struct.pack("<IB", 7, 2)), "gguf_bad_value"),
        (header(0, 1, string(b"k") + struct.pack("<IQ", 8, 2**40)), "gguf_limit"),
        (header(0, 1, string(b"k") + struct.pack("<IQ", 8, 2**20)), "gguf_truncated"),
        (header(0, 1, string(b"k") + array(4, 2**40)), "gguf_limit"),
        (header(0, 1, string(b"k") + array(4, 2**23)), "gguf_truncated"),
        (header(0, 1, string(b"k") + array(8, 2**20)), "gguf_truncated"),
        (header(0, 1, string(b"k") + array(8, 2, string(b"a") + string(b"b", 2**63))), "gguf_limit"),
        (header(0, 1, string(b"k") + array(9, 2**20)), "gguf_limit"),
        (header(0, 2, 2 * (string(b"k") + struct.pack("<IB", 0, 1))), "gguf_duplicate"),
        (header(2, 0, 2 * tensor_info(b"t", (1,))) + bytes(64), "gguf_duplicate"),
        (header(1, 0, tensor_info(b"t", (1,) * 5)) + bytes(64), "gguf_limit"),
        (header(1, 0, tensor_info(b"t", (2**62, 2**62))) + bytes(64), "gguf_bad_value"),
        (header(1, 0, tensor_info(b"t", (0,))) + bytes(64), "gguf_bad_value"),
        (header(1, 0, tensor_info(b"t", (31,), 2)) + bytes(64), "gguf_bad_value"),
        (header(1, 0, tensor_info(b"t", (2**40,))) + bytes(64), "gguf_data_missing"),
        (header(1, 0, tensor_info(b"t", (1,), 0, 2**63)) + bytes(64), "gguf_data_missing"),
        (header(1, 0, tensor_info(b"t", (1,), 0, 4)) + bytes(64), "gguf_bad_value"),
        (header(2, 0, tensor_info(b"t", (8,)) + tensor_info(b"u", (8,))) + bytes(128), "gguf_bad_value"),
        (header(0, 1, string(b"general.alignment") + struct.pack("<II", 4, 24)), "gguf_bad_value"),
        (header(0, 1, string(b"split.count") + struct.pack("<Ii", 5, -7)), "gguf_bad_value"),
    ],
)
def test_each_broken_rule_has_its_error(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GgufError, match="bad.gguf") as caught:
        read_gguf(path)
    assert caught.value.code == code


@pytest.mark.parametrize("path", ["nowhere.gguf", ".", "/dev/zero", "a\0b"])
def test_what_is_no_file_is_a_source_error(path: str) -> None:
    with pytest.raises(SourceError, match="cannot be read|must be a file"):
        read_gguf(path)


def _widest_model() -> bytes:
    """As many tensors as may be, all of them right: the most that a reader of shapes can be made to do."""
    n = (MAX_TENSORS - 2) // 9
    sizes = {"block_count": n, "embedding_length": 1, "feed_forward_length": 1, "attention.head_count": 1}
    keys = b"".join(string(f"llama.{k}".encode()) + struct.pack("<II", 4, v) for k, v in sizes.items())
    keys += string(b"general.architecture") + struct.pack("<I", 8) + string(b"llama")
    parts = ("attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    names = ["token_embd.weight", "output_norm.weight", *(f"blk.{i}.{part}.weight" for i in range(n) for part in parts)]
    body = keys + b"".join(tensor_info(name.encode(), (1,), 0, 32 * i) for i, name in enumerate(names))
    return header(len(names), 5, body) + bytes(32 * len(names) + 32)


def _hostile() -> dict[str, bytes]:
    one, many = string(b"k"), 4096
    empty, levels = struct.pack("<IQ", 0, 0), struct.pack("<IQ", 9, 1)
    tensors = b"".join(tensor_info(b"%0128d" % i, (1,) * 4, 0, 32 * i) for i in range(MAX_TENSORS))
    long_strings = b"".join(string(b"%d" % i) + struct.pack("<I", 8) + string(bytes(30_000)) for i in range(4000))
    return {
        "huge tensor count": header(2**64 - 1, 0),
        "huge key count": header(0, 2**64 - 1),
        "most tensors allowed": header(MAX_TENSORS, 0, tensors),
        "widest model": _widest_model(),
        "most keys allowed": header(0, many, b"".join(string(b"%0256d" % i) + struct.pack("<IB", 0, 0) for i in range(many))),
        "one huge string": header(0, 1, one + struct.pack("<IQ", 8, 2**63)),
        "many long strings": header(0, 4000, long_strings),
        "most walked strings": header(0, 1, one + array(8, 2**21, bytes(8 * 2**21))),
        "too many walked strings": header(0, 1, one + array(8, 2**22, bytes(8 * 2**22))),
        "most nested arrays": header(0, 1, one + array(9, 2**17, empty * 2**17)),
        "many kept numbers": header(0, many, b"".join(string(b"%d" % i) + array(0, KEPT_ITEMS, bytes(KEPT_ITEMS)) for i in range(many))),
        "100,000 levels": header(0, 1, one + struct.pack("<I", 9) + levels * 100_000),
        "keys of five levels": header(0, many, b"".join(string(b"%d" % i) + array(9, 1, levels * 4) for i in range(many))),
    }


LIMIT_S, LIMIT_BYTES = 1.0, 200 * 2**20
_CHILD = """
import json, sys, time
from headcount.errors import GgufError
from headcount.shape.gguf_shape import read_gguf_shape
results = {}
for path in sys.argv[1:]:
    begin = time.process_time()
    try:
        read_gguf_shape(path); codes = "read"
    except GgufError as error:
        codes = error.code
    results[path] = (time.process_time() - begin, codes)
# Not ru_maxrss, which exec inherits from the parent process, torch and all.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"results": results, "peak": peak}))
"""


def test_the_worst_headers_stay_within_a_second_and_200_mb(tmp_path: Path) -> None:
    paths = {}
    for i, (name, data) in enumerate(_hostile().items()):
        paths[str(tmp_path / f"{i}.gguf")] = name
        (tmp_path / f"{i}.gguf").write_bytes(data)
    sparse = tmp_path / "sparse.gguf"
    with sparse.open("wb") as file:
        file.write(header(0, 1, string(b"k") + array(9, 2**20)))
        file.truncate(2**36)
    paths[str(sparse)] = "64 GiB of nothing"

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    run = subprocess.run([sys.executable, "-c", _CHILD, *paths], capture_output=True, text=True, timeout=120, preexec_fn=limits)
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["peak"] < LIMIT_BYTES, f"{answer['peak']:,} bytes"
    slow = {paths[p]: s for p, (s, _) in answer["results"].items() if s >= LIMIT_S}
    assert not slow
    codes = {paths[p]: code for p, (_, code) in answer["results"].items()}
    assert codes["100,000 levels"] == codes["too many walked strings"] == codes["64 GiB of nothing"] == "gguf_limit"
    assert codes["widest model"] == "read"
    assert codes["most walked strings"] == codes["most nested arrays"] == "unknown_gguf_architecture"


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model with every kind of metadata value."""
    path = tmp_path_factory.mktemp("genuine") / "m.gguf"
    more = {"tokenizer.ggml.tokens": ["a", "bc", ""], "tokenizer.ggml.scores": [0.5, 1.5], "general.name": "small", "flag": True}
    write_gguf(path, "llama", LLAMA | {"block_count": 1} | more, llama_tensors(LLAMA | {"block_count": 1}).items())
    return path.read_bytes()


def _only_gguf_errors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read in (read_gguf, read_gguf_shape):
        with contextlib.suppress(GgufError):
            read(path)


@settings(max_examples=2000, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 1999), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_raise_nothing_but_gguf_errors(genuine: bytes, tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    data = bytearray(genuine)
    for place, value in flips:
        data[place] = value
    _only_gguf_errors(tmp_path / "flipped.gguf", bytes(data))


def test_every_truncation_raises_a_gguf_error(genuine: bytes, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    lengths = [*range(0, 2200, 3), *range(2200, len(genuine) - 64, 997)]
    for length in lengths:
        path.write_bytes(genuine[:length])
        with pytest.raises(GgufError, match="short.gguf"):
            read_gguf(path)


@settings(max_examples=1500, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_tensors=st.integers(0, 5), n_keys=st.integers(0, 5), body=st.binary(max_size=300))
def test_random_headers_raise_nothing_but_gguf_errors(tmp_path: Path, n_tensors: int, n_keys: int, body: bytes) -> None:
    _only_gguf_errors(tmp_path / "random.gguf", header(n_tensors, n_keys, body))


_keys = [
    *LLAMA, "attention.sliding_window", "attention.sliding_window_pattern", "attention.kv_lora_rank", "attention.q_lora_rank",
    "rope.dimension_count", "expert_count", "expert_used_count", "expert_feed_forward_length", "expert_shared_count",
    "expert_shared_feed_forward_length", "leading_dense_block_count", "nextn_predict_layers",
]
_numbers = st.one_of(st.integers(0, 200), st.just(2**31 - 1))
_values = st.one_of(_numbers, st.just(2**32 - 1), st.booleans(), st.text(max_size=4), st.lists(_numbers, min_size=1, max_size=4))


@settings(max_examples=400, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(architecture=st.sampled_from(sorted(ARCHITECTURES)), changes=st.dictionaries(st.sampled_from(_keys), _values))
def test_any_metadata_raises_nothing_but_gguf_errors(tmp_path: Path, architecture: str, changes: dict[str, Any]) -> None:
    write_gguf(tmp_path / "any.gguf", architecture, LLAMA | changes, llama_tensors().items())
    _only_gguf_errors(tmp_path / "any.gguf", (tmp_path / "any.gguf").read_bytes())

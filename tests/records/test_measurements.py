"""Own measurements: what is written comes back, and what is not understood is refused."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from headcount.errors import InputError, SourceError
from headcount.records import Measurement, append_measurements, read_measurements

FACTS: dict[str, Any] = dict(
    quantity="attention-decode", device="rtx-pro-6000-server", engine="vllm", versions={"vllm": "0.24.0", "driver": "580.1"},
    command="headcount measure --heads 32", date="2026-11-23", value=7.2e-4, unit="s", spread=3e-6, repeats=30,
    parameters={"heads": 32, "kv_heads": 8, "head_dim": 96, "kv_dtype": "bf16", "window": None},
)


def test_what_is_appended_comes_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    first, second, third = (Measurement(**FACTS | {"value": value}) for value in (0.1, 1 / 3, 7e-7))
    append_measurements(path, [first])
    append_measurements(path, [])
    append_measurements(path, [second, third])
    assert read_measurements(path) == (first, second, third)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["schema"], line["version"]) for line in lines] == [("headcount.measurement", 1)] * 3


def append_many(path: Path, value: float) -> None:
    for _ in range(50):
        append_measurements(path, [Measurement(**FACTS | {"value": value})] * 3)


def test_several_writers_never_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    writers = [multiprocessing.get_context("fork").Process(target=append_many, args=(path, float(i))) for i in (1, 2, 3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    values = [m.value for m in read_measurements(path)]
    assert sorted(values) == [1.0] * 150 + [2.0] * 150 + [3.0] * 150
    assert all(len(set(values[i : i + 3])) == 1 for i in range(0, 450, 3))


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"version": 2}, "record_schema", r"line 2 of .*own.jsonl is 'headcount.measurement' version '2'; this headcount reads"),
        ({"schema": "other"}, "record_schema", "is 'other' version '1'"),
        ({"unknown": 1}, "record_fields", "missing or unknown: unknown"),
        ({"value": None}, "record_values", "wrong are: value"),
        ({"date": "23.11.2026"}, "record_values", "wrong are: date"),
    ],
)
def test_a_line_that_is_not_understood_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], code: str, message: str) -> None:
    path = tmp_path / "own.jsonl"
    good = Measurement(**FACTS).to_dict()
    path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(SourceError, match=message) as caught:
        read_measurements(path)
    assert caught.value.code == code


@pytest.mark.parametrize("line", ["{", "[1, 2]", "[" * 100_000, '"text"', '{"schema": "headcount.measurement", "version": 1'])
def test_a_line_that_is_no_object_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "own.jsonl").write_text(line + "\n")
    with pytest.raises(SourceError, match="line 1 of .* is not a JSON object"):
        read_measurements(tmp_path / "own.jsonl")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    entry = Measurement(**FACTS).to_dict()
    del entry["spread"]
    (tmp_path / "own.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(SourceError, match="missing or unknown: spread"):
        read_measurements(tmp_path / "own.jsonl")


def test_nothing_is_appended_to_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"schema": "headc')
    with pytest.raises(SourceError, match="its writer was interrupted"):
        append_measurements(path, [Measurement(**FACTS)])
    assert path.read_text() == '{"schema": "headc'


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.jsonl cannot be read"):
        read_measurements(tmp_path / "none.jsonl")
    with pytest.raises(SourceError, match="cannot be written"):
        append_measurements(tmp_path / "none" / "own.jsonl", [Measurement(**FACTS)])
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        read_measurements(tmp_path / "binary.jsonl")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantity", ""), ("device", " "), ("engine", 3), ("command", ""), ("unit", ""), ("value", float("nan")), ("value", "1"),
        ("value", True), ("spread", -1.0), ("spread", float("inf")), ("repeats", 0), ("repeats", 1.5), ("date", "2026-13-01"),
        ("date", "20261123"), ("versions", {"vllm": 1}), ("versions", "0.24"), ("parameters", {"heads": [1]}), ("parameters", {"": 1}),
    ],
)
def test_a_measurement_that_says_nothing_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"not so here: {field}"):
        Measurement(**FACTS | {field: value})

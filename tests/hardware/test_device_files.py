"""A user's own device file: read in the shipped format, and every mistake named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from headcount.errors import ConfigError, HeadcountError, SourceError, UnknownNameError
from headcount.hardware import device, device_from_file, device_names
from headcount.hardware.devices import read_data

GOOD: dict[str, Any] = {
    "name": "my-card", "title": "My card", "vendor": "me", "generation": "ada", "kernel_tables": "l40s", "notes": ["power_limited"],
    "figures": {
        "memory_bytes": [47 * 10**9, "the driver", "2026-11-01"],
        "bandwidth_bytes_s": [0.7e12, "own measurement", "2026-11-02", "measured"],
        "peak_flops.bf16": [151e12, "datasheet", "2026-11-03"],
    },
}


def written(folder: Path, data: Any) -> str:
    path = folder / "my card.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return str(path)


def changed(**changes: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    for key, value in changes.items():
        target = data["figures"] if key in data["figures"] or key.startswith(("peak_flops", "memory", "bandwidth", "l2")) else data
        target[key] = value
    return data


def without(figure: str) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    del data["figures"][figure]
    return data


def test_a_file_is_a_device(tmp_path: Path) -> None:
    found = device(written(tmp_path, GOOD))
    assert (found.name, found.memory_bytes, found.bandwidth, found.peak_flops("bf16")) == ("my-card", 47 * 10**9, 0.7e12, 151e12)
    assert (found.kernel_tables, found.generation, found.notes) == ("l40s", "ada", ("power_limited",))
    assert found.figure("bandwidth_bytes_s").basis == "measured"
    assert found.figure("memory_bytes").basis == "published"


def test_the_shipped_form_with_sources_is_read_too(tmp_path: Path) -> None:
    entry = {k: v for k, v in GOOD.items() if k != "name"}
    entry["figures"] = GOOD["figures"] | {"l2_bytes": [2**25, "k", "2026-11-04", "assumed"]}
    found = device_from_file(written(tmp_path, {"sources": {"k": "a long source"}, "devices": {"other": entry}}))
    assert found.name == "other"
    assert found.figure("l2_bytes").source == "a long source"


@pytest.mark.parametrize("name", device_names())
def test_every_shipped_entry_passes_the_check_under_another_name(tmp_path: Path, name: str) -> None:
    data = read_data("devices.json")
    found = device_from_file(written(tmp_path, {"sources": data["sources"], "devices": {"mine": data["devices"][name]}}))
    assert found.figures == device(name).figures


def test_nothing_shipped_is_changed(tmp_path: Path) -> None:
    before = device("l40s").memory_bytes
    with pytest.raises(ConfigError, match="cannot change 'l40s'"):
        device_from_file(written(tmp_path, changed(name="l40s")))
    assert device("l40s").memory_bytes == before


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (without("memory_bytes"), "device_figure_missing", "needs memory_bytes; the file gives bandwidth_bytes_s"),
        (without("peak_flops.bf16"), "device_figure_missing", r"needs peak_flops\.bf16"),
        (changed(bandwidth_bytes_s=[700, "x y", "2026-11-01"]), "device_figure_unit", "is given in B/s, from 1e.09 to 1e.14, but is 700"),
        (changed(memory_bytes=[48, "x y", "2026-11-01"]), "device_figure_unit", "memory_bytes is given in B"),
        (changed(**{"peak_flops.bf16": [362, "x y", "2026-11-01"]}), "device_figure_unit", "FLOP/s"),
        (changed(memory_bytes=[float("nan"), "x y", "2026-11-01"]), "device_figure_unit", "nan"),
        (changed(memory_bytes=48e9), "device_figure_form", r"must look like \[1e11"),
        (changed(memory_bytes=["48 GB", "x", "2026-11-01"]), "device_figure_form", "48 GB"),
        (changed(memory_bytes=[True, "x", "2026-11-01"]), "device_figure_form", "True"),
        (changed(memory_bytes=[48e9, "", "2026-11-01"]), "device_figure_form", "memory_bytes"),
        (changed(memory_bytes=[48e9, "x", "yesterday"]), "device_figure_form", "yesterday"),
        (changed(memory_bytes=[48e9, "x", "2026-11-01", "guessed"]), "device_figure_form", "guessed"),
        (changed(memory_byte=[48e9, "x", "2026-11-01"]), "device_figure_unknown", "nearest: memory_bytes"),
        (changed(figures=[1]), "device_figure_form", "figures"),
        (changed(notes="power"), "device_figure_form", "notes"),
        (changed(kernel_tables="l40"), "unknown_device", "nearest: l40s"),
        (changed(name=None), "device_file_form", "one device"),
        (changed(name=7), "device_file_form", "one device"),
        ({"devices": {}}, "device_file_form", "one device"),
        ({"devices": {"a": {}, "b": {}}}, "device_file_form", "one device"),
        ([], "device_file_form", "JSON object"),
        ("{", "device_file_form", "JSON object"),
        ("[" * 100000, "device_file_form", "JSON object"),
        (" " * 1_100_000, "device_file_form", "JSON object"),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, data: Any, code: str, message: str) -> None:
    with pytest.raises(HeadcountError, match=message) as caught:
        device_from_file(written(tmp_path, data))
    assert caught.value.code == code
    assert isinstance(caught.value, (ConfigError, SourceError, UnknownNameError))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        device(str(tmp_path / "nothing.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SourceError, match="cannot be read"):
        device(str(tmp_path / "folder.json"))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SourceError, match="JSON object"):
        device_from_file(path)

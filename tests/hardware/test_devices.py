"""Shipped figures: each with source and date, equal to the independent copy of the systems files, dense, and inside physical sense."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import pytest

from headcount.errors import UnknownNameError
from headcount.hardware import Device, Figure, device, device_names
from headcount.hardware.device_files import _RANGES
from headcount.hardware.devices import BASES, read_data, shipped_devices

SYSTEMS = Path(__file__).parent.parent / "data/aiconfigurator-systems.csv"
KEYS = {
    "mem_bw": "bandwidth_bytes_s", "mem_capacity": "memory_bytes", "bfloat16_tc_flops": "peak_flops.bf16",
    "int8_tc_flops": "peak_flops.int8", "fp8_tc_flops": "peak_flops.fp8", "fp4_tc_flops": "peak_flops.fp4",
    "float32_tc_flops": "peak_flops.f32", "power": "power_w", "pcie_bw": "pcie_bytes_s",
}
# The systems file gives the B60 a float8 number "so this path falls back to BF16": the card has no float8.
NOT_A_FIGURE = {("b60", "fp8_tc_flops")}
ALL = [pytest.param(d, id=name) for name, d in shipped_devices().items()]


def systems() -> list[tuple[str, str, float]]:
    rows = [line for line in SYSTEMS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [(r["system"].replace("_", "-"), r["key"], float(r["value"])) for r in csv.DictReader(rows)]


def figures(found: Device) -> list[tuple[str, Figure]]:
    return [*found.figures.items(), *((k, f) for k, rows in found.conflicts.items() for f in rows)]


def test_every_gpu_that_was_asked_for_is_there() -> None:
    wanted = """a100-sxm a100-pcie a30 h100-sxm h100-pcie h200-sxm b200-sxm b300-sxm gb200 gb300 l40s l4 b60 rtx-pro-6000-server
        rtx-pro-6000-workstation rtx-pro-6000-max-q rtx-6000-ada quadro-rtx-6000 rtx-5090 rtx-4090 rtx-3090 rtx-a6000 mi300x mi325x mi355x
        m2-ultra m3-ultra m4-max dgx-spark""".split()
    assert set(wanted) <= set(device_names())
    assert len(device_names()) >= 25


@pytest.mark.parametrize("found", ALL)
def test_every_figure_has_source_date_and_basis(found: Device) -> None:
    for name, figure in figures(found):
        assert len(figure.source) > 5, name
        assert datetime.date(2026, 1, 1) <= datetime.date.fromisoformat(figure.date) <= datetime.date.today(), name
        assert figure.basis in BASES, name


@pytest.mark.parametrize("found", ALL)
def test_every_device_can_be_priced(found: Device) -> None:
    assert found.memory_bytes > 1e10
    assert found.bandwidth > 1e11
    assert {"bf16", "fp16"} & set(found.number_formats)
    assert found.generation
    assert found.vendor


@pytest.mark.parametrize("found", ALL)
def test_figures_are_in_the_range_of_their_unit(found: Device) -> None:
    for name, figure in figures(found):
        _, low, high = _RANGES[name]
        assert low <= figure.value <= high, name


def test_figures_equal_the_systems_files_or_name_them_as_a_conflict() -> None:
    compared, differing = 0, []
    for system, key, value in systems():
        figure = KEYS.get(key)
        if figure is None or (system, key) in NOT_A_FIGURE:
            continue
        found = device(system)
        compared += 1
        if found.value(figure) != value:
            differing.append((system, figure))
            assert value in [c.value for c in found.conflicts.get(figure, ())], (system, figure, value)
    assert compared > 90
    # The systems files give 80 or 180 GiB flat, or take the GB on the box for GiB; what nvidia-smi shows is taken instead.
    assert set(differing) == {(s, "memory_bytes") for s in ("h100-sxm", "h100-pcie", "h200-sxm", "b200-sxm", "l4")}


def test_links_equal_the_systems_files_where_a_node_has_them() -> None:
    for system, key, value in systems():
        if key == "intra_node_bw" and value >= 3e11:
            assert device(system).link_bytes_s == value


def test_compute_capability_is_that_of_the_systems_files() -> None:
    for system, key, value in systems():
        if key == "sm_version":
            assert device(system).value("compute_capability") == pytest.approx(value / 10)


@pytest.mark.parametrize("found", ALL)
def test_narrower_formats_are_never_slower(found: Device) -> None:
    order = [found.peak_flops(d) for d in ("f32", "tf32", "bf16", "fp8", "fp4") if d in found.number_formats]
    assert order == sorted(order)


# Multiprocessors and dense FP16 FLOP per clock and multiprocessor with FP32 accumulate (architecture whitepapers; GeForce at half rate).
TENSOR_RATES = {
    "a100-sxm": (108, 2048), "a100-pcie": (108, 2048), "a30": (56, 2048), "rtx-a6000": (84, 1024), "rtx-3090": (82, 512),
    "quadro-rtx-6000": (72, 1024), "l40s": (142, 1024), "l4": (58, 1024), "rtx-6000-ada": (142, 1024), "rtx-4090": (128, 512),
    "h100-sxm": (132, 4096), "h100-pcie": (114, 4096), "h200-sxm": (132, 4096), "b200-sxm": (148, 8192), "b300-sxm": (148, 8192),
    "gb200": (152, 8192), "gb300": (152, 8192), "rtx-pro-6000-server": (188, 1024), "rtx-pro-6000-workstation": (188, 1024),
    "rtx-pro-6000-max-q": (188, 1024), "rtx-5090": (170, 512), "dgx-spark": (48, 1024),
}


@pytest.mark.parametrize("found", [p for p in ALL if p.values[0].vendor == "nvidia"])
def test_peaks_are_dense(found: Device) -> None:
    multiprocessors, flop = TENSOR_RATES[found.name]
    clock_ghz = found.peak_flops("fp16") / multiprocessors / flop / 1e9
    assert 1.35 < clock_ghz < 2.7, "no GPU runs at such a clock: the rate with sparsity, or of FP16 accumulate, is twice the dense one"


def test_kernel_tables_stand_in_only_from_devices_that_have_them() -> None:
    with_tables = {"a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "b300-sxm", "gb200", "gb300", "l40s", "rtx-pro-6000-server", "b60"}
    for name, found in shipped_devices().items():
        assert found.kernel_tables in {None} | with_tables
        if name in with_tables:
            assert found.kernel_tables == name
        elif found.kernel_tables:
            assert {"tables_of_sibling", "tables_of_generation"} & set(found.notes)
            relative = shipped_devices()[found.kernel_tables]
            assert found.generation == relative.generation


def test_aliases_are_spelled_once() -> None:
    entries = read_data("devices.json")["devices"]
    spelled = [alias for e in entries.values() for alias in e["aliases"]] + list(entries)
    assert len(spelled) == len(set(spelled))


def test_no_source_goes_unused_and_none_is_missing() -> None:
    data = read_data("devices.json")
    entries = data["devices"].values()
    rows = [row for e in entries for row in e["figures"].values()]
    rows += [row for e in entries for conflicts in e.get("conflicts", {}).values() for row in conflicts]
    used = {row[1] for row in rows}
    assert set(data["sources"]) <= used
    assert all(" " in s or "/" in s for s in used - set(data["sources"]))


def test_an_unknown_figure_names_those_that_are_known() -> None:
    with pytest.raises(UnknownNameError, match=r"peak_flops\.bf16 of the Quadro RTX 6000 .* is not known; known are .*peak_flops\.f32"):
        device("quadro-rtx-6000").peak_flops("bf16")


def test_memory_is_what_the_driver_shows() -> None:
    mib = {"h100-sxm": 81559, "a100-sxm": 81920, "rtx-4090": 24564, "rtx-5090": 32607, "h200-sxm": 143771, "rtx-pro-6000-max-q": 97887}
    assert {name: device(name).memory_bytes / 2**20 for name in mib} == mib


def test_a_cache_that_no_source_gave_is_none() -> None:
    assert device("l4").l2_bytes is None
    assert device("rtx-pro-6000-server").l2_bytes == 128 * 2**20
    assert device("m4-max").link_bytes_s is None

"""Names as people write them: Cyrillic, the wrong keyboard layout, glued, with vendor, edition and memory size."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.errors import SourceError, UnknownNameError
from headcount.hardware import Note, device, device_names, find_device

SPELLINGS = {
    "rtx-pro-6000-workstation": [
        "rtx 6000 bw", "ртх про 6000", "rtx pro 6000", "RTX PRO 6000 Blackwell", "rtx 6000 pro", "pro 6000", "про6000",
        "ртх 6000 блеквелл", "Блэквелл 6000",
        "rtx6000 96gb", "ртх 6000 96гб", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx pro 6000 ws",
        "кеч 6000 bw",
    ],
    "rtx-pro-6000-server": [
        "rtx-pro-6000-server", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "сервер ртх про 6000", "rtx 6000 server", "rtx pro 6000 srv",
        "ртх про 6000 серверная",
    ],
    "rtx-pro-6000-max-q": [
        "rtx pro 6000 max-q", "pro 6000 maxq", "про 6000 макс-кью", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "rtx_pro_6000_max_q",
    ],
    "rtx-6000-ada": [
        "rtx 6000 ada", "ртх 6000 ада", "RTX 6000 Ada Generation", "rtx 6000 48gb", "6000 ada", "NVIDIA RTX 6000 Ada Generation",
    ],
    "quadro-rtx-6000": ["quadro rtx 6000", "квадро ртх 6000", "rtx 6000 24gb", "rtx 6000 turing", "Quadro RTX 6000"],
    "rtx-a6000": ["a6000", "а6000", "RTX A6000", "ртх а6000", "nvidia rtx a6000 48gb"],
    "h100-sxm": [
        "h100", "н100", "х100", "р100", "H100 SXM", "h100 sxm5 80gb", "NVIDIA H100 80GB HBM3", "н100 80гб", "h-100", "h 100", "hgx h100",
    ],
    "h100-pcie": ["h100 pcie", "н100 pcie", "NVIDIA H100 PCIe", "h100pcie 80gb", "H100 PCI-E", "nvidia h100 pci e"],
    "h200-sxm": ["h200", "н200", "х200", "h200 141gb", "NVIDIA H200"],
    "a100-sxm": ["a100", "а100", "A100-80GB", "NVIDIA A100-SXM4-80GB", "нвидиа а100 80гб", "ф100", "a100_sxm"],
    "a100-pcie": ["a100 pcie", "а100 pcie", "ф100 pcie"],
    "b200-sxm": ["b200", "в200", "б200", "и200", "B200 180GB", "b200 192gb", "HGX B200"],
    "gb200": ["gb200", "гб200", "gb 200"],
    "b300-sxm": ["b300", "б300", "B300 288GB"],
    "l40s": ["l40s", "л40с", "L40S 48GB", "NVIDIA L40S"],
    "l4": ["l4", "л4", "L4 24GB"],
    "rtx-5090": ["5090", "RTX 5090", "ртх 5090", "жефорс 5090", "NVIDIA GeForce RTX 5090", "rtx5090 32gb", "кеч5090"],
    "rtx-4090": ["4090", "rtx4090", "ртх4090", "ртикс 4090", "кеч 4090", "4090 24гб", "GeForce RTX 4090"],
    "rtx-3090": ["3090", "ртх 3090", "rtx-3090 24gb"],
    "mi300x": ["mi300x", "ми300х", "AMD Instinct MI300X", "mi300", "mi 300x 192gb"],
    "m2-ultra": ["m2 ultra", "м2 ультра", "Apple M2 Ultra"],
    "m4-max": ["m4 max", "м4 макс", "эпл м4 макс", "M4Max"],
    "dgx-spark": ["dgx spark", "gb10", "спарк", "дгх спарк"],
    "b60": ["b60", "Arc Pro B60", "б60"],
    "this-machine": ["cpu", "этот компьютер", "this machine", "процессор"],
}


def is_sloppy(text: str) -> bool:
    return not text.isascii() or text == text.lower()


def test_enough_spellings_half_of_them_sloppy() -> None:
    texts = [t for spelled in SPELLINGS.values() for t in spelled]
    assert len(texts) == len(set(texts)) >= 80
    assert sum(not t.isascii() for t in texts) >= 45
    assert sum(map(is_sloppy, texts)) >= len(texts) // 2


@pytest.mark.parametrize(("text", "name"), [(t, name) for name, spelled in SPELLINGS.items() for t in spelled])
def test_a_name_as_people_write_it(text: str, name: str) -> None:
    assert device(text).name == name
    assert device(f"  {text.upper()} ").name == name


@pytest.mark.parametrize("name", device_names())
def test_every_device_is_found_by_its_own_name_however_joined(name: str) -> None:
    assert device(name).name == name
    assert device(name.replace("-", " ")).name == name
    assert device(name.replace("-", "_").upper()).name == name


def notes(text: str) -> dict[str, tuple[str, ...]]:
    return {n.code: n.devices for n in find_device(text).notes}


def test_h100_is_the_sxm_and_says_what_else_there_is() -> None:
    assert find_device("h100").notes == (Note("variant_assumed", ("h100-pcie",)),)
    assert notes("h100 sxm") == {}
    assert notes("h100 pcie") == {"tables_of_sibling": ("h100-sxm",)}


def test_the_workstation_card_stands_on_the_tables_of_the_server_card_and_says_so() -> None:
    found = notes("rtx 6000 bw")
    assert found["tables_of_sibling"] == ("rtx-pro-6000-server",)
    assert set(found["variant_assumed"]) == {"rtx-pro-6000-server", "rtx-pro-6000-max-q"}
    assert device("ртх про 6000").kernel_tables == "rtx-pro-6000-server"


def test_a_memory_size_settles_a_shared_name() -> None:
    assert notes("rtx 6000 48gb")["variant_from_memory"] == ("quadro-rtx-6000", "rtx-pro-6000-workstation")


def test_a_device_without_tables_says_so() -> None:
    assert "no_kernel_tables" in notes("mi300x")
    assert "no_kernel_tables" not in notes("l40s")


@pytest.mark.parametrize("text", ["RTX 6000", "rtx6000", "ртх 6000", "NVIDIA RTX 6000", "кеч 6000", "6000"])
def test_bare_rtx_6000_lists_turing_ada_and_pro(text: str) -> None:
    with pytest.raises(UnknownNameError, match="several devices: quadro-rtx-6000, rtx-6000-ada, rtx-pro-6000-workstation") as caught:
        device(text)
    assert caught.value.code == "ambiguous_device"


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("rtx 7090", "rtx-"), ("h100 nvl", "h100-sxm"), ("a100 40gb", "a100-sxm"), ("4090 laptop", "rtx-4090"), ("3090ti", "rtx-3090"),
        ("b100", "b"), ("m4", "m4-max"), ("h100 512gb", "h100"), ("ртх про 600", "rtx-pro"), ("mi300a", "mi300x"), ("gh200", "gb200"),
    ],
)
def test_what_is_not_there_is_not_guessed(text: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"no device is called '.*'; nearest: .*{nearest}") as caught:
        device(text)
    assert caught.value.code == "unknown_device"


@pytest.mark.parametrize("text", ["", "   ", "???", "видеокарта", "x" * 5000, "🚀", "\x00", "ё" * 100, "nvidia", "-"])
def test_nonsense_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(UnknownNameError, match="no device is called"):
        device(text)


@given(st.one_of(st.text(max_size=40), st.text("rtx 60p0o9-гбрхтнф1", max_size=14)))
def test_any_text_is_a_device_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(UnknownNameError, SourceError):
        assert find_device(text).device.title

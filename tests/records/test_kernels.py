"""Kernel tables: shipped files, their manifest, and loading one of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from headcount.errors import SourceError, UnknownNameError
from headcount.records import has_table, kernel_manifest, kernels, load_table

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "src/headcount/records/data/kernels"
MANIFEST = kernel_manifest()
BUDGETS = {"attention": 5e6, "gemm": 5e6, "moe": 3e6, "": 2e6}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def distilled(out: Path) -> dict[str, str]:
    """Runs the script for one device and engine; file -> SHA-256."""
    command = [sys.executable, str(ROOT / "scripts/distil_kernels.py"), str(out), "--device", "a100-sxm", "--engine", "vllm"]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"})
    return {p.name: digest(p) for p in sorted(out.iterdir())}


def test_the_script_writes_the_same_bytes_twice_and_what_is_shipped(tmp_path: Path) -> None:
    first, second = distilled(tmp_path / "a"), distilled(tmp_path / "b")
    assert first == second
    names = [i.file for i in MANIFEST if (i.device, i.engine) == ("a100-sxm", "vllm")]
    assert sorted(first) == sorted([*names, "manifest.json"])
    assert len(names) >= 4
    for name in names:
        # Content, not bytes: another release of zlib may pack the same content differently.
        with zipfile.ZipFile(tmp_path / "a" / name) as fresh, zipfile.ZipFile(FOLDER / name) as shipped:
            assert fresh.namelist() == shipped.namelist()
            assert [fresh.read(n) for n in fresh.namelist()] == [shipped.read(n) for n in shipped.namelist()]
    shipped_entries = {e["file"]: e for e in json.loads((FOLDER / "manifest.json").read_text())["tables"]}
    for entry in json.loads((tmp_path / "a/manifest.json").read_text())["tables"]:
        assert {k: v for k, v in entry.items() if k not in ("bytes", "sha256")}.items() <= shipped_entries[entry["file"]].items()


def test_the_manifest_names_every_file_and_each_is_the_one_it_names() -> None:
    assert sorted(i.file for i in MANIFEST) == sorted(p.name for p in FOLDER.glob("*.npz"))
    for info in MANIFEST:
        path = FOLDER / info.file
        assert (digest(path), path.stat().st_size) == (info.sha256, info.bytes)
        assert info.file == f"{info.device}.{info.engine}.{info.family}.npz"
        assert info.licence == "Apache-2.0"
        assert info.package == "aiconfigurator-core 0.12.0"
        assert info.rounding < 0.0015
        assert all(len(s["sha256"]) == 64 and s["path"].endswith(".parquet") for s in info.sources)
        assert info.source.count(".parquet") == len(info.sources) >= 1
        assert info.schema == kernels.SCHEMA
        assert info.points > 0
        assert info.kernels
        dropped = info.dropped
        assert info.points + dropped["conflicts"]["rows_dropped"] + dropped["repeated_rows_merged"] + dropped["thinned_rows"] == (
            dropped["source_rows"]
        )


def test_sources_are_the_files_of_the_installed_package() -> None:
    package = Path(str(resources.files("aiconfigurator_core")))
    stated = {(s["path"], s["sha256"]) for i in MANIFEST for s in i.sources}
    assert len(stated) > 100
    assert all(digest(package / path) == sha256 for path, sha256 in stated)


def test_families_stay_within_their_budgets() -> None:
    used = dict.fromkeys(BUDGETS, 0)
    for info in MANIFEST:
        used[next(g for g in BUDGETS if info.family.startswith(g))] += info.bytes
    assert {g: n for g, n in used.items() if n > BUDGETS[g]} == {}
    assert all(used.values())


def test_every_device_with_attention_tables_ships_them() -> None:
    package = Path(str(resources.files("aiconfigurator_core"))) / "systems/data"
    measured = {(p.parts[-5].replace("_", "-"), p.parts[-3]) for p in package.glob("*/attention/*/*/*_attention_perf.parquet")}
    assert len({device for device, _ in measured}) == 10
    for phase in ("prefill", "decode"):
        assert {(i.device, i.engine) for i in MANIFEST if i.family == f"attention-{phase}"} == measured


def test_no_file_holds_a_pickle() -> None:
    for info in MANIFEST:
        with np.load(FOLDER / info.file, allow_pickle=False) as members:
            assert {members[name].dtype.kind for name in members.files} <= {"i", "u"}
            assert {"layout", "log2"} <= set(members.files)


def test_packing_is_undone_exactly() -> None:
    values = np.random.default_rng(0).integers(-32768, 32768, 10_000).astype(np.int16)
    values[100:200] = kernels.HOLE
    assert np.array_equal(kernels.unpacked(kernels.packed(values)), values)


def test_loading_one_table_opens_one_file() -> None:
    program = (
        "import sys, os\n"
        "opened = []\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith(('.npz', '.json')):\n"
        "        opened.append(str(arguments[0]))\n"
        "sys.addaudithook(hook)\n"
        "from headcount.records import load_table, kernel_manifest, has_table\n"
        "assert not opened\n"
        "assert has_table('h100-sxm', 'vllm', 'gemm') and kernel_manifest()\n"
        "table = load_table('rtx-pro-6000-server', 'vllm', 'attention-decode')\n"
        "assert load_table('rtx-pro-6000-server', 'vllm', 'attention-decode') is table\n"
        "print(*[os.path.basename(p) for p in opened])\n"
        "print(*sorted(m for m in sys.modules if m in ('pyarrow', 'pandas', 'aiconfigurator_core')))\n"
    )
    environment = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["manifest.json rtx-pro-6000-server.vllm.attention-decode.npz", ""]


def test_every_table_loads_quickly_and_is_well_formed() -> None:
    slowest = 0.0
    entries = json.loads((FOLDER / "manifest.json").read_text())["tables"]
    for info, entry in zip(MANIFEST, entries, strict=True):
        start = time.process_time()
        table = kernels.read_table(FOLDER / info.file, entry)
        slowest = max(slowest, time.process_time() - start)
        assert len(table.grids) == info.grids
        assert sum(int(np.isfinite(g.log2_s).sum()) for g in table.grids.values()) == info.points
        for key, grid in table.grids.items():
            assert len(key) == len(info.key)
            assert all((np.diff(axis) > 0).all() for axis in grid.axes)
            assert grid.log2_s.shape == ((len(grid.rows),) if grid.columns else ()) + tuple(len(a) for a in grid.axes)
            assert grid.log2_s.dtype == np.float32
            assert set(grid.kernels) <= set(info.kernels)
            seconds = np.exp2(grid.log2_s[np.isfinite(grid.log2_s)].astype(float))
            assert 1e-7 < seconds.min() <= seconds.max() < 1000
    assert slowest < 0.5


def test_attention_grids_follow_their_keys() -> None:
    for phase, width in (("prefill", 5), ("decode", 4)):
        table = load_table("rtx-pro-6000-server", "vllm", f"attention-{phase}")
        assert (table.device, table.engine, table.engine_version, table.family) == (
            "rtx-pro-6000-server", "vllm", "0.24.0", f"attention-{phase}")
        for key, grid in table.grids.items():
            assert len(key) == width
            assert key[1] == "mha" or (grid.heads > int(key[1])).all()
        key = ("bfloat16", "8", 128, 0) + (("bfloat16",) if phase == "prefill" else ())
        assert {16, 32, 64} <= set(table.grids[key].heads)
        assert grid.names == ("heads", "contexts", "batches")
        with pytest.raises(ValueError, match="read-only"):
            grid.log2_s[...] = 0


def test_a_published_cell_comes_out() -> None:
    """RTX PRO 6000, vLLM, 32 heads x 128, 8 KV heads, batch 8: 0.720 ms at 32k context; prefill of 16k: 7.30 ms."""
    grid = load_table("rtx-pro-6000-server", "vllm", "attention-decode").grids[("bfloat16", "8", 128, 0)]
    at = (list(grid.heads).index(32), list(grid.contexts).index(32768), list(grid.batches).index(8))
    assert 2.0 ** float(grid.log2_s[at]) == pytest.approx(0.720e-3, rel=2e-3)
    grid = load_table("rtx-pro-6000-server", "vllm", "attention-prefill").grids[("bfloat16", "8", 128, 0, "bfloat16")]
    at = (list(grid.heads).index(32), list(grid.contexts).index(16384), list(grid.batches).index(1))
    assert 2.0 ** float(grid.log2_s[at]) == pytest.approx(7.300e-3, rel=2e-3)


def test_sglang_attention_keeps_one_kernel_per_grid_and_says_so() -> None:
    table = load_table("b200-sxm", "sglang", "attention-prefill")
    assert all(len(grid.kernels) == 1 for grid in table.grids.values())
    conflicts = table.info.dropped["conflicts"]
    assert conflicts["conflicting_points"] == 3876
    assert conflicts["rows_dropped"] >= 3876
    assert "trtllm_mha" in conflicts["grids_or_rows_decided"]
    grid = table.grids[("bfloat16", "4", 256, 0, "bfloat16")]
    at = (list(grid.heads).index(16), list(grid.contexts).index(8192), list(grid.batches).index(1))
    # Triton took 2.925 ms for the same point.
    assert 2.0 ** float(grid.log2_s[at]) == pytest.approx(0.466e-3, rel=5e-3)


def test_what_is_not_there_is_refused_by_name() -> None:
    assert not has_table("l4", "vllm", "gemm")
    with pytest.raises(UnknownNameError, match=r"no gemm table of vllm on l4 exists; there are: .*h100-sxm"):
        load_table("l4", "vllm", "gemm")
    with pytest.raises(UnknownNameError, match=r"on b60 exists; there are: oneccl collectives, vllm allreduce, "):
        load_table("b60", "sglang", "gemm")
    with pytest.raises(UnknownNameError, match=r"no axis 'tokens'; it has heads, contexts, batches"):
        next(iter(load_table("b60", "vllm", "attention-decode").grids.values())).axis("tokens")


def test_a_table_of_another_schema_is_refused(tmp_path: Path) -> None:
    entry = json.loads((FOLDER / "manifest.json").read_text())["tables"][0]
    with np.load(FOLDER / entry["file"], allow_pickle=False) as members:
        parts = {name: members[name] for name in members.files}
    layout = json.loads(parts["layout"].tobytes()) | {"schema": kernels.SCHEMA + 1}
    parts["layout"] = np.frombuffer(json.dumps(layout).encode(), dtype=np.uint8)
    np.savez(tmp_path / "table.npz", **parts)
    with pytest.raises(SourceError, match=f"has schema {kernels.SCHEMA + 1}, this version of headcount reads schema {kernels.SCHEMA}"):
        kernels.read_table(tmp_path / "table.npz", entry)

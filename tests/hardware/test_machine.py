"""Detection of this machine: what can be seen is right, what cannot is left out, and nothing raises."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from headcount.errors import UnknownNameError
from headcount.hardware import detect, machine


def test_memory_is_no_more_than_the_system_call_says() -> None:
    found = detect()
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < found.memory_bytes <= physical * 1.01
    assert found.figure("memory_bytes").basis == "measured"
    assert found.kind == found.generation == "cpu"
    assert found.title


def test_cores_are_those_the_process_may_use() -> None:
    assert detect().value("cpu_cores") == len(os.sched_getaffinity(0))


def test_what_cannot_be_seen_is_no_figure() -> None:
    found = detect()
    assert found.number_formats == ()
    assert found.l2_bytes is found.kernel_tables is None
    with pytest.raises(UnknownNameError, match="bandwidth_bytes_s .* is not known; known are cpu_cores"):
        _ = found.bandwidth


def test_gpus_are_named_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA L40S, 46068 MiB'\necho 'NVIDIA H100 80GB HBM3, 81559 MiB'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert detect().gpus == ("NVIDIA L40S", "NVIDIA H100 80GB HBM3")
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed, no driver'\nexit 9\n")
    assert detect().gpus == ()


@pytest.mark.parametrize("error", [OSError("no"), subprocess.TimeoutExpired("nvidia-smi", 5)])
def test_a_broken_driver_tool_is_no_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(machine.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(machine.subprocess, "run", broken)
    assert detect().gpus == ()


def test_a_machine_without_proc_is_still_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda _: "")
    found = detect()
    assert found.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found.title


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "/proc/meminfo": "MemTotal:       64000000 kB\n", "/sys/fs/cgroup/memory.max": "3000000000\n",
        "/proc/cpuinfo": "model name\t: Some CPU\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    assert (detect().memory_bytes, detect().title) == (3_000_000_000, "Some CPU")
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert detect().memory_bytes == 64_000_000 * 1024

"""This machine, as far as it can be seen without loading anything: its processor, cores, memory and the names of its GPUs.

It must not guess: bandwidth and peak of a processor are not written anywhere that can be read, so they are no figures here; `measure`
finds them out. Never raises: what cannot be seen is left out.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

from .devices import Device, Figure

_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
_SMI_TIMEOUT_S = 5


def detect() -> Device:
    """This machine as a device of kind ``cpu``; ``gpus`` are the names that nvidia-smi reports. Never raises."""
    today = date.today().isoformat()
    figures = {}
    memory = _memory()
    if memory:
        figures["memory_bytes"] = Figure(memory[0], memory[1], today, "measured")
    cores = _cores()
    if cores:
        figures["cpu_cores"] = Figure(cores, "cores that this process may use", today, "measured")
    return Device("this-machine", _cpu_model(), figures, kind="cpu", generation="cpu", gpus=_gpus())


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_model() -> str:
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "CPU"


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    except OSError:
        return 0


def _memory() -> tuple[int, str] | None:
    """Bytes and where they were read: the smaller of what the machine has and what a container may use."""
    found = []
    total = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    if total:
        found.append((int(total[1]) * 1024, "/proc/meminfo, MemTotal"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(path).strip()
        if limit.isdigit():
            found.append((int(limit), path))
    if not found:
        try:
            found.append((os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "sysconf, physical pages"))
        except (ValueError, OSError, AttributeError):
            return None
    return min(found)


def _gpus() -> tuple[str, ...]:
    if not shutil.which(_SMI[0]):
        return ()
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ()
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return tuple(line.rpartition(",")[0].strip() for line in lines if "," in line)

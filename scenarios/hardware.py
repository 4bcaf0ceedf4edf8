"""This machine, as profiles and run directories describe it: processor, cores, GPU, versions.

Read without torch, so that a prediction starts at once. Both drivers describe it in these words.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Stolen", "environment", "hardware", "processor_time"]

_SIMULATOR = ("numpy", "simpy")


def hardware(proc: Path = Path("/proc")) -> dict[str, Any]:
    """``{"processor", "cores", "gpu"}``; ``gpu`` is empty where there is none (or none that shows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": _field(proc / "cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "gpu": _gpu(proc / "driver" / "nvidia" / "gpus"),
    }


def environment(packages: Sequence[str] = _SIMULATOR) -> dict[str, Any]:
    """What a manifest says of where a run was made: versions of ``packages``, hardware, commit."""
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "system": platform.platform(),
        **hardware(),
        "commit": _commit(),
    }


def processor_time(proc: Path = Path("/proc")) -> tuple[float, float] | None:
    """Core seconds since the machine started: (used by anybody, kept by a virtual machine's host for others).

    None where the system does not say (``/proc/stat``).
    """
    try:
        fields = (proc / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(float, fields)
    except (OSError, ValueError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft) / ticks, stolen / ticks


class Stolen:
    """What a virtual machine's host keeps from those who want its cores, from now on."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._before = processor_time(proc)

    def share(self) -> float | None:
        """Share of the core seconds asked for since then that was kept, 0 to 1; None where nobody says.

        What wants cores all the time takes 1 / (1 - share) as long.
        """
        after = processor_time(self._proc)
        if self._before is None or after is None:
            return None
        used, kept = (max(now - then, 0.0) for now, then in zip(after, self._before, strict=True))
        return kept / (used + kept) if kept else 0.0


def _commit() -> str:
    """The commit of the source tree that this runs from; empty where there is none."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _gpu(folder: Path) -> str:
    """Name of the first NVIDIA GPU that the driver lists."""
    try:
        return next((_field(gpu / "information", "Model") for gpu in sorted(folder.iterdir())), "")
    except OSError:
        return ""


def _field(file: Path, name: str) -> str:
    """The value of the first line ``name : value`` of a file; empty where there is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), ""
    )

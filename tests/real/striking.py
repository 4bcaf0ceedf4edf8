"""Processes of real runs killed from outside, by their PID: deaths that nobody planned."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from core.record import Record
from real.launch import _Launch
from real.member import Member

__all__ = ["Spawned", "kill", "noting", "restarts", "striking"]

Spawned = dict[int, list[Member]]
"""All processes of a run as they are started: node -> its lives."""


@contextmanager
def noting() -> Iterator[Spawned]:
    """While inside, whatever processes runs start are noted."""
    found: Spawned = {}
    spawn = _Launch.spawn

    def noted(self: _Launch, node: int, life: int = 0, *, joining: bool = False) -> Member:
        member = spawn(self, node, life, joining=joining)
        found.setdefault(node, []).append(member)
        return member

    _Launch.spawn = noted  # type: ignore[method-assign]
    try:
        yield found
    finally:
        _Launch.spawn = spawn  # type: ignore[method-assign]


def kill(member: Member) -> None:
    assert member.pid is not None
    os.kill(member.pid, signal.SIGKILL)


@contextmanager
def striking(
    spawned: Spawned, begun: threading.Event, servers: Sequence[int], seed: int, most: float = 1.0
) -> Iterator[list[int]]:
    """Kills servers one after the other, again and again, after times drawn by ``seed``; whom it killed.

    most  seconds between two strikes, at most; the first comes so long after ``begun``, at most
    """
    rng, over, killed = np.random.default_rng(seed), threading.Event(), list[int]()

    def strike() -> None:
        begun.wait()
        while not over.wait(float(rng.uniform(0.02, most))):
            node = int(rng.choice(servers))
            for member in spawned.get(node, [])[-1:]:
                if member.state == "running":
                    with suppress(ProcessLookupError):
                        kill(member)
                        killed.append(node)

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        begun.set()
        thread.join()


def restarts(record: Record) -> int:
    """How often servers were started again after deaths that nobody had planned, as the flags tell."""
    told = (re.match(r"server \d+ died (\d+) times? of what nobody had", f) for f in record.manifest["flags"])
    return sum(int(one[1]) for one in told if one)

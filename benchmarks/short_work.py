"""How long does a thread that has slept take for a little work, while others compute? Measured and simulated.

    python benchmarks/short_work.py [--busy K ...] [--work MS ...] [--repeats R] [--json]

K processes compute without a pause. Another sleeps for 50 ms, works for so many milliseconds of a core, by
its own clock, and so on: medians of how long that takes, and the same on ``sim.cores``, which gives such a
thread ``AHEAD`` seconds before anybody else. On an idle core it takes no longer than alone.

Fields of a row: busy; work_ms; measured_ms; simulated_ms.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scenarios.streams import stream
from sim.alarm import Alarm
from sim.clock import Clock
from sim.cores import Cores

PAUSE = 0.05
"""Seconds that the thread sleeps before each piece of work."""


@contextmanager
def crowd(processes: int) -> Iterator[None]:
    """So many processes compute meanwhile; they end with this one, too."""
    there = []
    try:
        for _ in range(processes):
            parent, child = os.getpid(), os.fork()
            if child == 0:
                while os.getppid() == parent:
                    sum(range(10_000))
                os._exit(0)
            there.append(child)
        time.sleep(0.2)
        yield
    finally:
        for child in there:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def measured(work: float, repeats: int) -> float:
    """Seconds that ``work`` seconds of a core take after a pause, in the median."""
    found = []
    for _ in range(repeats):
        time.sleep(PAUSE)
        begun, spent = time.monotonic(), time.thread_time()
        while time.thread_time() - spent < work:
            pass
        found.append(time.monotonic() - begun)
    return statistics.median(found)


class _End(Alarm):
    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, 0.0

    def fire(self) -> None:
        self.at = self.clock.now


def simulated(busy: int, work: float, cores: int, repeats: int = 25) -> float:
    """The same in virtual time, in the median over which core it finds."""
    found = []
    for seed in range(repeats):
        clock = Clock()
        host = Cores(clock, cores, (), (), stream(seed, 0, "cores"))
        for _ in range(busy):
            host.run(_End(clock), 1e3, 1.0)
        end = _End(clock)
        host.run(end, work, 1.0, slept=True)
        while not end.at:
            clock.step()
        found.append(end.at)
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--busy", type=int, nargs="+", default=(0, 2, 4, 8), metavar="K")
    parser.add_argument("--work", type=float, nargs="+", default=(0.3, 1, 2, 4, 8, 16), metavar="MS")
    parser.add_argument("--repeats", type=int, default=25, metavar="R")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    args = parser.parse_args()
    if min(args.busy) < 0 or min(args.work) <= 0 or args.repeats < 1:
        parser.error("--busy takes numbers from 0 up, --work numbers above 0, --repeats at least 1")
    cores, rows = len(os.sched_getaffinity(0)), []
    for busy in args.busy:
        with crowd(busy):
            for work in args.work:
                real, virtual = measured(work / 1e3, args.repeats), simulated(busy, work / 1e3, cores)
                times = {"measured_ms": round(1e3 * real, 2), "simulated_ms": round(1e3 * virtual, 2)}
                rows.append({"busy": busy, "work_ms": work, **times})
                if not args.json:
                    said = f"{1e3 * real:7.2f} ms measured, {1e3 * virtual:7.2f} simulated"
                    print(f"{busy:3d} busy, {work:5g} ms: {said}", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()

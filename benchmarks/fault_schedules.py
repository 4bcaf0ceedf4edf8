"""Random schedules of faults, delays and reorderings on the simulator: how many a second, and does all hold?

    python benchmarks/fault_schedules.py --runs 20000 [--seed 0] [--jobs 2] [--algorithm NAME ...] [--json]
    python benchmarks/fault_schedules.py --replay 'TRIAL'

Runs are shared out evenly over the algorithms (default: all); run k of an algorithm is that of seed
``--seed`` + k, in whatever process. Each is held to everything that was promised (tests/conformance/dst.py).
What fails is made smaller (tests/conformance/shrinking.py) and printed with the command that plays it again;
then the exit code is 1 (2 for bad input).

Runs per second are given by the wall clock of all and by the processor time that they took, per core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

ROOT = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, ROOT)

from core.algorithms import ALGORITHMS  # noqa: E402
from scenarios import ScenarioError  # noqa: E402
from tests.conformance.dst import play  # noqa: E402
from tests.conformance.shrinking import shrink, way  # noqa: E402
from tests.conformance.trials import Trial, draw  # noqa: E402

BLOCK = 50
"""Runs that a process is given at once."""

MOST_FAILURES = 5
"""So many are made smaller and printed, of each way to fail the first."""


def block(job: tuple[str, int, int]) -> dict[str, Any]:
    """Runs ``count`` trials of an algorithm from ``seed`` on."""
    name, seed, count = job
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    failed, steps, began = [], 0, time.process_time()
    for k in range(seed, seed + count):
        try:
            found = play(draw(name, k))
        except Exception as error:
            failed.append((k, way(error)))
            continue
        faults += found.faults
        ends[found.end] += 1
        steps += found.steps
    return {
        "algorithm": name, "runs": count, "faults": faults, "ends": ends, "steps": steps, "failed": failed,
        "seconds": time.process_time() - began,
    }  # fmt: skip


def refuse(why: str) -> NoReturn:
    """Bad input: say so, and exit with 2."""
    print(why, file=sys.stderr)
    raise SystemExit(2)


def main(arguments: argparse.Namespace) -> int:
    """All runs; the exit code."""
    names = arguments.algorithm or list(ALGORITHMS)
    unknown = [name for name in names if name not in ALGORITHMS]
    if unknown:
        refuse(f"--algorithm: {unknown[0]!r} is not valid; expected one of {', '.join(ALGORITHMS)}")
    if min(arguments.runs, arguments.jobs) < 1:
        refuse("--runs, --jobs: a whole number of at least 1 is expected")
    jobs = []
    for i, name in enumerate(names):
        runs = arguments.runs // len(names) + (i < arguments.runs % len(names))
        jobs += [(name, arguments.seed + k, min(BLOCK, runs - k)) for k in range(0, runs, BLOCK)]
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        found = []
        for done in pool.imap_unordered(block, jobs):
            found.append(done)
            if sys.stderr.isatty():
                print(f"\r{sum(one['runs'] for one in found)} of {arguments.runs}", end="", file=sys.stderr)
    report = summary(found, names, time.perf_counter() - began)
    print(json.dumps(report, indent=1) if arguments.json else told(report))
    for name, seed in first(report["failed"]):
        print(smallest(draw(name, seed), f"{name}, seed {seed}"))
    return bool(report["failed"])


def summary(found: list[dict[str, Any]], names: list[str], wall: float) -> dict[str, Any]:
    """What all blocks say together."""
    runs, seconds = (sum(one[name] for one in found) for name in ("runs", "seconds"))
    faults, ends = (sum((one[name] for one in found), Counter()) for name in ("faults", "ends"))
    return {
        "runs": runs,
        "seconds": wall,
        "runs_per_second": runs / wall,
        "runs_per_core_second": runs / seconds,
        "steps": sum(one["steps"] for one in found),
        "by_algorithm": {name: rate([one for one in found if one["algorithm"] == name]) for name in names},
        "faults": dict(faults.most_common()),
        "ends": dict(ends.most_common()),
        "failed": [(one["algorithm"], *failure) for one in found for failure in one["failed"]],
    }


def rate(found: list[dict[str, Any]]) -> dict[str, float]:
    """Runs of one algorithm, and how many a second of processor time."""
    runs = sum(one["runs"] for one in found)
    return {"runs": runs, "runs_per_core_second": runs / max(sum(one["seconds"] for one in found), 1e-9)}


def told(report: dict[str, Any]) -> str:
    """The report as text."""
    wall = f"{report['runs']} runs in {report['seconds']:.1f} s: {report['runs_per_second']:.1f} a second"
    core = f"{report['runs_per_core_second']:.1f} a second of one core's time; {report['steps']} steps"
    rates = (f"{n} {m['runs']} at {m['runs_per_core_second']:.0f}" for n, m in report["by_algorithm"].items())
    lines = [
        f"{wall}, {core}",
        "runs, and runs per second of one core's time: " + ", ".join(rates),
        "faults that struck: " + ", ".join(f"{kind} {count}" for kind, count in report["faults"].items()),
        "how runs ended: " + ", ".join(f"{end} {count}" for end, count in report["ends"].items()),
        f"failed: {len(report['failed'])}",
    ]
    lines += [f"  {name} {seed}: {how}" for name, seed, how in report["failed"][:20]]
    return "\n".join(lines)


def first(failed: list[tuple[str, int, str]]) -> list[tuple[str, int]]:
    """Of each way to fail the first, at most ``MOST_FAILURES``."""
    ways: dict[str, tuple[str, int]] = {}
    for name, seed, how in sorted(failed):
        ways.setdefault(how, (name, seed))
    return list(ways.values())[:MOST_FAILURES]


def smallest(trial: Trial, whose: str) -> str:
    """The smallest trial that fails so, and how to play it again."""
    found, error = shrink(trial, play)
    text = json.dumps(found.plain())
    return (
        f"\n{whose}, made as small as possible:\n  {way(error)}\n  {error}\n"
        f"again with:\n  python benchmarks/fault_schedules.py --replay '{text}'"
    )


def replay(text: str) -> int:
    """Play one trial, given as JSON; the exit code."""
    try:
        trial = Trial(**json.loads(text))
    except (ValueError, TypeError) as error:
        refuse(f"--replay: {error}; expected what this program has printed")
    try:
        found = play(trial)
    except ScenarioError as refused:
        refuse(f"--replay: {refused}")
    except Exception:
        traceback.print_exc()
        return 1
    print(f"all promises kept: {found.steps} steps, {dict(found.faults)}, {found.end}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--algorithm", nargs="+", metavar="NAME")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--replay", metavar="TRIAL")
    chosen = parser.parse_args()
    sys.exit(replay(chosen.replay) if chosen.replay else main(chosen))

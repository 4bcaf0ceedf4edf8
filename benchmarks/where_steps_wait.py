"""Where native steps of a real run spend their time: on a core, or behind whom; as the kernel saw it.

    python benchmarks/where_steps_wait.py [SCENARIO] [--algorithm NAME] [--set PATH=VALUE ...] [--json]

Trains with native steps under ``perf sched record`` (Linux, root, the tool perf) and follows, for every
worker, the thread that computes gradients: when it ran, when it was ready to and did not get a core, what ran
on its core then, and what on the others. A step lasts from a wake-up of that thread to its going to sleep
again, if that is at least ``--least`` milliseconds. The first ``--skip`` seconds are left out. Tracing costs
something itself: steps get some percent longer.

Every row is a mean over all steps, in milliseconds. Who has a core: ``step`` (another worker's gradient),
``messages`` (all other threads of the run, transport and tensor operations), ``others`` (whatever else runs
on the machine), ``idle``. Fields with --json: steps, length, on_core, off_core, rows ([where, own core, other
cores, milliseconds]), per_worker_step (processor time by who used it, over the whole run).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"\s*(?P<comm>.+?)\s+(?P<pid>-?\d+)/(?P<tid>-?\d+)\s+\[(?P<cpu>\d+)\]\s+"
                  r"(?P<time>[\d.]+):\s+sched:(?P<event>sched_\w+):\s+(?P<rest>.*)")  # fmt: skip
SWITCH = re.compile(r"prev_comm=.* prev_pid=(\d+) prev_prio=-?\d+ prev_state=(\S+) ==> "
                    r"next_comm=(.*) next_pid=(\d+) next_prio")  # fmt: skip
WAKING = re.compile(r"comm=.* pid=(\d+) prio=")
OURS = ("python", "ZMQbg")


@dataclass(frozen=True)
class Event:
    """A switch on ``cpu`` from thread ``before`` (``ready``: it would go on) to ``after``; or its wake-up."""

    time: float
    cpu: int
    after: int
    before: int = -1
    ready: bool = False


@dataclass
class Trace:
    """What perf recorded: events in order, processor time and process of each thread, and their names."""

    events: list[Event] = field(default_factory=list)
    used: Counter[int] = field(default_factory=Counter)
    process: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def read(lines: Iterator[str]) -> Trace:
    """Parse the lines of ``perf script``."""
    trace = Trace()
    running: dict[int, tuple[int, float]] = {}
    for text in lines:
        line = LINE.match(text)
        if line is None:
            continue
        tid, cpu, now = int(line["tid"]), int(line["cpu"]), float(line["time"])
        trace.process.setdefault(tid, int(line["pid"]))
        if line["event"] == "sched_switch" and (switch := SWITCH.match(line["rest"])):
            before, after = int(switch[1]), int(switch[4])
            trace.names[after] = switch[3]
            trace.events.append(Event(now, cpu, after, before, switch[2].startswith("R")))
            last, since = running.get(cpu, (before, now))
            trace.used[last] += now - since  # type: ignore[assignment]
            running[cpu] = after, now
        elif line["event"] == "sched_waking" and (waking := WAKING.match(line["rest"])):
            trace.events.append(Event(now, cpu, int(waking[1])))
    return trace


def computers(trace: Trace, workers: int) -> set[int]:
    """The threads that compute gradients: of each process the busiest one beside its main thread."""
    busiest: dict[int, int] = {}
    for tid, used in trace.used.items():
        process = trace.process.get(tid, tid)
        ours = trace.names.get(tid, "").startswith("python")
        if tid != process and ours and used > trace.used.get(busiest.get(process, -1), 0.0):
            busiest[process] = tid
    return set(sorted(busiest.values(), key=lambda tid: -trace.used[tid])[:workers])


@dataclass
class Step:
    """One wake-up of a computing thread so far: where its time went."""

    began: float
    core: int = -1
    on: bool = False
    since: float = 0.0
    spent: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def follow(trace: Trace, chosen: set[int], skip: float, least: float) -> list[Step]:
    """All steps of the ``chosen`` threads that begin after ``skip`` and last ``least`` seconds or more."""
    start = trace.events[0].time if trace.events else 0.0
    running: dict[int, int] = {}
    under_way: dict[int, Step] = {}
    found: list[Step] = []

    def who(tid: int) -> str:
        if tid == 0:
            return "idle"
        if tid in chosen:
            return "step"
        return "messages" if trace.names.get(tid, "").startswith(OURS) else "others"

    def spend(now: float) -> None:
        for step in under_way.values():
            others = sorted({who(tid) for cpu, tid in running.items() if cpu != step.core})
            own = "itself" if step.on else who(running.get(step.core, 0))
            step.spent["on" if step.on else "off", own, ", ".join(others)] += now - step.since  # type: ignore[assignment]
            step.since = now

    for event in trace.events:
        now = event.time
        spend(now)
        if event.before < 0:
            if event.after in chosen and event.after not in under_way and event.after not in running.values():
                under_way[event.after] = Step(now, event.cpu, since=now)
            continue
        running[event.cpu] = event.after
        if (step := under_way.get(event.before)) is not None:
            step.on = False
            if not event.ready:
                del under_way[event.before]
                if step.began - start >= skip and now - step.began >= least:
                    found.append(step)
        if (step := under_way.get(event.after)) is not None:
            step.on, step.core = True, event.cpu
    return found


def report(trace: Trace, steps: list[Step], chosen: set[int]) -> dict[str, Any]:
    """Means over all steps, milliseconds."""
    count = len(steps)
    total: Counter[tuple[str, str, str]] = Counter()
    for step in steps:
        total.update(step.spent)
    rows = [[*key, round(1e3 * value / count, 2)] for key, value in total.most_common()]
    used: dict[str, float] = defaultdict(float)
    for tid, seconds in trace.used.items():
        if tid:
            kind = "messages" if trace.names.get(tid, "").startswith(OURS) else "others"
            used["steps" if tid in chosen else kind] += seconds
    on, off = (1e3 * sum(v for key, v in total.items() if key[0] == where) / count for where in ("on", "off"))
    return {
        "steps": count,
        "length": round(on + off, 2),
        "on_core": round(on, 2),
        "off_core": round(off, 2),
        "rows": rows,
        "per_worker_step": {kind: round(1e3 * value / count, 2) for kind, value in used.items()},
    }


def record(arguments: argparse.Namespace, folder: Path) -> tuple[Trace, int]:
    """Train under perf; what it recorded, and the number of workers."""
    sets = [f"--set={one}" for one in ("run.compute=native", "run.evaluate=false", *arguments.set)]
    train = [sys.executable, "-m", "aladdin", "train", arguments.scenario, *sets, "--json"]
    if arguments.algorithm:
        train += ["--algorithm", arguments.algorithm]
    data = folder / "perf.data"
    command = ["perf", "sched", "record", "-o", str(data), "--", *train, "--out", str(folder / "run")]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not data.exists():
        raise SystemExit(f"could not train under perf:\n{done.stderr.strip()[-2000:]}")
    (run,) = json.loads(done.stdout)["runs"]
    script = ["perf", "script", "-i", str(data), "--ns", "-F", "comm,pid,tid,cpu,time,event,trace"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reading:
        assert reading.stdout is not None
        return read(iter(reading.stdout)), int(run["workers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="demo")
    parser.add_argument("--algorithm", help="(default: the scenario's own)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="as for aladdin train"
    )
    parser.add_argument("--skip", type=float, default=4.0, help="seconds that are left out (default: 4)")
    parser.add_argument(
        "--least", type=float, default=3.0, help="milliseconds of a step at least (default: 3)"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("perf") is None:
        parser.error("the program perf is not there (Debian: linux-perf)")
    with tempfile.TemporaryDirectory() as folder:
        trace, workers = record(arguments, Path(folder))
    chosen = computers(trace, workers)
    steps = follow(trace, chosen, arguments.skip, 1e-3 * arguments.least)
    if not steps:
        raise SystemExit("no step was seen whole: train for longer (--set run.steps=100), or --skip less")
    found = report(trace, steps, chosen)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['steps']} steps of {found['length']:.1f} ms: {found['on_core']:.1f} on a core, "
          f"{found['off_core']:.1f} ready without one")  # fmt: skip
    for where, own, others, spent in found["rows"]:
        if spent >= 0.1:
            print(f"{spent:8.1f} ms  {where:3}  its core: {own:8}  others: {others}")
    used = ", ".join(f"{kind} {spent:.1f}" for kind, spent in found["per_worker_step"].items())
    print(f"processor time per step, ms (whole run): {used}")


if __name__ == "__main__":
    main()

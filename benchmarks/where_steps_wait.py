"""Where native steps of a real run spend their time: on a core, or behind whom; as the kernel saw it.

    python benchmarks/where_steps_wait.py [SCENARIO] [--algorithm NAME] [--set PATH=VALUE ...] [--json]

Trains with native steps under ``perf sched record`` (Linux, root, the program perf) and follows, for every
worker, the thread that computes gradients: when it ran, when it was ready to and did not get a core, what ran
on its core then, and what on the others. A step lasts from a wake-up of that thread to its going to sleep
again, if that is at least ``--least`` milliseconds; one in which it waits for the interpreter's lock counts
as two. The first ``--skip`` seconds are left out. Tracing itself makes steps some percent longer.

Every row is a mean over all steps, in milliseconds. Who has a core: ``step`` (another worker's gradient),
``messages`` (all other threads of the run, transport and tensor operations), ``others`` (whatever else runs
on the machine), ``idle``. Fields with --json: steps, length, on_core, off_core, rows ([where, own core, other
cores, milliseconds]), per_worker_step (processor time by who used it from the first step to the last).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"\[(?P<cpu>\d+)\]\s+(?P<time>[\d.]+):\s+sched:sched_(?P<event>\w+):\s+(?P<rest>.*)")
SWITCH = re.compile(
    r"prev_pid=(\d+) prev_prio=-?\d+ prev_state=(\S+) ==> next_comm=(.*) next_pid=(\d+) next_prio"
)
WAKING = re.compile(r" pid=(\d+) .*target_cpu=(\d+)")
MIGRATE = re.compile(r" pid=(\d+) .*dest_cpu=(\d+)")
FORK = re.compile(r" pid=(\d+) .*child_pid=(\d+)")
COMPUTER = "computer"
"""What ``real.compute`` calls its threads."""


@dataclass(frozen=True)
class Event:
    """Thread ``tid`` gets ``cpu`` (``switch``), is woken up to run there, or is moved there.

    before  whom it takes over from; ready: that one would have gone on
    """

    kind: str
    time: float
    cpu: int
    tid: int
    before: int = 0
    ready: bool = False


@dataclass
class Trace:
    """What perf recorded, in order; ``computers`` compute gradients, ``run`` are all threads of the run."""

    events: list[Event] = field(default_factory=list)
    computers: set[int] = field(default_factory=set)
    run: set[int] = field(default_factory=set)

    def who(self, tid: int) -> str:
        """What a thread is to a step."""
        if tid == 0:
            return "idle"
        if tid in self.computers:
            return "step"
        return "messages" if tid in self.run else "others"


def read(lines: Iterable[str], root: int) -> Trace:
    """Parse the lines of ``perf script``; ``root`` is the process that trains."""
    trace = Trace(run={root})
    for text in lines:
        line = LINE.search(text)
        if line is None:
            continue
        event, rest, now, cpu = line["event"], line["rest"], float(line["time"]), int(line["cpu"])
        if event == "switch" and (found := SWITCH.search(rest)):
            tid = int(found[4])
            if found[3] == COMPUTER and tid in trace.run:
                trace.computers.add(tid)
            ready = found[2].startswith("R")
            trace.events.append(Event("switch", now, cpu, tid, int(found[1]), ready))
        elif event == "waking" and (found := WAKING.search(rest)):
            trace.events.append(Event("waking", now, int(found[2]), int(found[1])))
        elif event == "migrate_task" and (found := MIGRATE.search(rest)):
            trace.events.append(Event("migrate", now, int(found[2]), int(found[1])))
        elif event == "process_fork" and (found := FORK.search(rest)) and int(found[1]) in trace.run:
            trace.run.add(int(found[2]))
    return trace


@dataclass
class Step:
    """A wake-up of a computing thread so far; where its time went, by (on or off, own core, other cores)."""

    began: float
    cpu: int
    on: bool = False
    ended: float = 0.0
    spent: dict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))


def follow(trace: Trace, skip: float, least: float) -> tuple[list[Step], dict[str, float]]:
    """All steps that begin after ``skip`` seconds and last ``least`` or more; processor time meanwhile."""
    start = now = trace.events[0].time if trace.events else 0.0
    running: dict[int, int] = {}
    under_way: dict[int, Step] = {}
    found: list[Step] = []
    used: dict[str, float] = defaultdict(float)
    until: dict[str, float] = {}

    def spend(passed: float) -> None:
        for tid in running.values():
            used[trace.who(tid)] += passed
        for step in under_way.values():
            own = "itself" if step.on else trace.who(running.get(step.cpu, 0))
            others = Counter(trace.who(tid) for cpu, tid in running.items() if cpu != step.cpu)
            words = [f"{n} {kind}" if n > 1 else kind for kind, n in sorted(others.items())]
            step.spent["on" if step.on else "off", own, ", ".join(words)] += passed

    for event in trace.events:
        if not found:
            used.clear()  # what was before the first step is none of its cost
        spend(event.time - now)
        now = event.time
        step = under_way.get(event.tid)
        if event.kind == "waking":
            if event.tid in trace.computers and step is None and event.tid not in running.values():
                under_way[event.tid] = Step(now, event.cpu)
            continue
        if event.kind == "migrate":
            if step is not None and not step.on:
                step.cpu = event.cpu
            continue
        running[event.cpu] = event.tid
        last = under_way.get(event.before)
        if last is not None:
            last.on = False
            if not event.ready:
                del under_way[event.before]
                if last.began - start >= skip and now - last.began >= least:
                    last.ended = now
                    found.append(last)
                    until = dict(used)
        if event.tid in trace.computers:  # one that was woken up before it had gone to sleep begins here
            step = under_way.setdefault(event.tid, Step(now, event.cpu))
            step.on, step.cpu = True, event.cpu
    return found, until


def report(steps: list[Step], used: dict[str, float]) -> dict[str, Any]:
    """Means over all steps, milliseconds."""
    each = 1e3 / len(steps)
    total: dict[tuple[str, str, str], float] = defaultdict(float)
    for step in steps:
        for key, seconds in step.spent.items():
            total[key] += seconds
    rows: list[list[Any]] = sorted(
        ([*key, round(each * value, 2)] for key, value in total.items()), key=lambda row: -row[3]
    )
    on, off = (sum(v for key, v in total.items() if key[0] == where) for where in ("on", "off"))
    return {
        "steps": len(steps),
        "length": round(each * (on + off), 2),
        "on_core": round(each * on, 2),
        "off_core": round(each * off, 2),
        "rows": rows,
        "per_worker_step": {kind: round(each * value, 2) for kind, value in sorted(used.items())},
    }


def record(arguments: argparse.Namespace, folder: Path) -> Trace:
    """Train under perf; what it recorded. Whatever was started has ended afterwards."""
    given = arguments.scenario
    scenario = str(Path(given).resolve()) if Path(given).exists() else given
    sets = [f"--set={one}" for one in ("run.compute=native", "run.evaluate=false", *arguments.set)]
    train = [sys.executable, "-m", "aladdin", "train", scenario, *sets, "--out", str(folder / "run")]
    if arguments.algorithm:
        train += ["--algorithm", arguments.algorithm]
    data, pid = folder / "perf.data", folder / "pid"
    told = f"echo $$ > {shlex.quote(str(pid))}; exec {shlex.join(train)}"
    command = ["perf", "sched", "record", "-o", str(data), "--", "sh", "-c", told]
    output = folder / "output"
    with (
        output.open("w") as out,
        subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True) as training,
    ):
        try:
            training.wait()
        finally:
            if training.poll() is None:  # the run tidies up after itself, and perf ends with it
                if pid.exists():
                    os.kill(int(pid.read_text()), signal.SIGINT)
                try:
                    training.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(training.pid, signal.SIGKILL)
    if training.returncode or not data.exists() or not (folder / "run").exists():
        raise SystemExit(f"could not train under perf:\n{output.read_text().strip()[-2000:]}")
    script = ["perf", "script", "-i", str(data), "--ns", "-F", "comm,pid,tid,cpu,time,event,trace"]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reading:
        assert reading.stdout is not None
        trace = read(reading.stdout, int(pid.read_text()))
    if not trace.computers:
        raise SystemExit("what perf printed was not understood: no thread that computes gradients was found")
    return trace


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="demo", help="as for aladdin train (default: demo)")
    parser.add_argument("--algorithm", help="one (default: the scenario's own)")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as there")
    parser.add_argument("--skip", type=float, default=4.0, help="seconds that are left out (default: 4)")
    parser.add_argument("--least", type=float, default=3.0, help="milliseconds of a step (default: 3)")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    args = parser.parse_args()
    if "," in (args.algorithm or ""):
        parser.error(f"--algorithm {args.algorithm}: one at a time")
    if any(one.startswith("run.compute=") for one in args.set):
        parser.error("--set run.compute: steps are native here")
    sys.path.insert(0, str(ROOT))
    import aladdin
    from scenarios.overrides import parse

    try:
        aladdin.load(args.scenario, algorithm=args.algorithm, overrides=parse(args.set))
    except aladdin.ScenarioError as error:
        parser.error(str(error))
    if shutil.which("perf") is None:
        parser.error("the program perf is not there (Debian: linux-perf)")
    if os.geteuid() != 0:
        parser.error("the kernel's scheduler is traced for root only")
    return args


def main() -> None:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory() as folder:
            trace = record(args, Path(folder))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    steps, used = follow(trace, args.skip, 1e-3 * args.least)
    if not steps:
        raise SystemExit("no step was seen whole: train for longer (--set run.steps=100), or --skip less")
    found = report(steps, used)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    print(
        f"{found['steps']} steps of {found['length']:.1f} ms: {found['on_core']:.1f} on a core, "
        f"{found['off_core']:.1f} ready without one"
    )
    for where, own, others, spent in found["rows"]:
        if spent >= 0.1:
            print(f"{spent:8.1f} ms  {where:3}  its core: {own:8}  others: {others}")
    spent = ", ".join(f"{kind} {value:.1f}" for kind, value in found["per_worker_step"].items())
    print(f"of all cores, ms per step: {spent}")


if __name__ == "__main__":
    main()

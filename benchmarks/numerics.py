"""Cost of numerics in virtual time: the simulator over bare gradients, and batched against one by one.

    python benchmarks/numerics.py [--workers N] [--steps K] [--repeats R] [--models M ...]
                                   [--algorithms A ...] [--cpu] [--json]

Overhead: a run with numerics (without evaluation of the model) against bare evaluation of as many
gradients by the same evaluator, in the same chunks, at parameters of their own for every worker, and
against a loop that does the run's gradients and tensor operations again, in the same order, and nothing
else (``benchmarks/tape.py``): what no trainer is spared. ``simulator`` is what the run takes longer than
that loop, over bare gradients; ``with_tensors`` all of the difference. ``timing_only_us`` is a run without
numerics.
Batched: gradients of N workers at N different points, together and one by one; one by one with one thread
of torch and with all of them, of which the faster counts.
All sides alternate within one process; medians over the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MODELS: dict[str, dict[str, Any]] = {
    "MLP 64-256-10": {"model": "mlp"},
    "MLP 64-1024-1000-10": {"model": "mlp", "hidden": [1024, 1000]},
    "small CNN": {"model": "cnn"},
}
ALGORITHMS = ("asp", "aladdin", "arsgd")
WAYS = ("never", "always")


def scenario(algorithm: str, workload: dict[str, Any], workers: int, steps: int, batched: str) -> Any:
    """Digits on a 10 Gbit/s cluster with steps of unequal length."""
    from scenarios.schema import Scenario

    return Scenario.from_dict(
        {
            "name": f"numerics-{algorithm}",
            "cluster": {
                "workers": workers,
                "bandwidth": "10 Gbit/s",
                "compute": {"mean": "50 ms", "model": "lognormal", "spread": 0.2},
            },
            "workload": {"data": "digits", **workload},
            "algorithm": {"name": algorithm, "lr": 0.01, "lr_scaling": "none"},
            "run": {"steps": steps, "evaluate": False, "numerics": True, "batched": batched},
        }
    )


clock: Callable[[], float] = time.perf_counter


def seconds(work: Callable[[], Any]) -> float:
    """Time of one call."""
    start = clock()
    work()
    return clock() - start


class Bare:
    """As many gradients as a run asks for, in the same chunks, without a run."""

    def __init__(self, chosen: Any, threads: int) -> None:
        from dataclasses import replace

        from scenarios.plan import plan
        from sim.numerics import evaluator

        self.evaluator = evaluator(plan(chosen))
        self.evaluator.choice = replace(self.evaluator.choice, threads=threads)
        self._workers, self._steps = chosen.cluster.workers, chosen.run.steps
        self._points = [self.evaluator.initial * (1 + i / 1000) for i in range(self._workers)]

    def __call__(self) -> None:
        chunk = self.evaluator.chunk
        with self.evaluator:
            for step in range(self._steps):
                for start in range(0, self._workers, chunk):
                    ranks = range(start, min(start + chunk, self._workers))
                    self.evaluator.several([self._points[r] for r in ranks], [(r, step) for r in ranks])


def simulated(chosen: Any, gradients: Any, tensors: Any = None) -> None:
    """The run, with these gradients."""
    from scenarios.plan import plan
    from sim.driver import Driver

    Driver(plan(chosen), gradients=gradients, tensors=tensors).run()


def within(evaluator: Any, work: Callable[[], Any]) -> Callable[[], None]:
    """``work`` with as many threads as the evaluator chose."""

    def call() -> None:
        with evaluator:
            work()

    return call


def taped(chosen: Any, evaluator: Any) -> Callable[[], None]:
    """The run's tensor work, to be done again without the run."""
    from benchmarks.tape import Tape

    tape = Tape(evaluator)
    tape.record(lambda: simulated(chosen, tape, lambda _: tape.tensors()))
    return tape.play


def overhead(model: str, algorithm: str, batched: str, threads: int, args: Any) -> dict[str, Any]:
    """One row: microseconds per gradient of a run, and what they are made of."""
    import sim

    chosen = scenario(algorithm, MODELS[model], args.workers, args.steps, batched)
    timing = chosen.override({"run.numerics": False})
    bare = Bare(chosen, threads)
    own, rows = bare.evaluator, []
    run_it, play = within(own, lambda: simulated(chosen, own)), within(own, taped(chosen, own))
    bare(), run_it(), play()
    for _ in range(args.repeats):
        before, loop = seconds(bare), seconds(play)
        run = seconds(run_it)
        loop, alone = (loop + seconds(play)) / 2, (before + seconds(bare)) / 2
        rows.append((run, alone, loop, seconds(lambda: sim.simulate(timing))))
    micro = 1e6 / (args.workers * args.steps)
    run, alone, loop, events = (micro * statistics.median(column) for column in zip(*rows, strict=True))
    simulator = statistics.median((run - loop) / alone for run, alone, loop, _ in rows)
    whole = statistics.median((run - alone) / alone for run, alone, _, _ in rows)
    return {
        "model": model, "algorithm": algorithm, "batched": own.choice.batched,
        "threads": threads, "run_us": round(run, 1), "gradients_us": round(alone, 1),
        "loop_us": round(loop, 1), "timing_only_us": round(events, 1),
        "simulator": round(simulator, 3), "with_tensors": round(whole, 3),
    }  # fmt: skip


def together(model: str, most: int, args: Any) -> dict[str, Any]:
    """One row: microseconds per gradient, one by one (1 thread, all threads) and batched."""
    steps = max(1, args.steps // 2)
    ways = [("never", threads) for threads in sorted({1, most})] + [("always", most)]
    sides = [Bare(scenario("asp", MODELS[model], args.workers, steps, way), count) for way, count in ways]
    for side in sides:
        side()
    times = [[seconds(side) for side in sides] for _ in range(args.repeats)]
    count = args.workers * steps
    *singly, batched = (1e6 * statistics.median(column) / count for column in zip(*times, strict=True))
    ratios = [min(row[:-1]) / row[-1] for row in times]
    return {
        "model": model, "n": args.workers, "chunk": sides[-1].evaluator.chunk, "threads": most,
        "one_by_one_1_thread_us": round(singly[0], 1), "one_by_one_us": round(singly[-1], 1),
        "batched_us": round(batched, 1), "ratio": round(statistics.median(ratios), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=64, metavar="N")
    parser.add_argument("--steps", type=int, default=8, metavar="K", help="per worker")
    parser.add_argument("--repeats", type=int, default=3, metavar="R")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="M")
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), metavar="A")
    parser.add_argument("--cpu", action="store_true", help="processor time of one thread, where others run")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    args = parser.parse_args()
    import torch

    if args.cpu:
        global clock  # noqa: PLW0603 (one switch for the whole process)
        clock = time.process_time
        torch.set_num_threads(1)
    most = torch.get_num_threads()
    tables: dict[str, list[dict[str, Any]]] = {"batched": [], "overhead": []}

    def add(table: str, row: dict[str, Any]) -> None:
        if not args.json:
            if not tables[table]:
                print(*row, sep=" | ")
            print(*row.values(), sep=" | ", flush=True)
        tables[table].append(row)

    for model in args.models:
        add("batched", together(model, most, args))
    for model in args.models:
        for algorithm in args.algorithms:
            for way in WAYS:
                add("overhead", overhead(model, algorithm, way, most if way == "always" else 1, args))
    if args.json:
        print(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()

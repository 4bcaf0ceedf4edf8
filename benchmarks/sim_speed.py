"""Cost of a simulated worker step, in units of one bare SimPy timeout.

    python benchmarks/sim_speed.py [--workers N ...] [--steps K] [--json]

The unit is measured in the same process, at the same number of workers, before and after every run:
n processes that loop over ``yield env.timeout(d_i)`` with distinct d_i. What is timed is
``sim.simulate`` as users call it (parsed scenario in, record out): Phantom tensors, time booking
on, spans off; ASP and ALADDIN, one server, window and inbox as by default. ALADDIN runs with
``on_busy: wait``, so that every step sends its gradient: ``coalesce`` would send few behind a busy
server and so look much faster. Every n runs in a process of its own, so that the memory is its own.
Medians over ``--repeats`` rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WORKERS = (8, 64, 512, 4096)
ALGORITHMS = ("asp", "aladdin")
ADMISSIONS = ("fifo", "fair")
STEPS_IN_ALL = 40_000
"""Worker steps per run, unless --steps says otherwise."""


def unit(workers: int, timeouts: int) -> float:
    """Seconds of wall time per bare SimPy timeout with ``workers`` processes."""
    import simpy

    env = simpy.Environment()

    def loop(delay: float, count: int) -> Any:
        for _ in range(count):
            yield env.timeout(delay)

    for i in range(workers):
        env.process(loop(0.3 + 1e-5 * i, timeouts))
    start = time.perf_counter()
    env.run()
    return (time.perf_counter() - start) / (workers * timeouts)


def scenario(algorithm: str, workers: int, admission: str, steps: int) -> Any:
    """ResNet-50-sized messages over 10 Gbit/s, step times all different."""
    from scenarios.schema import Scenario

    return Scenario.from_dict(
        {
            "name": f"speed-{algorithm}-{workers}-{admission}",
            "cluster": {
                "workers": workers,
                "bandwidth": "10 Gbit/s",
                "latency": "100 us",
                "network": {"admission": admission},
                "compute": {
                    "mean": "300 ms",
                    "scale": [1 + 0.2 * ((i * 7919) % workers) / workers for i in range(workers)],
                },
                "tensor_seconds": {"accumulate": 0.002, "apply": 0.01},
            },
            "workload": {"model": "resnet50", "data": "synthetic"},
            "algorithm": {"name": algorithm, **({"on_busy": "wait"} if algorithm == "aladdin" else {})},
            "run": {"steps": steps},
        }
    )


def measure(workers: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    """All algorithms and admissions at one number of workers, in this process."""
    import sim

    timeouts = max(2, min(steps, STEPS_IN_ALL // workers))
    rows = []
    for algorithm in ALGORITHMS:
        for admission in ADMISSIONS:
            chosen = scenario(algorithm, workers, admission, steps)
            units, costs = [unit(workers, timeouts)], []
            for _ in range(repeats):
                gc.collect()
                start = time.perf_counter()
                record = sim.simulate(chosen)
                costs.append((time.perf_counter() - start) / int(record.nodes["steps"].sum()))
                units.append(unit(workers, timeouts))
            cost = statistics.median(costs)
            rows.append(
                {
                    "algorithm": algorithm,
                    "n": workers,
                    "admission": admission,
                    "steps_per_s": round(1 / cost, 1),
                    "timeouts_per_step": round(cost / statistics.median(units), 2),
                    "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--workers", type=int, nargs="+", default=WORKERS, metavar="N", help="numbers of workers"
    )
    parser.add_argument(
        "--steps", type=int, default=0, metavar="K", help="steps per worker (default: 40000 / N, at least 10)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for workers in args.workers:
        steps = args.steps or max(10, STEPS_IN_ALL // workers)
        if args.here:
            rows += measure(workers, steps, args.repeats)
        else:
            command = [
                sys.executable,
                __file__,
                "--here",
                "--json",
                "--workers",
                str(workers),
            ]
            command += ["--steps", str(steps), "--repeats", str(args.repeats)]
            rows += json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        if not args.json:
            for row in rows[-len(ALGORITHMS) * len(ADMISSIONS) :]:
                cost = f"{row['steps_per_s']:9.0f} steps/s {row['timeouts_per_step']:6.1f} timeouts/step"
                where = f"{row['algorithm']:8s} n={row['n']:<5d} {row['admission']:5s}"
                print(f"{where} {cost} {row['rss_mb']:6.0f} MB", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()

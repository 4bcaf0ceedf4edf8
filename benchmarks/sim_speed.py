"""Cost of a simulated worker step, in units of one bare SimPy timeout.

    python benchmarks/sim_speed.py [--workers N ...] [--steps K] [--servers S ...] [--racks R] [--json]

The unit is measured in the same process, at the same number of workers, before and after every run:
n processes that loop over ``yield env.timeout(d_i)`` with distinct d_i. What is timed is
``sim.simulate`` as users call it (parsed scenario in, record out): Phantom tensors, time booking
on, spans off; ASP and ALADDIN, one server, window and inbox as by default. ALADDIN runs with
``on_busy: wait``, so that every step sends its gradient: ``coalesce`` would send few behind a busy
server and so look much faster. Every row is run in a process of its own, so that the memory is its
own. Medians over ``--repeats`` rounds. ``--racks`` puts the machines into racks whose up-links are
over-subscribed fourfold.

Fields of a row: algorithm; n; admission; servers; racks (0: NICs only); seconds of one run, the
scenario being read; steps_per_s; timeouts_per_step; timeouts_per_message, a step with S servers being 2 S
messages; rss_mb, the most that the process held. ``seconds`` are the clock's; timeouts are ratios of
processor time, which other programs on the machine disturb less.
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
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WORKERS = (8, 64, 512, 4096)
ALGORITHMS = ("asp", "aladdin")
ADMISSIONS = ("fifo", "fair")
STEPS_IN_ALL = 40_000
"""Worker steps per run, unless --steps says otherwise."""


def unit(workers: int, timeouts: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds by ``clock`` per bare SimPy timeout with ``workers`` processes."""
    import simpy

    env = simpy.Environment()

    def loop(delay: float, count: int) -> Any:
        for _ in range(count):
            yield env.timeout(delay)

    for i in range(workers):
        env.process(loop(0.3 + 1e-5 * i, timeouts))
    start = clock()
    env.run()
    return (clock() - start) / (workers * timeouts)


def scenario(
    algorithm: str, workers: int, admission: str, steps: int, servers: int = 1, racks: int = 0
) -> Any:
    """ResNet-50-sized messages over 10 Gbit/s, step times all different."""
    from scenarios.schema import Scenario

    levels = {
        "racks": racks,
        "machines_per_rack": workers // max(racks, 1),
        "uplink": {"oversubscription": 4, "latency": "10 us"},
    }
    return Scenario.from_dict(
        {
            "name": f"speed-{algorithm}-{workers}-{admission}",
            "cluster": {
                "workers": workers,
                "bandwidth": "10 Gbit/s",
                "latency": "100 us",
                "servers": {"count": servers},
                **(levels if racks else {}),
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


def measure(chosen: Any, repeats: int) -> dict[str, float | bool]:
    """Medians of ``repeats`` runs of a scenario, in this process."""
    import sim
    from sim import compiled

    workers, steps = chosen.cluster.workers, chosen.run.steps
    timeouts = max(2, min(steps, STEPS_IN_ALL // workers))
    units, costs, works, done = [unit(workers, timeouts)], [], [], 1
    for _ in range(repeats):
        gc.collect()
        start, worked = time.perf_counter(), time.process_time()
        record = sim.simulate(chosen)
        costs.append(time.perf_counter() - start)
        works.append(time.process_time() - worked)
        done = int(record.nodes["steps"].sum())
        del record
        units.append(unit(workers, timeouts))
    seconds = statistics.median(costs)
    timeouts_per_step = statistics.median(works) / done / statistics.median(units)
    return {
        "seconds": round(seconds, 3),
        "steps_per_s": round(done / seconds, 1),
        "timeouts_per_step": round(timeouts_per_step, 2),
        "timeouts_per_message": round(timeouts_per_step / 2 / chosen.cluster.servers.count, 2),
        "compiled": compiled.found() is not None,
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def apart(case: tuple[Any, ...], repeats: int) -> dict[str, Any]:
    """``measure`` in a process of its own; ``case`` holds the arguments of ``scenario``."""
    command = [sys.executable, __file__, "--case", json.dumps(case), "--repeats", str(repeats)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    algorithm, workers, admission, _, servers, racks = case
    named = {"algorithm": algorithm, "n": workers, "admission": admission}
    return {**named, "servers": servers, "racks": racks, **json.loads(output)}


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--workers", type=int, nargs="+", default=WORKERS, metavar="N", help="numbers of workers"
    )
    parser.add_argument(
        "--steps", type=int, default=0, metavar="K", help="steps per worker (default: 40000 / N, at least 10)"
    )
    parser.add_argument(
        "--servers", type=int, nargs="+", default=(1,), metavar="S", help="numbers of servers"
    )
    parser.add_argument("--racks", type=int, default=0, metavar="R", help="racks (default: NICs only)")
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, metavar="A", help="asp aladdin ...")
    parser.add_argument("--admissions", nargs="+", default=ADMISSIONS, choices=ADMISSIONS)
    parser.add_argument("--repeats", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if min(*args.workers, *args.servers, args.repeats) < 1:
        parser.error("--workers, --servers and --repeats take numbers of at least 1")
    if min(args.steps, args.racks) < 0:
        parser.error("--steps and --racks take numbers of at least 0")
    for workers in args.workers:
        if args.racks and workers % args.racks:
            parser.error(f"--racks {args.racks} does not divide --workers {workers}")
    return args


def main() -> None:
    args = arguments()
    if args.case:
        print(json.dumps(measure(scenario(*args.case), args.repeats)))
        return
    rows: list[dict[str, Any]] = []
    for workers, servers, algorithm, admission in product(
        args.workers, args.servers, args.algorithms, args.admissions
    ):
        steps = args.steps or max(10, STEPS_IN_ALL // workers)
        row = apart((algorithm, workers, admission, steps, servers, args.racks), args.repeats)
        rows.append(row)
        if not args.json:
            cost = f"{row['steps_per_s']:9.0f} steps/s {row['timeouts_per_step']:6.1f} timeouts/step"
            each = f"{row['timeouts_per_message']:5.1f} a message"
            where = f"{algorithm:8s} n={workers:<6d} {admission:5s} servers={servers:<3d} racks={args.racks}"
            print(f"{where} {row['seconds']:7.2f} s {cost} {each} {row['rss_mb']:6.0f} MB", flush=True)
    if args.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()

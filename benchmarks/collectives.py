"""Seconds of one all-reduce by algorithm, workers and size, simulated: closed form, and by messages.

    python -m benchmarks.collectives [--workers 4 8 16] [--per-machine 1] [--admission fifo] [--json]

10 Gbit/s, 50 microseconds a path, 10 microseconds a message, 8 GB/s inside a machine; all workers in step.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import sim
from core.collectives import ALGORITHMS
from scenarios.schema import Scenario

SIZES = {"40 kB": 40_000, "1 MB": 1_000_000, "102 MB": 102_228_128, "553 MB": 553_430_176}
"""Small and smaller; ResNet-50's and VGG-16's parameters (1000 classes)."""


def seconds(algorithm: str, workers: int, nbytes: int, collective: str, per_machine: int, admission: Any) -> float:  # fmt: skip # noqa: E501
    """Of one all-reduce."""
    scenario = Scenario.from_dict({
        "cluster": {
            "workers": workers, "workers_per_machine": per_machine, "bandwidth": "10 Gbit/s",
            "latency": "50 us", "local_bandwidth": "8 GB/s", "local_latency": "5 us",
            "compute": {"mean": 1.0},
            "network": {
                "allreduce": algorithm, "collective": collective, "overhead": "10 us",
                "admission": admission,
            },
        },
        "workload": {"parameters": nbytes // 4, "data": "synthetic"},
        "algorithm": {"name": "arsgd"}, "run": {"steps": 2},
    })  # fmt: skip
    return sim.simulate(scenario).duration / 2 - 1


def main() -> None:
    """Print a table in Markdown, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 6, 16, 64])
    parser.add_argument("--per-machine", type=int, default=1)
    parser.add_argument("--admission", default="fifo")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = [
        {
            "workers": n, "size": size, "algorithm": algorithm,
            **{c: seconds(algorithm, n, nbytes, c, asked.per_machine, asked.admission)
               for c in ("native", "messages")},
        }
        for n in asked.workers for size, nbytes in SIZES.items() for algorithm in ALGORITHMS
    ]  # fmt: skip
    if asked.json:
        print(json.dumps(rows))
        return
    print("| n | size |", " | ".join(ALGORITHMS), "|\n|---|---|" + "---|" * len(ALGORITHMS))
    for i in range(0, len(rows), len(ALGORITHMS)):
        own = rows[i : i + len(ALGORITHMS)]
        cells = [f"{1e3 * row['native']:.3g} ({1e3 * row['messages']:.3g})" for row in own]
        print(f"| {own[0]['workers']} | {own[0]['size']} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

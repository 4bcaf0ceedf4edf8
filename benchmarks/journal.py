"""What it costs a real server to keep a journal and checkpoints, and how long it takes to come back.

    python benchmarks/journal.py

prints, for an MLP of a million parameters (4.3 MB a message) that two workers train on digits by ASP with
native links: steps per second with and without a journal, what journal and checkpoints took of the server's
threads, and for servers that crash late in the run how long they were away beyond ``back``.
"""

from __future__ import annotations

from typing import Any

import real
import scenarios
from core.record import Record

LATE = {"kind": "crash", "servers": [0], "at": 1000, "back": 1}
CRASH = {"kind": "crash", "servers": [0], "at": 8, "back": 0.1}


def run(faults: list[dict[str, Any]]) -> Record:
    """One run with these faults."""
    changes = {
        "algorithm.name": "asp", "cluster.workers": 2, "cluster.compute.mean": 0.06,
        "cluster.compute.spread": 0,
        "workload.hidden": [1000, 1000], "run.links": "native", "run.compute": "paced", "run.steps": 150,
        "run.evaluate": False, "faults": faults,
    }  # fmt: skip
    return real.train(scenarios.load("demo", changes))


def main() -> None:
    """Print both tables."""
    print("journal            steps/s   payloads   records  checkpoints (seconds)   checkpoints")
    for name, faults in (
        ("none", []), ("as it grows", [LATE]), ("every 2 s", [{**LATE, "checkpoint_every": 2}]),
    ):  # fmt: skip
        record = run(faults)
        speed = record.nodes["steps"].sum() / record.duration
        kept = next(iter(record.manifest.get("journals", {}).values()), None)
        spent = kept["seconds"] if kept else dict.fromkeys(("payloads", "records", "checkpoints"), 0.0)
        print(f"{name:18} {speed:7.1f} {spent['payloads']:10.2f} {spent['records']:9.2f} "
              f"{spent['checkpoints']:12.2f} {kept['checkpoints'] if kept else 0:23} ")  # fmt: skip
    print("\ncheckpoints        effects replayed   away, less 0.1 s")
    for name, every in (("as it grows", 0.0), ("every 2 s", 2.0)):
        record = run([{**CRASH, "checkpoint_every": every}])
        away = record.events["time"][1] - record.events["time"][0] - CRASH["back"]
        kept = next(iter(record.manifest["journals"].values()))
        print(f"{name:18} {kept['replayed']:16} {away:14.2f} s")


if __name__ == "__main__":
    main()

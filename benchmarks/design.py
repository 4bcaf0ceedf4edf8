"""Makes the tables in ``aladdin/designs``: python benchmarks/design.py > aladdin/designs/full.csv (20 s),
and python benchmarks/design.py gpu > aladdin/designs/gpu.csv.

full: 18 circumstances, three algorithms each, and six cells under faults. Balanced by a seeded search; of
several seeds the cheapest is kept, by bytes through the slowest link, n of them in turn.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.balance import assign, circumstances, meetings
from core.algorithms import ALGORITHMS

FACTORS = {
    "n": [2, 4, 8],
    "bandwidth": ["200 Mbit/s", "1 Gbit/s", "mixed"],
    "slow": [1, 2, 10],
    "message": ["4 MB", "20 MB"],
    "compute": ["paced", "native"],
}
OFTEN = ["asp", "bsp", "aladdin", "arsgd", "ssp", "adpsgd"]
"""Algorithms with four cells in place of three."""

FAULTS = [
    ("crash", ["asp", "bsp", "adpsgd"]),
    ("freeze", ["asp", "aladdin", "ssp"]),
]
QUICK = {"paced": 2, "native": 1}
"""Circumstances of each ``compute`` that ``--quick`` takes: the cheapest."""


def cost(row: dict[str, Any]) -> float:
    """Seconds that n messages take one after the other."""
    rate = {"200 Mbit/s": 25.0, "1 Gbit/s": 125.0, "mixed": 40.0}[row["bandwidth"]]
    return row["n"] * float(row["message"].split()[0]) / rate


def unmet(rows: list[dict[str, Any]]) -> int:
    """How many levels some algorithm never meets."""
    return sum(count == 0 for name in FACTORS for count in meetings(rows, "algorithm", name).values())


def design() -> list[dict[str, Any]]:
    """All rows of the design."""
    tables = [circumstances(FACTORS, 18, seed, cost) for seed in range(6)]
    rows = min(tables, key=lambda table: sum(map(cost, table)))
    names = [*OFTEN, *(name for name in ALGORITHMS if name not in OFTEN)]
    chosen = min((assign(rows, names, 3, seed) for seed in range(3)), key=unmet)
    cells = [{**row, "faults": "none"} for row in chosen]
    light = sorted((row for row in rows if row["message"] == "4 MB" and row["n"] < 8), key=cost)
    quick = [r for kind in QUICK for r in [x for x in light if x["compute"] == kind][: QUICK[kind]]]
    for cell in cells:
        cell["quick"] = int(any(all(cell[name] == row[name] for name in FACTORS) for row in quick))
    calm = {"n": 4, "bandwidth": "1 Gbit/s", "slow": 1, "message": "4 MB", "compute": "paced"}
    cells += [
        {"algorithm": name, **calm, "faults": kind, "quick": 0} for kind, names in FAULTS for name in names
    ]
    return cells


def gpu() -> list[dict[str, Any]]:
    """Six algorithms for each number of workers and model, and two for a worker that has the device alone."""
    rows = circumstances({"n": [2, 4, 8], "message": ["resnet50", "vgg16"]}, 6, seed=0, steps=1000)
    alone = [{"n": 1, "message": message} for message in ("resnet50", "vgg16")]
    cells = [{"algorithm": name, **row} for row in alone for name in ("asp", "bsp")]
    cells += assign(rows, list(ALGORITHMS), 6, seed=0)
    levels = {"bandwidth": "native", "slow": 1, "compute": "native", "faults": "none", "quick": 0}
    return [{**cell, **levels} for cell in cells]


if __name__ == "__main__":
    found = gpu() if sys.argv[1:] == ["gpu"] else design()
    writer = csv.DictWriter(sys.stdout, fieldnames=list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)

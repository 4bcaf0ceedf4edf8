"""Committed designs: a table of cells that a seeded search balanced, and what their levels mean.

Rules this module obeys:

* The tables are data (``full.csv``, ``gpu.csv``, made by ``benchmarks/design.py``); ``quick`` is the part of
  one that is marked so, nothing else.
* One length rule for all: as many steps as a steady rate needs, by the prediction.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from aladdin.designs import Levels
from analysis.crosscheck import Prediction
from scenarios import Scenario, ScenarioError

__all__ = ["Fraction"]

MESSAGES: dict[tuple[str, str], dict[str, Any]] = {
    ("4 MB", "paced"): {"workload.hidden": [960, 960], "workload.batch": 32, "cluster.compute.mean": 0.05},
    ("4 MB", "native"): {"workload.hidden": [960, 960], "workload.batch": 512, "cluster.compute.mean": 0.05},
    ("20 MB", "paced"): {"workload.hidden": [2200, 2200], "workload.batch": 8, "cluster.compute.mean": 0.3},
    ("20 MB", "native"): {
        "workload.hidden": [2200, 2200], "workload.batch": 512, "cluster.compute.mean": 0.3,
    },
    **{
        (name, "native"): {
            "workload.model": name, "workload.hidden": [], "workload.data": "synthetic",
            "workload.samples": 512, "workload.image_size": 224, "workload.classes": 1000,
            "workload.batch": 32,
        }
        for name in ("resnet50", "vgg16")
    },
}  # fmt: skip
"""The model whose gradient is such a message: an MLP by size, or a large one by name, for devices. Where
steps are paced, how long they are held.

Paced steps are longer than their real gradients even where eight workers share two cores; native ones have
batches that make them take about as long.
"""

PROBED = 125e6
"""Bytes/s of the paced or shaped links that are probed; native ones have no rate."""

RATES = {
    "200 Mbit/s": (25e6, 25e6), "1 Gbit/s": (125e6, 125e6), "mixed": (25e6, 125e6),
    "native": (PROBED, PROBED),
}  # fmt: skip
"""Bytes/s of the NICs of the first half of the workers, and of all others, servers included."""

FAULTS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "crash": [{"kind": "crash", "ranks": [3], "step": 40, "back": 4.0}],
    "freeze": [{"kind": "freeze", "ranks": [1], "step": 40, "back": 2.0}],
}
"""What befalls the workers, and when: at the start of a step, not at a time. A worker that is frozen while it
holds the server's slot holds up all others, one that computes nobody; a time would leave that to chance.
"""

OPTIONS = {name: {"algorithm.options.h": 2} for name in ("local_sgd", "post_local_sgd", "diloco")}
"""Options that are not the algorithms' own: a run of half a minute must see several periods."""

STEPS, SLOWEST, SHORTEST, LONGEST, UNDER_FAULTS = 16, 6, 8.0, 60.0, 20.0

SHORTEST_NATIVE = 16.0
"""Seconds of runs with native steps, but for the quick part: those of 10 s scatter by 5 % where the machine's
other tenants do, and starting and probing a run takes longer than the run.
"""


@dataclass(frozen=True)
class Fraction:
    """A committed table of cells, run on links of one kind.

    kind     paced | shaped | native: the links of all cells
    quick    only the cells marked so
    length   seconds of each run; 0: as long as its prediction asks for
    spare    how often more any cell may be run, in place of rounds that were disturbed
    """

    kind: str = "paced"
    quick: bool = False
    length: float = 0.0
    table: str = "full.csv"
    spare: int = 2

    @property
    def name(self) -> str:
        """The table, whether only its quick part, on which links."""
        part = "quick" if self.quick else self.table.removesuffix(".csv")
        return f"{part} design, {self.kind} links"

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        text = (resources.files("aladdin") / "designs" / self.table).read_text(encoding="utf-8")
        rows = []
        for row in csv.DictReader(text.splitlines()):
            if not self.quick or row["quick"] == "1":
                levels = {name: row[name] for name in ("algorithm", "bandwidth", "message", "faults")}
                rows.append({
                    **levels, "n": int(row["n"]), "slow": float(row["slow"]), "links": self.kind,
                    "compute": row["compute"],
                })  # fmt: skip
        return rows

    def cells(self) -> list[dict[str, Any]]:
        return [dict(row) for row in self._rows]

    @property
    def workers(self) -> Sequence[int]:
        """Every number of workers in the table."""
        return sorted({row["n"] for row in self._rows})

    @property
    def links(self) -> Sequence[str]:
        """The one kind that all cells run on."""
        return (self.kind,)

    def scenario(self, base: Scenario, cell: Levels) -> Scenario:
        n, slow = cell["n"], cell["slow"]
        if (self.kind == "native") != (cell["bandwidth"] == "native"):
            valid = "paced or shaped: the design's links have rates"
            raise ScenarioError("run.links", self.kind, valid if self.kind == "native" else "native")
        low, high = RATES[cell["bandwidth"]]
        rates = [low] * (n // 2) + [high] * (n - n // 2)
        words = [f"n={n}", f"slow={slow:g}", *(cell[k] for k in ("bandwidth", "message", "links", "compute"))]
        words += [cell["faults"]] if cell["faults"] != "none" else []
        return base.override({
            **self.workload(cell)[1],
            "name": f"{base.name} {' '.join(words)}",
            "algorithm.name": cell["algorithm"],
            **OPTIONS.get(cell["algorithm"], {}),
            "cluster.workers": n,
            "cluster.bandwidth": high,
            "cluster.heterogeneity": {} if low == high else {"devices": {"up": rates, "down": rates}},
            "cluster.slowdowns": [] if slow == 1 else [{"kind": "fixed", "ranks": [n - 1], "factor": slow}],
            "run.compute": cell["compute"],
            "run.seconds": UNDER_FAULTS,
            "faults": FAULTS[cell["faults"]],
        })  # fmt: skip

    def workload(self, cell: Levels) -> tuple[str, dict[str, Any]]:
        own = MESSAGES[cell["message"], cell["compute"]]
        name = f"{cell['message'].replace(' ', '')}-{cell['compute']}"
        return name, {
            **own,
            "cluster.bandwidth": PROBED,
            "cluster.network.collective": "native" if self.kind == "native" else "messages",
            "run.links": self.kind,
            "run.compute": cell["compute"],
            "run.evaluate": False,
        }

    def seconds(self, cell: Levels, prediction: Prediction) -> float:
        """``STEPS`` mean steps and ``SLOWEST`` of the slowest worker after its warm-up, in bounds."""
        if self.length or cell["faults"] != "none":
            return self.length or UNDER_FAULTS
        long = 2 * prediction.slowest + max(STEPS * prediction.step, SLOWEST * prediction.slowest)
        shortest = SHORTEST_NATIVE if cell["compute"] == "native" and not self.quick else SHORTEST
        return float(min(max(shortest, round(long, 1)), LONGEST))

    def rounds(self, cell: Levels) -> tuple[int, int]:
        return (2, 4) if cell["compute"] == "native" else (1, 3)

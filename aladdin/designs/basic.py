"""The basic design: every one of a few algorithms under every one of a few circumstances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aladdin.designs import Levels
from analysis.crosscheck import Prediction
from scenarios import Scenario

__all__ = ["Basic"]


@dataclass(frozen=True)
class Basic:
    """All combinations of algorithms, numbers of workers, slow-downs and settings; 48 by default.

    settings  (links, compute) pairs, each native or paced
    slow      factors of the last worker; 1 for a homogeneous cluster
    batches   samples per step, by compute; the scenario's own where not given. Native steps get large
              batches, so that they take about as long as paced ones do
    length    seconds of each run
    repeats   how often a cell is predicted and run at least, by its (links, compute); 1 where not given
    further   how often more such a cell may be, while its interval stays wide and time is left
    spare     how often more any cell may be, in place of rounds that were disturbed
    """

    algorithms: Sequence[str] = ("bsp", "asp", "aladdin", "arsgd")
    workers: Sequence[int] = (2, 4)
    slow: Sequence[float] = (1.0, 4.0)
    settings: Sequence[tuple[str, str]] = (("paced", "paced"), ("native", "paced"), ("paced", "native"))
    batches: Mapping[str, int] = field(default_factory=lambda: {"native": 512})
    length: float = 8.0
    repeats: Mapping[tuple[str, str], int] = field(
        default_factory=lambda: {("native", "paced"): 2, ("paced", "native"): 5}
    )
    further: int = 7
    spare: int = 2
    name: str = "basic design"

    @property
    def links(self) -> Sequence[str]:
        """Those of the settings."""
        return tuple(dict.fromkeys(links for links, _ in self.settings))

    def cells(self) -> list[dict[str, Any]]:
        return [
            {"algorithm": name, "n": n, "slow": slow, "links": links, "compute": compute}
            for links, compute in self.settings
            for n in self.workers
            for slow in self.slow
            for name in self.algorithms
        ]

    def scenario(self, base: Scenario, cell: Levels) -> Scenario:
        n, slow = cell["n"], cell["slow"]
        return base.override({
            "name": f"{base.name} n={n} slow={slow:g} links={cell['links']} compute={cell['compute']}",
            "algorithm.name": cell["algorithm"],
            "cluster.workers": n,
            "cluster.slowdowns": [] if slow == 1 else [{"kind": "fixed", "ranks": [n - 1], "factor": slow}],
            "cluster.network.collective": "messages" if cell["links"] == "paced" else "native",
            "run.links": cell["links"],
            "run.compute": cell["compute"],
            "run.seconds": self.length,
            **self.workload(cell)[1],
        })  # fmt: skip

    def workload(self, cell: Levels) -> tuple[str, dict[str, Any]]:
        compute = cell["compute"]
        if compute not in self.batches:
            return "paced", {}
        return compute, {"workload.batch": self.batches[compute]}

    def seconds(self, cell: Levels, prediction: Prediction) -> float:
        return self.length

    def rounds(self, cell: Levels) -> tuple[int, int]:
        least = self.repeats.get((cell["links"], cell["compute"]))
        return (1, 1) if least is None else (least, least + self.further)

"""The demo: calibrate this machine, predict, train for real, and show both side by side.

Four algorithms on a homogeneous cluster and with one worker slowed down; everything is written to
one directory: profile, predictions (before the first run), records, pictures, traces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aladdin import api
from aladdin.running import Progress
from aladdin.validation import Basic, CrossCheck, crosscheck
from analysis import metrics
from analysis.names import count
from scenarios.overrides import given

__all__ = ["Demo", "circumstances", "demo"]

SLOW = 4.0
"""Factor of the slowed worker in the demo's second half."""


def circumstances(slow: float) -> str:
    """A half of the demo in words, by its factor of the slowed worker."""
    return "all workers alike" if slow == 1 else f"one worker {slow:g} times slower"


@dataclass(frozen=True)
class Demo:
    """What the demo found and wrote."""

    check: CrossCheck
    pictures: list[Path]
    traces: list[Path]

    @property
    def slows(self) -> list[float]:
        """Factors of the slowed worker, one per half of the demo; 1 for none."""
        return list(dict.fromkeys(cell.slow for cell in self.check.cells))

    def summaries(self, slow: float) -> list[dict[str, Any]]:
        """Summaries of the measured runs with that slow-down, one per algorithm."""
        rows = zip(self.check.cells, self.check.measured, strict=True)
        return [metrics.summary(record) for cell, record in rows if cell.slow == slow]


def demo(
    out: str | Path,
    *,
    scenario: api.Source = "demo",
    overrides: dict[str, Any] | None = None,
    seconds: float = 6.0,
    on_progress: Progress | None = None,
) -> Demo:
    """Run the demo into the new directory ``out``: ``seconds`` of training for each of eight cells."""
    base = api.load(scenario, overrides={"run.spans": True, **given(overrides)})
    design = Basic(
        workers=(base.cluster.workers,), slow=(1.0, SLOW), settings=((base.run.links, base.run.compute),),
        length=seconds, further=0, spare=0,
    )  # fmt: skip
    check = crosscheck(base, design=design, out=out, keep_runs=True, on_progress=on_progress)
    return Demo(check, *_illustrate(check))


def _illustrate(check: CrossCheck) -> tuple[list[Path], list[Path]]:
    """Pictures of what was predicted and measured, and one trace per set of circumstances."""
    from analysis import plots, trace

    assert check.path is not None
    pictures, traces = [check.path / "predicted_vs_measured.png"], []
    for slow in dict.fromkeys(cell.slow for cell in check.cells):
        rows = [i for i, cell in enumerate(check.cells) if cell.slow == slow]
        name = "homogeneous" if slow == 1 else f"one_x{slow:g}_slower"
        both = [record for i in rows for record in (check.simulated[i], check.measured[i])]
        summaries = [metrics.summary(record) for record in both]
        workers = count(check.cells[rows[0]].n, "worker")
        title = f"Where a step goes: {workers}, {circumstances(slow).removeprefix('all workers ')}"
        pictures.append(plots.save(plots.breakdown(summaries, title), check.path / f"breakdown_{name}.png"))
        measured = [check.measured[i] for i in rows]
        pictures.append(
            plots.save(plots.timeline(measured, seconds=1.0), check.path / f"timeline_{name}.png")
        )
        runs = {
            f"{driver} {check.cells[i].algorithm}": record
            for i in rows
            for driver, record in (("sim", check.simulated[i]), ("real", check.measured[i]))
        }
        traces.append(trace.write(runs, check.path / f"trace_{name}.json"))
    return pictures, traces

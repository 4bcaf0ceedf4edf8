"""Which pictures a set of runs calls for, and the files they go to.

Rules this module obeys:

* A picture compares what is comparable: breakdowns and timelines by scenario and number of workers.
* Runs that differ in nothing but their seed are one bar and one line: their mean.
* A run that ended before its budget was met is said to be incomplete, and says nothing of predictions.
* Nothing is drawn that the runs do not hold; a set of runs always gives at least a breakdown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import curves, metrics, names, plots, seeds
from core.record import Record

__all__ = ["compare", "draw", "pairs"]

LEARNING = {"time": "learning", "step": "learning-by-step", "epoch": "learning-by-epoch"}
"""Names of the learning curves' pictures, by their axis."""


def draw(runs: Mapping[str, Record], out: Path) -> list[Path]:
    """Draw ``runs`` (label -> record) into the folder ``out``; returns the files, by scenario and size."""
    merged: dict[str, list[Record]] = {}
    for record in runs.values():
        merged.setdefault(_but_for_the_seed(record), []).append(record)
    alike = list(merged.values())
    means = [seeds.mean_summary([metrics.summary(record) for record in records]) for records in alike]
    for mean, records in zip(means, alike, strict=True):
        flags = [flag for record in records for flag in record.manifest.get("flags", [])]
        mean["incomplete"] = any(flag.startswith("incomplete") for flag in flags)
    order = sorted(range(len(alike)), key=lambda index: _place(means[index]))
    groups: dict[tuple[str, int], list[int]] = {}
    for index in order:
        groups.setdefault((means[index]["scenario"], means[index]["workers"]), []).append(index)
    found = []
    for (scenario, workers), chosen in groups.items():
        suffix = f"-{_slug(scenario)}-n{workers}" if len(groups) > 1 else ""
        found.append(
            plots.save(plots.breakdown([means[index] for index in chosen]), out / f"breakdown{suffix}.png")
        )
        first = [alike[index][0] for index in chosen]
        spanned = [record for record in first if len(record.spans.get("node", ()))]
        if spanned:
            found.append(plots.save(plots.timeline(spanned), out / f"timeline{suffix}.png"))
        lines = [
            curves.Line(
                means[index]["algorithm"], [one.curves for one in alike[index]], means[index]["driver"]
            )
            for index in chosen
        ]
        made_up = ", made-up images" if means[chosen[0]]["data"] == "synthetic" else ""
        found += _learning(lines, out, suffix, f"{scenario}, {names.count(workers, 'worker')}{made_up}")
    ordered = [means[index] for index in order]
    if len({summary["workers"] for summary in ordered}) > 1:
        found.append(plots.save(plots.speedup(ordered), out / "speedup.png"))
    both = pairs([summary for summary in ordered if not summary["incomplete"]])
    if both:
        found.append(plots.save(plots.predicted_measured(both), out / "predicted-measured.png"))
    return found


def compare(statistics: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], out: Path, *,
            title: str, accuracy: float | None = None) -> list[Path]:  # fmt: skip
    """The pictures of a comparison of algorithms: bars, breakdown, learning curves where there are any.

    ``runs`` and ``statistics`` are what goes into and comes out of ``seeds.condense``.
    """
    done = [run for run in runs if run["outcome"] == "done"]
    if not done:
        return []
    found = [plots.save(curves.bars(statistics, title, accuracy), out / "comparison.png")]
    by_name = {one["algorithm"]: [run for run in done if run["algorithm"] == one["algorithm"]]
               for one in statistics}  # fmt: skip
    means = [seeds.mean_summary([run["summary"] for run in own]) for own in by_name.values() if own]
    found.append(plots.save(plots.breakdown(means), out / "breakdown.png"))
    lines = [
        curves.Line(name, [run["curves"] for run in own if run["curves"]]) for name, own in by_name.items()
    ]
    return found + _learning(lines, out, "", title, accuracy)


def _learning(lines: Sequence[curves.Line], out: Path, suffix: str, title: str,
              accuracy: float | None = None) -> list[Path]:  # fmt: skip
    """Learning curves on every axis, if models were evaluated more than once."""
    lines = [line for line in lines if any(len(table.get("time", ())) > 1 for table in line.tables)]
    return [
        plots.save(
            curves.learning(lines, axis, title=title, accuracy=accuracy), out / f"{name}{suffix}.png"
        )
        for axis, name in LEARNING.items() if lines
    ]  # fmt: skip


def _but_for_the_seed(record: Record) -> str:
    """What a run is, its seed aside."""
    scenario = dict(record.manifest.get("scenario", {}))
    scenario["run"] = {**scenario.get("run", {}), "seed": None}
    return json.dumps([record.manifest.get("driver"), scenario], sort_keys=True, default=str)


def pairs(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Simulated and real runs of the same scenario, algorithm and number of workers, side by side.

    Where there are several of one kind, nothing tells which of them belong together: they are left out.
    """
    runs: dict[tuple[str, str, int], dict[str, list[float]]] = {}
    for summary in summaries:
        key = (summary["scenario"], summary["algorithm"], summary["workers"])
        runs.setdefault(key, {}).setdefault(summary["driver"], []).append(summary["throughput"])
    found = {
        key: {driver: rates[0] for driver, rates in of_key.items()}
        for key, of_key in runs.items()
        if all(len(rates) == 1 for rates in of_key.values())
    }
    several = len({key[0] for key in found}) > 1
    return [
        {
            "label": f"{names.label(algorithm)}, n={n}" + (f", {scenario}" if several else ""),
            "algorithm": algorithm, "predicted": rates["sim"], "measured": rates["real"],
        }
        for (scenario, algorithm, n), rates in found.items()
        if {"sim", "real"} <= rates.keys()
    ]  # fmt: skip


def _place(summary: dict[str, Any]) -> tuple[int, str, bool]:
    """Order of runs in a picture: by algorithm, predicted before measured."""
    return names.rank(summary["algorithm"]), summary["algorithm"], summary["driver"] != "sim"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()

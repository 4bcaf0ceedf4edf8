"""Which pictures a set of runs calls for, and the files they go to.

Rules this module obeys:

* A picture compares what is comparable: breakdowns and timelines by scenario and number of workers.
* Nothing is drawn that the runs do not hold; a set of runs always gives at least a breakdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis import metrics, names, plots
from core.record import Record

__all__ = ["draw", "pairs"]


def draw(runs: Mapping[str, Record], out: Path) -> list[Path]:
    """Draw ``runs`` (label -> record) into the folder ``out``; returns the files, by scenario and size."""
    summaries = {label: metrics.summary(record) for label, record in runs.items()}
    summaries = dict(sorted(summaries.items(), key=lambda item: _place(item[1])))
    groups: dict[tuple[str, int], list[str]] = {}
    for label, summary in summaries.items():
        groups.setdefault((summary["scenario"], summary["workers"]), []).append(label)
    found = []
    for (scenario, workers), labels in groups.items():
        suffix = f"-{_slug(scenario)}-n{workers}" if len(groups) > 1 else ""
        found.append(
            plots.save(plots.breakdown([summaries[x] for x in labels]), out / f"breakdown{suffix}.png")
        )
        spanned = [runs[x] for x in labels if len(runs[x].spans.get("node", ()))]
        if spanned:
            found.append(plots.save(plots.timeline(spanned), out / f"timeline{suffix}.png"))
        evaluated = [runs[x] for x in labels if len(runs[x].curves.get("time", ())) > 1]
        if evaluated:
            heading = f"{scenario}, {names.count(workers, 'worker')}"
            found.append(plots.save(plots.curves(evaluated, heading), out / f"learning{suffix}.png"))
    if len({summary["workers"] for summary in summaries.values()}) > 1:
        found.append(plots.save(plots.speedup(list(summaries.values())), out / "speedup.png"))
    both = pairs(list(summaries.values()))
    if both:
        found.append(plots.save(plots.predicted_measured(both), out / "predicted-measured.png"))
    return found


def pairs(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Simulated and real runs of the same scenario, algorithm and number of workers, side by side."""
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for summary in summaries:
        key = (summary["scenario"], summary["algorithm"], summary["workers"])
        found.setdefault(key, {})[summary["driver"]] = summary["throughput"]
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

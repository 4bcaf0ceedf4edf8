"""Runs of one scenario under several algorithms and seeds, condensed: means, intervals, mean curves.

Rules this module obeys:

* It takes summaries (``metrics.summary``) and ``curves`` tables, not records: those of a hundred runs
  fit into memory and through a pipe.
* An interval is the two-sided 95 % interval of the mean over seeds by Student's t; one seed has none.
  A curve's band reaches from the lowest to the highest seed: it is never wider than the data.
* What only some seeds have (an accuracy that they reached) is averaged over those, and their number
  is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from analysis import metrics
from analysis.names import rank
from core.record import Table

__all__ = ["AXES", "condense", "estimate", "mean_curve", "mean_summary", "student"]

AXES = ("time", "step", "epoch")
"""What learning curves are drawn over: seconds, steps of all workers, epochs of all workers' samples."""


def student(freedom: int) -> float:
    """97.5 % quantile of Student's t with ``freedom`` >= 1 degrees of freedom."""
    return float(stdtrit(freedom, 0.975))


def estimate(values: Sequence[float | None]) -> dict[str, Any] | None:
    """``{"mean", "half", "count"}`` of the values that are known; None if none is.

    ``half`` is half the width of the mean's 95 % interval; None where a single value gives none.
    """
    known = np.array([value for value in values if value is not None and math.isfinite(value)], dtype=float)
    if not len(known):
        return None
    half = None
    if len(known) > 1:
        half = student(len(known) - 1) * float(known.std(ddof=1)) / math.sqrt(len(known))
    return {"mean": float(known.mean()), "half": half, "count": len(known)}


def condense(runs: Sequence[Mapping[str, Any]], accuracy: float | None = None) -> list[dict[str, Any]]:
    """One mapping per algorithm, in the order of the table of algorithms.

    ``runs`` are mappings with ``algorithm``, ``seed``, ``outcome`` (``done`` counts, all else does not),
    ``message``, ``summary`` and ``curves`` (the last two may be None). ``accuracy`` is the mark that
    ``time_to_accuracy`` and ``epochs_to_accuracy`` are about; see ``metrics.reached``.

    Each figure is an ``estimate`` over the seeds that are done, or None where it is unknown.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_name.setdefault(run["algorithm"], []).append(run)
    names = sorted(by_name, key=lambda name: (rank(name), name))
    return [{"algorithm": name, **_figures(by_name[name], accuracy)} for name in names]


def _figures(runs: Sequence[Mapping[str, Any]], accuracy: float | None) -> dict[str, Any]:
    """The figures of one algorithm."""
    done = [run for run in runs if run["outcome"] == "done"]
    summaries = [run["summary"] for run in done]

    def over(*path: str) -> dict[str, Any] | None:
        return estimate([_at(summary, path) for summary in summaries])

    outcomes = [run["outcome"] for run in runs]
    reached = {
        axis: [None if accuracy is None else metrics.reached(run["curves"] or {}, accuracy, axis)
               for run in done]
        for axis in ("time", "epoch")
    }  # fmt: skip
    return {
        "runs": len(runs),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)},
        "messages": list(dict.fromkeys(run["message"] for run in runs if run["message"])),
        "seconds": over("seconds"),
        "throughput": over("throughput"),
        "speedup": over("speedup"),
        "staleness_mean": over("staleness", "mean"),
        "staleness_p95": over("staleness", "p95"),
        "staleness_max": over("staleness", "max"),
        "busiest_bytes_per_step": over("busiest", "bytes_per_step"),
        "busiest_role": summaries[0]["busiest"]["role"] if summaries else None,
        "time_to_accuracy": estimate(reached["time"]),
        "epochs_to_accuracy": estimate(reached["epoch"]),
        "reached": None if accuracy is None else sum(value is not None for value in reached["time"]),
        "accuracy": over("accuracy"),
        "loss": over("loss"),
        "consensus": over("consensus"),
        "breakdown": mean_summary(summaries)["breakdown"]["all"] if summaries else None,
    }


def _at(tree: Any, path: Sequence[str]) -> float | None:
    """What lies at ``path`` in nested mappings; None where it stops short."""
    for name in path:
        if not isinstance(tree, Mapping) or tree.get(name) is None:
            return None
        tree = tree[name]
    return float(tree)


def mean_summary(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first of ``summaries`` with throughput and breakdown replaced by their means over all of them."""
    first = dict(summaries[0])
    if len(summaries) > 1:
        kinds = [kind for kind in first["breakdown"] if all(kind in one["breakdown"] for one in summaries)]
        parts = {kind: [one["breakdown"][kind] for one in summaries] for kind in kinds}
        first["breakdown"] = {kind: _mean_parts(entries) for kind, entries in parts.items()}
        first["throughput"] = float(np.mean([one["throughput"] for one in summaries]))
        first["speedup"] = float(np.mean([one["speedup"] for one in summaries]))
    return first


def _mean_parts(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of several breakdowns, part by part; fractions are those of the mean seconds."""
    seconds = {part: float(np.mean([entry["seconds"][part] for entry in entries]))
               for part in entries[0]["seconds"]}  # fmt: skip
    total = sum(seconds.values())
    return {
        "step": float(np.mean([entry["step"] for entry in entries])),
        "seconds": seconds,
        "fraction": {part: value / total if total else 0.0 for part, value in seconds.items()},
    }


def mean_curve(tables: Sequence[Table], column: str, by: str, points: int = 200) -> dict[str, np.ndarray]:
    """The mean over seeds of ``column`` against ``by`` (one of ``AXES``), and the band that all seeds are in.

    Returns ``{"x", "mean", "low", "high"}``, arrays of one length (0 where no table has values). One
    table gives its own points. Several are interpolated linearly to ``points`` places that all of
    them cover, so the curve ends where the first of them does.
    """
    curves = [curve for curve in (_points(table, column, by) for table in tables) if len(curve[0])]
    if len(curves) <= 1:
        x, y = curves[0] if curves else (np.zeros(0), np.zeros(0))
        return {"x": x, "mean": y, "low": y, "high": y}
    start, stop = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    x = np.linspace(start, max(start, stop), points if stop > start else 1)
    values = np.array([np.interp(x, own, y) for own, y in curves])
    return {"x": x, "mean": values.mean(axis=0), "low": values.min(axis=0), "high": values.max(axis=0)}


def _points(table: Table, column: str, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Known values of ``column``, in the order of ``by``."""
    if column not in table or by not in table:
        return np.zeros(0), np.zeros(0)
    x, y = np.asarray(table[by], dtype=float), np.asarray(table[column], dtype=float)
    known = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[known], kind="stable")
    return x[known][order], y[known][order]

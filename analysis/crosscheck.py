"""Predicted against measured: cell by cell, part by part, ranking by ranking.

Rules this module obeys:

* A cell compares a prediction that was made before its run with that run. Nothing is fitted here.
* Errors are signed and relative to the measurement: (predicted - measured) / measured.
* Beside ours stand what simpler models predict: they show what the simulator is worth.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from analysis.metrics import STEP_PARTS, breakdown, rates, throughput, window
from analysis.names import label
from core.record import Record

__all__ = [
    "Cell",
    "Prediction",
    "Ranking",
    "combine",
    "compare",
    "pairs",
    "predict",
    "rankings",
    "summarize",
    "to_csv",
]

BLOCKS = 5
"""Parts that a run's window is cut into for its confidence interval."""


@dataclass(frozen=True)
class Prediction:
    """What was said before the run: throughput (samples/s), seconds per step by part, simpler models.

    slowest  mean seconds of a step of the slowest worker
    draws    simulations that it is the mean of; spread: standard deviation of their throughput, relative
    """

    throughput: float
    step: float
    parts: dict[str, float]
    contention: float
    simpler: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    slowest: float = 0.0
    draws: int = 1
    spread: float = 0.0


@dataclass(frozen=True)
class Hindsight:
    """What would have been predicted with steps as long as those of the run; not known before it.

    throughput  samples/s
    stretch     how many times as long as predicted the run's native steps took by themselves
    """

    throughput: float
    stretch: float


@dataclass(frozen=True)
class Cell:
    """One combination of algorithm and circumstances, predicted and measured.

    low, high        95 % interval of the measured throughput (t over blocks of the run, or over rounds)
    part_errors      part -> (predicted - measured seconds) / measured step time
    simpler_errors   simpler model -> its signed relative throughput error
    contention       predicted share of the run that the busiest link direction is in use
    rounds           predictions and runs that the figures are means of
    hindsight, stretch  as in ``Hindsight``, and hindsight_error, its signed relative throughput error; None
                     where steps are paced, or where no speed of the machine explains how long they took
    bandwidth, message, faults  further levels of designs that have them
    """

    algorithm: str
    n: int
    slow: float
    links: str
    compute: str
    predicted: float
    measured: float
    low: float
    high: float
    throughput_error: float
    contention: float
    predicted_parts: dict[str, float]
    measured_parts: dict[str, float]
    part_errors: dict[str, float]
    simpler: dict[str, float]
    simpler_errors: dict[str, float]
    flags: tuple[str, ...] = ()
    rounds: int = 1
    bandwidth: str = ""
    message: str = ""
    faults: str = ""
    hindsight: float | None = None
    hindsight_error: float | None = None
    stretch: float | None = None

    @property
    def circumstances(self) -> tuple[Any, ...]:
        """What cells of one ranking have in common: everything but the algorithm."""
        own = (self.n, self.slow, self.links, self.compute)
        return (*own, self.bandwidth, self.message, self.faults) if self.bandwidth else own

    @property
    def width(self) -> float:
        """Half of the interval, relative to the measured throughput."""
        return (self.high - self.low) / 2 / self.measured

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """How the algorithms order under one set of circumstances.

    tau      Kendall's rank correlation of predicted and measured throughput; 1 where all are measured alike,
             and 0 where they are not, but all are predicted alike
    wrong    pairs that differ by more than ``margin`` as measured and are predicted the other way round
    """

    circumstances: tuple[Any, ...]
    predicted: tuple[str, ...]
    measured: tuple[str, ...]
    tau: float
    wrong: tuple[tuple[str, str], ...]


def predict(
    record: Record | Sequence[Record],
    simpler: Mapping[str, Record] | None = None,
    flags: Iterable[str] = (),
) -> Prediction:
    """The prediction that a simulated ``record`` makes, with those of simpler models beside it.

    Of several records, draws of what no run repeats, the means.
    """
    draws = [record] if isinstance(record, Record) else list(record)
    parts = [breakdown(one) for one in draws]
    rates = np.array([throughput(one) for one in draws])
    return Prediction(
        throughput=float(rates.mean()),
        step=float(np.mean([one["step"] for one in parts])),
        parts={p: float(np.mean([one["seconds"][p] for one in parts])) for p in parts[0]["seconds"]},
        contention=float(np.mean([_utilization(one) for one in draws])),
        simpler={name: throughput(other) for name, other in (simpler or {}).items()},
        flags=tuple(flags),
        slowest=float(np.mean([_slowest(one) for one in draws])),
        draws=len(draws),
        spread=float(rates.std(ddof=1) / rates.mean()) if len(draws) > 1 and rates.mean() > 0 else 0.0,
    )


def _slowest(record: Record) -> float:
    """Mean seconds of a step, of the worker whose steps take longest; the whole run if it makes none."""
    nodes, lengths = record.steps["node"], record.steps["end"] - record.steps["start"]
    if not len(nodes):
        return record.duration
    counts = np.bincount(nodes)
    sums = np.bincount(nodes, weights=lengths)
    return float((sums[counts > 0] / counts[counts > 0]).max())


def _utilization(record: Record) -> float:
    """Share of the run that the busiest NIC direction is in use, at full rate."""
    busy = record.links.get("busy")
    return float(busy.max()) / record.duration if busy is not None and len(busy) and record.duration else 0.0


def compare(
    prediction: Prediction,
    measured: Record,
    hindsight: Callable[[float], Hindsight | None] = lambda _: None,
    **circumstances: Any,
) -> Cell:
    """Hold a prediction against the run that it was made for.

    ``hindsight``: what would have been predicted, had it been known how many seconds a step computes.
    ``circumstances``: algorithm, n, slow (factor of the slowed worker, 1 for none), links, compute.
    """
    value = throughput(measured)
    if value <= 0:
        raise ValueError("the measured run completed no step; nothing to compare with")
    low, high = _interval(measured)
    parts = breakdown(measured)
    step = parts["step"] or math.inf
    known = hindsight(parts["seconds"]["compute"])
    return Cell(
        **circumstances,
        predicted=prediction.throughput,
        measured=value,
        low=low,
        high=high,
        throughput_error=prediction.throughput / value - 1,
        contention=prediction.contention,
        predicted_parts=prediction.parts,
        measured_parts=dict(parts["seconds"]),
        part_errors={part: (prediction.parts[part] - parts["seconds"][part]) / step for part in STEP_PARTS},
        simpler=prediction.simpler,
        simpler_errors={name: other / value - 1 for name, other in prediction.simpler.items()},
        flags=(*prediction.flags, *measured.manifest.get("flags", ())),
        hindsight=known.throughput if known else None,
        hindsight_error=known.throughput / value - 1 if known else None,
        stretch=known.stretch if known else None,
    )


def combine(rounds: Sequence[Cell]) -> Cell:
    """One cell of several ``rounds`` of it, each predicted and then measured anew: the means of both.

    Its interval is that of the mean over the rounds, so it covers what changes between them.
    """
    first, count = rounds[0], len(rounds)
    if count == 1:
        return first

    def mean(of: Callable[[Cell], float]) -> float:
        return float(np.mean([of(cell) for cell in rounds]))

    def means(of: Callable[[Cell], Mapping[str, float]]) -> dict[str, float]:
        return {key: float(np.mean([of(cell)[key] for cell in rounds])) for key in of(first)}

    predicted, measured = mean(lambda cell: cell.predicted), mean(lambda cell: cell.measured)
    half = _half_width([cell.measured for cell in rounds])
    simpler = means(lambda cell: cell.simpler)
    known = [cell for cell in rounds if cell.hindsight is not None and cell.stretch is not None]
    hindsight = float(np.mean([cell.hindsight for cell in known])) if known else None
    of_known = float(np.mean([cell.measured for cell in known])) if known else math.nan
    return replace(
        first,
        predicted=predicted,
        measured=measured,
        low=measured - half,
        high=measured + half,
        throughput_error=predicted / measured - 1,
        contention=mean(lambda cell: cell.contention),
        predicted_parts=means(lambda cell: cell.predicted_parts),
        measured_parts=means(lambda cell: cell.measured_parts),
        part_errors=means(lambda cell: cell.part_errors),
        simpler=simpler,
        simpler_errors={name: value / measured - 1 for name, value in simpler.items()},
        flags=tuple(dict.fromkeys(flag for cell in rounds for flag in cell.flags)),
        rounds=count,
        hindsight=hindsight,
        hindsight_error=None if hindsight is None else hindsight / of_known - 1,
        stretch=float(np.mean([cell.stretch for cell in known])) if known else None,
    )


def _half_width(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of ``values`` (Student's t)."""
    count = len(values)
    return float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))


def _interval(record: Record) -> tuple[float, float]:
    """95 % interval of throughput from its spread over equal blocks of the steady window."""
    whole = window(record)
    edges = np.linspace(whole.start, whole.stop, BLOCKS + 1)
    begun, ended = record.steps["start"], record.steps["end"]
    value = sum(rates(record, whole).values())
    samples = value * whole.seconds / max(float(whole.weight.sum()), 1e-12)
    blocks = []
    for start, stop in itertools.pairwise(edges):
        inside = np.clip(np.minimum(ended, stop) - np.maximum(begun, start), 0.0, None)
        share = inside / np.maximum(ended - begun, 1e-12)
        blocks.append(float(share.sum()) * samples / (stop - start))
    half = _half_width(blocks)
    return value - half, value + half


def rankings(cells: Sequence[Cell], margin: float = 0.05) -> list[Ranking]:
    """One ranking for every set of circumstances with at least two algorithms."""
    found = []
    for circumstances in sorted({cell.circumstances for cell in cells}, key=str):
        group = [cell for cell in cells if cell.circumstances == circumstances]
        if len(group) < 2:
            continue
        wrong = tuple(
            (a.algorithm, b.algorithm)
            for a, b in itertools.combinations(group, 2)
            if abs(a.measured - b.measured) > margin * min(a.measured, b.measured)
            and (a.predicted - b.predicted) * (a.measured - b.measured) <= 0
        )
        tau = stats.kendalltau([c.predicted for c in group], [c.measured for c in group]).statistic
        found.append(
            Ranking(
                circumstances,
                tuple(c.algorithm for c in sorted(group, key=lambda c: -c.predicted)),
                tuple(c.algorithm for c in sorted(group, key=lambda c: -c.measured)),
                float(tau) if math.isfinite(tau) else float(len({c.measured for c in group}) == 1),
                wrong,
            )
        )
    return found


def summarize(cells: Sequence[Cell], contended: float = 0.6) -> dict[str, Any]:
    """Figures of a whole cross-check.

    ``contended``: predicted use of the busiest link from which a cell counts as contended.
    Returns errors of ours (median, 90th percentile, worst; share within 5 %), those of every simpler
    model on the contended cells beside ours there, worst part error, and rankings gone wrong.
    """
    errors = np.abs([cell.throughput_error for cell in cells])
    worst = max(cells, key=lambda cell: abs(cell.throughput_error))
    busy = [cell for cell in cells if cell.contention >= contended]
    ordered = rankings(cells)
    return {
        "cells": len(cells),
        "median_error": float(np.median(errors)),
        "p90_error": float(np.percentile(errors, 90)),
        "worst_error": float(errors.max()),
        "worst_cell": [worst.algorithm, *worst.circumstances],
        "within_5_percent": float((errors <= 0.05).mean()),
        "contended": _against_simpler(busy),
        "worst_part_error": max(abs(error) for cell in cells for error in cell.part_errors.values()),
        "hindsight": _in_hindsight(cells),
        "parts_within_5_percent": float(
            np.mean([abs(error) <= 0.05 for cell in cells for error in cell.part_errors.values()])
        ),
        "rankings": len(ordered),
        "rankings_wrong": [
            [*ranking.circumstances, list(pair)] for ranking in ordered for pair in ranking.wrong
        ],
        "kendall_tau": float(np.mean([ranking.tau for ranking in ordered])) if ordered else 1.0,
    }


def _in_hindsight(cells: Sequence[Cell]) -> dict[str, Any]:
    """Errors left with steps as long as those of the runs, beside those of the same cells as predicted."""
    known = [cell for cell in cells if cell.hindsight_error is not None]
    if not known:
        return {"cells": 0}
    left = np.abs([cell.hindsight_error for cell in known if cell.hindsight_error is not None])
    said = np.abs([cell.throughput_error for cell in known])
    return {
        "cells": len(known),
        "median_error": float(np.median(left)),
        "worst_error": float(left.max()),
        "within_5_percent": float((left <= 0.05).mean()),
        "predicted_median_error": float(np.median(said)),
        "predicted_within_5_percent": float((said <= 0.05).mean()),
    }


def _against_simpler(cells: Sequence[Cell]) -> dict[str, Any]:
    """Mean absolute error of ours and of each simpler model on ``cells``, and their ratio."""
    if not cells:
        return {"cells": 0}
    ours = float(np.mean([abs(cell.throughput_error) for cell in cells]))
    found: dict[str, Any] = {"cells": len(cells), "ours": ours}
    for name in cells[0].simpler_errors:
        theirs = float(np.mean([abs(cell.simpler_errors[name]) for cell in cells]))
        found[name] = {"error": theirs, "ours_over_theirs": ours / theirs if theirs else math.inf}
    return found


def pairs(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Cells as tables and pictures take them."""
    return [
        {
            "label": " ".join(filter(None, (
                f"{label(c.algorithm)} n={c.n}{_slowed(c.slow)}", c.bandwidth, c.message,
                f"{c.links}/{c.compute}", c.faults.replace("none", ""),
            ))),
            "algorithm": c.algorithm,
            **{name: getattr(c, name) for name in ("predicted", "measured", "low", "high")},
        }
        for c in cells
    ]  # fmt: skip


def _slowed(factor: float) -> str:
    return "" if factor == 1 else f" ×{factor:g}"


def to_csv(cells: Sequence[Cell]) -> str:
    """All cells as CSV, one row each, nested figures as columns of their own."""
    out = io.StringIO()
    rows = [_flat(cell.to_dict()) for cell in cells]
    writer = csv.DictWriter(out, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = "; ".join(value) if isinstance(value, list | tuple) else value
    return flat

"""What a cross-check says where it misses: evidence that was measured, and figures level by level.

Rules this module obeys:

* Nothing is explained by guessing. A miss stands beside what is known of it: the interval of its rounds,
  the part of the step that deviates most, and how far the probes of its rounds lay apart.
* Errors are signed and relative, as in ``analysis.crosscheck``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.crosscheck import Cell
from analysis.names import label

__all__ = ["Miss", "by_level", "fits", "markdown", "misses", "words"]

WITHIN = 0.05
"""An error beyond which a cell has missed."""

TOLD = 0.01
"""The share of the cores from which it is said that the host kept it."""

LEVELS = ("algorithm", "n", "bandwidth", "slow", "message", "links", "compute", "faults")


@dataclass(frozen=True)
class Miss:
    """A cell whose error is beyond 5 %, and the evidence.

    low, high   95 % interval of the measured throughput over its rounds, relative to it
    inside      whether the prediction lies in that interval
    part        the part of the step that deviates most, and by how much of the step (signed)
    others      cores that other programs kept busy before its rounds, the most of them; None if unknown
    stolen      share of the cores asked for that a virtual machine's host kept, likewise; None if unknown
    hindsight   error that is left with native steps as long as those of the runs, which took ``stretch``
                times as long as predicted; None where steps are paced, or no speed makes them so long
    drift       probed constant -> largest over smallest value of the cell's rounds, less 1; the widest first
    """

    cell: tuple[Any, ...]
    error: float
    rounds: int
    low: float
    high: float
    inside: bool
    part: tuple[str, float]
    drift: dict[str, float]
    others: float | None = None
    stolen: float | None = None
    hindsight: float | None = None
    stretch: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def misses(
    cells: Sequence[Cell],
    probed: Sequence[Sequence[Mapping[str, float]]] = (),
    others: Sequence[float | None] = (),
    stolen: Sequence[float | None] = (),
) -> list[Miss]:
    """The cells beyond 5 %, worst first.

    ``probed``: for each cell the constants that were probed for each of its rounds, by name.
    ``others``: for each cell the most cores that other programs kept busy before a round.
    ``stolen``: for each cell the largest share of the cores that the host kept during a round.
    """
    found = []
    for i, cell in enumerate(cells):
        if abs(cell.throughput_error) <= WITHIN:
            continue
        part = max(cell.part_errors, key=lambda name: abs(cell.part_errors[name]))
        found.append(
            Miss(
                (cell.algorithm, *cell.circumstances),
                cell.throughput_error,
                cell.rounds,
                cell.low / cell.measured - 1,
                cell.high / cell.measured - 1,
                cell.low <= cell.predicted <= cell.high,
                (part, cell.part_errors[part]),
                _drift(probed[i] if i < len(probed) else ()),
                others[i] if i < len(others) else None,
                stolen[i] if i < len(stolen) else None,
                cell.hindsight_error,
                cell.stretch,
            )
        )
    return sorted(found, key=lambda miss: -abs(miss.error))


def _drift(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How far the rounds' constants lie apart, the three widest of those that are never 0."""
    if len(rounds) < 2:
        return {}
    names = set.intersection(*(set(one) for one in rounds))
    values = {name: [one[name] for one in rounds] for name in names}
    apart = {name: max(own) / min(own) - 1 for name, own in values.items() if min(own) > 0}
    return dict(sorted(apart.items(), key=lambda item: -item[1])[:3])


def words(miss: Miss) -> str:
    """One line for a miss."""
    part, off = miss.part
    verdict = "inside" if miss.inside else "outside"
    count = f"{miss.rounds} rounds" if miss.rounds > 1 else "one round"
    drift = ", ".join(f"{name} {value:.0%}" for name, value in miss.drift.items())
    beside = "" if miss.others is None else f"; other programs kept {miss.others:.1f} cores busy before"
    share = miss.stolen or 0.0
    told = f"; the machine's host kept up to {share:.0%} of the cores that were asked for"
    kept = told if share >= TOLD else ""
    return (
        f"{miss.error:+.1%}, {verdict} the 95 % interval of {count} ({miss.low:+.1%} … {miss.high:+.1%}); "
        f"most in {part} ({off:+.1%} of the step)"
        + _speed(miss)
        + (f"; probes lay apart by: {drift}" if drift else "")
        + beside
        + kept
    )


def _speed(miss: Miss) -> str:
    """What is left of a miss once it is known how long its steps took."""
    if miss.hindsight is None or miss.stretch is None:
        return ""
    slower = f"its steps took {miss.stretch:.2f} times as long as predicted"
    return f"; {slower}, and with such steps it is {miss.hindsight:+.1%} off"


def by_level(cells: Sequence[Cell]) -> dict[str, dict[str, dict[str, float]]]:
    """Factor -> level -> cells, median absolute error, share within 5 %; factors with one level left out."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for factor in LEVELS:
        groups: dict[str, list[float]] = {}
        for cell in cells:
            value = getattr(cell, factor)
            key = f"{value:g}" if isinstance(value, float) else str(value)
            groups.setdefault(key, []).append(abs(cell.throughput_error))
        if len(groups) > 1:
            found[factor] = {
                level: {
                    "cells": len(errors),
                    "median_error": float(np.median(errors)),
                    "within_5_percent": float(np.mean(np.array(errors) <= WITHIN)),
                }
                for level, errors in groups.items()
            }
    return found


def markdown(cells: Sequence[Cell], title: str = "Cells") -> str:
    """All cells as a Markdown table."""
    lines = [
        f"## {title}", "",
        f"| {' | '.join(_HEADS)} |",
        "|---" * len(_HEADS) + "|",
    ]  # fmt: skip
    for cell in cells:
        error = f"{cell.throughput_error:+.1%}"
        error = f"**{error}**" if abs(cell.throughput_error) > WITHIN else error
        part = max(cell.part_errors, key=lambda name, own=cell.part_errors: abs(own[name]))  # type: ignore[misc]
        half = (cell.high - cell.low) / 2
        simpler = [f"{cell.simpler_errors[n]:+.1%}" if n in cell.simpler_errors else "" for n in _SIMPLER]
        row = [
            label(cell.algorithm), str(cell.n), f"{cell.bandwidth} {cell.links}".strip(), f"×{cell.slow:g}",
            cell.message, cell.compute, cell.faults.replace("none", ""), f"{cell.predicted:,.0f}",
            f"{cell.measured:,.0f} ± {half:,.0f}", error, str(cell.rounds),
            "" if cell.hindsight_error is None else f"{cell.hindsight_error:+.1%} (×{cell.stretch:.2f})",
            f"{part} {cell.part_errors[part]:+.1%}", *simpler,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


_HEADS = (
    "algorithm", "n", "links", "slowest worker", "message", "steps", "faults", "predicted", "measured",
    "error", "rounds", "with its own steps", "worst part", "without queueing", "wrong admission",
)  # fmt: skip
_SIMPLER = ("no_queueing", "wrong_admission")


def fits(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """How well the fits of a profile fit (``notes["fits"]``): a line each, of its worst repetition."""
    lines = []
    for name, repetitions in found.items():
        kind = repetitions[0]["kind"]
        if kind == "distribution":
            worst = max(repetitions, key=lambda one: float(one["ks"]))
            lines.append(f"{name}: {worst['model']}, KS distance {worst['ks']:.2f} (p {worst['p']:.2f})")
        elif kind == "rates":
            left = [float(rate["residual"]) for one in repetitions for rate in one["rates"].values()]
            scatter = max(left, default=0.0)
            lines.append(f"{name}: repetitions lie {scatter:.0%} from the rate (median) at most")
        else:
            for line in repetitions[0]["lines"]:
                own = [one["lines"][line] for one in repetitions if line in one["lines"]]
                r2, left = min(one["r2"] for one in own), max(one["residual"] for one in own)
                lines.append(f"{name}, {line}: R² {r2:.4f}, largest residual {left:.1%}")
    return lines

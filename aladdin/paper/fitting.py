"""The two communication constants of Table 2: fitted to some of its cells, judged on the others.

Rules this module obeys:

* What is fitted is in ``CONSTANTS``, with the cells it is fitted on in ``FITTED``; nothing else is.
* The simulator is run on a grid of the constants; between its points the logarithm of the hours is
  interpolated, and ``scipy`` finds the constants whose squared relative errors are smallest. So a fit is
  the same every time, is not misled by the chance of single runs, and leaving an algorithm out costs nothing.
* Where no fitted cell tells anything of a constant (all-reduce, with AR-SGD left out), it is as without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from aladdin.paper.cases import Case, Results, case
from analysis.paper import published

__all__ = ["ALGORITHMS", "CONSTANTS", "FITTED", "MODELS", "Cell", "Fit", "fit", "grid", "hours", "name_of"]

MODELS = ("resnet50", "vgg16")
ALGORITHMS = ("aladdin", "sgp", "easgd", "asp", "arsgd")

Cell = tuple[str, str]
"""(model, algorithm)."""

FITTED: tuple[Cell, ...] = tuple((model, name) for model in MODELS for name in ("aladdin", "sgp", "arsgd"))
"""The cells that the constants of the bundled scenarios are fitted on: those of the algorithms that Table 3
gives speed-ups of. EASGD and ASP are held out altogether."""

CONSTANTS = {
    "receive": "seconds per GB until what was received is in the variables that a worker computes with",
    "hidden": "share of a step behind which AR-SGD's all-reduce hides",
}

RECEIVE = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
HIDDEN = (0.0, 0.15, 0.3, 0.45, 0.6)

STEPS = 40


@dataclass(frozen=True)
class Fit:
    """``constants`` fitted on ``cells``; ``predicted`` hours of all cells with them."""

    cells: tuple[Cell, ...]
    constants: Mapping[str, float]
    predicted: Mapping[Cell, float]

    def error(self, cell: Cell) -> float:
        """Relative error of a cell."""
        model, name = cell
        return self.predicted[cell] / published(f"table2.hours.{model}.{name}") - 1.0


def name_of(model: str, algorithm: str) -> str:
    """The bundled scenario of a cell of Table 2."""
    return f"paper/cifar10-{model}" + ("" if algorithm == "aladdin" else f"-{algorithm}")


def hours(throughput: float, data: str = "cifar10") -> float:
    """Hours of Table 2's epochs at so many samples per second."""
    samples = published(f"table2.samples.{data}") * published(f"table2.epochs.{data}")
    return float(samples / throughput / 3600)


def grid(cell: Cell) -> dict[tuple[float, float], Case]:
    """The cases that show how a cell depends on (receive, hidden)."""
    model, algorithm = cell
    found = {}
    for hidden in HIDDEN if algorithm == "arsgd" else HIDDEN[:1]:
        for receive in RECEIVE:
            found[receive, hidden] = case(name_of(model, algorithm), _changes(algorithm, receive, hidden))
    return found


def _changes(algorithm: str, receive: float, hidden: float) -> dict[str, Any]:
    rate = f"{1 / receive:.6g} GB/s"
    changes: dict[str, Any] = {"cluster.tensor_rates.assign": rate, "cluster.tensor_rates.mix": rate}
    if algorithm != "arsgd":
        changes["run.steps"] = STEPS
    if algorithm == "arsgd" and hidden:
        changes["algorithm.options.backward"] = hidden
    elif algorithm == "arsgd":
        changes |= {"algorithm.options.overlap": "none", "algorithm.options.buckets": 0}
    return changes


def fit(results: Results, cells: Sequence[Cell]) -> Fit:
    """The constants that fit ``cells`` best, by least squares of the logarithms of the hours."""
    from scipy.optimize import least_squares

    surfaces = {(model, name): _surface(results, (model, name)) for model in MODELS for name in ALGORITHMS}
    told = any(name == "arsgd" for _, name in cells)
    aims = {cell: log(published(f"table2.hours.{cell[0]}.{cell[1]}")) for cell in cells}

    def residuals(x: Sequence[float]) -> list[float]:
        return [float(surfaces[cell](x[0], x[1] if told else 0.0)) - aims[cell] for cell in cells]

    bounds = ([RECEIVE[0], HIDDEN[0]], [RECEIVE[-1], HIDDEN[-1]])
    found = least_squares(residuals, [1.0, 0.3], bounds=bounds).x
    receive, hidden = float(found[0]), float(found[1]) if told else 0.0
    predicted = {cell: exp(surface(receive, hidden)) for cell, surface in surfaces.items()}
    return Fit(tuple(cells), {"receive": receive, "hidden": hidden}, predicted)


def _surface(results: Results, cell: Cell) -> Any:
    """The logarithm of a cell's hours as a function of (receive, hidden)."""
    import numpy as np
    from scipy.interpolate import RegularGridInterpolator

    cases = grid(cell)
    shares = HIDDEN if cell[1] == "arsgd" else (HIDDEN[0], HIDDEN[-1])
    values = np.array([
        [log(results.estimate(cases[r, h if cell[1] == "arsgd" else 0.0], "throughput", by=hours)["mean"])
         for h in shares] for r in RECEIVE
    ])  # fmt: skip
    inside = RegularGridInterpolator((RECEIVE, shares), values)
    return lambda receive, hidden: float(inside((receive, hidden)))

"""Pictures over several algorithms and seeds: learning curves with bands, bars with intervals.

Rules this module obeys:

* Means, bands and intervals are those of ``analysis.seeds``: a bar carries its mean's 95 % interval, a
  curve's band reaches from the lowest to the highest seed.
* Looks of algorithms, canvas and style come from ``analysis.plots``; legends stand beside the panels,
  never on curves.
* A panel is drawn where some run has its figure, else left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.names import driver as driver_name
from analysis.names import label
from analysis.plots import HEADING, canvas, look
from analysis.seeds import AXES, mean_curve
from core.record import Table
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "bars", "learning"]

PANELS = {
    "loss": "loss on the test set",
    "accuracy": "accuracy (%)",
    "consensus": "consensus distance",
    "lemma": "Lemma 1: global model's distance\nfrom the mean of the local ones",
}
"""Columns of the ``curves`` table that are drawn, and what their axes say."""

X_LABELS = {"time": "time (s)", "step": "steps of all workers", "epoch": "epochs of all workers' samples"}

LOGARITHMIC = ("consensus", "lemma")

UNEVEN = 8.0
"""Where one line ends so many times later than another, times are drawn on a logarithmic axis."""

BLOWN = 10.0
"""Where a loss comes to so many times the highest that a line begins with, losses are, too."""


@dataclass(frozen=True)
class Line:
    """The ``curves`` tables of one algorithm, one per seed, all by one driver."""

    algorithm: str
    tables: Sequence[Table]
    driver: str = "sim"


def learning(lines: Sequence[Line], by: str = "time", *, title: str = "",
             accuracy: float | None = None) -> Figure:  # fmt: skip
    """Loss, accuracy, consensus distance and Lemma 1's distance against ``by``, mean and band.

    ``by`` is one of ``AXES``; ``accuracy`` draws that mark. Where predicted and measured runs are
    mixed, the markers of the measured ones are hollow. Raises ``ScenarioError`` if no model was
    evaluated.
    """
    if by not in AXES:
        raise ScenarioError("by", by, f"one of {', '.join(AXES)}")
    shown = [name for name in PANELS if any(len(_mean(line, name, by)["x"]) for line in lines)]
    if not shown:
        raise ScenarioError("learning curves: none of these runs evaluated its model (run.evaluate: true)")
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure, grid = canvas(5.0 * columns + 1.9, 3.7 * rows, heights=(1,) * rows, widths=(1,) * columns)
    panels = list(np.atleast_1d(np.asarray(grid, dtype=object)).flat)
    for name, axes in zip(shown, panels, strict=False):
        _panel(axes, lines, name, by)
        if name == "accuracy" and accuracy is not None:
            axes.axhline(100 * accuracy, color="#9A9A9A", linewidth=1, zorder=1)
    for axes in panels[len(shown):]:  # fmt: skip
        axes.set_visible(False)
    _legend(figure, panels[: len(shown)])
    several = any(len(line.tables) > 1 for line in lines)
    if title:
        note = " (lines: mean, bands: lowest to highest seed)" if several else ""
        figure.suptitle(title + note, x=0.01, ha="left", fontweight="bold")
    return figure


def _mean(line: Line, name: str, by: str) -> dict[str, np.ndarray]:
    return mean_curve(line.tables, name, by)


def _panel(axes: Axes, lines: Sequence[Line], name: str, by: str) -> None:
    """One column of the tables, one line with its band per entry of ``lines``."""
    several = len({line.driver for line in lines}) > 1
    scale = 100.0 if name == "accuracy" else 1.0
    left_out, heights, starts, ends = False, [], [], []
    for index, line in enumerate(lines):
        curve = _mean(line, name, by)
        x, mean = curve["x"], scale * curve["mean"]
        if name in LOGARITHMIC and len(x):
            left_out = left_out or bool((mean <= 0).any())
            mean = np.where(mean > 0, mean, np.nan)
        own, measured = look(line.algorithm), several and line.driver == "real"
        text = label(line.algorithm) + (f", {driver_name(line.driver)}" if several else "")
        every = max(1, len(x) // 7)
        axes.plot(
            x, mean, color=own.colour, linestyle=own.dashes, marker=own.marker, linewidth=1.6, markersize=5,
            markevery=(index * every // max(1, len(lines)), every), label=text,
            markerfacecolor="white" if measured else None,
        )  # fmt: skip
        low, high = scale * curve["low"], scale * curve["high"]
        if (high > low).any():
            faint = 0.16 if len(lines) < 8 else 0.1
            axes.fill_between(x, low, high, color=own.colour, alpha=faint, linewidth=0)
        heights += [height for height in (*mean, *low, *high) if np.isfinite(height)]
        starts += [*mean[:1]]
        ends += [*x[-1:]]
    blown = name == "loss" and max(heights, default=0.0) > BLOWN * max(starts, default=np.inf)
    _limit(axes, heights, name in LOGARITHMIC or blown)
    if by == "time" and min(ends, default=0.0) > 0 and max(ends) > UNEVEN * min(ends):
        axes.set_xscale("log")
    axes.set_xlabel(X_LABELS[by])
    axes.set_ylabel(PANELS[name] + ("\n(zeros not shown)" if left_out else ""))
    axes.grid()


def _limit(axes: Axes, heights: Sequence[float], logarithmic: bool) -> None:
    """A logarithmic axis where that was asked for and something is above zero, over what is."""
    positive = [height for height in heights if height > 0]
    if logarithmic and positive:
        axes.set_yscale("log")
        axes.set_ylim(min(positive) / 1.5, max(positive) * 1.5)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, right of them."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(text, handle)
    figure.legend(
        found.values(), found.keys(), loc="outside right upper", frameon=False, fontsize=9, handlelength=3.2
    )


@dataclass(frozen=True)
class _Bar:
    """One panel of ``bars``: which figure it shows, how it is called, and how it is scaled."""

    figure: str
    title: str
    scale: float = 1.0
    logarithmic: bool = False


BARS = (
    _Bar("throughput", "throughput (samples/s)"),
    _Bar("speedup", "speed-up over one worker"),
    _Bar("staleness_mean", "staleness: mean, p95 |, max ▸", 1.0, True),
    _Bar("busiest_bytes_per_step", "busiest node (MB per step)", 1e-6),
    _Bar("time_to_accuracy", "time to {mark} (s)"),
    _Bar("epochs_to_accuracy", "epochs to {mark}"),
    _Bar("accuracy", "final accuracy (%)", 100.0),
    _Bar("consensus", "consensus distance", 1.0, True),
)


def bars(statistics: Sequence[Mapping[str, Any]], title: str = "",
         accuracy: float | None = None) -> Figure:  # fmt: skip
    """One panel per figure of merit, one bar per algorithm with the 95 % interval over seeds.

    Takes what ``seeds.condense`` returns. Where only some seeds reached the accuracy, the bar is their mean
    and says how many they are. Algorithms without the figure say so: ``none`` for staleness
    (nothing is applied on a server), ``not reached`` for the time to an accuracy, ``–`` otherwise.
    """
    shown = [bar for bar in BARS if any(one[bar.figure] is not None for one in statistics)]
    if not shown:
        raise ScenarioError("comparison: no run of any algorithm is finished")
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    height = 0.9 + 0.25 * len(statistics)
    figure, grid = canvas(
        1.2 + 3.0 * columns, 0.4 + rows * max(height, 2.0), heights=(1,) * rows, widths=(1,) * columns
    )
    panels = np.array(grid, dtype=object).reshape(rows, columns)
    for index, bar in enumerate(shown):
        axes = panels[index // columns, index % columns]
        _bars(axes, bar, statistics, accuracy, named=index % columns == 0)
    for axes in panels.flat[len(shown):]:  # fmt: skip
        axes.set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def _bars(axes: Axes, bar: _Bar, statistics: Sequence[Mapping[str, Any]], accuracy: float | None,
          named: bool) -> None:  # fmt: skip
    """One panel."""
    values = [one[bar.figure] for one in statistics]
    known = [value["mean"] * bar.scale for value in values if value is not None]
    positive = [value for value in known if value > 0]
    logarithmic = bar.logarithmic and len(positive) > 1 and max(positive) > 30 * min(positive)
    if logarithmic:
        axes.set_xscale("log")
    for row, (one, value) in enumerate(zip(statistics, values, strict=True)):
        if value is None:
            axes.text(0.02, row, _absence(bar.figure, one), va="center", fontsize=8, color="#777777",
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        own = look(one["algorithm"])
        mean, half = value["mean"] * bar.scale, (value["half"] or 0.0) * bar.scale
        if logarithmic and mean <= 0:
            axes.text(0.02, row, "0", va="center", fontsize=8, transform=axes.get_yaxis_transform())
            continue
        axes.barh(row, mean, height=0.7, color=own.colour, alpha=0.85)
        if half:
            low = min(half, mean * 0.9) if logarithmic else min(half, mean)
            axes.errorbar(mean, row, xerr=[[low], [half]], color="#222222", linewidth=1, capsize=2.5)
        if bar.figure == "staleness_mean":
            _spread(axes, row, one)
        if bar.figure.endswith("_to_accuracy") and one["reached"] < one["outcomes"]["done"]:
            share = f"{one['reached']} of {one['outcomes']['done']} seeds"
            axes.annotate(share, (mean + half, row), (4, 0), textcoords="offset points", va="center",
                          fontsize=7.5, color="#555555")  # fmt: skip
    if bar.figure == "accuracy":
        axes.set_xlim(max(0.0, 10 * np.floor(min(known) / 10 - 1)) if min(known) > 50 else 0, 100)
    elif logarithmic:
        axes.set_xlim(left=min(positive) / 2)
    else:
        axes.set_xlim(0, min(axes.get_xlim()[1], 2 * max(known)) or 1)
    axes.set_yticks(range(len(statistics)), [label(one["algorithm"]) if named else "" for one in statistics])
    axes.set_ylim(len(statistics) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    mark = "" if accuracy is None else f"{100 * accuracy:g} %"
    axes.set_title(bar.title.format(mark=mark), **HEADING | {"fontsize": 10, "pad": 5})


def _spread(axes: Axes, row: int, one: Mapping[str, Any]) -> None:
    """The 95th percentile and the maximum of staleness, on its bar."""
    p95, most = one["staleness_p95"]["mean"], one["staleness_max"]["mean"]
    axes.plot([p95, p95], [row - 0.35, row + 0.35], color="#333333", linewidth=2)
    axes.plot(most, row, marker=">", color="#333333", markersize=5)


def _absence(figure: str, one: Mapping[str, Any]) -> str:
    """Why a bar is missing."""
    if not one["outcomes"].get("done"):
        return ", ".join(one["outcomes"])
    if figure == "staleness_mean":
        return "none"
    return "not reached" if figure.endswith("_to_accuracy") else "–"

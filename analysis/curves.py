"""Pictures over several algorithms and seeds: learning curves with bands, bars with intervals.

Rules this module obeys:

* Means, bands and intervals are those of ``analysis.seeds``: a bar carries its mean's 95 % interval, a
  curve's band reaches from the lowest to the highest seed.
* Looks of algorithms, canvas and style come from ``analysis.plots``; legends stand beside the panels,
  never on curves.
* What would crowd a panel has a column for each family of algorithms, all others pale behind them; the
  panels of a row share their axes.
* Bars start at zero; what is told apart on a shorter axis only is a point.
* A panel is drawn where some run has its figure, else left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.names import FAMILIES, family, label
from analysis.names import driver as driver_name
from analysis.plots import HEADING, MOST, canvas, look
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

UNEVEN, CROWDED = 8.0, 4.0
"""Where one line ends so many times later than another, times are drawn on a logarithmic axis; in narrow
panels of families sooner."""

MARKS = 7
"""Markers on a line."""

PALE = "#D8D8D8"
"""Lines of other families."""

BLOWN = 10.0
"""Where a loss comes to so many times the highest that a line begins with, losses are, too."""


@dataclass(frozen=True, eq=False)
class Line:
    """The ``curves`` tables of one algorithm, one per seed, all by one driver. Equal to itself alone."""

    algorithm: str
    tables: Sequence[Table]
    driver: str = "sim"


def learning(lines: Sequence[Line], by: str = "time", *, title: str = "",
             accuracy: float | None = None) -> Figure:  # fmt: skip
    """Loss, accuracy, consensus distance and Lemma 1's distance against ``by``, mean and band.

    ``by`` is one of ``AXES``; ``accuracy`` draws that mark. More than ``MOST`` algorithms have a column of
    panels for each of their families, in which the others are pale. Where predicted and measured runs are
    mixed, the markers of the measured ones are hollow. Raises ``ScenarioError`` if no model was
    evaluated.
    """
    if by not in AXES:
        raise ScenarioError("by", by, f"one of {', '.join(AXES)}")
    shown = [name for name in PANELS if any(len(_mean(line, name, by)["x"]) for line in lines)]
    if not shown:
        raise ScenarioError("learning curves: none of these runs evaluated its model (run.evaluate: true)")
    crowded = len({line.algorithm for line in lines}) > MOST
    figure = (_by_family if crowded else _together)(lines, shown, by, accuracy)
    several = any(len(line.tables) > 1 for line in lines)
    if title:
        note = " (lines: mean, bands: lowest to highest seed)" if several else ""
        figure.suptitle(title + note, x=0.01, ha="left", fontweight="bold")
    return figure


def _together(lines: Sequence[Line], shown: Sequence[str], by: str, accuracy: float | None) -> Figure:
    """A panel for each column of the tables, with all lines."""
    columns = min(len(shown), 2)
    rows = -(-len(shown) // columns)
    figure, grid = canvas(5.0 * columns + 1.9, 3.7 * rows, heights=(1,) * rows, widths=(1,) * columns)
    panels = list(np.atleast_1d(np.asarray(grid, dtype=object)).flat)
    for name, axes in zip(shown, panels, strict=False):
        _panel(axes, lines, name, by, accuracy)
    for axes in panels[len(shown):]:  # fmt: skip
        axes.set_visible(False)
    _legend(figure, panels[: len(shown)])
    return figure


def _by_family(lines: Sequence[Line], shown: Sequence[str], by: str, accuracy: float | None) -> Figure:
    """A row for each column of the tables, in it a panel for each family that has such a line."""
    families: dict[str, list[Line]] = {}
    for name in (*FAMILIES, "others"):
        if own := [line for line in lines if family(line.algorithm) == name]:
            families[name] = own
    rows, columns = len(shown), len(families)
    size = (1.2 + 3.1 * columns, 1.9 + 2.3 * rows)
    figure, grid = canvas(*size, heights=(1,) * rows, widths=(1,) * columns)
    panels = np.array(grid, dtype=object).reshape(rows, columns)
    for row, name in zip(panels, shown, strict=True):
        for axes, own in zip(row, families.values(), strict=True):
            axes.set_visible(any(len(_mean(line, name, by)["x"]) for line in own))
            if axes.get_visible():
                _panel(axes, lines, name, by, accuracy, own)
        _aligned([axes for axes in row if axes.get_visible()])
    for column, name in zip(panels.T, families, strict=True):
        _headed([axes for axes in column if axes.get_visible()], name)
    return figure


def _aligned(row: Sequence[Axes]) -> None:
    """The same limits for all panels of a row; only the first says what its height is."""
    for limits in ("xlim", "ylim"):
        ends = np.array([getattr(axes, f"get_{limits}")() for axes in row])
        for axes in row:
            getattr(axes, f"set_{limits}")(ends[:, 0].min(), ends[:, 1].max())
    for axes in row[1:]:
        axes.tick_params(labelleft=False)
        axes.set_ylabel("")


def _headed(column: Sequence[Axes], name: str) -> None:
    """The family's legend above its column; only the last panel says what its width is."""
    handles, texts = column[0].get_legend_handles_labels()
    column[0].legend(
        handles, texts, title=name, title_fontproperties={"weight": "bold"}, alignment="left", fontsize=9,
        loc="lower left", bbox_to_anchor=(0.0, 1.02), borderaxespad=0.0, frameon=False, handlelength=3.2,
    )  # fmt: skip
    for axes in column[:-1]:
        axes.set_xlabel("")


def _mean(line: Line, name: str, by: str) -> dict[str, np.ndarray]:
    return mean_curve(line.tables, name, by)


def _panel(axes: Axes, lines: Sequence[Line], name: str, by: str, accuracy: float | None,
           own: Sequence[Line] = ()) -> None:  # fmt: skip
    """One column of the tables, one line with its band per entry of ``lines``; those not ``own`` are pale."""
    uneven = CROWDED if own else UNEVEN
    own = own or lines
    several = len({line.driver for line in lines}) > 1
    scale = 100.0 if name == "accuracy" else 1.0
    curves = [_mean(line, name, by) for line in lines]
    ends = [end for curve in curves for end in curve["x"][-1:]]
    late = by == "time" and min(ends, default=0.0) > 0 and max(ends) > uneven * min(ends)
    left_out, heights, starts = False, [], []
    for line, curve in zip(lines, curves, strict=True):
        x, mean, low, high = curve["x"], scale * curve["mean"], scale * curve["low"], scale * curve["high"]
        if name in LOGARITHMIC and len(x):
            left_out = left_out or bool((mean <= 0).any())
            mean = np.where(mean > 0, mean, np.nan)
        if line in own:
            marks = _marks(x, own.index(line) / len(own), late)
            _draw(axes, line, (x, mean, low, high), marks, several)
        else:
            axes.plot(x, mean, color=PALE, linewidth=0.9, zorder=1)
        heights += [height for height in (*mean, *low, *high) if np.isfinite(height)]
        starts += [*mean[:1]]
    blown = name == "loss" and max(heights, default=0.0) > BLOWN * max(starts, default=np.inf)
    _limit(axes, heights, name in LOGARITHMIC or blown)
    if late:
        axes.set_xscale("log")
    axes.set_xlabel(X_LABELS[by])
    axes.set_ylabel(PANELS[name] + ("\n(zeros not shown)" if left_out else ""))
    axes.grid()
    if name == "accuracy" and accuracy is not None:
        axes.axhline(100 * accuracy, color="#9A9A9A", linewidth=1, zorder=1)


def _marks(x: np.ndarray, shift: float, logarithmic: bool) -> list[int]:
    """Where a line has its markers: ``MARKS``, equally far apart on its axis, from ``shift`` (0 .. 1) on."""
    at = np.log(np.where(x > 0, x, np.nan)) if logarithmic else x
    known = np.flatnonzero(np.isfinite(at))
    if not len(known):
        return []
    first, last = at[known[0]], at[known[-1]]
    wanted = first + (last - first) * (np.arange(MARKS) + shift) / MARKS
    found: list[int] = np.unique(known[np.searchsorted(at[known], wanted).clip(max=len(known) - 1)]).tolist()
    return found


def _draw(axes: Axes, line: Line, curve: Sequence[np.ndarray], marks: list[int], several: bool) -> None:
    """One line with its band: x, mean, lowest and highest; ``several``: with the word for its driver."""
    (x, mean, low, high), own = curve, look(line.algorithm)
    axes.plot(
        x, mean, color=own.colour, linestyle=own.dashes, marker=own.marker, linewidth=1.6, markersize=5,
        markevery=marks, label=label(line.algorithm) + (f", {driver_name(line.driver)}" if several else ""),
        markerfacecolor="white" if several and line.driver == "real" else None,
    )  # fmt: skip
    if (high > low).any():
        axes.fill_between(x, low, high, color=own.colour, alpha=0.16, linewidth=0)


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


NEAR = 50.0
"""Above it all accuracies are points on an axis that begins below the lowest, else bars from zero."""


def bars(statistics: Sequence[Mapping[str, Any]], title: str = "",
         accuracy: float | None = None) -> Figure:  # fmt: skip
    """One panel per figure of merit, one bar per algorithm with the 95 % interval over seeds.

    Bars begin at zero. High accuracies are points, for their axis does not.
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
    points = bar.figure == "accuracy" and min(known) > NEAR
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
        if points:
            axes.plot(mean, row, marker=own.marker, color=own.colour, markersize=7)
        else:
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
        axes.set_xlim(10 * np.floor(min(known) / 10 - 1) if points else 0, 101 if points else 100)
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

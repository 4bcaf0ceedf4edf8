"""Draws a section's pictures from their data.

Rules this module obeys: those of ``analysis.plots`` (no global state, one look per algorithm); published
values are grey, and dashed and marked as the algorithm is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.paper.sections import Picture, Series
from analysis.plots import COLOURS, LOOKS, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

GREY = "#B0B0B0"

TICKS = 10
"""So many places of a logarithmic axis are each told; more are told by decades."""


def draw(one: Picture, folder: Path) -> Path:
    """Draw ``one`` into ``folder``; the file."""
    from matplotlib.figure import Figure

    count = len(one.panels)
    figure = Figure(figsize=(1.2 + 4.4 * count, 3.8), layout="constrained")
    figure.suptitle(one.title, fontsize=11)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (title, series) in zip(axes, one.panels.items(), strict=True):
        {"lines": _lines, "bars": _bars, "stack": _stack}[one.kind](axis, series)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(one.x)
        axis.set_ylabel(one.y)
        if "x" in one.log:
            _logarithmic(axis, series)
        if "y" in one.log:
            axis.set_yscale("log")
        if one.line:
            low, high = axis.get_xlim()
            axis.plot([1, high], [1, high], color=GREY, linewidth=0.8, zorder=0)
            axis.set_xlim(low, high)
        axis.grid(alpha=0.25)
    _legend(figure, axes)
    return save(figure, folder / f"{one.name}.png")


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend below for all panels: a series that several of them show stands there once."""
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    columns = ceil(len(found) / ceil(len(found) / 5))
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=8,
                  frameon=False)  # fmt: skip


def _logarithmic(axis: Axes, series: Sequence[Series]) -> None:
    """A logarithmic x axis whose ticks are plain numbers: those of the points, unless they are many."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_xscale("log")
    places = sorted({float(point[0]) for one in series for point in one.points})
    if len(places) <= TICKS:
        axis.set_xticks(places)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _lines(axis: Axes, series: Sequence[Series]) -> None:
    for one in series:
        xs, ys = [p[0] for p in one.points], [p[1] for p in one.points]
        halves = [p[2] if len(p) > 2 else 0.0 for p in one.points]
        style: dict[str, Any] = {"marker": "_" if one.faint else "o"}
        if one.look in LOOKS:
            look = LOOKS[one.look]
            style = {"color": look.colour, "marker": look.marker, "linestyle": look.dashes}
        if one.faint:
            style["color"] = GREY
        axis.errorbar(xs, ys, yerr=halves, label=one.label, markersize=4, linewidth=1.3, **style)


def _bars(axis: Axes, series: Sequence[Series]) -> None:
    width = 0.8 / len(series)
    for number, one in enumerate(series):
        xs = [place + (number - (len(series) - 1) / 2) * width for place in range(len(one.points))]
        halves = [p[2] if len(p) > 2 else 0.0 for p in one.points]
        colour = GREY if one.faint else COLOURS["compute"] if number < 2 else COLOURS["send"]
        axis.bar(xs, [p[1] for p in one.points], width, yerr=halves, label=one.label, color=colour)
    axis.set_xticks(range(len(series[0].points)), [str(p[0]) for p in series[0].points], fontsize=8)


def _stack(axis: Axes, series: Sequence[Series]) -> None:
    base = [0.0] * len(series[0].points)
    for one in series:
        heights = [p[1] for p in one.points]
        places = [str(p[0]) for p in one.points]
        axis.bar(places, heights, 0.6, bottom=base, label=one.label, color=COLOURS.get(one.look, GREY))
        base = [low + height for low, height in zip(base, heights, strict=True)]

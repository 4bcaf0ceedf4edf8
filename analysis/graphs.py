"""Pictures of a mixing matrix: who mixes with whom, its spectrum, and how the workers come together.

Rules this module obeys:

* Everything is read off the matrices: an arc from j to i where W[i, j] > 0, as strong as that weight.
* One period of matrices gives one picture. Arcs that are there in only some of its steps are coloured
  by the first of these.
* As in ``analysis.plots``: functions return a ``Figure``, no global state, the same colours throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots import HEADING, canvas
from core import mixing
from core.mixing import Matrix
from core.topology import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "positions"]

SERIES = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000")

INK, BLUE, RED, GREEN, GOLD = "#444444", SERIES[0], SERIES[1], SERIES[2], SERIES[3]

Arcs = dict[tuple[int, int], tuple[float, int]]
"""(from, to) -> (weight, the first step in the period at which the arc is there)."""

CROWDED = 600
"""Arcs above which a torus is drawn without curves around it."""

POINTS = 80
"""Points along the curve of the consensus distance."""


LABELLED = 64
"""Workers up to which they are numbered."""


def draw(
    matrices: Sequence[Matrix], title: str, subtitle: str = "", *, layout: str = "circle",
    centre: bool = False, unit: str = "step", squared: bool = False, factor: float = 10.0,
) -> Figure:  # fmt: skip
    """Graph, spectrum and decay of one period of ``matrices``, side by side.

    ``layout`` is circle, torus, bipartite or star (worker 0 in the middle); with ``centre`` the last node
    is the server, drawn in the middle. ``squared``: the matrix shrinks squared distances (an expectation).
    """
    figure, axes = canvas(14.2, 5.1, widths=(1, 1.04, 1.04))
    graph, spectrum, decay = axes
    _graph(graph, matrices, layout, centre)
    _spectrum(spectrum, mixing.product(matrices), len(matrices), unit, squared)
    _decay(decay, matrices, unit, squared, factor)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, fontweight="bold")
    if subtitle:
        figure.supxlabel(subtitle, x=0.012, ha="left", fontsize=10, color=INK)
    return figure


def positions(n: int, layout: str = "circle", centre: bool = False) -> Matrix:
    """Where to put the nodes, (nodes, 2): worker 0 on top, clockwise; a server in the middle."""
    if layout == "torus" and not centre:
        rows, columns = grid(n)
        index = np.arange(n)
        x, y = index % columns, index // columns
        scale = 1.7 / max(columns - 1, rows - 1, 1)
        return np.column_stack([(x - (columns - 1) / 2) * scale, ((rows - 1) / 2 - y) * scale])
    if layout == "bipartite" and not centre:
        side = np.arange(n) % 2
        widest = max((n + 1) // 2 - 1, 1)
        return np.column_stack([(np.arange(n) // 2 / widest - 0.5) * 1.8, 0.55 - 1.1 * side])
    hub = layout == "star" and not centre
    around = n - hub
    angles = np.pi / 2 - 2 * np.pi * np.arange(around) / max(around, 1)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    middle = np.zeros((1, 2))
    if hub:
        return np.vstack([middle, circle])
    return np.vstack([circle, middle]) if centre else circle


def _graph(axes: Axes, matrices: Sequence[Matrix], layout: str, centre: bool) -> None:
    workers = len(matrices[0]) - centre
    places = positions(workers, layout, centre)
    size = _size(places)
    arcs = _arcs(matrices)
    both_ways = all((j, i) in arcs for i, j in arcs)
    turns = sorted({turn for _, turn in arcs.values()})
    if both_ways and len(turns) < 2 and (layout != "torus" or len(arcs) > CROWDED):
        _lines(axes, places, arcs)
    else:
        _arrows(axes, places, arcs, layout, both_ways, size)
    _nodes(axes, places, size, centre)
    _turns(axes, turns)
    axes.set_aspect("equal")
    axes.set_xlim(-1.22, 1.22)
    axes.set_ylim(-1.22, 1.22)
    axes.axis("off")
    axes.set_title("Who mixes with whom", **HEADING)


def _size(places: Matrix) -> float:
    """How large to draw a node, as its diameter in units of 12 points, so that none touches another."""
    if len(places) < 2:
        return 2.1
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(len(places))
    part = 0.62 if len(places) <= LABELLED + 1 else 0.35
    return float(np.clip(part * apart.min() / 0.094, 0.1, 2.1))


def _strokes(arcs: Arcs) -> Callable[[float], tuple[float, float]]:
    """Line width and opacity of an arc by its weight, and by how crowded the picture is."""
    strongest = max((w for w, _ in arcs.values()), default=1.0)
    widest = float(np.clip(26 / math.sqrt(max(len(arcs), 1)), 0.25, 2.2))
    opacity = float(np.clip(0.25 + 30 / max(len(arcs), 1), 0.3, 0.85))
    return lambda weight: (widest * (0.45 + 0.9 * weight / strongest), opacity)


def _lines(axes: Axes, places: Matrix, arcs: Arcs) -> None:
    """Edges that go both ways at every step: straight lines."""
    from matplotlib.collections import LineCollection

    edges = [(pair, weight) for pair, (weight, _) in sorted(arcs.items()) if pair[0] < pair[1]]
    stroke = _strokes(arcs)
    strokes = [stroke(weight) for _, weight in edges]
    axes.add_collection(
        LineCollection(
            [places[list(pair)] for pair, _ in edges], colors=BLUE, linewidths=[wide for wide, _ in strokes],
            alpha=strokes[0][1] if strokes else None, zorder=1,
        )
    )  # fmt: skip


def _arrows(
    axes: Axes, places: Matrix, arcs: Arcs, layout: str, both_ways: bool, size: float
) -> None:  # fmt: skip
    """Arcs one by one: with heads where they go one way, coloured where they are there in some steps only."""
    turns, stroke = sorted({turn for _, turn in arcs.values()}), _strokes(arcs)
    for (source, target), (weight, turn) in sorted(arcs.items()):
        if both_ways and source > target:
            continue
        width, opacity = stroke(weight)
        gap = 0 if both_ways else 6.3 * size + 1
        axes.annotate(
            "", xy=places[target], xytext=places[source], zorder=1,
            arrowprops={
                "arrowstyle": "-" if both_ways else f"-|>,head_width={0.13 + 0.09 * width},head_length=0.45",
                "color": SERIES[turns.index(turn) % len(SERIES)], "linewidth": width, "alpha": opacity,
                "connectionstyle": _bend(places, source, target, layout, both_ways),
                "shrinkA": gap, "shrinkB": gap,
            },
        )  # fmt: skip


def _nodes(axes: Axes, places: Matrix, size: float, centre: bool) -> None:
    """The workers by their ranks, and the server."""
    workers = len(places) - centre
    points = 150 * size**2
    x, y = places[:, 0], places[:, 1]
    axes.scatter(x[:workers], y[:workers], s=points, color="white", edgecolor=INK, linewidth=1.1, zorder=3)
    text: dict[str, Any] = {"ha": "center", "va": "center_baseline", "zorder": 4, "color": INK}
    if centre:
        axes.scatter(x[-1:], y[-1:], s=1.9 * points, color="#FFF1D6", edgecolor=GOLD, linewidth=1.4,
                     zorder=3, marker="s")  # fmt: skip
        axes.text(x[-1], y[-1], "x̃", fontsize=6 + 3.4 * size, **text)
    if workers <= LABELLED:
        for i in range(workers):
            axes.text(x[i], y[i], str(i), fontsize=3.4 + 3.4 * size, **text)


def _arcs(matrices: Sequence[Matrix]) -> Arcs:
    """What is mixed with what in any step of the period."""
    found: Arcs = {}
    for turn, W in enumerate(matrices):
        for target, source in np.argwhere(W > 1e-12).tolist():
            if source != target:
                found.setdefault((source, target), (float(W[target, source]), turn))
    return found


def _bend(places: Matrix, source: int, target: int, layout: str, both_ways: bool) -> str:
    """Straight, but around the nodes in between where a torus wraps or both directions would overlap."""
    if layout == "torus":
        spacing = np.linalg.norm(places[1] - places[0]) if len(places) > 1 else 1.0
        long = np.linalg.norm(places[source] - places[target]) > 1.5 * spacing
        return "arc3,rad=0.22" if long else "arc3,rad=0"
    return "arc3,rad=0" if both_ways else "arc3,rad=0.08"


def _turns(axes: Axes, turns: Sequence[int]) -> None:
    """A key to the colours of a graph that changes from step to step."""
    if len(turns) < 2:
        return
    from matplotlib.lines import Line2D

    shown = turns[: len(SERIES)]
    handles = [
        Line2D([], [], color=SERIES[i % len(SERIES)], linewidth=2, label=f"step {t}")
        for i, t in enumerate(shown)
    ]
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, -0.06), ncols=min(len(shown), 5),
        frameon=False, fontsize=9, handlelength=1.3, columnspacing=1.3,
    )  # fmt: skip


def _spectrum(axes: Axes, product: Matrix, period: int, unit: str, squared: bool) -> None:
    values = mixing.eigenvalues(product)
    zeta = float(abs(values[1])) if len(values) > 1 else 0.0
    real = bool(np.all(np.abs(values.imag) < 1e-9))
    (_line if real else _plane)(axes, values, zeta)
    over = "" if period == 1 else f" over {period} {unit}s"
    value = f"ρ = {_short(zeta)} on average" if squared else f"ζ = {_short(zeta)}"
    axes.set_title(f"Eigenvalues{over}: {value}", **HEADING)


def _line(axes: Axes, values: Any, zeta: float) -> None:
    """Real eigenvalues from the largest to the smallest, with the band of zeta."""
    ordered = np.sort(values.real)[::-1]
    index = np.arange(1, len(ordered) + 1)
    axes.axhspan(-zeta, zeta, color=BLUE, alpha=0.07, linewidth=0)
    for level in (zeta, -zeta):
        axes.axhline(level, color=BLUE, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7)
    axes.axhline(0, color="#999999", linewidth=0.8)
    second = _second(ordered, zeta)
    colours = [GREEN if i == 0 else RED if i == second else BLUE for i in range(len(ordered))]
    width = float(np.clip(60 / len(ordered), 0.6, 2.4))
    if len(ordered) <= 256:
        axes.vlines(index, 0, ordered, color=colours, linewidth=width, alpha=0.55)
    else:
        axes.fill_between(index, 0, ordered, color=BLUE, alpha=0.3, linewidth=0)
    axes.scatter(index, ordered, color=colours, s=float(np.clip(700 / len(ordered), 5, 46)), zorder=3)
    axes.set_ylim(min(-0.12, 1.15 * float(ordered.min())), 1.12)
    axes.set_xlim(0.2, len(ordered) + 0.8)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("eigenvalues, from the largest to the smallest")
    axes.set_ylabel("value")
    axes.grid(axis="y")


def _second(ordered: Any, zeta: float) -> int:
    """Place of the eigenvalue that zeta is the magnitude of, the largest itself aside."""
    others = np.abs(np.abs(ordered[1:]) - zeta)
    return int(np.argmin(others)) + 1 if len(others) else -1


def _plane(axes: Axes, values: Any, zeta: float) -> None:
    """Complex eigenvalues in the unit disc, with the circle of zeta."""
    turn = np.linspace(0, 2 * np.pi, 361)
    axes.plot(np.cos(turn), np.sin(turn), color="#999999", linewidth=1)
    axes.fill(zeta * np.cos(turn), zeta * np.sin(turn), color=BLUE, alpha=0.07, linewidth=0)
    axes.plot(
        zeta * np.cos(turn), zeta * np.sin(turn), color=BLUE, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7
    )
    size = float(np.clip(900 / len(values), 6, 52))
    colours = [
        GREEN if i == 0 else RED if abs(abs(value) - zeta) < 1e-9 else BLUE for i, value in enumerate(values)
    ]
    axes.scatter(values.real, values.imag, color=colours, s=size, zorder=3, edgecolor="white", linewidth=0.5)
    axes.set_aspect("equal")
    axes.set_xlim(-1.1, 1.1)
    axes.set_ylim(-1.1, 1.1)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlabel("real part")
    axes.set_ylabel("imaginary part")
    axes.grid(visible=True)


def _decay(axes: Axes, matrices: Sequence[Matrix], unit: str, squared: bool, factor: float) -> None:
    """The worst consensus distance by step, on a log scale, and where it has shrunk by ``factor``."""
    steps = mixing.steps_to_shrink(matrices, factor**2 if squared else factor)
    last = 20 if math.isinf(steps) else max(math.ceil(1.6 * steps), 4)
    taken, left = _distances(matrices, last)
    if squared:
        left = np.sqrt(left)
    floor = 0.3 / factor
    axes.plot(taken, np.maximum(left, floor / 2), color=BLUE, linewidth=2, marker="o",
              markersize=float(np.clip(120 / len(taken), 0, 5.5)))  # fmt: skip
    axes.axhline(1 / factor, color="#999999", linewidth=1, linestyle=(0, (4, 3)))
    if not math.isinf(steps):
        axes.axvline(steps, color=RED, linewidth=1.2)
        axes.annotate(
            f"{int(steps):,} {unit}{'' if steps == 1 else 's'}", (steps, 1), color=RED, fontsize=10,
            xytext=(6, 0), textcoords="offset points", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(floor, 1.35)
    axes.set_xlim(0, last)
    ticks = [1, 0.5, 0.2, 0.1, 0.05]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(f"{unit}s")
    axes.set_ylabel(f"distance from the mean, {'root mean square' if squared else 'at worst'}")
    axes.grid(axis="y")
    never = "They do not come together"
    axes.set_title(never if math.isinf(steps) else f"Coming together: {factor:g} times closer", **HEADING)


def _distances(matrices: Sequence[Matrix], last: int) -> tuple[Matrix, Matrix]:
    """(steps, worst consensus distance after them, of 1 before), at not too many of 0 .. ``last``."""
    n, period = len(matrices[0]), len(matrices)
    if period == 1 and np.allclose(matrices[0], matrices[0].T):
        steps = np.unique(np.linspace(0, last, POINTS + 1).round())
        return steps, mixing.second_eigenvalue(matrices[0]) ** steps
    stride = 1 if last <= POINTS else -(-last // (POINTS * period)) * period
    jump = mixing.product(matrices[k % period] for k in range(min(stride, period)))
    if stride > period:
        jump = np.linalg.matrix_power(jump, stride // period)
    total, taken, left = np.eye(n), [0], [1.0]
    while taken[-1] < last:
        total = (jump if stride > 1 else matrices[taken[-1] % period]) @ total
        taken.append(taken[-1] + stride)
        left.append(mixing.contraction(total))
    return np.array(taken, dtype=float), np.array(left)


def _short(value: float) -> str:
    return "0" if value < 1e-12 else f"{value:.4g}" if value < 0.9995 or value == 1 else f"{value:.6g}"

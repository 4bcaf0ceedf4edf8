"""Pictures of runs: the paper's Figures 2, 3 and 5, predicted against measured.

Rules this module obeys:

* Every function takes what it draws and returns a matplotlib ``Figure``; ``save`` writes it. No
  global state (pyplot is never imported), no display needed.
* One colour per part of a worker's time, and one look per algorithm (``look``), everywhere the same,
  from the palette of Okabe and Ito, which colour-blind readers can tell apart. Algorithms of one
  kind share a colour and differ in dashes and marker: synchronous gossip is violet, asynchronous brown.
* Axes carry units. The same record gives the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import metrics
from analysis.churn import absences
from analysis.names import count, label, sampled
from analysis.names import driver as driver_name
from analysis.names import title as title_of
from core.record import KINDS, PARTS, Record
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "HEADING", "Look", "breakdown", "canvas", "legend_beside", "look", "predicted_measured", "save",
    "speedup", "timeline",
]  # fmt: skip

COLOURS = {
    "compute": "#0072B2", "update": "#56B4E9", "send": "#E69F00", "wait": "#D55E00",
    "receive": "#009E73", "idle": "#E4E4E4", "transfer": "#7F7F7F",
}  # fmt: skip

ABSENCES = {"away": "xxx", "frozen": "///", "cut off": "...", "not recorded": "---"}
"""Hatching of what a timeline shows where a node does nothing, or nothing is known of it."""

SOLID, DASHED, DOTTED, MIXED = "-", (0, (5, 2)), (0, (1.2, 1.4)), (0, (6, 1.6, 1.2, 1.6))


@dataclass(frozen=True)
class Look:
    """How an algorithm is drawn: colour, marker, and the dashes of its lines."""

    colour: str
    marker: str
    dashes: Any = SOLID


LOOKS = {
    "bsp": Look("#0072B2", "o"),
    "arsgd": Look("#56B4E9", "X"),
    "asp": Look("#D55E00", "s"),
    "ssp": Look("#D55E00", "v", DASHED),
    "dssp": Look("#D55E00", "P", DOTTED),
    "easgd": Look("#E69F00", "D"),
    "aladdin": Look("#009E73", "^"),
    "aladdin_l1": Look("#009E73", "<", DOTTED),
    "aladdin_l2": Look("#009E73", ">", DASHED),
    "local_sgd": Look("#CC79A7", "o"),
    "post_local_sgd": Look("#CC79A7", "s", DASHED),
    "diloco": Look("#CC79A7", "^", DOTTED),
    "dpsgd": Look("#5D3A9B", "h"),
    "adpsgd": Look("#7A4A12", "d", DASHED),
    "sgp": Look("#5D3A9B", "*", MIXED),
    "gosgd": Look("#7A4A12", "p", DOTTED),
}

OTHERS = tuple(
    Look(colour, marker) for colour in ("#000000", "#7F7F7F", "#999933", "#882255") for marker in "oXsP"
)
"""Looks of algorithms that are not in the table, by their names."""


def look(algorithm: str) -> Look:
    """How ``algorithm`` is drawn, everywhere the same."""
    if algorithm in LOOKS:
        return LOOKS[algorithm]
    return OTHERS[sum(map(ord, algorithm)) % len(OTHERS)]


HEADING: dict[str, Any] = {"loc": "left", "fontsize": 12, "fontweight": "bold", "pad": 10}

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#666666", "axes.axisbelow": True, "grid.color": "#E6E6E6",
    "xtick.color": "#444444", "ytick.color": "#444444",
}  # fmt: skip


def save(figure: Figure, path: str | Path) -> Path:
    """Write ``figure`` as PNG, PDF or SVG, by the ending of ``path``; ScenarioError if it cannot.

    Dollars in its texts, which come from names, are dollars (matplotlib sets what is between two as
    formulas); those that matplotlib itself put around the powers at an axis are not.
    """
    from matplotlib.text import Text

    path = Path(path)
    ticks = {
        id(text) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)
    }
    for text in figure.findobj(Text):
        powers = id(text) in ticks and text.get_text().startswith(r"$\mathdefault{")
        if "$" in text.get_text() and not powers:
            text.set_parse_math(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, bbox_inches="tight", facecolor="white")
    except OSError as error:
        raise ScenarioError(f"picture {path}: cannot be written ({error.strerror or error})") from error
    return path


def breakdown(summaries: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Where a worker's step goes, one stacked bar per run (the paper's Figure 2).

    Takes summaries (``metrics.summary``). Runs in which some workers are slowed down get one bar
    for the fast workers and one for the slow ones.
    """
    bars = [bar for summary in summaries for bar in _bars(summary, len({s["driver"] for s in summaries}) > 1)]
    scale, unit = _unit(max((entry["step"] for _, entry, _ in bars), default=1.0))
    figure, axes = canvas(8.6, 1.9 + 0.46 * len(bars))
    longest = max((entry["step"] * scale for _, entry, _ in bars), default=1.0) or 1.0
    for row, (_, entry, rate) in enumerate(bars):
        left = 0.0
        for part in PARTS[:-1]:
            width = entry["seconds"][part] * scale
            axes.barh(
                row, width, left=left, height=0.72, color=COLOURS[part], edgecolor="white", linewidth=0.6
            )
            if width > 0.055 * longest:
                axes.text(left + width / 2, row, f"{entry['fraction'][part]:.0%}", ha="center", va="center",
                          color="black" if part in ("update", "send") else "white", fontsize=8.5)  # fmt: skip
            left += width
        axes.text(
            left + 0.012 * longest, row, f"{left:.3g} {unit}{rate}", va="center", fontsize=8.5,
            color="#444444", bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, longest * (1.36 if any("\n" in name for name, _, _ in bars) else 1.27))
    axes.set_xlabel(f"time per step and worker ({unit})")
    axes.grid(axis="x")
    axes.set_title(title or _heading("Where a step goes", summaries), **HEADING)
    _part_legend(figure, PARTS[:-1])
    return figure


def _bars(summary: Mapping[str, Any], several: bool) -> list[tuple[str, Mapping[str, Any], str]]:
    """(name, breakdown, what to write behind the bar) of each bar that a run gets."""
    name = label(summary["algorithm"])
    if several:
        name += f", {driver_name(summary['driver'])}"
    if summary.get("incomplete"):
        name += ", incomplete"
    rate = f"   {summary['throughput']:,.0f} samples/s"
    parts = summary["breakdown"]
    if "slow" not in parts:
        return [(name, parts["all"], rate)]
    return [
        (f"{name}\nfast workers", parts["fast"], rate + " in all"),
        (f"{name}\nslow workers", parts["slow"], ""),
    ]


def timeline(records: Sequence[Record], *, start: float | None = None, seconds: float | None = None,
             workers: int = 4, servers: int = 2) -> Figure:  # fmt: skip
    """Who does what when, one panel per run, one row per node (the paper's Figure 3).

    Shows ``seconds`` from ``start`` (default: five steps from the end of warm-up) of the first few
    workers and servers; the thin grey line under a row is its uplink at work, hatched is who was away,
    frozen or cut off, and a life whose spans a crash took along. Raises ``ScenarioError`` for records
    without spans.
    """
    panels = [_rows(record, workers, servers) for record in records]
    for record in records:
        if not len(record.spans.get("node", ())):
            raise ScenarioError(
                f"timeline of {title_of(record)}: the run has no spans; record it with --spans"
            )
    recorded = max(float(record.spans["end"].max()) for record in records)
    seconds = seconds or min(recorded, max(5 * metrics.breakdown(record)["step"] for record in records))
    scale, unit = _unit(seconds)
    heights = [max(len(rows), 1) for rows in panels]
    figure, grid = canvas(9.6, 1.3 + sum(0.36 * height + 0.7 for height in heights), heights)
    seen: set[str] = set()
    for axes, record, rows in zip(np.atleast_1d(grid), records, panels, strict=True):
        begin = _begin(record, seconds) if start is None else start
        seen |= _draw_rows(axes, record, rows, begin, seconds, scale)
        part = f" (part of the run: {sampled(record)})" if sampled(record) else _some(record, rows)
        axes.set_title(title_of(record) + part, **HEADING | {"fontsize": 10.5, "pad": 4})
        axes.set_xlabel(f"time ({unit}) from {begin * scale:.4g} {unit} after the start", fontsize=9)
    _part_legend(figure, [kind for kind in (*KINDS, *ABSENCES) if kind in seen])
    return figure


def _rows(record: Record, workers: int, servers: int) -> list[tuple[int, str]]:
    """(node, name) of the rows that are shown."""
    nodes, roles = record.nodes["node"], record.nodes["role"].astype(str)
    if sampled(record):
        shown = np.isin(nodes, np.unique(record.spans["node"]))
        nodes, roles = nodes[shown], roles[shown]
    chosen = [*nodes[roles == "worker"][:workers], *nodes[roles != "worker"][:servers]]
    everybody = record.nodes["role"].astype(str) == "worker"
    first = int(everybody.sum())
    slow = metrics.slow_ranks(record)
    return [
        (int(node), f"server {node - first}") if roles[nodes == node][0] != "worker"
        else (int(node), f"worker {node}" + (" (slow)" if node in slow else ""))
        for node in chosen
    ]  # fmt: skip


def _some(record: Record, rows: list[tuple[int, str]]) -> str:
    """How many of the run's workers and servers ``rows`` show, where it is not all of them."""
    roles = record.nodes["role"].astype(str)
    shown = roles[np.isin(record.nodes["node"], [node for node, _ in rows])]
    parts = [
        f", {(shown == role).sum()} of {(roles == role).sum():,} {role}s"
        for role in ("worker", "server") if (shown == role).sum() < (roles == role).sum()
    ]  # fmt: skip
    return "".join(parts)


def _begin(record: Record, seconds: float) -> float:
    within, end = metrics.window(record), record.duration
    if sampled(record) and len(record.spans["end"]):
        end = float(record.spans["end"].max())
    return max(0.0, min(within.start, end - seconds)) if within.kind == "steady" else 0.0


def _draw_rows(axes: Axes, record: Record, rows: list[tuple[int, str]], begin: float, seconds: float,
               scale: float) -> set[str]:  # fmt: skip
    """Draw one panel; returns the kinds of span and of absence that it shows."""
    spans, seen, places = record.spans, set(), {node: y for y, (node, _) in enumerate(rows)}
    for node, left, end, why in absences(record, places):
        if end > begin and left < begin + seconds:
            seen.add(why)
            left, end = max(left, begin), min(end, begin + seconds)
            axes.broken_barh(
                [((left - begin) * scale, (end - left) * scale)], (places[node] - 0.34, 0.68), **_hatched(why)
            )
    shown = (spans["end"] > begin) & (spans["start"] < begin + seconds)
    for y, (node, _) in enumerate(rows):
        for index, kind in enumerate(KINDS):
            pick = shown & (spans["node"] == node) & (spans["kind"] == index)
            if not pick.any():
                continue
            seen.add(kind)
            left = np.maximum(spans["start"][pick], begin)
            width = np.minimum(spans["end"][pick], begin + seconds) - left
            box = (y + 0.36, 0.09) if kind == "transfer" else (y - 0.34, 0.68)
            axes.broken_barh(
                list(zip((left - begin) * scale, width * scale, strict=True)), box,
                facecolors=COLOURS[kind], edgecolor="white" if kind != "transfer" else "none", linewidth=0.25,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), [name for _, name in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, seconds * scale)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return seen


def _hatched(why: str, legend: bool = False) -> dict[str, Any]:
    """How an absence is drawn, over the spans: what a node that is held up was at shows through."""
    through = why in ("frozen", "cut off") and not legend
    face, lines = ("none", "#FFFFFF") if through else ("#F4F4F4", "#B0B0B0")
    return {"facecolor": face, "edgecolor": lines, "hatch": ABSENCES[why], "linewidth": 0.0, "zorder": 3}


def speedup(summaries: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Speed-up over one worker against the number of workers (the paper's Figure 5), with the ideal.

    Simulated runs are joined by lines, measured ones are hollow markers. Markers
    grow one by one from the top down, so that lines which coincide are all seen.
    """
    figure, axes = canvas(6.6, 4.9)
    counts = sorted({summary["workers"] for summary in summaries})
    most = max(counts, default=1)
    axes.plot([1, most], [1, most], color="#9A9A9A", linestyle=(0, (4, 3)), linewidth=1.2, label="ideal")
    drawn: set[str] = set()
    names = list(dict.fromkeys(summary["algorithm"] for summary in summaries))
    for index, name in enumerate(names):
        for driver in ("sim", "real"):
            points = sorted(
                (s["workers"], s["speedup"])
                for s in summaries
                if s["algorithm"] == name and s["driver"] == driver
            )
            if points:
                real = driver == "real"
                axes.plot(
                    *zip(*points, strict=True), marker=look(name).marker,
                    markersize=9 if real else 5.5 + 0.8 * index,
                    color=look(name).colour, linestyle="none" if real else look(name).dashes,
                    linewidth=1.8, zorder=5 - 0.1 * index,
                    markerfacecolor="none" if real else None,
                    label=None if real and name in drawn else label(name),
                )  # fmt: skip
                drawn.add(name)
    axes.set_xticks(counts)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("workers")
    axes.set_ylabel("speed-up over one worker")
    axes.grid()
    axes.set_title(title or _heading("Speed-up", summaries, workers=False), **HEADING)
    if any(summary["driver"] == "real" for summary in summaries):
        axes.plot([], [], marker="o", markersize=9, markerfacecolor="none", color="#444444", linestyle="none",
                  label="hollow: measured")  # fmt: skip
    legend_beside(axes, loc="upper left")
    return figure


def predicted_measured(pairs: Sequence[Mapping[str, Any]], title: str = "Predicted and measured throughput",
                       band: float = 0.05) -> Figure:  # fmt: skip
    """Prediction against measurement, and the error of each cell.

    ``pairs`` holds one mapping per cell: ``label``, ``algorithm``, ``predicted`` and ``measured``
    (samples/s), and optionally ``low`` and ``high``, the measurement's interval: thin lines. On the left the
    axes hold them, but reach at most threefold beyond all values; on the right they hold the errors, and
    arrows stand where an interval goes on. The grey band is a relative error of ``band``.
    """
    figure, (left, right) = canvas(10.8, max(4.6, 1.6 + 0.25 * len(pairs)), widths=(1.15, 1))
    values = np.array([[pair["predicted"], pair["measured"]] for pair in pairs], dtype=float).reshape(-1, 2)
    low, high = _reach(values, pairs) if len(values) else (1.0, 10.0)
    line = np.array([low, high])
    left.fill_between(line, line * (1 - band), line * (1 + band), color="#E4E4E4", label=f"within {band:.0%}")
    left.plot(line, line, color="#9A9A9A", linewidth=1)
    names = list(dict.fromkeys(pair["algorithm"] for pair in pairs))
    for name in names:
        own = [pair for pair in pairs if pair["algorithm"] == name]
        x, y = [pair["measured"] for pair in own], [pair["predicted"] for pair in own]
        spread = [[p["measured"] - p.get("low", p["measured"]) for p in own],
                  [p.get("high", p["measured"]) - p["measured"] for p in own]]  # fmt: skip
        left.errorbar(x, y, xerr=spread, fmt=look(name).marker, markersize=7, elinewidth=1,
                      color=look(name).colour, alpha=0.9, label=label(name))  # fmt: skip
    left.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    left.set_xlabel("measured (samples/s)")
    left.set_ylabel("predicted (samples/s)")
    left.grid()
    _plain_log_ticks(left, low, high)
    left.set_anchor("N")
    left.set_title(title, **HEADING)
    legend_beside(left, loc="upper left", fontsize=9)
    _errors(right, pairs, band)
    return figure


def _reach(values: np.ndarray, pairs: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """What logarithmic axes hold: all values, and the intervals as far as threefold beyond."""
    least, most = float(values.min()), float(values.max())
    lows = [pair["low"] for pair in pairs if "low" in pair]
    highs = [pair["high"] for pair in pairs if "high" in pair]
    low, high = min([least / 1.18, *lows]), max([most * 1.18, *highs])
    return max(low, least / 3) / 1.1, min(high, 3 * most) * 1.1


def _plain_log_ticks(axes: Axes, low: float, high: float) -> None:
    """A handful of round numbers on both logarithmic axes, written out."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    steps = (1, 2, 5) if high / low < 30 else (1, 3) if high / low < 200 else (1,)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _errors(axes: Axes, pairs: Sequence[Mapping[str, Any]], band: float) -> None:
    """Relative error of each cell as a lollipop, with the band; under it, what it is against the interval."""
    errors = [100 * (pair["predicted"] / pair["measured"] - 1) if pair["measured"] else 0.0 for pair in pairs]
    reach = max([abs(error) for error in errors] + [150 * band]) * 1.15
    axes.axvspan(-100 * band, 100 * band, color="#E4E4E4")
    axes.axvline(0, color="#9A9A9A", linewidth=1)
    spread = any(pair.get("high", 0.0) > pair.get("low", 0.0) for pair in pairs)
    for row, (pair, error) in enumerate(zip(pairs, errors, strict=True)):
        own = look(pair["algorithm"])
        axes.plot([0, error], [row, row], color=own.colour, linewidth=1.6)
        low, high = (pair.get(name, 0.0) for name in ("low", "high"))
        if high > low:
            ends = [100 * (pair["predicted"] / rate - 1) if rate > 0 else 2 * reach for rate in (high, low)]
            axes.plot(ends, [row + 0.22] * 2, color="#7F7F7F", linewidth=1, solid_capstyle="butt")
            for side, arrow in ((-reach, "<"), (reach, ">")):
                if min(ends) < side < max(ends):
                    axes.plot(side, row + 0.22, marker=arrow, color="#7F7F7F", markersize=4, clip_on=False)
        axes.plot(error, row, marker=own.marker, color=own.colour, markersize=6)
    axes.set_xlim(-reach, reach)
    axes.set_yticks(range(len(pairs)), [pair["label"] for pair in pairs], fontsize=8.5)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("error of the prediction (%)" + "\nthin: in the measurement's 95 % interval" * spread)
    axes.set_title("Error per cell", **HEADING)
    axes.grid(axis="x")


def _heading(what: str, summaries: Sequence[Mapping[str, Any]], workers: bool = True) -> str:
    """``what`` and the scenario, and the number of workers where all agree."""
    names = list(dict.fromkeys(summary["scenario"] for summary in summaries))
    counts = {summary["workers"] for summary in summaries}
    text = f"{what}: {names[0]}" if len(names) == 1 else what
    return f"{text}, {count(counts.pop(), 'worker')}" if workers and len(counts) == 1 else text


def _unit(seconds: float) -> tuple[float, str]:
    """Scale and name of the unit in which ``seconds`` reads well."""
    if seconds >= 1:
        return 1.0, "s"
    return (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")


MOST = 7
"""Entries that a legend may have inside of its axes."""


def legend_beside(axes: Axes, **where: Any) -> None:
    """The legend of ``axes`` inside of it at ``where``; right of the figure if it has many entries."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= MOST:
        axes.legend(frameon=False, **where)
    else:
        axes.figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)


def _part_legend(figure: Figure, parts: Sequence[str]) -> None:
    """The legend of the parts of a worker's time, below everything."""
    from matplotlib.patches import Patch

    handles = [
        Patch(color=COLOURS[part], label=part) if part in COLOURS
        else Patch(label=part, **_hatched(part, legend=True))
        for part in parts
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(parts), handlelength=1.1,
                  handleheight=1.1, columnspacing=1.6, frameon=False)  # fmt: skip


def canvas(
    width: float, height: float, heights: Sequence[float] = (), widths: Sequence[float] = ()
) -> tuple[Figure, Any]:
    """A figure in our style, inches, and its axes (an array of them where the ratios say so)."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ScenarioError(f"pictures need matplotlib ({error}): pip install 'aladdin[plots]'") from error

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(
            len(heights) or 1, len(widths) or 1,
            height_ratios=list(heights) or None, width_ratios=list(widths) or None,
        )  # fmt: skip
    return figure, axes

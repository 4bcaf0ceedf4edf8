"""How many parameter servers, where, sharded how: a sweep's rows as table, picture and recommendation.

Rules this module obeys:

* It takes rows (``Row``), reads no record and runs nothing.
* The recommendation is the cheapest row that is nearly as good as the best; every figure in its
  reasons is one of a row.

*Good* is throughput. Rows that are within the tolerance of the best throughput are told apart by how
many gradients a message sums up: under an algorithm whose workers never wait (ALADDIN) all rows are
equally fast, and slow servers show in gradients that arrive late and in sums. *Cheap* is, in this order,
fewer machines beside those of the workers, fewer servers, more throughput.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.names import count
from analysis.plots import canvas
from analysis.report import PART_HEADS, busy_link, sheet, size, styled
from scenarios.errors import ScenarioError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["SUMMED", "Row", "figure", "recommend", "row", "tables", "title"]

Row = Mapping[str, Any]
"""servers, placement, sharding, outcome, message; largest_shard ({"bytes", "share"}, or None);
and of a run that is done: throughput (samples/s), speedup, step (s), fraction (share of a step by part),
slowest (the slowest worker's samples over the mean worker's), staleness (mean, updates),
gradients_per_message, link ({"name", "direction", "use"}). None where unknown."""

SUMMED = 0.1
"""Rows are alike in the gradients that a message sums up within this share."""

UNEVEN = 0.7
"""Where the slowest worker makes a smaller share of the mean worker's samples, a reader should know."""

BLOCKED = ("send", "wait", "receive")

WHERE = {"beside": " beside the workers", "spread": " beside the workers, spread over racks and sites"}

WORDS = {"memory": "memory-wise", "layer": "layer-wise"}

WIDE = 136
"""Columns that a full table takes; on narrower terminals the breakdown gets a table of its own."""

COLOURS = {"dedicated": "#0072B2", "beside": "#D55E00", "spread": "#009E73"}

STYLES = {"memory": ("-", "o"), "layer": ((0, (5, 2)), "s")}


def row(summary: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a row takes from a run's ``metrics.summary``."""
    if summary is None:
        names = ("throughput", "speedup", "slowest", "step", "fraction", "staleness")
        return dict.fromkeys((*names, "gradients_per_message", "link"))
    parts, rates = summary["breakdown"]["all"], summary["throughput_by_worker"]
    return {
        "throughput": summary["throughput"], "speedup": summary["speedup"], "step": parts["step"],
        "slowest": min(rates) * len(rates) / sum(rates) if any(rates) else None,
        "fraction": parts["fraction"], "staleness": (summary["staleness"] or {}).get("mean"),
        "gradients_per_message": summary["gradients_per_message"], "link": summary["link"],
    }  # fmt: skip


def title(one: Row) -> str:
    """``4 dedicated servers, memory-wise``."""
    number, where = one["servers"], one["placement"]
    what = "dedicated server" if where == "dedicated" else "server"
    servers = count(number, what) + WHERE.get(where, "")
    return servers if number == 1 else f"{servers}, {WORDS[one['sharding']]}"


def recommend(rows: Sequence[Row], tolerance: float = 0.02) -> tuple[int | None, list[str]]:
    """The row to choose (its index; None if no run is done), and why, in sentences.

    ``tolerance`` is the share of the best throughput that is not worth a further server.
    """
    done = [one for one in rows if one["outcome"] == "done" and one["throughput"]]
    if not done:
        return None, []
    best = max(done, key=lambda one: one["throughput"])
    near = [one for one in done if one["throughput"] >= best["throughput"] * (1 - tolerance)]
    least = min(_summed(one) for one in near)
    alike = [one for one in near if _summed(one) <= least * (1 + SUMMED)]
    chosen = min(alike, key=_cost)
    index = next(index for index, one in enumerate(rows) if one is chosen)
    return index, _reasons(chosen, best, done, near, tolerance)


def _way(link: Mapping[str, Any]) -> str:
    """``machine0 up``, ``tokyo > berlin``: a WAN link's name says its direction itself."""
    return f"{link['name']} {link['direction']}" if link["direction"] in ("up", "down") else str(link["name"])


def _summed(one: Row) -> float:
    return one["gradients_per_message"] or 1.0


def _slowest(one: Row) -> float:
    return 1.0 if one["slowest"] is None else float(one["slowest"])


def _cost(one: Row) -> tuple[int, int, float]:
    machines = one["servers"] if one["placement"] == "dedicated" else 0
    return machines, one["servers"], -one["throughput"]


def _reasons(chosen: Row, best: Row, done: Sequence[Row], near: Sequence[Row],
             tolerance: float) -> list[str]:  # fmt: skip
    """Why ``chosen``: against the best of all, more and fewer servers, the other placement and sharding."""
    sums = len(near) == len(done) > 1
    if sums:
        rate = f"{chosen['throughput']:,.0f} samples/s, all rows within {tolerance:.1%}"
        found = [f"throughput hardly depends on the servers here ({rate})"]
        if max(map(_summed, done)) > _summed(chosen) * (1 + SUMMED):
            found.append(
                "but workers keep back what servers and links do not take; it arrives late and summed up: "
                f"{_summed(chosen):.2f} gradients a message here"
            )
    else:
        away = f", {1 - chosen['throughput'] / best['throughput']:.1%} less than the best, {title(best)}"
        found = [f"{chosen['throughput']:,.0f} samples/s" + (", the most of all" if chosen is best else away)]
    found += _numbers(chosen, done, sums) + _others(chosen, done, sums)
    if _slowest(chosen) < UNEVEN:
        evener = [one for one in done if _slowest(one) >= UNEVEN]
        found.append(
            f"the slowest worker makes {_slowest(chosen):.0%} of the mean worker's samples"
            + (f"; where all are closer, {_best(evener, sums)['throughput']:,.0f} samples/s at most, with "
               f"{title(_best(evener, sums))}" if evener else "")
        )  # fmt: skip
    blocked, link = sum(chosen["fraction"][part] for part in BLOCKED), chosen["link"]
    if blocked > 0.05 and link is not None:
        found.append(
            f"workers are still blocked for {blocked:.0%} of a step; the busiest link is {_way(link)}, "
            f"busy for {link['use']:.0%} of the run"
        )
    return found


def _numbers(chosen: Row, done: Sequence[Row], sums: bool) -> list[str]:
    """What more servers would do and what fewer, all else equal."""
    same = [one for one in done if all(one[what] == chosen[what] for what in ("placement", "sharding"))]
    more = [one for one in same if one["servers"] > chosen["servers"]]
    fewer = [one for one in same if one["servers"] < chosen["servers"]]
    found = []
    if more:
        top = _best(more, sums)
        gain = top["throughput"] / chosen["throughput"] - 1
        if sums:
            found.append(f"with {top['servers']}: {_against(top, chosen, sums)}")
        elif gain < 0.0005:
            found.append("more servers gain nothing from here")
        else:
            found.append(f"more servers gain at most {gain:.1%} from here (with {top['servers']})")
    if fewer:
        next_ = max(fewer, key=lambda one: one["servers"])
        found.append(f"with {next_['servers']}: {_against(next_, chosen, sums)}")
    if fewer and not more:
        found.append("no larger number was tried")
    return found


def _others(chosen: Row, done: Sequence[Row], sums: bool) -> list[str]:
    """The best row with each other placement, and the same servers with the other sharding."""
    found = []
    alike = [one for one in done if one["sharding"] == chosen["sharding"]]
    for where in dict.fromkeys(one["placement"] for one in alike):
        if where != chosen["placement"]:
            other = _best([one for one in alike if one["placement"] == where], sums)
            words = WHERE.get(where, " on machines of their own").strip()
            number = count(other["servers"], "server")
            found.append(f"{words} at best {_against(other, chosen, sums)} ({number})")
    for other in done if chosen["servers"] > 1 else ():
        same = all(other[what] == chosen[what] for what in ("placement", "servers"))
        if same and other["sharding"] != chosen["sharding"]:
            share = other["largest_shard"]["share"]
            why = f": its largest shard is {share:.1%} of the model" if share > 1.1 / other["servers"] else ""
            found.append(f"{WORDS[other['sharding']]}: {_against(other, chosen, sums)}{why}")
    return found


def _best(rows: Sequence[Row], sums: bool) -> Row:
    """The one with the fewest gradients a message, or with the highest throughput."""
    return min(rows, key=_summed) if sums else max(rows, key=lambda one: one["throughput"])


def _against(one: Row, base: Row, sums: bool) -> str:
    """How ``one`` does, compared with ``base``."""
    if sums:
        return f"{_summed(one):.2f} gradients a message"
    change = one["throughput"] / base["throughput"] - 1
    if abs(change) < 0.0005:
        return "as many samples/s"
    return f"{abs(change):.1%} {'more' if change > 0 else 'fewer'} samples/s"


def tables(rows: Sequence[Row], chosen: int | None = None, head: str = "", width: int = WIDE) -> list[Table]:
    """One row per number, placement and sharding; ``chosen`` is marked, what was refused says so.

    One table, or two where ``width`` columns do not hold one.
    """
    if width >= WIDE:
        return [_table(rows, chosen, head, ("rates", "parts", "rest"))]
    return [
        _table(rows, chosen, head, ("rates", "rest")),
        _table(rows, chosen, "Where a step goes", ("parts",)),
    ]


def _table(rows: Sequence[Row], chosen: int | None, head: str, groups: Sequence[str]) -> Table:
    sums = any(_summed(one) > 1.005 for one in rows)
    uneven = any(_slowest(one) < UNEVEN for one in rows)
    heads: dict[str, list[str]] = {
        "rates": ["largest\nshard", "samples/s", *(["slowest\nworker %"] if uneven else [])],
        "parts": [f"{part}\n%" for part in PART_HEADS.values()],
        "rest": [*(["gradients\na message"] if sums else []), "busiest link"],
    }
    made = sheet(head)
    made.add_column("servers", justify="right")
    for name in ("placement", "sharding"):
        made.add_column(name, no_wrap=True)
    for group in groups:
        for name in heads[group]:
            made.add_column(name, justify="left" if name == "busiest link" else "right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for index, one in enumerate(rows):
        cells, style, mark = _cells(one, sums, uneven), "", ""
        if index == chosen:
            style, mark = "bold", "◀ recommended"
        first = (str(one["servers"]), one["placement"], one["sharding"])
        made.add_row(*first, *(cell for group in groups for cell in cells[group]), mark, style=style)
    return made


def _cells(one: Row, sums: bool, uneven: bool) -> Mapping[str, Sequence[RenderableType]]:
    """The cells of a row, by group of columns."""
    shard = one["largest_shard"]
    largest = "–" if shard is None else f"{size(shard['bytes'])} ({shard['share']:.0%})"
    if one["outcome"] != "done":
        rates: list[RenderableType] = [largest, styled(one["outcome"], "yellow"), *([""] if uneven else [])]
        return {"rates": rates, "parts": [""] * len(PART_HEADS), "rest": [""] * (1 + sums)}
    return {
        "rates": [largest, f"{one['throughput']:,.0f}", *([f"{100 * _slowest(one):.0f}"] if uneven else [])],
        "parts": [f"{100 * share:.1f}" if share else "–" for share in map(one["fraction"].get, PART_HEADS)],
        "rest": [*([f"{_summed(one):.2f}"] if sums else []), busy_link(one)],
    }


def figure(rows: Sequence[Row], chosen: int | None = None, head: str = "") -> Figure:
    """Throughput, share of a step that workers are blocked, busiest link and largest shard by servers.

    One line per placement and sharding, ``chosen`` ringed. Raises ``ScenarioError`` if no run is done.
    """
    done = [one for one in rows if one["outcome"] == "done"]
    if not done:
        raise ScenarioError("servers: no run of the sweep is finished")
    panels: list[tuple[str, Any]] = [
        ("throughput (samples/s)", lambda one: one["throughput"]),
        ("blocked, % of a step", lambda one: 100 * sum(one["fraction"][part] for part in BLOCKED)),
        ("busiest link, % of the run", lambda one: 100 * one["link"]["use"] if one["link"] else None),
        ("largest shard, % of the model", lambda one: 100 * one["largest_shard"]["share"]),
    ]
    if any(_summed(one) > 1.005 for one in done):
        panels[1] = ("gradients a message", _summed)
    drawn, axes = canvas(10.4, 7.2, heights=(1, 1), widths=(1, 1))
    for place, (label, value) in zip(axes.flat, panels, strict=True):
        _panel(place, done, label, value)
        if chosen is not None and value(rows[chosen]) is not None:
            ring = {"markersize": 15, "markerfacecolor": "none", "color": "#222222", "markeredgewidth": 1.4}
            place.plot(rows[chosen]["servers"], value(rows[chosen]), "o", **ring)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False,
                 handlelength=3.2)  # fmt: skip
    note = " (ringed: recommended)" if chosen is not None else ""
    drawn.suptitle(head + note, x=0.01, ha="left", fontweight="bold")
    return drawn


def _panel(axes: Axes, done: Sequence[Row], label: str, value: Any) -> None:
    """One figure against the number of servers."""
    for placement, sharding in dict.fromkeys((one["placement"], one["sharding"]) for one in done):
        own = [one for one in done if (one["placement"], one["sharding"]) == (placement, sharding)]
        points = sorted((one["servers"], value(one)) for one in own if value(one) is not None)
        if points:
            dashes, marker = STYLES[sharding]
            axes.plot(*zip(*points, strict=True), color=COLOURS[placement], linestyle=dashes, marker=marker,
                      markersize=5, linewidth=1.6, label=f"{placement}, {sharding}")  # fmt: skip
    counts = sorted({one["servers"] for one in done})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(number) for number in counts])
    axes.minorticks_off()
    known = [value(one) for one in done if value(one) is not None]
    axes.set_ylim(0, 1.08 * max(known, default=1.0) or 1.0)
    axes.set_xlabel("servers")
    axes.set_ylabel(label)
    axes.grid()

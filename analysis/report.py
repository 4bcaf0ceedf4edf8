"""Tables for people and mappings for programs, made of summaries (``metrics.summary``).

Rules this module obeys:

* A table holds nothing that the JSON document lacks.
* Numbers carry their unit, in the cell or in the column's head; three significant digits.
* rich is imported where a table is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.names import driver, label

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "algorithm_notes", "algorithms", "busy_link", "cell", "comparison", "constants", "document", "duration",
    "figures", "notes", "sheet", "size", "styled", "table", "tables",
]  # fmt: skip

UNSTEADY = 0.05
"""Scatter of native steps beyond which a machine is told to be unsteady."""

PART_HEADS = {"compute": "compute", "update": "update", "send": "send", "wait": "wait", "receive": "recv"}


def duration(seconds: float) -> str:
    """``seconds`` to three digits in the unit that reads well: ``0.0123`` is ``12.3 ms``."""
    for scale, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if abs(seconds) * scale >= 1 or unit == "µs":
            value = seconds * scale
            return f"{_number(value)} {unit}" if value >= 1000 else f"{value:.3g} {unit}"
    raise AssertionError("unreachable: the last unit takes everything")


def size(count: float) -> str:
    """``count`` bytes in powers of 1000: ``4.5e6`` is ``4.5 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(count) < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{_number(count)} EB"


WIDE = 116
"""Columns that a full table takes; on narrower terminals the breakdown gets a table of its own."""

BROAD = 136
"""Columns that a full table of algorithms may take where nobody says how many there are."""

GROUPS = ("rates", "parts", "rest")

MADE_UP = "accuracy: on synthetic images, which are made up; it says nothing of any real data"
"""What is said beside an accuracy (or a loss) that no real data were learned for."""


def tables(summaries: Sequence[Mapping[str, Any]], title: str = "", width: int = WIDE) -> list[Table]:
    """``table`` as one table, or as two where ``width`` columns do not hold one."""
    if width >= WIDE:
        return [table(summaries, title)]
    return [
        table(summaries, title, ("rates", "brief")),
        table(summaries, "Where a step goes", ("parts",)),
    ]


def table(summaries: Sequence[Mapping[str, Any]], title: str = "", groups: Sequence[str] = GROUPS) -> Table:
    """One row per run: throughput, speed-up, step, breakdown, staleness, traffic, accuracy.

    A run with slowed-down workers gets two further rows: its fast and its slow workers. Where
    predicted and measured runs are mixed, a column says which is which.
    ``groups`` selects columns: ``rates``, ``parts`` (the breakdown), ``rest`` or ``brief`` (narrower).
    """
    several = len({summary["driver"] for summary in summaries}) > 1
    accurate = any("accuracy" in summary for summary in summaries)
    linked = ["busiest\nlink"] if any("name" in (summary.get("link") or ()) for summary in summaries) else []
    heads: dict[str, list[str]] = {
        "rates": ["samples/s", "speed-up", "step"],
        "parts": [f"{head}\n%" for head in PART_HEADS.values()],
        "rest": ["staleness\nmean / max", "busiest node", *linked, *(["accuracy\n%"] if accurate else [])],
        "brief": ["staleness\nmean / max", "busiest\nnode", *linked, *(["accuracy\n%"] if accurate else [])],
    }
    grid = sheet(title)
    grid.add_column("algorithm", no_wrap=True)
    if several:
        grid.add_column("run")
    for group in groups:
        for head in heads[group]:
            grid.add_column(head, justify="right", no_wrap=True)
    for summary in summaries:
        flagged = "*" if summary["flags"] else ""
        name = [styled(label(summary["algorithm"]), "bold", flagged)]
        cells: Mapping[str, Sequence[RenderableType]] = _cells(summary, accurate, bool(linked))
        run = [driver(summary["driver"])] if several else []
        grid.add_row(*name, *run, *(cell for group in groups for cell in cells[group]))
        for kind in ("fast", "slow"):
            if kind in summary["breakdown"]:
                cells = _part_cells(summary["breakdown"][kind], accurate + bool(linked))
                blank = [""] * several
                chosen = (cell for group in groups for cell in cells[group])
                grid.add_row(f"  {kind} workers", *blank, *chosen, style="dim")
    return grid


def _cells(
    summary: Mapping[str, Any], accurate: bool, linked: bool
) -> Mapping[str, Sequence[RenderableType]]:
    """The cells of a run's row, by group of columns."""
    entry, measured = summary["breakdown"]["all"], summary.get("accuracy")
    accuracy = "–" if measured is None else f"{100 * measured:.1f}"
    rates: list[RenderableType] = [
        styled(_number(summary["throughput"]), "bold"),
        f"{summary['speedup']:.2f}",
        duration(entry["step"]),
    ]
    last = [busy_link(summary)] * linked + [accuracy] * accurate
    stale, busy = _staleness(summary["staleness"]), _busiest(summary)
    rest, brief = [stale, busy, *last], [stale, busy.split(" (")[0], *last]
    return {"rates": rates, "parts": _parts(entry), "rest": rest, "brief": brief}


def _part_cells(entry: Mapping[str, Any], more: int) -> dict[str, list[str]]:
    """The cells of a row that shows some of the workers only; ``more``: columns after the busiest node."""
    rates, rest = ["", "", duration(entry["step"])], [""] * (2 + more)
    return {"rates": rates, "parts": _parts(entry), "rest": rest, "brief": rest}


def comparison(pairs: Sequence[Mapping[str, Any]], title: str = "") -> Table:
    """Predicted against measured throughput; ``pairs`` as in ``plots.predicted_measured``."""
    grid = sheet(title)
    grid.add_column("run", no_wrap=True)
    for head in ("predicted\nsamples/s", "measured\nsamples/s", "95 % interval", "error\n%"):
        grid.add_column(head, justify="right")
    for pair in pairs:
        error = 100 * (pair["predicted"] / pair["measured"] - 1) if pair["measured"] else None
        shown = "–" if error is None else _fixed(error, "+")
        known = pair.get("low") is not None and pair.get("high") is not None
        interval = f"{_number(pair['low'])} … {_number(pair['high'])}" if known else "–"
        style = "" if error is None or abs(error) <= 5 else "yellow"
        grid.add_row(
            pair["label"], _number(pair["predicted"]), _number(pair["measured"]), interval, shown, style=style
        )
    return grid


def algorithms(statistics: Sequence[Mapping[str, Any]], title: str = "", accuracy: float | None = None,
               width: int = BROAD) -> list[Table]:  # fmt: skip
    """One row per algorithm: means over seeds ± half of their 95 % interval (``seeds.condense``).

    Speed and traffic, and what was learned if anything was; one table, or two where ``width`` columns do
    not hold one with every cell in full.
    """
    learned = any(one["accuracy"] is not None for one in statistics)
    mark = "" if accuracy is None else f"{100 * accuracy:g} %"
    speed = ["samples/s", "speed-up", "staleness\nmean / p95 / max", "busiest node\nper step"]
    model = [f"time to\n{mark}", "seeds\nthere"] if accuracy is not None and learned else []
    model += ["accuracy\n%", "consensus\ndistance"] if learned else []
    whole = _rows(statistics, title, [*speed, *model])
    if not model or _breadth(whole) <= width:
        return [whole]
    return [_rows(statistics, title, speed), _rows(statistics, "What they learned", model)]


def _rows(statistics: Sequence[Mapping[str, Any]], title: str, heads: Sequence[str]) -> Table:
    grid = sheet(title)
    grid.add_column("algorithm", no_wrap=True)
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for one in statistics:
        cells = _means(one)
        row = [cells[head.split("\n")[0]] for head in heads]
        done = one["outcomes"].get("done", 0)
        if not done:
            row = [styled(", ".join(one["outcomes"]), "yellow"), *[""] * (len(heads) - 1)]
        grid.add_row(styled(label(one["algorithm"]), "bold", "*" if done < one["runs"] else ""), *row)
    return grid


def _breadth(grid: Table) -> int:
    """Columns of the terminal that ``grid`` takes with no cell cut short."""
    from rich.measure import Measurement

    wide = console(1000)
    return Measurement.get(wide, wide.options, grid).maximum


def console(width: int | None = None, *, stderr: bool = False) -> Console:
    """Where text goes as it is: in names that users give nothing is markup, or the name of a picture."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, width=width, stderr=stderr)


def _means(one: Mapping[str, Any]) -> dict[str, RenderableType]:
    """An algorithm's cells by the first line of their columns' heads."""
    stale = [one[f"staleness_{kind}"] for kind in ("mean", "p95", "max")]
    busy, when = one["busiest_bytes_per_step"], one["time_to_accuracy"]
    role = f" ({one['busiest_role']})" if busy else ""
    return {
        "samples/s": styled(_mean(one["throughput"]), "bold"),
        "speed-up": _mean(one["speedup"]),
        "staleness": "–" if None in stale else " / ".join(_number(each["mean"]) for each in stale),
        "busiest node": f"{size(busy['mean'])}{role}" if busy else "–",
        "time to": _mean(when, seconds=True),
        "seeds": f"{one['reached']} of {one['outcomes'].get('done', 0)}",
        "accuracy": _mean(one["accuracy"], 100.0),
        "consensus": _mean(one["consensus"]),
    }


def _mean(found: Mapping[str, Any] | None, scale: float = 1.0, seconds: bool = False) -> str:
    """``mean ± half`` with as many digits as the interval deserves; in a unit that reads well if seconds.

    An interval that four decimals do not show is none: equal seeds differ by rounding.
    """
    if found is None:
        return "–"
    mean, half, unit = found["mean"] * scale, (found["half"] or 0.0) * scale, ""
    if seconds and mean:
        unit, factor = next((u, f) for u, f in (("s", 1.0), ("ms", 1e3), ("µs", 1e6))
                            if abs(mean) * f >= 1 or u == "µs")  # fmt: skip
        mean, half, unit = mean * factor, half * factor, f" {unit}"
    if not found["half"]:
        return f"{mean:.1f}{unit}" if scale == 100 else f"{_number(mean)}{unit}"
    power = math.floor(math.log10(max(abs(mean), half)))
    if not -3 <= power < 6:
        mean, half, unit = mean / 10.0**power, half / 10.0**power, f"{unit}e{power:+03d}"
    order = math.floor(math.log10(half))
    digits = min(4, max(0, -order + (half < 3 * 10.0**order)))
    if half < 0.5e-4:
        return f"{_number(mean)}{unit}"
    pair = f"{mean:,.{digits}f} ± {half:,.{digits}f}"
    return f"({pair}){unit}" if unit.startswith("e") else f"{pair}{unit}"


def algorithm_notes(statistics: Sequence[Mapping[str, Any]], accuracy: float | None = None) -> list[str]:
    """What the reader of ``algorithms`` must know: runs that are missing, and why; means over few seeds."""
    found = []
    for one in statistics:
        name, outcomes = label(one["algorithm"]), one["outcomes"]
        missing = [f"{count} {outcome}" for outcome, count in outcomes.items() if outcome != "done"]
        if missing:
            found.append(f"* {name}: {', '.join(missing)} of {one['runs']}: {'; '.join(one['messages'])}")
        done = outcomes.get("done", 0)
        if accuracy is not None and one["time_to_accuracy"] is not None and one["reached"] < done:
            found.append(
                f"{name}: the time to {100 * accuracy:g} % is the mean of the {one['reached']} seeds "
                f"that reached it, out of {done}"
            )
    return found


def figures(found: Mapping[str, Any]) -> list[str]:
    """Lines that sum up a cross-check (``crosscheck.summarize``)."""
    worst = found["worst_cell"]
    lines = [
        (
            f"{found['cells']} cells: throughput error {found['median_error']:.1%} (median), "
            f"{found['p90_error']:.1%} (90th percentile), {found['worst_error']:.1%} (worst: "
            f"{cell(worst[:1], *worst[1:])}); {found['within_5_percent']:.0%} of them within 5 %"
        ),
        f"worst error of a part of the step: {found['worst_part_error']:.1%} of the step"
        + (
            f"; {found['parts_within_5_percent']:.0%} within 5 %" if "parts_within_5_percent" in found else ""
        ),
    ]
    wrong = [cell(pair, *circumstances) for *circumstances, pair in found["rankings_wrong"]]
    tail = f"{len(wrong)} pairs the wrong way round: {'; '.join(wrong)}" if wrong else "all right"
    tau = f" (Kendall τ {found['kendall_tau']:.2f} over all)" if "kendall_tau" in found else ""
    lines.append(f"ranking of the algorithms in {found['rankings']} circumstances: {tail}{tau}")
    contended = found["contended"]
    if contended["cells"]:
        lines.append(f"mean error on the {contended['cells']} contended cells: {contended['ours']:.1%}")
        lines += [
            f"  of the simpler predictor {name.replace('_', ' ')!r}: {other['error']:.1%}"
            for name, other in contended.items()
            if isinstance(other, Mapping)
        ]
    if (known := found.get("hindsight", {})).get("cells"):
        lines.append(
            f"{known['cells']} cells with native steps: "
            f"{known['predicted_within_5_percent']:.0%} within 5 %; "
            f"with steps as long as the runs' own, known afterwards: {known['within_5_percent']:.0%} "
            f"(median {known['median_error']:.1%}, worst {known['worst_error']:.1%})"
        )
    return lines + [_steadiness(name, own) for name, own in found.get("steadiness", {}).items()]


def _steadiness(workload: str, own: Mapping[str, float]) -> str:
    """How long native steps of a worker that had the machine to itself took, from probe to probe."""
    least, usual, most = (f"{1e3 * own[name]:.3g}" for name in ("low", "median", "high"))
    told = (
        f"native steps alone ({workload}): {usual} ms, {least} to {most} in {own['probes']} probes, "
        f"scatter {own['scatter']:.0%}"
    )
    wild = f": such a machine holds no prediction of native steps to {UNSTEADY:.0%} in a few rounds"
    return told + (wild if own["scatter"] > UNSTEADY else "")


def cell(
    algorithms: Sequence[str], n: int, slow: float, links: str, compute: str, bandwidth: str = "",
    message: str = "", faults: str = "",
) -> str:  # fmt: skip
    """Algorithms and circumstances in words."""
    straggler = "" if slow == 1 else f", one worker {slow:g} times slower"
    rate = f"{bandwidth} " if bandwidth else ""
    more = "".join(f", {what}" for what in (message, faults) if what not in ("", "none"))
    names = " / ".join(map(label, algorithms))
    return f"{names}, n = {n}{straggler}, {rate}{links} links, {compute} steps{more}"


def constants(found: Mapping[str, Mapping[str, Any]], title: str = "") -> Table:
    """A profile's constants (``Profile.to_dict()["constants"]``) with units and 95 % intervals."""
    grid = sheet(title)
    grid.add_column("constant", no_wrap=True)
    for head in ("value", "95 % interval", "samples"):
        grid.add_column(head, justify="right")
    grid.add_column("note")
    for name, one in sorted(found.items()):
        unit = one["unit"]
        interval = f"{_quantity(one['low'], unit)} … {_quantity(one['high'], unit)}"
        grid.add_row(name, _quantity(one["value"], unit), interval, str(one["samples"]), one.get("note", ""))
    return grid


def _quantity(value: float, unit: str) -> str:
    """``value`` with its unit in the form that reads well."""
    if unit == "s":
        return duration(value)
    if unit == "bytes/s":
        return f"{size(value)}/s"
    return f"{value:.3g}" if unit == "1" else f"{value:.3g} {unit}"


def document(summaries: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """What ``--json`` prints: ``{"runs": [summary, ...], "flags": [...], ...}``, strict JSON."""
    from analysis.store import plain

    flags = list(dict.fromkeys(flag for summary in summaries for flag in summary["flags"]))
    found: dict[str, Any] = plain({"runs": list(summaries), "flags": flags, **more})
    return found


def notes(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the reader of a table must know: short runs, gradients left behind, flags."""
    found = []
    for summary in summaries:
        name = label(summary["algorithm"])
        shown = summary["window"]
        if shown["kind"] == "short warm-up":
            steps = f"{shown['warmup_steps']} step{'' if shown['warmup_steps'] == 1 else 's'}"
            found.append(
                f"{name}: a worker was still warming up when the first one finished; warm-up cut to {steps}"
            )
        if shown["kind"] == "whole run":
            found.append(f"{name}: too few steps for a steady window; rates are those of the whole run")
        stale = summary["staleness"]
        if stale is not None and stale["max"] != int(stale["max"]):
            found.append(f"{name}: gradients that travel summed up count with the mean of their staleness")
        if summary["pending"] > 0.05 * summary["steps"]:
            found.append(f"{name}: {summary['pending']} gradients were still held in accumulators at the end")
    if any(summary.get("data") == "synthetic" and "accuracy" in summary for summary in summaries):
        found.append(MADE_UP)
    flags = dict.fromkeys(flag for summary in summaries for flag in summary["flags"])
    return found + _evaluations(summaries) + [f"* {flag}" for flag in flags]


def _evaluations(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """How gradients were evaluated where ``run.batched: auto`` measured what is faster."""
    ways: dict[tuple[bool, int, int], list[float]] = {}
    for summary in summaries:
        way = summary.get("evaluation", {})
        if way.get("ratio"):
            ways.setdefault((way["batched"], way["chunk"], way["threads"]), []).append(way["ratio"])
    found = []
    for (batched, chunk, threads), ratios in ways.items():
        how = f"{chunk} at a time" if batched else "one by one"
        span = " to ".join(dict.fromkeys(f"{ratio:.2g}" for ratio in (min(ratios), max(ratios))))
        times = f"{span} times as fast as one by one" if batched else f"batched at {span} of that speed"
        crew = f"{threads} thread{'' if threads == 1 else 's'}"
        found.append(f"gradients evaluated {how}, with {crew} (measured: {times})")
    return found


def styled(text: str, style: str, after: str = "") -> Text:
    """A cell in a style, with a plain mark behind it: in our tables nothing is markup."""
    from rich.text import Text

    return Text.assemble((text, style), after)


def sheet(title: str) -> Table:
    """An empty table in the style that all have."""
    from rich import box
    from rich.table import Table

    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _number(value: float) -> str:
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _fixed(value: float, sign: str = "") -> str:
    """``value`` to one decimal; what rounds to nothing has no minus."""
    return f"{round(value, 1) + 0.0:{sign}.1f}"


def _parts(entry: Mapping[str, Any]) -> list[str]:
    """The percentages of a step's parts."""
    shares = [100 * entry["fraction"][part] for part in PART_HEADS]
    return ["–" if not share else _fixed(share) for share in shares]


def _staleness(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{_number(found['mean'])} / {_number(found['max'])}"


def _busiest(summary: Mapping[str, Any]) -> str:
    """Bytes of the busiest node, and which one it is: servers are counted from 0, as in timelines."""
    found = summary["busiest"]
    index = found["node"] - (summary["workers"] if found["role"] == "server" else 0)
    return f"{size(found['bytes'])} ({found['role']} {index})" if found["bytes"] else "–"


def busy_link(summary: Mapping[str, Any]) -> str:
    """The busiest link, and for how much of the run it was busy."""
    found = summary["link"]
    if found is None or "name" not in found or not found["use"]:
        return "–"
    way = f" {found['direction']}" if found["direction"] in ("up", "down") else ""
    return f"{found['name']}{way} ({100 * found['use']:.0f} %)"

"""``aladdin mixing``: how fast an algorithm's workers agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aladdin.cli import common

if TYPE_CHECKING:
    from aladdin.mixing import Mixing

WORKERS = 16
"""Workers where nobody says how many."""

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="OPTION=VALUE",
        help="An option of the algorithm, as in a scenario: [bold]pi=4[/], [bold]p=0.5[/]. May be repeated.",
    ),
]  # fmt: skip


def command(
    algorithm: Annotated[str, typer.Argument(metavar="ALGORITHM", help="One that mixes parameters.")],
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "-n", metavar="N", help="Number of workers. Default: 16, or as many as --matrix has."
        ),
    ] = None,
    graph: Annotated[
        str | None,
        typer.Option(
            "--graph",
            "-g",
            metavar="NAME|FILE",
            help="Graph of a decentralized algorithm, or a file with its edges: [[0, 1], [1, 2]].",
        ),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            "--matrix", metavar="FILE", help="D-PSGD: a matrix of your own, as rows (JSON, YAML or CSV)."
        ),
    ] = None,
    options: Set = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Draw graph and spectrum, into DIR.")
    ] = None,
    json: common.Json = False,
) -> None:
    """Print the properties of an algorithm's mixing matrix: is it doubly stochastic, and how fast does it
    bring the workers together?

    zeta is the second-largest eigenvalue magnitude, rho its square: over one period the distance of the
    workers from their mean shrinks by zeta, in the long run and at worst.

    Example:

        aladdin mixing dpsgd -n 16 --graph ring
        aladdin mixing aladdin -n 16 --set pi=4 --out pictures
    """
    from aladdin.mixing import DRAWN, describe
    from scenarios.errors import ScenarioError

    chosen = _options(graph, matrix, options or [])
    if workers is None:
        rows = chosen.get("matrix")
        workers = len(rows) if isinstance(rows, list) and rows else WORKERS
    if out is not None and workers > DRAWN:
        raise ScenarioError("--out", str(out), f"no picture of more than {DRAWN} workers")
    found = describe(algorithm, workers, chosen)
    picture = _draw(found, _given(graph, matrix, options or []), out) if out is not None else None
    summary = found.summary()
    if json:
        common.emit({**summary, **({"picture": str(picture)} if picture else {})})
        return
    _print(summary)
    if picture:
        print(picture)


def _options(graph: str | None, matrix: Path | None, given: list[str]) -> dict[str, Any]:
    """The algorithm's options, from all the places where they may be given."""
    from aladdin.mixing import read_rows
    from aladdin.mixing import value as read
    from scenarios.errors import ScenarioError

    options: dict[str, Any] = {}
    for entry in given:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ScenarioError("--set", entry, "OPTION=VALUE")
        options[name.removeprefix("algorithm.")] = read(text, name)
    if graph is not None:
        listed = graph.startswith("[")
        is_file = not listed and Path(graph).is_file()
        options["graph"] = read(graph, "graph") if listed else graph
        if is_file or Path(graph).suffix:  # no graph has a dot in its name: a file that is not there
            options["graph"] = read_rows(graph, "graph")
    if matrix is not None:
        options["matrix"] = read_rows(matrix, "matrix")
    return options


def _given(graph: str | None, matrix: Path | None, options: list[str]) -> str:
    """What was asked for, as a part of a file's name: pictures of different matrices lie side by side."""
    named = ([] if graph is None else [Path(graph).stem if graph[:1] != "[" else "edges"]) + (
        [] if matrix is None else [matrix.stem]
    )
    named += [entry.removeprefix("algorithm.").replace("=", "") for entry in options]
    return "".join(f"-{re.sub(r'[^0-9A-Za-z_.]+', '-', name).strip('-')}" for name in named)[:100]


def _draw(found: Mixing, given: str, out: Path) -> Path:
    from analysis import graphs, names
    from analysis.plots import save

    heading = f"{names.label(found.algorithm)}, {names.count(found.workers, 'worker')}"
    figure = graphs.draw(
        found.matrices, heading, found.what, layout=found.layout, centre=found.centre, unit=found.unit,
        squared=found.squared,
    )  # fmt: skip
    return save(figure, out / f"mixing-{found.algorithm}{given}-n{found.workers}.png")


def _print(summary: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from analysis import names

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, title_justify="left")
    table.title = f"{names.label(summary['algorithm'])}, {names.count(summary['workers'], 'worker')}"
    for row in _rows(summary):
        table.add_row(*row)
    common.console().print(table)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the table says, line by line."""
    unit, period, steps = summary["unit"], summary["period"], summary["steps_to_shrink"]
    where = "" if period == 1 else f" over a period of {period} {unit}s"
    kind = {"doubly": "yes", "no": "no"}.get(summary["stochastic"], f"no, {summary['stochastic']} only")
    rows = [
        ("matrix", summary["matrix"]),
        ("doubly stochastic", kind + (", symmetric" if summary["symmetric"] else "")),
        (f"ζ{where}", f"{summary['zeta']:.6g}" + (" (root mean square)" if summary["mean_square"] else "")),
        ("ρ = ζ²", f"{summary['rho']:.6g}"),
        ("spectral gap 1 − ζ", f"{summary['spectral_gap']:.6g}"),
    ]
    if period > 1:
        rows.append((f"ζ per {unit}, on average", f"{summary['rate']:.6g}"))
        of_each = summary["zeta_of_each"] or ()
        if len(set(of_each)) > 1 and period <= 12:
            each = ", ".join(f"{zeta:.4g}" for zeta in of_each)
            rows.append((f"ζ of each {unit} by itself", each))
    never = "never: the workers do not come together"
    text = never if steps == float("inf") else _count(int(steps), unit)
    return [*rows, (f"distance shrinks {summary['shrink']:g} times in", text)]


def _count(number: int, unit: str) -> str:
    """``1 step``, ``1,200 steps``."""
    return f"{number:,} {unit}" + ("" if number == 1 else "s")

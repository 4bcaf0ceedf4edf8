"""``aladdin paper``: the source papers' tables and figures, ours beside theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Jobs, Json

if TYPE_CHECKING:
    from aladdin.paper import Paper


def _some(context: typer.Context, value: str) -> str:
    """Refuse an ``--only`` that is given but empty: it would mean the default."""
    if common.given(context, "only") and not value.strip(" ,"):
        from aladdin.paper import EXPERIMENTS
        from scenarios.errors import ScenarioError

        valid = f"some of {', '.join(EXPERIMENTS)}, or all; left out: all that concern time"
        raise ScenarioError("--only", value, valid)
    return value


def command(
    only: Annotated[
        str,
        typer.Option(
            "--only", metavar="A,B|all", callback=_some,
            help="Some of them, such as [bold]table2,figure5[/]. Default: all that concern time.",
        ),
    ] = "",
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Runs of each case, on so many seeds.")
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Directory for the report and its pictures."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with the report that was begun in --out.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR",
            help="Folder with CIFAR-10: what trains models is trained on it, not on small images.",
        ),
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Regenerate the evaluation of the source papers on the simulator, each table and figure beside the
    published values.

    Prints what was claimed and whether it is reproduced; with --out writes everything as one report in
    Markdown, with pictures. Ctrl-C stops it, keeps all finished runs and writes the report of the
    experiments that are finished.

    Example: training times and the breakdown of ASP's time:

        aladdin paper --only table2,figure2 --out runs/paper
    """
    from aladdin.paper import paper

    try:
        with common.progress("runs") as bar:
            found = paper(
                only, out=out, resume=resume, data_dir=data_dir, seeds=seeds, jobs=jobs,
                on_progress=lambda done, total: bar("simulating", done, total),
            )  # fmt: skip
    except KeyboardInterrupt as stop:
        if (partial := getattr(stop, "paper", None)) is not None and (partial.sections or json):
            _print(partial, json)
        raise
    _print(found, json)


def _print(found: Paper, as_json: bool) -> None:
    if as_json:
        common.emit(found.to_dict())
        return
    from rich import box
    from rich.table import Table

    from analysis.paper.sections import shown

    console = common.console()
    for section in found.sections:
        console.print(section.title, style="bold")
        for one in section.tables:
            table = Table(box=box.SIMPLE, pad_edge=False, title_justify="left", title=one.title)
            for column in one.columns:
                table.add_column(str(column))
            for row in one.rows:
                table.add_row(*map(shown, row))
            console.print(table)
        for claim in section.claims:
            console.print(f"  {claim.status}: {claim.text} ({claim.evidence})")
        console.print()
    if found.missing:
        console.print(f"not finished: {', '.join(found.missing)}")
    if found.path is not None:
        common.written(found.path, found.pictures)

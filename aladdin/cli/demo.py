"""``aladdin demo``: everything once, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Json, Set


def command(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Directory to write; default runs/demo, or runs/demo-2, ..."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Length of each of the eight real runs.", min=1.0, max=3600.0)
    ] = 6.0,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Calibrate this machine, predict four algorithms, train them for real, compare.

    Under three minutes. Writes profile, predictions, records, pictures and traces to one directory.

    Example:

        aladdin demo --out runs/demo
    """
    common.check("demo", set_, out)
    from aladdin import api
    from aladdin.demo import circumstances, demo
    from analysis.crosscheck import pairs
    from analysis.names import label
    from scenarios.overrides import parse

    out = out or api.free(Path("runs/demo"))
    with common.kept_in(out), common.progress("parts") as advance:
        found = demo(out, overrides=dict(parse(set_ or [])), seconds=seconds,
                     on_progress=advance)  # fmt: skip
    check = found.check
    common.warn_of(
        [(f"{label(cell.algorithm)} with {circumstances(cell.slow)}", cell.flags) for cell in check.cells]
    )
    if json:
        common.emit({
            "cells": [cell.to_dict() for cell in check.cells], "figures": check.figures, "path": check.path,
            "runs": [summary for slow in found.slows for summary in found.summaries(slow)],
            "pictures": found.pictures, "traces": found.traces,
        })  # fmt: skip
        return
    from analysis import report

    console = common.console()
    for slow in found.slows:
        title = f"{circumstances(slow).capitalize()}: measured"
        console.print(report.table(found.summaries(slow), title))
        if any(summary["flags"] for summary in found.summaries(slow)):
            console.print("* see the warnings above")
    console.print(report.comparison(pairs(check.cells), "Throughput, predicted before the runs and measured"))
    for line in report.figures(check.figures):
        console.print(line)
    console.print(f"written to {check.path}:", soft_wrap=True)
    for path in [*found.pictures, *found.traces]:
        console.print(f"  {path.name}")
    console.print("open the traces in ui.perfetto.dev")

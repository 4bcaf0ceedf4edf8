"""``aladdin crosscheck``: predictions against real runs, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Json, ProfileFile, ScenarioName, Set


def command(
    scenario: ScenarioName = "demo",
    profile: ProfileFile = None,
    set_: Set = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Length of each real run.", min=1.0, max=3600.0)
    ] = 8.0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR",
            help="Directory for profiles, predictions, cells, figures and a picture; new or empty.",
        ),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Predict, then train for real, and print both side by side with the error.

    48 cells: four algorithms, 2 and 4 workers, all alike or one of them four times slower, links
    and steps paced or native. Without --profile this machine is calibrated first. Each
    prediction is written before the run it is for; beside ours stand those of simpler models. Cells
    with native steps are predicted and run three times, and their means compared.

    Example, about half an hour:

        aladdin crosscheck demo --out runs/crosscheck
    """
    common.check(scenario, set_, out, profile)
    from aladdin import validation
    from scenarios.overrides import parse

    design = validation.Design(seconds=seconds)
    with common.kept_in(out), common.progress("parts") as advance:
        found = validation.crosscheck(
            scenario,
            profile=profile,
            design=design,
            overrides=parse(set_ or []),
            out=out,
            on_progress=advance,
        )
    common.warn([flag for cell in found.cells for flag in cell.flags])
    if json:
        common.emit({
            "cells": [cell.to_dict() for cell in found.cells], "figures": found.figures, "path": found.path,
        })  # fmt: skip
        return
    from analysis import report

    console = common.console()
    console.print(report.comparison(validation.pairs(found.cells), "Throughput, predicted and measured"))
    for line in report.figures(found.figures):
        console.print(line, markup=False)
    if found.path:
        common.written(found.path)

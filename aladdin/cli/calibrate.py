"""``aladdin calibrate``: measure this machine's constants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Json, ScenarioName, Set


def command(
    scenario: ScenarioName = "demo",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Profile to write.")] = Path(
        "profile.json"
    ),
    set_: Set = None,
    json: Json = False,
) -> None:
    """Measure this machine: step times, tensor operations, links, all-reduce.

    Runs short probes (under a minute for small models) with the scenario's model, fits constants
    with 95 % intervals, and writes them as a profile for simulate --profile and crosscheck.

    Example: predict the demo with this machine's own constants:

        aladdin calibrate demo --out profile.json

        aladdin simulate demo --algorithm all --profile profile.json
    """
    from aladdin.calibration import calibrate
    from scenarios.overrides import parse

    with common.progress("probes") as advance:
        profile = calibrate(
            scenario, overrides=parse(set_ or []), out=out,
            on_progress=advance,
        )  # fmt: skip
    if json:
        common.emit(profile.to_dict())
        return
    from analysis import report

    console = common.console()
    console.print(report.constants(profile.to_dict()["constants"], "Constants of this machine"))
    console.print(f"written to {out}", soft_wrap=True, markup=False)

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
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", "-p", metavar="DIR", help="Draw probes and fits into this folder."),
    ] = None,
    budget: Annotated[
        float,
        typer.Option(
            "--budget", metavar="SECONDS", min=1.0, max=604_800.0,
            help="For all probes; one round of them always runs, if need be with the fewest repetitions.",
        ),
    ] = 60.0,
    set_: Set = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Measure this machine: step times, tensor operations, links, all-reduce.

    Runs short probes with the scenario's model, twice where there is time and more often where they
    disagree, fits constants with 95 % intervals, and writes them as a profile for simulate --profile
    and crosscheck. Says what it covers, how well the fits fit, and what is in doubt.

    Example: predict the demo with this machine's own constants, and see the probes:

        aladdin calibrate demo --out profile.json --pictures pictures

        aladdin simulate demo --algorithm all --profile profile.json
    """
    from aladdin.calibration import calibrate
    from aladdin.running import needed
    from scenarios.errors import ScenarioError
    from scenarios.overrides import parse

    if pictures is not None:
        needed("matplotlib")
        try:  # before minutes of probes
            pictures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScenarioError("--pictures", str(pictures), hint=f"cannot be written: {error}") from error
    with common.progress("probes") as advance:
        profile = calibrate(
            scenario, overrides=parse(set_ or []), out=out, budget=budget, on_progress=advance
        )
    drawn = []
    if pictures is not None:
        from analysis import probe_plots

        drawn = probe_plots.draw(profile, pictures)
    doubts = profile.notes.get("doubts", {})
    common.warn([f"{name} is in doubt: {why}" for name, why in doubts.items()])
    took = profile.notes["seconds"]
    if took > budget:
        why = "the fewest repetitions that can be fitted take longer here"
        if profile.notes["first_round"] <= budget:
            why = "probes were repeated while the machine's host kept the cores"
        common.warn([f"it took {took:g} s, more than the budget of {budget:g} s: {why}"])
    if json:
        common.emit(profile.to_dict())
        return
    from analysis import report, verdict

    console = common.console()
    console.print(report.constants(profile.to_dict()["constants"], "Constants of this machine"))
    for line in ("fits:", *(f"  {line}" for line in verdict.fits(profile.notes.get("fits", {})))):
        console.print(line)
    for line in ("covered:", *(f"  {line}" for line in profile.covers())):
        console.print(line)
    first = f"{profile.notes['first_round']:g} s of them the first round"
    console.print(f"written to {out}, in {took:g} s ({first})", soft_wrap=True)
    if pictures is not None:
        common.written(pictures, drawn)

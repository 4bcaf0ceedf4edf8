"""``aladdin plot``: pictures of run directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli import common


def command(
    runs: common.Runs,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the pictures.")] = Path(
        "plots"
    ),
    force: common.Force = False,
    json: common.Json = False,
) -> None:
    """Draw pictures of one or more runs.

    Where a step goes (always), a timeline (runs recorded with --spans), learning curves (trained
    runs), speed-up (runs with different numbers of workers), predicted against measured (a
    scenario simulated once and trained once). A folder that holds pictures already is refused, unless
    --force is given: then those of the same name are replaced.

    Example:

        aladdin simulate demo --algorithm all --spans --out runs/predicted
        aladdin plot runs/predicted --out pictures
    """
    from aladdin import api
    from scenarios.errors import ScenarioError

    if not force and any(out.glob("*.png")):
        hint = "holds pictures already, which are never overwritten; give another --out, or --force"
        raise ScenarioError("--out", str(out), hint=hint)
    with common.spinner("drawing"):
        files = api.plot(runs, out)
    if json:
        common.emit({"files": [str(file) for file in files]})
        return
    for file in files:
        print(file)

"""``aladdin trace``: run directories as a Chrome trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli import common


def command(
    runs: common.Runs,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write.")] = Path(
        "trace.json"
    ),
    force: common.Force = False,
    json: common.Json = False,
) -> None:
    """Export who did what when, to look at in a browser.

    Writes a trace that https://ui.perfetto.dev and chrome://tracing open: a process per node, its
    program and its uplink. Several runs stand side by side, simulated and real alike. The runs
    must have been recorded with --spans. A file that exists already is refused, unless --force is
    given.

    Example:

        aladdin simulate demo --spans --out runs/predicted
        aladdin trace runs/predicted --out demo.json
    """
    from aladdin import api
    from scenarios.errors import ScenarioError

    if not force and out.exists():
        hint = "exists already and is never overwritten; give another --out, or --force"
        raise ScenarioError("--out", str(out), hint=hint)
    with common.spinner("writing"):
        path = api.trace(runs, out)
    if json:
        common.emit({"file": str(path)})
        return
    common.console().print(f"{path}: open it in https://ui.perfetto.dev", soft_wrap=True)

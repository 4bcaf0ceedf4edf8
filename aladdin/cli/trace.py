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
    json: common.Json = False,
) -> None:
    """Export who did what when, to look at in a browser.

    Writes a trace that https://ui.perfetto.dev and chrome://tracing open: a process per node, its
    program and its uplink. Several runs stand side by side, simulated and real alike. The runs
    must have been recorded with --spans.

    Example:

        aladdin simulate demo --spans --out runs/predicted
        aladdin trace runs/predicted --out demo.json
    """
    from aladdin import api

    path = api.trace(runs, out)
    if json:
        common.emit({"file": str(path)})
        return
    common.console().print(f"{path}: open it in https://ui.perfetto.dev", soft_wrap=True, markup=False)

"""``aladdin verify``: hold the simulator against known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aladdin.cli import common


def command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.json", help="Cases with known answers, in the oracle's format.")
    ],
    json: common.Json = False,
) -> None:
    """Check the simulator against cases whose answers are known.

    Prints a row per case with its worst relative error. Exit code 1 if a case is out of its
    tolerance, 2 if the file is malformed, lacks what a run depends on, or holds no cases. All
    expected times, rates and counts are compared; min_ps_arrival_gap_s is not, which says how close
    to a tie the reference run came and is no result.

    Example:

        aladdin verify tests/data/oracle.json
    """
    from aladdin import api

    with common.progress("cases") as bar:
        rows = api.verify(file, on_progress=lambda done, total: bar("checking", done, total))
    failed = [row for row in rows if not row.ok]
    if json:
        common.emit({"cases": [_plain(row) for row in rows], "failed": len(failed)})
    else:
        _print(rows, len(failed))
    if failed:
        raise typer.Exit(1)


def _plain(row: Any) -> dict[str, Any]:
    return {
        "name": row.name, "kind": row.kind, "worst_relative_error": row.worst_relative_error,
        "tolerance": row.tolerance, "ok": row.ok, "what": row.what,
    }  # fmt: skip


def _print(rows: list[Any], failed: int) -> None:
    from rich import box
    from rich.table import Table

    from analysis.report import styled

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("case", "kind", "worst error", "tolerance", "", "where"):
        table.add_column(head, justify="right" if head in ("worst error", "tolerance") else "left")
    for row in rows:
        mark = styled("ok", "green") if row.ok else styled("FAILED", "bold red")
        error, tolerance = f"{row.worst_relative_error:.1e}", f"{row.tolerance:.0e}"
        table.add_row(str(row.name), str(row.kind), error, tolerance, mark, str(row.what))
    console = common.console()
    console.print(table)
    console.print(f"{len(rows) - failed} of {len(rows)} cases within their tolerance")

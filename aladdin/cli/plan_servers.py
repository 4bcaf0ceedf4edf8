"""``aladdin plan-servers``: how many parameter servers, where, and how the model is split over them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Jobs, Json, ProfileFile, ScenarioName, Set

if TYPE_CHECKING:
    from aladdin.planning import ServerPlan

UNWELL = 3
"""Exit code where runs failed that should not (a deadlock, a process that died)."""


def command(
    scenario: ScenarioName,
    counts: Annotated[
        str | None,
        typer.Option(
            "--counts", metavar="1,2,4", help="Numbers of servers. Default: 1, 2, 4, ... up to the workers."
        ),
    ] = None,
    placement: Annotated[
        str | None,
        typer.Option(
            "--placement",
            metavar="A,B",
            help="Out of dedicated, beside (the workers), and spread (beside them, "
            "over racks and sites). Default: the first two, and the third where there are racks or sites.",
        ),
    ] = None,
    sharding: Annotated[
        str, typer.Option("--sharding", metavar="A,B", help="memory (equal parts), layer, or both.")
    ] = "memory,layer",
    algorithm: Annotated[
        str | None,
        typer.Option("--algorithm", "-a", metavar="NAME", help="One with servers. Default: the scenario's."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="SHARE", help="Throughput that is not worth a further server."),
    ] = 0.02,
    set_: Set = None,
    profile: ProfileFile = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Directory for runs, servers.png, servers.json."),
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:
    """Find out how many parameter servers a scenario needs, where, and how to split the model.

    Simulates every number of servers, on machines of their own and beside the workers, with equal
    parts of the model and with whole layers; prints throughput, where a step goes and the busiest link,
    recommends the cheapest that is nearly as fast as the fastest, and says why. Ctrl-C stops it and
    keeps what is finished.

    Example: servers for ASP on the paper's VGG-16, with a picture:

        aladdin plan-servers paper/vgg16 --algorithm asp --out runs/servers
    """
    from aladdin.planning import plan_servers
    from scenarios.overrides import parse

    try:
        with common.progress("runs") as bar:
            found = plan_servers(
                scenario, counts=counts, placements=placement, shardings=sharding, algorithm=algorithm,
                tolerance=tolerance, overrides=parse(set_ or []), profile=profile, out=out, jobs=jobs,
                on_progress=lambda done, total: bar("simulating", done, total),
            )  # fmt: skip
    except KeyboardInterrupt as stop:
        partial: ServerPlan | None = getattr(stop, "plan", None)
        if partial is not None and partial.chosen is not None:
            _print(partial, json)
        raise
    _print(found, json)
    if found.chosen is None or any(one["outcome"] == "failed" for one in found.rows):
        raise typer.Exit(UNWELL)


def _print(found: ServerPlan, as_json: bool) -> None:
    """Table, recommendation and its reasons, or the JSON document."""
    from analysis import servers

    common.warn(found.notes)
    if as_json:
        common.emit(found.to_dict())
        return
    console = common.console()
    for table in servers.tables(found.rows, found.chosen, found.title, console.width):
        console.print(table)
    for text in dict.fromkeys(
        f"{one['servers']}, {one['placement']}, {one['sharding']}: {one['message']}"
        for one in found.rows if one["message"]
    ):  # fmt: skip
        console.print(text, style="dim")
    if found.recommended is not None:
        so_far = "" if found.complete else " (of what was finished)"
        console.print(f"recommended{so_far}: {servers.title(found.recommended)}", style="bold")
        for reason in found.reasons:
            console.print(f"  {reason}")
    if found.path is not None:
        common.written(found.path, found.pictures)

"""``aladdin compare``: algorithms side by side on one scenario, over several seeds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Jobs, Json, ProfileFile, ScenarioName, Set

if TYPE_CHECKING:
    from aladdin.comparison import Comparison

UNWELL = 3
"""Exit code where runs failed that should not (a deadlock, a process that died)."""


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


def command(
    scenario: ScenarioName,
    algorithms: Annotated[
        str, typer.Option("--algorithms", "--algorithm", "-a", metavar="A,B|all", help="What to compare.")
    ] = "all",
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", help="Runs of each algorithm, on so many seeds.")
    ] = 1,
    accuracy: Annotated[
        float | None,
        typer.Option("--accuracy", metavar="SHARE", help="Also say when it is reached, such as 0.95."),
    ] = None,
    numerics: Annotated[
        Switch | None,
        typer.Option(
            "--numerics", help="Train the real model in virtual time. Default: where --accuracy is given, "
            "or the scenario says so.",
        ),
    ] = None,
    set_: Set = None,
    profile: ProfileFile = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Directory for runs, pictures, comparison.json."),
    ] = None,
    jobs: Jobs = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Compare algorithms on one scenario: how fast, how soon accurate, how stale, how much traffic.

    Simulates each algorithm on each seed, several at once. Throughput, speed-up, staleness, bytes on
    the busiest node; with numerics also the time to an accuracy, the final accuracy and the consensus
    distance; each as the mean over the seeds with its 95 % interval. With --out also in pictures.
    Ctrl-C stops it and keeps what is finished.

    Example: all algorithms with one worker ten times slower:

        aladdin compare demo --seeds 5 --accuracy 0.95 --out runs/slow
        --set 'cluster.slowdowns=[{ranks: [0], factor: 10}]'
    """
    from aladdin.comparison import compare
    from scenarios.overrides import parse

    try:
        with common.progress("runs") as bar:
            found = compare(
                scenario, algorithms, seeds=seeds, accuracy=accuracy, profile=profile, out=out, jobs=jobs,
                numerics=None if numerics is None else numerics is Switch.on, overrides=parse(set_ or []),
                on_progress=lambda done, total: bar("simulating", done, total),
            )  # fmt: skip
    except KeyboardInterrupt as stop:
        if (partial := getattr(stop, "comparison", None)) is not None and partial.runs:
            _print(partial, json)
        raise
    _print(found, json)
    outcomes = {run["outcome"] for run in found.runs}
    if "failed" in outcomes or "done" not in outcomes:
        raise typer.Exit(UNWELL)


def _print(found: Comparison, as_json: bool) -> None:
    """Tables and what their reader must know, or the JSON document."""
    from analysis import report

    common.warn(found.flags)
    if as_json:
        common.emit(found.to_dict())
        return
    console = common.console()
    for table in report.algorithms(found.statistics, found.title, found.accuracy, console.width):
        console.print(table)
    for note in report.algorithm_notes(found.statistics, found.accuracy):
        console.print(note, style="dim")
    if found.path is not None:
        common.written(found.path, found.pictures)

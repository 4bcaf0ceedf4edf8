"""``aladdin simulate``: predict a scenario in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli.common import Algorithm, Json, Out, ProfileFile, ScenarioName, Set, Spans
from aladdin.saving import EVERY

CheckpointFile = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="FILE",
        help="With run.numerics: save the run there now and then and on Ctrl-C, resume from it if it exists.",
    ),
]  # fmt: skip

Every = Annotated[str, typer.Option("--every", metavar="TIME", help="Time between two checkpoints.")]


def command(
    scenario: ScenarioName,
    algorithm: Algorithm = "",
    set_: Set = None,
    profile: ProfileFile = None,
    out: Out = None,
    spans: Spans = False,
    json: Json = False,
    checkpoint: CheckpointFile = None,
    every: Every = EVERY,
) -> None:
    """Predict throughput and where the time goes, without running anything.

    Plays the scenario through on a model of its cluster: who computes, who sends, who waits for
    whom. Takes seconds on any machine, for any number of workers.

    With --set run.numerics=true it also trains the model, in virtual time: how soon is it accurate?
    Such runs can be long; --checkpoint saves them. Ctrl-C ends any run and keeps what it has recorded,
    marked as incomplete.

    Example: compare all algorithms on the paper's VGG-16, with twice the workers:

        aladdin simulate paper/vgg16 --algorithm all --set cluster.workers=16
    """
    from aladdin.cli.running import run

    options = {"profile": profile, "out": out, "checkpoint": checkpoint, "every": every}
    run("sim", scenario, algorithm, set_, spans=spans, as_json=json, **options)

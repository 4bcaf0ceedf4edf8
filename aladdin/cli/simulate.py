"""``aladdin simulate``: predict a scenario in virtual time."""

from __future__ import annotations

from aladdin.cli.common import Algorithm, Json, Out, ProfileFile, ScenarioName, Set, Spans


def command(
    scenario: ScenarioName,
    algorithm: Algorithm = "",
    set_: Set = None,
    profile: ProfileFile = None,
    out: Out = None,
    spans: Spans = False,
    json: Json = False,
) -> None:
    """Predict throughput and where the time goes, without running anything.

    Plays the scenario through on a model of its cluster: who computes, who sends, who waits for
    whom. Takes seconds on any machine, for any number of workers.

    Example: compare all algorithms on the paper's VGG-16, with twice the workers:

        aladdin simulate paper/vgg16 --algorithm all --set cluster.workers=16
    """
    from aladdin.cli.running import run

    run("sim", scenario, algorithm, set_, spans=spans, as_json=json, profile=profile, out=out)

"""``aladdin train``: run a scenario for real."""

from __future__ import annotations

from aladdin.cli.common import Algorithm, Json, Out, ScenarioName, Set, Spans


def command(
    scenario: ScenarioName,
    algorithm: Algorithm = "",
    set_: Set = None,
    out: Out = None,
    spans: Spans = False,
    json: Json = False,
) -> None:
    """Train for real on this machine, and measure throughput and where the time goes.

    Starts a process for every worker and server; they compute real gradients and exchange real
    messages. The run is written to runs/SCENARIO-ALGORITHM-TIME unless --out says otherwise.
    Ctrl-C stops it and keeps what is finished.

    Example: train the demo's model with ASP, with one worker more:

        aladdin train demo --algorithm asp --set cluster.workers=5
    """
    from aladdin.cli.running import run

    run("real", scenario, algorithm, set_, spans=spans, as_json=json, out=out, into=None if out else "runs")

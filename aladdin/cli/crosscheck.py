"""``aladdin crosscheck``: predictions against real runs, cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aladdin.cli import common
from aladdin.cli.common import Json, ProfileFile, ScenarioName, Set

if TYPE_CHECKING:
    from aladdin.designs import Design

DESIGNS = ("full", "basic", "gpu")
LINKS = ("auto", "shaped", "paced")


def command(
    scenario: ScenarioName = "demo",
    design: Annotated[
        str,
        typer.Option("--design", "-d", metavar="|".join(DESIGNS), help="Which cells; see below."),
    ] = "full",
    quick: Annotated[
        bool,
        typer.Option("--quick", metavar="", help="Some cells of the full design, in about five minutes."),
    ] = False,
    links: Annotated[
        str,
        typer.Option(
            "--links", metavar="|".join(LINKS),
            help="Links of the full design: shaped by the kernel (needs root), or paced on loopback. "
            "auto: shaped where possible.",
        ),
    ] = "auto",
    profile: ProfileFile = None,
    set_: Set = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", metavar="S", min=1.0, max=3600.0,
            help="Length of each real run; left out: by its prediction (full), 8 (basic).",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget", metavar="MINUTES", min=0.1, max=10_080.0,
            help="After which no further rounds begin; left out: 75, --quick: 5.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR",
            help="Directory for profiles, predictions, cells, figures and a picture; new or empty.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on with the check that was begun in --out.")
    ] = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Predict, then train for real, and print both side by side with the error.

    full: 60 cells, a balanced fraction of all algorithms, 2, 4 and 8 workers, 200 Mbit/s, 1 Gbit/s and
    mixed links, all workers alike or one of them two or ten times slower, messages of 4 and 20 MB, steps
    paced and native, and some faults. basic: 48 cells, four algorithms, links and steps paced or native.
    Without --profile this machine is calibrated first. Each prediction is written before the run it is
    for; beside ours stand those of simpler models. Cells are run again, where time allows, until their 95 %
    intervals are within 2.5 %. gpu: all algorithms on ResNet-50 and VGG-16, one to eight workers that share a
    device; what full stands for with run.device=cuda.

    Example; it says beforehand how long it will take, and --json prints the list of cells:

        aladdin crosscheck --out runs/crosscheck
    """
    import scenarios
    from scenarios.errors import ScenarioError
    from scenarios.overrides import parse

    if resume and out is None:
        raise ScenarioError("--resume", True, "--out DIR beside it: the check to go on with")
    common.check(scenario, set_, None if resume else out, profile)
    from aladdin import validation

    changes = parse(set_ or [])
    if design == "gpu":
        changes.setdefault("run.device", "cuda")
    device = scenarios.load(scenario, changes).run.device
    chosen = _design(design, quick, links, seconds, device)
    with common.kept_in(out), common.progress("parts") as advance:
        found = validation.crosscheck(
            scenario,
            profile=profile,
            design=chosen,
            overrides=changes,
            out=out,
            resume=resume,
            budget=60 * (budget or (5 if quick else 75)),
            on_progress=advance,
            on_plan=lambda text: common.say("plan", text),
            on_calibration=lambda text: common.say("calibration", text),
        )
    from analysis import report, verdict
    from analysis.crosscheck import pairs

    common.warn(found.left_out)
    named = [(report.cell([one.algorithm], *one.circumstances), one.flags) for one in found.cells]
    common.warn_of(named, most=1)
    if json:
        common.emit([cell.to_dict() for cell in found.cells])
        return
    console = common.console()
    console.print(report.comparison(pairs(found.cells), "Throughput, predicted and measured"))
    for line in report.figures(found.figures):
        console.print(line)
    for miss in found.misses:
        console.print(f"{report.cell(miss.cell[:1], *miss.cell[1:])}: {verdict.words(miss)}")
    if found.path:
        common.written(found.path)


def _design(name: str, quick: bool, links: str, seconds: float | None, device: str) -> Design:
    """The design that the options, and ``run.device``, ask for."""
    from dataclasses import replace

    from aladdin.designs.basic import Basic
    from aladdin.designs.fraction import Fraction
    from scenarios.errors import ScenarioError

    for option, value, known in (("--design", name, DESIGNS), ("--links", links, LINKS)):
        if value not in known:
            raise ScenarioError(option, value, " or ".join(known))
    if name == "basic":
        if quick or links != "auto":
            raise ScenarioError("--design", name, "full with --quick and --links")
        return Basic() if seconds is None else Basic(length=seconds)
    if name == "gpu" or device == "cuda":
        if device != "cuda":
            raise ScenarioError("run.device", device, "cuda with --design gpu")
        if quick or links != "auto":
            raise ScenarioError("--design", "gpu", "full, without run.device=cuda, with --quick and --links")
        own = Fraction("native", table="gpu.csv")
    else:
        own = Fraction(_links(links), quick)
    return own if seconds is None else replace(own, length=seconds)


def _links(wanted: str) -> str:
    """Shaped or paced, by what is wanted and what this machine can do; says which, and why."""
    from scenarios.errors import ScenarioError

    why = _unshaped()
    if wanted == "shaped" and why:
        raise ScenarioError("--links", wanted, f"paced or auto: {why}")
    if wanted == "auto":
        common.say("links", "shaped by the kernel" if not why else f"paced on loopback: {why}")
    return wanted if wanted != "auto" else "paced" if why else "shaped"


def _unshaped() -> str:
    """Why this machine cannot shape links; empty if it can."""
    from importlib.util import find_spec

    if find_spec("real.testbed") is None:
        return "this version has no shaped test-bed"
    from importlib import import_module

    return import_module("real.testbed").unavailable() or ""

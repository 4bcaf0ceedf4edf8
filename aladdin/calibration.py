"""Calibrate this machine, and hold predictions against it: probe -> fit -> predict -> run -> compare.

Rules this module obeys:

* Constants come from probes only, also where steps or links are paced. A probe runs at most as many
  workers as the cells that it is for, and never their algorithms.
* A prediction is on disk before the run that it is compared with starts.
* Nothing is fitted per cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aladdin import api
from aladdin.api import Source
from analysis import calibrate as fits
from analysis import crosscheck as checks
from analysis import store
from analysis.names import label
from core.record import Record
from scenarios import Scenario, ScenarioError
from scenarios.profile import Constant, Profile
from scenarios.workloads.layers import layer_sizes

__all__ = ["CrossCheck", "Design", "calibrate", "crosscheck"]

Progress = Callable[[str, int, int], None]
"""Called with what is going on now, how many parts are done and how many there are."""

Runner = Callable[[Scenario], Record]


def calibrate(
    scenario: Source,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    workers: Sequence[int] = (),
    run: Runner | None = None,
    on_progress: Progress | None = None,
) -> Profile:
    """Probe this machine with the workload and emulation that ``scenario`` asks for; fit a profile.

    out      file that the profile is written to (JSON); must not exist yet
    workers  numbers of workers at which steps and all-reduce are probed; default: 2 and the
             scenario's own
    run      what runs a probe's scenario; default: the real driver

    Takes well under a minute for small models. Raises ``CalibrationError`` where a probe says
    nothing, ``ScenarioError`` for bad input.
    """
    base = api.load(scenario, overrides=overrides)
    path = None if out is None else _new_file(Path(out))
    counts = sorted(set(workers) or {2, base.cluster.workers})
    probes = _probes(base, counts)
    run = run or _real
    constants: dict[str, Constant] = {}
    notes: dict[str, Any] = {}
    model = "constant"
    environment: Mapping[str, Any] = {}
    for done, probe in enumerate(probes):
        if on_progress:
            on_progress(f"probing {probe.what}", done, len(probes))
        record = run(probe.scenario)
        environment = record.manifest.get("environment", {})
        found, fit = probe.fit(record)
        constants |= found
        if fit is not None:
            notes[f"fit.{probe.what}"] = vars(fit) | {}
            if probe.native_steps:
                model = fit.model
    if on_progress:
        on_progress("done", len(probes), len(probes))
    message = 4.0 * sum(layer_sizes(base.workload))
    profile = Profile(
        constants=constants,
        hardware=api.hardware(),
        when=str(environment.get("when", "")),
        step_time_model=model,
        workload={name: getattr(base.workload, name) for name in ("model", "data", "batch")},
        ranges={"message_bytes": (message * 0.001, message), "workers": (1, max(counts))},
        notes=notes,
    )
    if path is not None:
        profile.write(path)
    return profile


@dataclass(frozen=True)
class _Probe:
    """A probe's scenario and the fit of its record."""

    what: str
    scenario: Scenario
    fit: Callable[[Record], tuple[dict[str, Constant], fits.StepFit | None]]
    native_steps: bool = False


def _probes(base: Scenario, counts: Sequence[int]) -> list[_Probe]:
    """All probes that predictions of ``base``, with native or paced steps and links, need."""
    top = max(counts)

    def probe(name: str, n: int, repeats: int, steps: int = 1, **changes: Any) -> Scenario:
        fields = {
            "name": f"probe/{name}", "algorithm.name": f"core.probes:{name}", "algorithm.options.repeats": repeats,
            "cluster.workers": n, "cluster.slowdowns": [], "cluster.servers.count": 1, "run.steps": steps,
            "run.evaluate": False, "run.spans": False, "cluster.network.collective": "native",
            "run.links": "native", "run.compute": "native",
        }  # fmt: skip
        return base.override(fields | {key.replace("__", "."): value for key, value in changes.items()})

    means: dict[int, Constant] = {}

    def steps(record: Record, n: int) -> tuple[dict[str, Constant], fits.StepFit]:
        fit, constants = fits.fit_steps(record, "step_time")
        means[n] = constants["step_time.mean"]
        return {} if n == 1 else {"device.slots": fits.fit_slots(means)}, fit

    def relay(record: Record) -> tuple[dict[str, Constant], fits.StepFit]:
        fit, constants = fits.fit_steps(record, "step_time")
        return constants, fit

    def pacing(record: Record) -> tuple[dict[str, Constant], None]:
        return {"pacing.overhead": fits.fit_pacing(record, base.cluster.compute.mean)}, None

    found = []
    for n in sorted({1, *counts}):
        one = probe("StepProbe", n, 2, steps=40)
        found.append(_Probe(f"native steps, {n} at once", one, lambda r, n=n: steps(r, n)))
    talking = probe("RelayProbe", 2, 2, steps=40)
    found.append(_Probe("native steps between messages", talking, relay, native_steps=True))
    slow = probe("StepProbe", top, 2, steps=40, run__compute="paced", cluster__compute__spread=0.0)
    found.append(_Probe(f"paced steps, {top} at once", slow, pacing))
    found.append(_Probe("tensor operations", probe("TensorProbe", 1, 30), lambda r: (fits.fit_tensors(r), None)))
    native = probe("LinkProbe", 2, 20)
    found.append(_Probe("native links", native, lambda r: (fits.fit_links(r, "link.native"), None)))
    nominal = min(base.cluster.machines[0].up, base.cluster.machines[0].down)
    paced = probe("LinkProbe", 2, 8, run__links="paced")
    found.append(_Probe("paced links", paced, lambda r: (fits.fit_links(r, "link.paced", nominal), None)))
    for n in counts:
        if n > 1:
            one = probe("AllReduceProbe", n, 20)
            found.append(_Probe(f"all-reduce, {n} at once", one, lambda r, n=n: (fits.fit_allreduce(r, n), None)))
    return found


def _real(scenario: Scenario) -> Record:
    from real import train

    return train(scenario)


def _new_file(path: Path) -> Path:
    if path.exists():
        raise ScenarioError("out", str(path), hint="exists already and is never overwritten; give another --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x"):
            pass
        path.unlink()
    except OSError as error:
        raise ScenarioError("out", str(path), hint=f"cannot be written: {error}") from error
    return path


@dataclass(frozen=True)
class Design:
    """The cells of a cross-check: every algorithm under every one of the circumstances.

    settings  (links, compute) pairs, each native or paced
    slow      factors of the last worker; 1 for a homogeneous cluster
    batch     samples per step where compute is native (0: the scenario's)
    """

    algorithms: Sequence[str] = ("bsp", "asp", "aladdin", "arsgd")
    workers: Sequence[int] = (2, 4)
    slow: Sequence[float] = (1.0, 4.0)
    settings: Sequence[tuple[str, str]] = (("paced", "paced"), ("native", "paced"), ("paced", "native"))
    seconds: float = 8.0

    def cells(self) -> list[dict[str, Any]]:
        """Circumstances of every cell, in the order in which they run."""
        return [
            {"algorithm": name, "n": n, "slow": slow, "links": links, "compute": compute}
            for links, compute in self.settings
            for n in self.workers
            for slow in self.slow
            for name in self.algorithms
        ]

    def scenario(self, base: Scenario, cell: Mapping[str, Any]) -> Scenario:
        """The scenario of one cell."""
        n, slow = cell["n"], cell["slow"]
        return base.override({
            "name": f"{base.name} n={n} slow={slow:g} links={cell['links']} compute={cell['compute']}",
            "algorithm.name": cell["algorithm"],
            "cluster.workers": n,
            "cluster.slowdowns": [] if slow == 1 else [{"kind": "fixed", "ranks": [n - 1], "factor": slow}],
            "cluster.network.collective": "messages" if cell["links"] == "paced" else "native",
            "run.links": cell["links"],
            "run.compute": cell["compute"],
            "run.seconds": self.seconds,
        })  # fmt: skip


@dataclass(frozen=True)
class CrossCheck:
    """What a cross-check found: its cells, its figures, both records of every cell, its directory."""

    cells: list[checks.Cell]
    figures: dict[str, Any]
    simulated: list[Record]
    measured: list[Record]
    path: Path | None = None


def crosscheck(
    scenario: Source,
    *,
    profile: Profile | str | Path | None = None,
    design: Design | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    keep_runs: bool = False,
    on_progress: Progress | None = None,
) -> CrossCheck:
    """Predict every cell of ``design``, then run each for real, and compare.

    profile    calibrated constants (or their file); without one this machine is calibrated first
    out        directory for profile.json, predictions.json (written before the first run),
               cells.json, cells.csv, figures.json and a picture; with ``keep_runs`` every run's record
    """
    base, design = api.load(scenario, overrides=overrides), design or Design()
    folder = None if out is None else store.reserve(Path(out))
    if profile is None:
        profile = calibrate(base, workers=design.workers, on_progress=on_progress)
    elif not isinstance(profile, Profile):
        profile = Profile.read(profile)
    circumstances = design.cells()
    chosen = [design.scenario(base, cell) for cell in circumstances]
    simulated, predictions = zip(*(foretell(one, profile) for one in chosen), strict=True)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        profile.write(folder / "profile.json")
        said = [cell | vars(p) for cell, p in zip(circumstances, predictions, strict=True)]
        _write_json(folder / "predictions.json", said)
    cells: list[checks.Cell] = []
    measured: list[Record] = []
    for done, (one, cell, prediction) in enumerate(zip(chosen, circumstances, predictions, strict=True)):
        if on_progress:
            on_progress("cross-check", done, len(chosen))
        measured.append(_real(one))
        cells.append(checks.compare(prediction, measured[-1], **cell))
        if folder is not None:
            _write_json(folder / "cells.json", [c.to_dict() for c in cells])
            if keep_runs:
                store.write(measured[-1], folder / "runs" / f"{_slug(one.name)}-{one.algorithm.name}-real")
                store.write(simulated[done], folder / "runs" / f"{_slug(one.name)}-{one.algorithm.name}-sim")
    if on_progress:
        on_progress("cross-check", len(chosen), len(chosen))
    figures = checks.summarize(cells)
    if folder is not None:
        (folder / "cells.csv").write_text(checks.to_csv(cells), encoding="utf-8")
        _write_json(folder / "figures.json", figures)
        draw(cells, folder / "predicted_vs_measured.png")
    return CrossCheck(cells, figures, list(simulated), measured, folder)


def foretell(scenario: Scenario, profile: Profile) -> tuple[Record, checks.Prediction]:
    """Our simulation of one scenario on the machine of ``profile``, and what it and simpler models predict."""
    from sim import simulate

    calibrated = profile.apply(scenario)
    admission = calibrated.cluster.network.admission
    other = calibrated.override({"cluster.network.admission": "fair" if admission != "fair" else "fifo"})
    simpler = {"no_queueing": simulate(_without_queues(calibrated)), "wrong_admission": simulate(other)}
    record = simulate(calibrated)
    return record, checks.predict(record, simpler, profile.warnings(scenario, api.hardware()))


def _without_queues(scenario: Scenario) -> Scenario:
    """The same cluster with servers as wide as all workers' links together: nobody ever queues."""
    widest = max(machine.up for machine in scenario.cluster.machines)
    return scenario.override({
        "cluster.network.admission": "fair",
        "cluster.servers.bandwidth": widest * scenario.cluster.workers,
    })  # fmt: skip


def draw(cells: Sequence[checks.Cell], path: Path) -> None:
    """The picture of predicted against measured throughput."""
    from analysis import plots

    plots.save(plots.predicted_measured(pairs(cells)), path)


def pairs(cells: Sequence[checks.Cell]) -> list[dict[str, Any]]:
    """Cells as tables and pictures take them."""
    return [
        {
            "label": f"{label(c.algorithm)} n={c.n}{f' ×{c.slow:g}' if c.slow != 1 else ''} {c.links}/{c.compute}",
            "algorithm": c.algorithm, "predicted": c.predicted, "measured": c.measured, "low": c.low, "high": c.high,
        }
        for c in cells
    ]  # fmt: skip


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(store.plain(tree), indent=1) + "\n", encoding="utf-8")


def _slug(name: str) -> str:
    return "".join(ch if ch.isalnum() or ch in "=.-" else "_" for ch in name)

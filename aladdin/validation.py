"""Hold predictions against this machine: predict -> run -> compare, cell by cell.

Rules this module obeys:

* A prediction is on disk before the run that it is compared with starts.
* All its constants come from probes, before the run. Nothing is fitted to a cell; without a given
  profile the constants of native steps and links are probed again before each run that has them, and
  stand beside the prediction that they made.
* Where the machine itself is the noise, one run says little: cells with native steps or links have
  several rounds of probes, prediction and run, spread over the whole check; their means are compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aladdin import api
from aladdin.api import Source
from aladdin.calibration import Progress, calibrate, needed, refresh, run_for_real
from analysis import crosscheck as checks
from analysis import store
from analysis.names import label
from core.record import Record
from scenarios import Scenario
from scenarios.profile import Profile

__all__ = ["CrossCheck", "Design", "crosscheck", "foretell", "pairs"]


@dataclass(frozen=True)
class Design:
    """The cells of a cross-check: every algorithm under every one of the circumstances.

    settings  (links, compute) pairs, each native or paced
    slow      factors of the last worker; 1 for a homogeneous cluster
    batches   samples per step, by compute; the scenario's own where not given. Native steps get large
              batches, so that they take about as long as paced ones do
    seconds   length of each run
    rounds    how often a cell is predicted and run, by its (links, compute); 1 where not given
    """

    algorithms: Sequence[str] = ("bsp", "asp", "aladdin", "arsgd")
    workers: Sequence[int] = (2, 4)
    slow: Sequence[float] = (1.0, 4.0)
    settings: Sequence[tuple[str, str]] = (("paced", "paced"), ("native", "paced"), ("paced", "native"))
    batches: Mapping[str, int] = field(default_factory=lambda: {"native": 512})
    seconds: float = 8.0
    rounds: Mapping[tuple[str, str], int] = field(
        default_factory=lambda: {("native", "paced"): 2, ("paced", "native"): 3}
    )

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
            **self.workload(cell["compute"]),
        })  # fmt: skip

    def schedule(self) -> list[tuple[int, int]]:
        """(round, cell) of every run in order: a round of all cells, then the next of those that have one."""
        rounds = [self.rounds.get((cell["links"], cell["compute"]), 1) for cell in self.cells()]
        return [(r, i) for r in range(max(rounds)) for i, count in enumerate(rounds) if r < count]

    def workload(self, compute: str) -> dict[str, Any]:
        """Fields that cells with that ``compute`` change in the workload."""
        return {"workload.batch": self.batches[compute]} if compute in self.batches else {}


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

    profile    calibrated constants (or their file) for all cells; without one this machine is
               calibrated first, once for each workload of the design, and what a cell has native is
               probed again before each run of it, for a shared machine's speed drifts
    out        directory for the profiles, predictions.json (written before the first run),
               rounds.json, cells.json (means over rounds), cells.csv, figures.json and a picture; with
               ``keep_runs`` every run's record
    """
    base, design = api.load(scenario, overrides=overrides), design or Design()
    if out is not None:
        needed("matplotlib")
    folder = None if out is None else store.reserve(Path(out))
    circumstances = design.cells()
    chosen = [design.scenario(base, cell) for cell in circumstances]
    profiles = _profiles(base, design, profile, on_progress)
    told = [foretell(one, profiles[cell["compute"]]) for one, cell in zip(chosen, circumstances, strict=True)]
    simulated, predictions = [record for record, _ in told], [prediction for _, prediction in told]
    said = {
        (i, 0): {**cell, **vars(one)}
        for i, (cell, one) in enumerate(zip(circumstances, predictions, strict=True))
    }
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for compute, measured_constants in profiles.items():
            measured_constants.write(folder / f"profile-{compute}.json")
    _write_predictions(folder, said)
    rounds: dict[int, list[checks.Cell]] = {}
    measured: dict[int, Record] = {}
    schedule = design.schedule()
    for done, (turn, i) in enumerate(schedule):
        scene, cell = chosen[i], circumstances[i]
        if on_progress:
            on_progress("cross-check", done, len(schedule))
        if profile is None and "native" in (cell["links"], cell["compute"]):
            known = profiles[cell["compute"]]
            fresh = refresh(known, scene.override({"cluster.slowdowns": []}), run_for_real)
            simulated[i], predictions[i] = foretell(scene, fresh)
            probed = {name: asdict(constant) for name, constant in fresh.since(known).items()}
            said[i, turn] = {**cell, **vars(predictions[i]), "round": turn, "probed": probed}
            _write_predictions(folder, said)
        measured[i] = _measured(scene)
        rounds.setdefault(i, []).append(checks.compare(predictions[i], measured[i], **cell))
        if folder is not None:
            kept = [rounds[j] for j in sorted(rounds)]
            _write_json(folder / "rounds.json", [one.to_dict() for several in kept for one in several])
            _write_json(folder / "cells.json", [checks.combine(several).to_dict() for several in kept])
            if keep_runs:
                name = (
                    folder
                    / "runs"
                    / f"{api.slug(scene.name)}-{scene.algorithm.name}{f'-{turn}' if turn else ''}"
                )
                store.write(measured[i], Path(f"{name}-real"))
                store.write(simulated[i], Path(f"{name}-sim"))
    if on_progress:
        on_progress("cross-check", len(schedule), len(schedule))
    cells = [checks.combine(rounds[i]) for i in range(len(chosen))]
    figures = checks.summarize(cells)
    if folder is not None:
        (folder / "cells.csv").write_text(checks.to_csv(cells), encoding="utf-8")
        _write_json(folder / "figures.json", figures)
        draw(cells, folder / "predicted_vs_measured.png")
    return CrossCheck(cells, figures, simulated, [measured[i] for i in range(len(chosen))], folder)


def _measured(scenario: Scenario) -> Record:
    """The real run of a cell; once more where a process was lost, for then it is another cell."""
    record = run_for_real(scenario)
    if not record.manifest.get("lost"):
        return record
    again = run_for_real(scenario)
    again.manifest["flags"] = [
        "measured again, after a run that lost a process",
        *again.manifest.get("flags", []),
    ]
    return again


def _write_predictions(folder: Path | None, said: Mapping[tuple[int, int], Mapping[str, Any]]) -> None:
    if folder is not None:
        _write_json(folder / "predictions.json", [said[key] for key in sorted(said)])


def _profiles(
    base: Scenario, design: Design, given: Profile | str | Path | None, on_progress: Progress | None
) -> dict[str, Profile]:
    """The profile for the cells of each ``compute``; cells with the same workload share one."""
    kinds = list(dict.fromkeys(compute for _, compute in design.settings))
    if given is not None:
        return dict.fromkeys(kinds, given if isinstance(given, Profile) else Profile.read(given))
    found: dict[str, Profile] = {}
    for kind in kinds:
        changes = design.workload(kind)
        same = [found[other] for other in found if design.workload(other) == changes]
        found[kind] = (
            same[0]
            if same
            else calibrate(base.override(changes), workers=design.workers, on_progress=on_progress)
        )
    return found


def foretell(scenario: Scenario, profile: Profile) -> tuple[Record, checks.Prediction]:
    """Our simulation of a scenario on the machine of ``profile``; what it and simpler models predict."""
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
            "label": f"{label(c.algorithm)} n={c.n}{_slowed(c.slow)} {c.links}/{c.compute}",
            "algorithm": c.algorithm,
            **{name: getattr(c, name) for name in ("predicted", "measured", "low", "high")},
        }
        for c in cells
    ]  # fmt: skip


def _slowed(factor: float) -> str:
    return "" if factor == 1 else f" ×{factor:g}"


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(store.plain(tree), indent=1) + "\n", encoding="utf-8")

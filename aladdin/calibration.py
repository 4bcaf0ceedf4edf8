"""Calibrate this machine: run probes, fit constants, write them as a profile.

Rules this module obeys:

* Constants come from probes only (``core.probes``), also where steps or links are paced. A probe never
  runs an algorithm that its constants are to predict.
* Every probe runs once, in a fixed order; a later fit may use the constants of earlier ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aladdin import api
from aladdin.api import Source
from analysis import calibrate as fits
from core.record import Record
from scenarios import Scenario, ScenarioError
from scenarios.profile import Constant, Profile
from scenarios.workloads.layers import layer_sizes

__all__ = ["Progress", "Runner", "calibrate", "needed", "refresh", "run_for_real"]

Progress = Callable[[str, int, int], None]
"""Called with the stage, how many of its parts are done and how many there are."""

Runner = Callable[[Scenario], Record]

_OF_STEPS = ("step_time.", "device.", "host.")
"""Constants that say how long native steps take: alone, beside others, beside messages."""


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
    counts = sorted({*(workers or (base.cluster.workers,)), 2} - {1})
    run = run or run_for_real
    message = 4.0 * sum(layer_sizes(base.workload))
    profile = Profile(
        constants={},
        hardware=api.hardware(),
        workload={name: getattr(base.workload, name) for name in ("model", "data", "batch")},
        ranges={"message_bytes": (message / 8, message), "workers": (1, max(counts))},
    )
    probes = list(_probes(base, counts))
    for done, probe in enumerate(probes):
        if on_progress:
            on_progress("probing", done, len(probes))
        record = run(probe.scenario)
        profile = replace(profile, when=str(record.manifest.get("environment", {}).get("when", "")))
        profile = probe.learn(record, profile)
    if on_progress:
        on_progress("probing", len(probes), len(probes))
    if path is not None:
        profile.write(path)
    return profile


def needed(*packages: str) -> None:
    """Raise ``ScenarioError``, before any work, where a package of the extras is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ScenarioError(
            f"this needs {' and '.join(missing)}; install what is missing with: pip install 'aladdin[all]'"
        )


def refresh(profile: Profile, scenario: Source, run: Runner | None = None) -> Profile:
    """``profile`` with the constants of what ``scenario`` has native, steps or links, measured anew.

    A machine that others use too changes its speed within minutes; a few short probes follow it.
    """
    base, run = api.load(scenario), run or run_for_real
    kind, native = base.run.links, base.run.compute == "native"
    nominal = min(base.cluster.machines[0].up, base.cluster.machines[0].down) if kind == "paced" else 0.0
    if native:
        kept = {name: c for name, c in profile.constants.items() if not name.startswith(_OF_STEPS)}
        profile = replace(profile, constants=kept)
        for probe in _step_probes(base, [max(2, base.cluster.workers)]):
            profile = probe.learn(run(probe.scenario), profile)
    sent = run(_scenario(base, "LinkProbe", 2, {"native": 20, "paced": 8}[kind], run__links=kind))
    profile = _add(profile, fits.fit_links(sent, f"link.{kind}", nominal))
    if native:
        probe = _beside(base, kind)
        profile = probe.learn(run(probe.scenario), profile)
    return profile


@dataclass(frozen=True)
class _Probe:
    """A probe's scenario, and what a profile learns from its record."""

    what: str
    scenario: Scenario
    learn: Callable[[Record, Profile], Profile]


def _add(profile: Profile, constants: Mapping[str, Constant], **changes: Any) -> Profile:
    return replace(profile, constants={**profile.constants, **constants}, **changes)


def _scenario(base: Scenario, name: str, n: int, repeats: int, **changes: Any) -> Scenario:
    """The scenario of probe ``name`` among ``n`` workers; ``changes``: field paths with ``__`` for dots."""
    fields = {
        "name": f"probe/{name}", "algorithm.name": f"core.probes:{name}",
        "algorithm.options.repeats": repeats,
        "cluster.workers": n, "cluster.slowdowns": [], "cluster.servers.count": 1, "run.steps": 1,
        "run.evaluate": False, "run.spans": False, "cluster.network.collective": "native",
        "run.links": "native", "run.compute": "native",
    }  # fmt: skip
    return base.override(fields | {key.replace("__", "."): value for key, value in changes.items()})


def _step_probes(base: Scenario, counts: Sequence[int]) -> Iterator[_Probe]:
    """Probes of native steps: alone, with others, and of a worker that is blocked in between."""
    probe = partial(_scenario, base)

    def steps(record: Record, profile: Profile) -> Profile:
        fit, constants = fits.fit_steps(record, "step_time")
        return _add(
            profile,
            constants,
            step_time_model=fit.model,
            notes={**profile.notes, "step_time.fit": asdict(fit)},
        )

    def cold(record: Record, profile: Profile) -> Profile:
        _, relayed = fits.fit_steps(record, "relayed")
        alone = profile.constants["step_time.mean"]
        return _add(profile, {"step_time.cold": fits.fit_cold(alone, relayed["relayed.mean"])})

    def slots(n: int) -> Callable[[Record, Profile], Profile]:
        def learn(record: Record, profile: Profile) -> Profile:
            _, full = fits.fit_steps(record, "full")
            cores = record.manifest.get("environment", {}).get("cores", float("inf"))
            alone = profile.constants["step_time.mean"]
            found = fits.fit_slots(alone, full["full.mean"], n, cores)
            best = profile.constants.get("device.slots", found)
            return _add(profile, {"device.slots": max(best, found, key=lambda constant: constant.value)})

        return learn

    yield _Probe("steps of one worker", probe("StepProbe", 1, 2, run__steps=40), steps)
    for n in counts:
        yield _Probe(f"{n} workers' steps at once", probe("StepProbe", n, 2, run__steps=40), slots(n))
    yield _Probe("steps between messages", probe("RelayProbe", 2, 2, run__steps=25, run__links="paced"), cold)


def _beside(base: Scenario, kind: str) -> _Probe:
    """Probe of steps while messages over native or paced links come and go."""
    scenario = _scenario(base, "BesideProbe", 2, 2, run__steps=40, run__links=kind)

    def learn(record: Record, profile: Profile) -> Profile:
        from sim import simulate

        calibrated = profile.apply(scenario)
        if not calibrated.cluster.host.cores:
            return profile

        def simulated(cost: float) -> Record:
            return simulate(calibrated.override({"cluster.host.byte_cost": cost}))

        return _add(profile, {f"host.{kind}.beside": fits.fit_beside(record, simulated)})

    return _Probe(f"steps beside messages over {kind} links", scenario, learn)


def _probes(base: Scenario, counts: Sequence[int]) -> Iterator[_Probe]:
    """All probes that predictions of ``base``, with native or paced steps and links, need."""
    top = max(counts)
    nominal = min(base.cluster.machines[0].up, base.cluster.machines[0].down)
    probe = partial(_scenario, base)

    def pacing(record: Record, profile: Profile) -> Profile:
        return _add(profile, {"pacing.overhead": fits.fit_pacing(record, base.cluster.compute.mean)})

    def tensors(record: Record, profile: Profile) -> Profile:
        return _add(profile, fits.fit_tensors(record))

    def links(kind: str) -> Callable[[Record, Profile], Profile]:
        rate = nominal if kind == "paced" else 0.0
        return lambda record, profile: _add(profile, fits.fit_links(record, f"link.{kind}", rate))

    def native(n: int) -> Callable[[Record, Profile], Profile]:
        return lambda record, profile: _add(profile, fits.fit_allreduce(record, n))

    def lag(n: int, kind: str, scenario: Scenario) -> Callable[[Record, Profile], Profile]:
        def learn(record: Record, profile: Profile) -> Profile:
            from sim import simulate

            without = {key: value for key, value in profile.constants.items() if not key.startswith("ring.")}
            expected = simulate(replace(profile, constants=without).apply(scenario))
            return _add(profile, {f"ring.{kind}.lag.{n}": fits.fit_ring_lag(record, expected, n)})

        return learn

    yield from _step_probes(base, counts)
    paced = {"run__steps": 40, "run__compute": "paced", "cluster__compute__spread": 0.0}
    yield _Probe(f"{top} workers' paced steps", probe("StepProbe", top, 2, **paced), pacing)
    yield _Probe("tensor operations", probe("TensorProbe", 1, 30), tensors)
    yield _Probe("native links", probe("LinkProbe", 2, 20), links("native"))
    yield _Probe("paced links", probe("LinkProbe", 2, 8, run__links="paced"), links("paced"))
    for n in counts:
        yield _Probe(f"native all-reduce among {n}", probe("AllReduceProbe", n, 20), native(n))
        ring = probe("AllReduceProbe", n, 8, run__links="paced", cluster__network__collective="messages")
        yield _Probe(f"all-reduce by messages among {n}", ring, lag(n, "paced", ring))
    yield _beside(base, "native")
    yield _beside(base, "paced")


def run_for_real(scenario: Scenario) -> Record:
    """The real driver, imported when it is needed."""
    from real import train

    return train(scenario)


def _new_file(path: Path) -> Path:
    if path.exists():
        raise ScenarioError(
            "out", str(path), hint="exists already and is never overwritten; give another --out"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x"):
            pass
        path.unlink()
    except OSError as error:
        raise ScenarioError("out", str(path), hint=f"cannot be written: {error}") from error
    return path

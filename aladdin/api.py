"""The verbs of the command line as Python functions: scenario in, ``Result`` (and run directory) out.

Rules this module obeys:

* It composes the other packages and computes nothing itself. Drivers, pyarrow and matplotlib are
  imported when a function needs them.
* Whatever can be known to fail is checked before a run starts: the scenario, the profile, the
  output folder.
* Whatever must be known about a result stands in its manifest's ``flags``.

A scenario is given as a ``Scenario``, the name of a bundled one (``paper/vgg16``) or the path of a
YAML file. Bad input raises ``ScenarioError``, a simulation that cannot go on ``Deadlock``, a real
run that cannot ``TransportError``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import scenarios
from aladdin.saving import EVERY, stopping, taking
from core.record import Record
from scenarios import Scenario, ScenarioError, files
from scenarios.hardware import environment, hardware
from scenarios.overrides import given

__all__ = [
    "Result", "algorithms", "choices", "execute", "free", "hardware", "list_algorithms", "list_scenarios",
    "list_workloads", "load", "plot", "refusals", "runs", "simulate", "trace", "train", "verify",
]  # fmt: skip

Progress = Callable[[int, int], None]
"""Called now and then with the worker steps done and the worker steps in all (0 if unknown)."""

Source = Scenario | str | Path

DRIVERS = ("sim", "real")

MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"data": "digits"},
    "cnn": {"data": "digits"},
    "resnet50": {"data": "synthetic", "image_size": 224, "classes": 1000},
    "vgg16": {"data": "synthetic", "image_size": 224, "classes": 1000},
}
"""The models, each at the size that its parameters are usually counted at."""


@dataclass(frozen=True)
class Result:
    """One run: its ``record``, and the run directory ``path`` if one was written."""

    record: Record = field(repr=False)
    path: Path | None = None

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Figures of merit: throughput, speed-up, breakdown, ... (``analysis.metrics.summary``)."""
        from analysis.metrics import summary

        return summary(self.record)

    @property
    def flags(self) -> list[str]:
        """Warnings that belong to the result, such as a profile from another machine."""
        return list(self.record.manifest.get("flags", []))


def load(
    scenario: Source, *, algorithm: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Scenario:
    """The scenario with another algorithm and other fields: ``overrides={"cluster.workers": 16}``.

    Another ``algorithm`` keeps those of the scenario's options that it has too (``_shared_options``).
    """
    if algorithm is None or algorithm == "":
        return scenarios.load(scenario, overrides)
    if not isinstance(algorithm, str):
        raise ScenarioError("algorithm", algorithm, "an algorithm's name")
    chosen = {"algorithm.name": algorithm, **_shared_options(scenario, algorithm)}
    return scenarios.load(scenario, {**chosen, **given(overrides)})


def _shared_options(scenario: Source, algorithm: str) -> dict[str, Any]:
    """Options of the scenario's own algorithm, as overrides, that ``algorithm`` has as well.

    An option is the same one where its name and its default agree: ``pi`` of ALADDIN and its
    ablations is, ``graph`` of D-PSGD (a ring) and of AD-PSGD (a bipartite one) is not.
    """
    try:
        own = scenarios.load(scenario).algorithm
    except ScenarioError:
        return {}
    theirs, mine = _option_defaults(own.name), _option_defaults(algorithm)
    return {
        f"algorithm.options.{name}": value
        for name, value in own.options.items()
        if own.name != algorithm and name in theirs and name in mine and theirs[name] == mine[name]
    }


def simulate(
    scenario: Source,
    *,
    algorithm: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    profile: Any = None,
    out: str | Path | None = None,
    checkpoint: str | Path | None = None,
    every: str | float = EVERY,
    on_progress: Progress | None = None,
    on_clock: Callable[[float, int], None] | None = None,
    on_resume: Callable[[str], None] | None = None,
) -> Result:
    """Run ``scenario`` in virtual time: what it would do on its cluster, in a moment on this machine.

    profile      a ``Profile`` or the path of one: the machine's calibrated constants
    out          run directory to write; must not exist yet
    checkpoint   with ``run.numerics``: file in which the run is saved ``every`` so long (seconds, or text
                 such as "5 min") and on Ctrl-C; if it exists the run goes on from there. Removed at the end
    on_progress  see ``Progress``; on_clock: called likewise with the simulated seconds and the steps begun
    on_resume    called with how far the run had come, in words, where it goes on from a checkpoint

    Raises ``core.errors.Diverged`` when a loss is no finite number, and ``sim.Interrupted`` (a
    ``KeyboardInterrupt``) on Ctrl-C; what was recorded by then is its ``record``, says that it is
    incomplete, and is written to ``out``, too. (With a checkpoint, Ctrl-C saves that instead.)
    """
    chosen = load(scenario, algorithm=algorithm, overrides=overrides)
    with taking(checkpoint, every, on_resume) as checkpoints, stopping() as stop:
        options = {"checkpoints": checkpoints, "on_clock": on_clock, "timer": time.perf_counter,
                   "stop": stop}  # fmt: skip
        return execute("sim", chosen, profile, out, on_progress, options=options)


def train(
    scenario: Source,
    *,
    algorithm: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    into: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Result:
    """Run ``scenario`` for real: worker and server processes, real gradients, real messages.

    ``out`` is the run directory; ``into`` is a folder in which one named after scenario, algorithm
    and time is made. Stopped by Ctrl-C it writes what is finished (if either is given) and raises
    ``real.errors.Interrupted``, whose ``record`` holds it and whose ``path`` says where; a loss that is
    no finite number ends it likewise, with ``core.errors.Diverged``.
    """
    chosen = load(scenario, algorithm=algorithm, overrides=overrides)
    return execute("real", chosen, None, out, on_progress, into)


def runs(
    scenario: Source,
    names: Sequence[str] | str = (),
    *,
    driver: str = "sim",
    overrides: Mapping[str, Any] | None = None,
    profile: Any = None,
    out: str | Path | None = None,
    into: str | Path | None = None,
    checkpoint: str | Path | None = None,
    every: str | float = EVERY,
    on_progress: Callable[[str, int, int], None] | None = None,
    on_clock: Callable[[str, float, int], None] | None = None,
    on_resume: Callable[[str], None] | None = None,
) -> Iterator[Result]:
    """The same scenario under several algorithms, one after the other, each as it is finished.

    names        a list, a text such as ``"asp,aladdin"``, ``"all"``; empty: the scenario's own
    overrides    fields by path; an option such as ``algorithm.pi`` goes to the algorithms that have it
    driver       ``sim`` (virtual time) or ``real``
    out          one algorithm: the run directory; several: ``out/<algorithm>`` each
    into         see ``train``
    checkpoint   one algorithm, simulated: see ``simulate``; every, on_resume: likewise
    on_progress  as ``Progress``, with the algorithm's name in front; on_clock: likewise (simulations)
    """
    if driver not in DRIVERS:
        raise ScenarioError("driver", driver, " or ".join(DRIVERS))
    chosen, refused = choices(scenario, names, overrides)
    if refused and (names != "all" or not chosen):
        raise next(iter(refused.values()))
    if checkpoint is not None and (len(chosen) > 1 or driver != "sim"):
        raise ScenarioError("checkpoint", str(checkpoint), "nothing but where one algorithm is simulated")
    with _places(out, chosen) as folders:
        for one, folder in zip(chosen, folders, strict=True):
            advance = partial(on_progress, one.algorithm.name) if on_progress else None
            if driver == "real":
                yield execute(driver, one, profile, folder, advance, into)
                continue
            with taking(checkpoint, every, on_resume) as checkpoints, stopping() as stop:
                clock = partial(on_clock, one.algorithm.name) if on_clock else None
                options = {"checkpoints": checkpoints, "on_clock": clock, "timer": time.perf_counter,
                           "stop": stop}  # fmt: skip
                result = execute(driver, one, profile, folder, advance, into, options)
            yield result
            if stop.asked and one is not chosen[-1]:  # too late for this run: it is complete; begin no other
                raise KeyboardInterrupt


@contextmanager
def _places(out: str | Path | None, chosen: Sequence[Scenario]) -> Iterator[list[str | Path | None]]:
    """The run directory of each, reserved: ``out``, or below it where there are several.

    Where none is written an ``out`` that was made for them goes again.
    """
    if out is None or len(chosen) < 2:
        yield [_reserve(out)] * len(chosen)
        return
    above = Path(out)
    made = not above.exists()
    try:
        yield [_reserve(above / one.algorithm.name) for one in chosen]
    finally:
        if made:
            with suppress(OSError):  # it holds what is finished
                above.rmdir()


def choices(
    scenario: Source, names: Sequence[str] | str = (), overrides: Mapping[str, Any] | None = None
) -> tuple[list[Scenario], dict[str, ScenarioError]]:
    """``scenario`` under each of the algorithms, and why it refuses those that do not go with it.

    That is what needs more workers, or another network, than the scenario has, or cannot do with an
    option that others can. Whatever is plainly wrong (an unknown name, a field of ``overrides``, an
    option that all refuse) is raised.
    """
    wanted = algorithms(names)
    if not wanted:
        return [load(scenario, overrides=overrides)], {}
    chosen, refused = [], {}
    for name, own in _options_by_algorithm(wanted, given(overrides)).items():
        try:
            chosen.append(load(scenario, algorithm=name, overrides=own))
        except ScenarioError as error:
            if error.path == "algorithm.name":
                raise
            refused[name] = error
    taken = {option for one in chosen for option in _option_defaults(one.algorithm.name)}
    for why in refused.values():
        option = why.path.removeprefix("algorithm.")
        asked = {f"algorithm.{option}", f"algorithm.options.{option}"} & set(overrides or {})
        if not chosen or (asked and option not in taken):
            raise why
    return chosen, refused


def refusals(
    scenario: Source, names: Sequence[str] | str = (), overrides: Mapping[str, Any] | None = None
) -> list[str]:
    """What ``runs`` leaves out of ``all`` algorithms because the scenario does not go with them, and why."""
    if names != "all":
        return []
    return [f"{name} left out: {error}" for name, error in choices(scenario, names, overrides)[1].items()]


def algorithms(names: Sequence[str] | str) -> list[str]:
    """Algorithm names out of a list, ``"asp,aladdin"`` or ``"all"``, without repetitions."""
    from core.algorithms import ALGORITHMS

    if names == "all":
        return list(ALGORITHMS)
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ScenarioError("algorithm", names, "names of algorithms, as a list or as text: asp,bsp")
    found = names.split(",") if isinstance(names, str) else names
    chosen = list(dict.fromkeys(name.strip() for name in found if name.strip()))
    every = next((name for name in chosen if name.lower() == "all" and name not in ALGORITHMS), None)
    if every is not None:
        raise ScenarioError("algorithm", names, "all, in small letters and by itself, or names: asp,bsp")
    if names and not chosen:
        raise ScenarioError("algorithm", names, f"names out of {', '.join(ALGORITHMS)}, or all")
    return chosen


def _options_by_algorithm(names: Sequence[str], overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``overrides`` for each algorithm, without options (or restarts of servers) that only others have."""
    from scenarios.overrides import RESTARTS, served

    own = {name: {f"algorithm.{option}" for option in _option_defaults(name)} for name in names}
    for name in names:
        own[name] |= {f"run.{field}" for field in RESTARTS if served(name)}
    some = set().union(*own.values())

    def concerns(path: str, name: str) -> bool:
        return path.replace("algorithm.options.", "algorithm.") not in some - own[name]

    return {name: {path: overrides[path] for path in overrides if concerns(path, name)} for name in names}


def _option_defaults(name: str) -> dict[str, Any]:
    """Options of an algorithm, by name or dotted path, with their defaults; empty if there is none such."""
    from core.algorithms import find
    from core.errors import OptionError

    try:
        kind = find(name)
    except OptionError:
        return {}
    known = fields(kind) if hasattr(kind, "__dataclass_fields__") else ()
    return {f.name: f.default for f in known if f.init}


def verify(path: str | Path, *, on_progress: Progress | None = None) -> list[Any]:
    """Run every case of an oracle file on the simulator; one row per case (``sim.verify.Row``).

    ``on_progress`` is called with the cases done and those in all.
    """
    from sim.verify import verify as run

    return list(run(path, on_progress=on_progress))


def plot(runs: Sequence[str | Path], out: str | Path) -> list[Path]:
    """Draw whatever the given run directories hold into the folder ``out``; returns the files.

    Breakdown always; timeline where spans were recorded; learning curves where models were
    evaluated; speed-up where numbers of workers differ; predicted against measured where the same
    scenario was both simulated and trained.
    """
    from analysis import pictures

    return pictures.draw({str(path): _read(path) for path in _run_directories(runs)}, files.place(out, "out"))


def trace(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write one Chrome trace of the given run directories, side by side, for ui.perfetto.dev."""
    from analysis import trace as chrome

    labels: dict[str, Record] = {}
    for path in _run_directories(runs):
        record = _read(path)
        name = f"{record.manifest.get('driver', 'run')} {record.manifest['scenario']['algorithm']['name']}"
        labels[name if name not in labels else f"{name} ({path})"] = record
    return chrome.write(labels, files.place(out, "out"))


def list_algorithms() -> list[dict[str, Any]]:
    """Name, title, kind and options with their defaults, of every algorithm."""
    from core.algorithms import ALGORITHMS

    return [
        {
            "name": name,
            "title": getattr(kind, "title", name),
            "centralized": bool(getattr(kind, "centralized", False)),
            "options": _option_defaults(name),
        }
        for name, kind in ALGORITHMS.items()
    ]


def list_scenarios() -> list[dict[str, Any]]:
    """Name, description, workers and model of every bundled scenario; a mere number of parameters is none."""
    found = []
    for name in scenarios.names():
        one = scenarios.load(name)
        given = one.workload.parameters
        found.append({
            "name": name, "description": one.description, "workers": one.cluster.workers,
            "model": f"{given:,} parameters, timing only" if given else one.workload.model,
            "algorithm": one.algorithm.name,
        })  # fmt: skip
    return found


def list_workloads() -> dict[str, list[dict[str, Any]]]:
    """Models with their numbers of parameters, and data sets with their shapes."""
    from scenarios.schema import Workload
    from scenarios.workloads.layers import DATASETS, image_shape, layer_sizes

    models = []
    for name, chosen in MODELS.items():
        workload = Workload(model=name, **chosen)
        models.append({
            "name": name, "parameters": sum(layer_sizes(workload)),
            "at": "x".join(map(str, image_shape(workload))),
            "classes": workload.classes or DATASETS[workload.data].classes,
        })  # fmt: skip
    data = [
        {"name": name, "real": one.real, "image": f"{one.channels}x{one.size}x{one.size}",
         "classes": one.classes, "train": one.train, "test": one.test}
        for name, one in DATASETS.items()
    ]  # fmt: skip
    return {"models": models, "data": data}


def execute(driver: str, scenario: Scenario, profile: Any, out: str | Path | None,
            on_progress: Progress | None, into: str | Path | None = None,
            options: Mapping[str, Any] | None = None) -> Result:  # fmt: skip
    """One run by either driver, its flags filled in, written to ``out`` or below ``into`` if given.

    ``options`` go to the driver as they are.
    """
    path = _reserve(out)
    if path is None and into is not None:
        _reserve(Path(into) / f"{_name(scenario)}-partial")
    flags: list[str] = []
    if profile is not None:
        scenario, flags = _calibrated(scenario, profile)
    try:
        record = _driver(driver)(scenario, on_progress=on_progress, **(options or {}))
    except (Exception, KeyboardInterrupt) as stop:
        unfinished = getattr(stop, "record", None)
        if isinstance(unfinished, Record):
            if not any("incomplete" in flag for flag in unfinished.manifest.get("flags", [])):
                flags.append("interrupted: the run is not complete")
            stop.path = _finish(unfinished, flags, path, into).path  # type: ignore[union-attr]
        raise
    return _finish(record, flags, path, into)


def _finish(record: Record, flags: list[str], path: Path | None, into: str | Path | None) -> Result:
    """Put ``flags`` into the manifest and write the run directory that was asked for, if any."""
    record.manifest["flags"] = [*record.manifest.get("flags", []), *flags]
    if path is None and into is not None:
        scenario = record.manifest["scenario"]
        stamp = re.sub(r"[^0-9T]", "", str(record.manifest.get("environment", {}).get("when", "")))[:15]
        path = free(
            Path(into) / f"{slug(scenario['name'])}-{slug(scenario['algorithm']['name'])}-{stamp or 'run'}"
        )
    if path is None:
        return Result(record)
    record.manifest["environment"] = {**environment(), **record.manifest.get("environment", {})}
    from analysis.store import write

    return Result(record, write(record, path))


def _name(scenario: Scenario) -> str:
    return f"{slug(scenario.name)}-{slug(scenario.algorithm.name)}"


def slug(text: str) -> str:
    """``text`` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.=]+", "-", text).strip("-.") or "unnamed"


def free(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``, ... that is not taken."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def _driver(name: str) -> Callable[..., Record]:
    if name == "sim":
        import sim

        return sim.simulate
    import real

    return real.train


def _calibrated(scenario: Scenario, profile: Any) -> tuple[Scenario, list[str]]:
    """The scenario with a profile's constants, and where the prediction leaves what was measured."""
    from scenarios.profile import Profile

    if not isinstance(profile, Profile):
        profile = Profile.read(profile)
    return profile.apply(scenario), profile.warnings(scenario, hardware())


def _reserve(out: str | Path | None) -> Path | None:
    if out is None:
        return None
    from analysis.store import reserve

    return reserve(out)


def _run_directories(paths: Sequence[str | Path]) -> list[Path]:
    """The run directories among ``paths``, and those at most two levels below the others."""
    from analysis.store import MANIFEST

    if isinstance(paths, str) or not isinstance(paths, Iterable):
        raise ScenarioError("runs", paths, "a list of run directories")
    found: list[Path] = []
    for path in (files.place(one, "runs") for one in paths):
        levels = () if (path / MANIFEST).exists() else (f"*/{MANIFEST}", f"*/*/{MANIFEST}")
        below = sorted(file.parent for level in levels for file in path.glob(level))
        found += below or [path]
    return found


def _read(path: str | Path) -> Record:
    from analysis.store import read

    return read(path)

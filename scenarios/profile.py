"""Profile: the calibrated constants of one machine, with units, intervals and where they hold.

Rules this module obeys:

* A profile is data: measured and fitted elsewhere, read here. It never changes a scenario in place;
  ``apply`` returns the scenario with its constants filled in, so the simulator knows no profiles.
* Every constant has a unit, a 95 % interval and the number of samples behind it.
* A file is checked whole: names, units and values of constants, ranges, date, distribution.
* Nothing is applied silently outside what was measured: ``warnings`` says where a prediction leaves
  the profile's hardware, workload or ranges.

=========================  =======  ===============================================================
constant                   unit     meaning
=========================  =======  ===============================================================
``step_time.mean``         s        one native step alone on the device; ``step_time.mean.<n>`` with n
                                    workers at once, where measured
``step_time.spread``       1        its coefficient of variation (also ``.<n>``)
``step_time.cold``         s        that a step takes longer after its worker has paused for ``PAUSE`` steps
``pacing.overhead``        s        added to every paced step by waking up late
``tensor_rate.<op>``       bytes/s  of a tensor operation (``core.tensors.OPERATIONS``)
``tensor_seconds.<op>``    s        fixed cost of one call of it
``program.message``        s        that a program spends on a message that it sends or takes, beside
                                    tensor operations
``link.<kind>.latency``    s        of a path between two nodes, one way; kind: native, paced or
                                    shaped
``link.<kind>.overhead``   s        per message, beyond its latency
``link.<kind>.bandwidth``  bytes/s  of a link, each way; native ones take it
``link.<kind>.shared``     bytes/s  of both directions together when both are busy
``link.<kind>.efficiency``  1       goodput of a paced or shaped link over its nominal rate; ``.slow`` at the
                                    lowest rate that was probed
``link.<kind>.burst``      bytes    that a shaped link saves while it is idle, as it was set
``allreduce.alpha.<n>``    s        per ring step of the native all-reduce among n
``allreduce.bandwidth.<n>``  bytes/s  of its ring
``device.slots``           1        workers that the device serves at full speed at once, at best;
                                    ``device.slots.<n>`` of n at once, where measured
``ring.<kind>.lag.<n>``    s        by which messages of an all-reduce by messages among n ask late, in
                                    the mean; ``.slow`` at the lowest rate that was probed
``hub.<kind>.handover.<n>``  s      for which a link rests between a message of one node and the next of
                                    another, where n send to one
``host.<kind>.byte_cost``  s        of one core, to move a byte over such a link, both ends;
                                    ``.byte_cost.slow`` at the lowest rate that was probed
``host.<kind>.beside.<n>``  s       the same while n workers compute: what their steps lose
=========================  =======  ===============================================================

Ranges covered (``ranges``): ``message_bytes``, ``workers``, ``workers_per_device``, and ``link_rate``, the
nominal bytes/s of the paced or shaped links that were probed: most probes are made at the highest of them. A
link's constants are a time per message and a share of its rate, so predictions at other rates are no flag;
``covers`` says what was probed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.tensors import OPERATIONS
from scenarios import files
from scenarios.cluster import MOST, Cluster, Heterogeneity, Host, Layout, StepTime
from scenarios.compute import MODELS, WIDEST
from scenarios.emulated import beside, carried, crowded, handover, moved, ring_lag
from scenarios.errors import ScenarioError, unknown, unknown_field
from scenarios.fields import LARGEST, SLOWEST, Kind, integer, plain, real
from scenarios.schema import Scenario
from scenarios.workloads.layers import layer_sizes

__all__ = ["PAUSE", "Constant", "Profile"]

VERSION = 3

_TIME, _WAIT = real(above=0.0, high=LARGEST["seconds"]), real(low=0.0, high=LARGEST["seconds"])
_RATE = real(low=SLOWEST, high=LARGEST["bytes/s"])

_CORES = integer(1, MOST)

PAUSE = 3
"""Steps that last as long as the pause after which ``step_time.cold`` is probed."""

LINKS = "native|paced|shaped"
"""Kinds of links that constants are measured on, as ``run.links`` names them."""

_N = r"[1-9]\d{0,5}"
"""Numbers of workers."""

_KNOWN: tuple[tuple[str, str, Kind], ...] = (
    (rf"step_time\.mean(\.{_N})?", "s", _TIME),
    (rf"step_time\.spread(\.{_N})?", "1", real(low=0.0, high=WIDEST)),
    (r"step_time\.cold|pacing\.overhead", "s", real(low=-LARGEST["seconds"], high=LARGEST["seconds"])),
    (rf"tensor_rate\.({'|'.join(OPERATIONS)})", "bytes/s", _RATE),
    (rf"tensor_seconds\.({'|'.join(OPERATIONS)})|program\.message", "s", _WAIT),
    (rf"link\.({LINKS})\.(latency|overhead)", "s", _WAIT),
    (rf"link\.({LINKS})\.(bandwidth|shared)", "bytes/s", _RATE),
    (rf"link\.({LINKS})\.efficiency(\.slow)?", "1", real(above=0.0, high=10.0)),
    (rf"link\.({LINKS})\.burst", "bytes", real(low=0.0, high=LARGEST["bytes"])),
    (rf"allreduce\.alpha(\.{_N})?", "s", _WAIT),
    (rf"allreduce\.bandwidth(\.{_N})?", "bytes/s", _RATE),
    (rf"device\.slots(\.{_N})?", "1", real(low=0.01, high=MOST)),
    (rf"ring\.({LINKS})\.lag(\.{_N}(\.slow)?)?", "s", _WAIT),
    (rf"hub\.({LINKS})\.handover(\.{_N})?", "s", _WAIT),
    (rf"host\.({LINKS})\.(byte_cost(\.slow)?|beside\.{_N})", "s", _WAIT),
)
"""Names of constants, their unit, and what is valid, as in the module's table."""

_DATE = re.compile(
    r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
    r"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)

_EXTENTS = ("message_bytes", "workers", "workers_per_device", "link_rate")


def _finite(value: Any, name: str) -> float:
    """A finite number as JSON has it: no text, no true or false."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < LARGEST["bytes"]:
        raise ScenarioError(name, value, "a finite number")
    return value


@dataclass(frozen=True)
class Constant:
    """A measured constant: value in ``unit``, 95 % interval [low, high], number of samples."""

    value: float
    unit: str
    low: float
    high: float
    samples: int = 1
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("value", "low", "high"):
            _finite(getattr(self, name), name)
        for name in ("unit", "note"):
            if not isinstance(getattr(self, name), str):
                raise ScenarioError(name, getattr(self, name), "text")
        if not isinstance(self.samples, int) or isinstance(self.samples, bool) or self.samples < 1:
            raise ScenarioError("samples", self.samples, "a whole number of at least 1")
        if not self.low <= self.value <= self.high:
            raise ScenarioError(
                "low", self.low, f"an interval around the value {self.value:g}, up to {self.high:g}"
            )

    def times(self, factor: float) -> Constant:
        """The same, times a number above 0."""
        return replace(self, value=self.value * factor, low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True)
class Profile:
    """Constants of one machine.

    constants        by name, see the module's table
    hardware         cpu, cores, gpu, torch, ...: plain text and numbers, compared key by key
    when             date of the measurement, ISO 8601
    step_time_model  distribution that fits native steps best; its goodness of fit in ``notes``
    workload         the workload that native steps were measured on
    ranges           what was covered: name -> (lowest, highest)
    """

    constants: Mapping[str, Constant]
    hardware: Mapping[str, Any] = field(default_factory=dict)
    when: str = ""
    step_time_model: str = "constant"
    workload: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str, default: float = 0.0) -> float:
        """The constant ``name``, or ``default`` where it was not measured."""
        return self.constants[name].value if name in self.constants else default

    def since(self, other: Profile) -> dict[str, Constant]:
        """The constants that are not as in ``other``, by name."""
        return {name: c for name, c in self.constants.items() if other.constants.get(name) != c}

    def by_workers(self, name: str, n: int, default: float = 0.0) -> float:
        """``name.<n>``, interpolated between the measured n and held beyond them; else ``name``."""
        points = self.points(name)
        if not points:
            return self.value(name, default)
        return float(np.interp(n, list(points), list(points.values())))

    def points(self, name: str) -> dict[int, float]:
        """Every ``name.<n>`` that was measured, by n, in order."""
        found = (key.rsplit(".", 1) for key in self.constants if key.startswith(name + "."))
        counts = sorted(int(n) for before, n in found if before == name and n.isdigit())
        return {n: self.constants[f"{name}.{n}"].value for n in counts}

    def tensor_rates(self) -> dict[str, float]:
        """Bytes/s of each tensor operation that was measured."""
        return self._by_operation("tensor_rate")

    def tensor_seconds(self) -> dict[str, float]:
        """Seconds per call of each tensor operation that was measured."""
        return self._by_operation("tensor_seconds")

    def _by_operation(self, name: str) -> dict[str, float]:
        found = {op: self.constants.get(f"{name}.{op}") for op in OPERATIONS}
        return {op: constant.value for op, constant in found.items() if constant is not None}

    def apply(self, scenario: Scenario) -> Scenario:
        """``scenario`` with this machine's constants in the place of its own.

        Paced steps keep the scenario's distribution and gain the pacing overhead; native ones take
        the measured distribution, slow-downs and device speeds stay. Paced and shaped links keep their
        rates times the measured efficiency; native ones take the measured bandwidth.
        """
        cluster, kind = scenario.cluster, scenario.run.links
        n, old = cluster.workers, cluster.network
        network = replace(
            old,
            overhead=self.value(f"link.{kind}.overhead", old.overhead),
            burst=self.value(f"link.{kind}.burst", old.burst),
            allreduce_alpha=self.by_workers("allreduce.alpha", n, old.allreduce_alpha),
            allreduce_bandwidth=self.by_workers("allreduce.bandwidth", n, old.allreduce_bandwidth),
        )
        changed = replace(
            self._links(cluster, kind),
            network=network,
            tensor_rates={**cluster.tensor_rates, **self.tensor_rates()},
            tensor_seconds={**cluster.tensor_seconds, **self.tensor_seconds()},
            host=self._host(scenario, kind),
        )
        if scenario.run.compute == "paced":
            overhead = self.value("pacing.overhead", cluster.compute.overhead)
            changed = replace(changed, compute=replace(cluster.compute, overhead=max(overhead, 0.0)))
        else:
            changed = self._native_compute(changed, self._slots(scenario))
        return replace(scenario, cluster=changed)

    def _host(self, scenario: Scenario, kind: str) -> Host:
        """The one machine that plays all nodes, for runs on its processor; as it was where unknown."""
        cost = f"host.{kind}.byte_cost"
        if scenario.run.device != "cpu" or "device.slots" not in self.constants or cost not in self.constants:
            return scenario.cluster.host
        native = scenario.run.compute == "native"
        byte_cost, moving = moved(self, kind)
        cores, slots = crowded(self)
        return Host(
            cores=cores,
            slots=slots,
            byte_cost=byte_cost,
            beside=beside(self, kind) if native else (),
            moving=moving,
            gradient=0.0 if native else self.value("step_time.mean"),
            cold=max(self.value("step_time.cold"), 0.0) if native else 0.0,
            pause=PAUSE * self.value("step_time.mean") if native else 0.0,
            ring_lag=ring_lag(self, scenario.cluster, kind),
            handover=handover(self, scenario.cluster.workers, kind),
            message=self.value("program.message"),
        )

    def _slots(self, scenario: Scenario) -> float:
        """Workers that the device serves at full speed where as many compute at once as ``scenario`` has."""
        return self.by_workers("device.slots", scenario.cluster.workers)

    def _native_compute(self, cluster: Cluster, slots: float) -> Cluster:
        n, old = cluster.workers, cluster.compute
        mean, spread = self.by_workers("step_time.mean", n, old.mean), 0.0
        if self.step_time_model != "constant":
            spread = self.by_workers("step_time.spread", n, old.spread)
        compute = StepTime(model=self.step_time_model, mean=mean, spread=spread, scale=old.scale)
        by_count = any(key.startswith("step_time.mean.") for key in self.constants)
        if by_count or "device.slots" not in self.constants:
            return replace(cluster, compute=compute)
        return replace(cluster, compute=compute, workers_per_device=n, device_slots=slots)

    def _links(self, cluster: Cluster, kind: str) -> Cluster:
        if cluster.topology is not None:
            return cluster  # its links are none of this machine's
        native = self.value("link.native.bandwidth")

        def rate(nominal: float) -> float:
            return (native or nominal) if kind == "native" else carried(self, kind, nominal)

        latency = self.constants.get(f"link.{kind}.latency")
        if cluster.layout is not None:
            path = cluster.layout.latency if latency is None else latency.value
            layout: Layout = replace(cluster.layout, bandwidth=rate(cluster.layout.bandwidth), latency=path)
            servers = cluster.servers
            if servers.bandwidth:
                servers = replace(servers, bandwidth=rate(servers.bandwidth))
            return replace(
                cluster,
                layout=layout,
                servers=servers,
                machines=(),
                placement=(),
                heterogeneity=_devices(cluster, rate),
            )
        machines = tuple(
            replace(
                m,
                up=rate(m.up),
                down=rate(m.down),
                latency=m.latency if latency is None else latency.value / 2,
            )
            for m in cluster.machines
        )
        return replace(cluster, machines=machines)

    def covers(self) -> list[str]:
        """What was probed, in words: a line for each range, and for kinds of links."""
        kinds = sorted({name.split(".")[1] for name in self.constants if name.startswith("link.")})
        lines = [f"links: {', '.join(kinds)}"] if kinds else []
        for name, (low, high) in self.ranges.items():
            quantity = (lambda v: f"{v * 8 / 1e6:g} Mbit/s") if name == "link_rate" else _plain_number
            extent = quantity(low) if low == high else f"{quantity(low)} to {quantity(high)}"
            lines.append(f"{name.replace('_', ' ')}: {extent}")
        own = ", ".join(f"{key} {value}" for key, value in self.workload.items())
        return [*lines, f"steps of: {own}"] if own else lines

    def warnings(self, scenario: Scenario, hardware: Mapping[str, Any] | None = None) -> list[str]:
        """Where a prediction of ``scenario`` (on ``hardware``) leaves what was measured; empty if nowhere."""
        found = []
        for key, here in (hardware or {}).items():
            there = self.hardware.get(key)
            if there is not None and there != here:
                found.append(f"another hardware: {key} is {here!r}, the profile was measured on {there!r}")
        workload, native = plain(scenario.workload), scenario.run.compute == "native"
        played = scenario.run.device == "cpu" and any(name.startswith("host.") for name in self.constants)
        if native or played:  # paced steps compute a gradient, too
            for key, there in self.workload.items():
                if workload.get(key) != there:
                    found.append(
                        f"another workload: {key} is {workload.get(key)!r}, steps were measured at {there!r}"
                    )
        probed = {name.split(".")[1] for name in self.constants if name.startswith("link.")}
        if probed and scenario.run.links not in probed:
            found.append(
                f"not covered: no {scenario.run.links} links, only {' and '.join(sorted(probed))} ones"
            )
        wanted = ["step_time.mean"] if native or played else []
        wanted += ["device.slots"] if played else []
        wanted += [f"host.{scenario.run.links}.byte_cost"] if played and scenario.run.links in probed else []
        missing = [name for name in wanted if name not in self.constants]
        found += [f"not measured: {name}; the prediction does without" for name in missing]
        doubts = self.notes.get("doubts")
        if isinstance(doubts, Mapping) and doubts:
            found.append(
                f"doubtful constants, for probes disagreed or scattered: {', '.join(sorted(doubts))}"
            )
        for name, now in _extent(scenario).items():
            low, high = self.ranges.get(name, (-math.inf, math.inf))
            if not low <= now <= high:
                found.append(f"out of range: {name} is {now:g}, calibrated between {low:g} and {high:g}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        tree = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"version": VERSION, **{key: plain(value) for key, value in tree.items()}}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Profile:
        """The profile that ``to_dict`` gave; raises ``ScenarioError``."""
        values = dict(tree)
        version = values.pop("version", None)
        if version != VERSION:
            raise ScenarioError("version", version, f"{VERSION}; calibrate again")
        known = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_field(name, known)
        constants = values.get("constants")
        if not isinstance(constants, Mapping) or not constants:
            raise ScenarioError("constants", constants, "a table of constants, one at least")
        for name in set(values) - {"when", "step_time_model"}:
            if not isinstance(values[name], Mapping):
                raise ScenarioError(name, values[name], "a table")
        values["constants"] = {name: _constant(name, value) for name, value in constants.items()}
        values["ranges"] = {name: _range(name, value) for name, value in values.get("ranges", {}).items()}
        _CORES(values.get("hardware", {}).get("cores") or 1, "hardware.cores")
        _check_date(values.get("when", ""))
        _check_model(values.get("step_time_model", "constant"), values["constants"])
        return cls(**values)

    def write(self, path: str | Path) -> None:
        """Write JSON to ``path``; raises ``ScenarioError`` where that is impossible."""
        try:
            Path(path).write_text(
                json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise ScenarioError("profile", str(path), hint=f"cannot be written: {error}") from error

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """The profile in the JSON file at ``path``; raises ``ScenarioError``."""
        path = files.place(path, "profile")
        try:
            tree = json.loads(files.text(path, "utf-8-sig"))
        except (OSError, ValueError) as error:
            raise ScenarioError("profile", str(path), hint=f"cannot be read: {error}") from error
        except RecursionError:
            raise ScenarioError("profile", str(path), hint="cannot be read: nested too deeply") from None
        if not isinstance(tree, Mapping):
            raise ScenarioError("profile", str(path), hint="is no profile: expected a JSON object")
        try:
            return cls.from_dict(tree)
        except ScenarioError as error:
            where = f"profile {path}: {error.path}"
            raise ScenarioError(where, error.value, error.valid, hint=error.hint) from error


def _constant(name: str, tree: Any) -> Constant:
    """The constant ``name``, which must be one of the module's table, with its unit and a valid value."""
    where = f"constants.{name}"
    found = next((known for known in _KNOWN if re.fullmatch(known[0], name)), None)
    if found is None:
        raise ScenarioError(
            where, hint="no such constant (any more); see the module scenarios.profile, or calibrate again"
        )
    parts = [f.name for f in dataclasses.fields(Constant)]
    if not isinstance(tree, Mapping):
        raise ScenarioError(where, tree, f"a table of {', '.join(parts)}")
    for part in tree:
        if part not in parts:
            raise unknown_field(f"{where}.{part}", parts)
    for part in parts[:4]:
        if part not in tree:
            raise ScenarioError(f"{where}.{part}", hint="is missing")
    try:
        constant = Constant(**tree)
        if constant.unit != found[1]:
            raise ScenarioError("unit", constant.unit, repr(found[1]))
        found[2](constant.value, "value")
    except ScenarioError as error:
        raise error.under(where) from error
    return constant


def _plain_number(value: float) -> str:
    return f"{value:,.0f}"


def _devices(cluster: Cluster, rate: Callable[[float], float]) -> Heterogeneity:
    """The cluster's heterogeneity, the rates of NICs that are listed there changed by ``rate``."""
    own = cluster.heterogeneity
    nics = {name: tuple(map(rate, own.devices[name])) for name in ("up", "down") if name in own.devices}
    return replace(own, devices={**own.devices, **nics}) if nics else own


def _range(name: str, value: Any) -> tuple[float, float]:
    """(lowest, highest) of what was covered of ``name``."""
    where = f"ranges.{name}"
    if name not in _EXTENTS:
        raise unknown_field(where, _EXTENTS)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ScenarioError(where, value, "two numbers, lowest and highest")
    low, high = (_finite(bound, where) for bound in value)
    if not low <= high:
        raise ScenarioError(where, value, "the lowest number, then the highest")
    return low, high


def _check_date(when: Any) -> None:
    if when != "" and not (isinstance(when, str) and _DATE.fullmatch(when)):
        raise ScenarioError("when", when, "a date in ISO 8601, such as 2026-01-31T12:00:00Z")


def _check_model(model: Any, constants: Mapping[str, Constant]) -> None:
    """A distribution that has parameters, and a spread that it can have."""
    known = tuple(name for name in MODELS if name != "empirical")
    if model not in known:
        raise unknown("step_time_model", model, known)
    for name, constant in constants.items():
        if model == "shifted_exponential" and name.startswith("step_time.spread") and constant.value > 1:
            raise ScenarioError(f"constants.{name}.value", constant.value, f"at most 1 with {model}")


def _extent(scenario: Scenario) -> dict[str, float]:
    """Where ``scenario`` stands in the ranges that profiles cover."""
    algorithm = scenario.algorithm.make()
    total = 4.0 * sum(layer_sizes(scenario.workload))
    parts = scenario.cluster.servers.count if algorithm.centralized else scenario.cluster.workers
    extent = {"message_bytes": total / parts, "workers": float(scenario.cluster.workers)}
    if scenario.run.compute == "native":
        extent["workers_per_device"] = float(scenario.cluster.workers_per_device)
    return extent

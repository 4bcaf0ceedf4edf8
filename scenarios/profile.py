"""Profile: the calibrated constants of one machine, with units, intervals and where they hold.

Rules this module obeys:

* A profile is data: measured and fitted elsewhere, read here. It never changes a scenario in place;
  ``apply`` returns the scenario with its constants filled in, so the simulator knows no profiles.
* Every constant has a unit, a 95 % interval and the number of samples behind it.
* Nothing is applied silently outside what was measured: ``warnings`` says where a prediction leaves
  the profile's hardware, workload or ranges.

=========================  =======  ===============================================================
constant                   unit     meaning
=========================  =======  ===============================================================
``step_time.mean``         s        one native step alone on the device; ``step_time.mean.<n>`` with n
                                    workers at once, where measured
``step_time.spread``       1        its coefficient of variation (also ``.<n>``)
``step_time.cold``         s        that a step takes longer after its worker was blocked
``pacing.overhead``        s        added to every paced step by waking up late
``tensor_rate.<op>``       bytes/s  of a tensor operation (``core.tensors.OPERATIONS``)
``tensor_seconds.<op>``    s        fixed cost of one call of it
``link.<kind>.latency``    s        of a path between two nodes, one way; kind: native or paced
``link.<kind>.overhead``   s        per message, beyond its latency
``link.native.bandwidth``  bytes/s  of a native link, each way
``link.paced.efficiency``  1        goodput of a paced link over its nominal rate
``allreduce.alpha.<n>``    s        per ring step of the native all-reduce among n
``allreduce.bandwidth.<n>``  bytes/s  of its ring
``device.slots``           1        workers that the device serves at full speed at once
``ring.<kind>.lag.<n>``    s        by which messages of an all-reduce by messages among n ask late
``host.<kind>.byte_cost``  s        of one core, to move a byte over a native or paced link, both ends
=========================  =======  ===============================================================

Ranges covered (``ranges``): ``message_bytes``, ``workers``, ``workers_per_device``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.tensors import OPERATIONS
from scenarios.cluster import Cluster, Host, Layout, StepTime
from scenarios.errors import ScenarioError, unknown_field
from scenarios.fields import plain
from scenarios.schema import Scenario
from scenarios.workloads.layers import layer_sizes

__all__ = ["Constant", "Profile"]

VERSION = 1


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
            number = getattr(self, name)
            if not isinstance(number, (int, float)) or isinstance(number, bool) or not math.isfinite(number):
                raise ScenarioError(name, number, "a finite number")
        if not self.low <= self.value <= self.high:
            raise ScenarioError(
                "low", self.low, f"an interval around the value {self.value:g}, up to {self.high:g}"
            )


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

    def by_workers(self, name: str, n: int, default: float = 0.0) -> float:
        """``name.<n>``, interpolated between the measured n and held beyond them; else ``name``."""
        points = sorted(
            (int(key.rsplit(".", 1)[1]), constant.value)
            for key, constant in self.constants.items()
            if key.startswith(name + ".") and key.rsplit(".", 1)[1].isdigit()
        )
        if not points:
            return self.value(name, default)
        counts, values = zip(*points, strict=True)
        return float(np.interp(n, counts, values))

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
        the measured distribution, slow-downs and device speeds stay. Paced links keep their rates
        times the measured efficiency; native ones take the measured bandwidth.
        """
        cluster = scenario.cluster
        n = cluster.workers
        paced = scenario.run.links == "paced"
        kind = "paced" if paced else "native"
        network = replace(
            cluster.network,
            overhead=self.value(f"link.{kind}.overhead", cluster.network.overhead),
            allreduce_alpha=self.by_workers("allreduce.alpha", n, cluster.network.allreduce_alpha),
            allreduce_bandwidth=self.by_workers(
                "allreduce.bandwidth", n, cluster.network.allreduce_bandwidth
            ),
        )
        changed = replace(
            self._links(cluster, paced),
            network=network,
            tensor_rates={**cluster.tensor_rates, **self.tensor_rates()},
            tensor_seconds={**cluster.tensor_seconds, **self.tensor_seconds()},
            host=self._host(scenario, kind),
        )
        if scenario.run.compute == "paced":
            overhead = self.value("pacing.overhead", cluster.compute.overhead)
            changed = replace(changed, compute=replace(cluster.compute, overhead=max(overhead, 0.0)))
        else:
            changed = self._native_compute(changed)
        return replace(scenario, cluster=changed)

    def _host(self, scenario: Scenario, kind: str) -> Host:
        """The one machine that plays all nodes, for runs on its processor; as it was where unknown."""
        cost = f"host.{kind}.byte_cost"
        if scenario.run.device != "cpu" or "device.slots" not in self.constants or cost not in self.constants:
            return scenario.cluster.host
        gradient = self.value("step_time.mean") if scenario.run.compute == "paced" else 0.0
        return Host(
            cores=self.value("device.slots"),
            byte_cost=self.value(cost),
            gradient=gradient,
            cold=self.value("step_time.cold") if scenario.run.compute == "native" else 0.0,
            ring_lag=self.by_workers(f"ring.{kind}.lag", scenario.cluster.workers),
        )

    def _native_compute(self, cluster: Cluster) -> Cluster:
        n, old = cluster.workers, cluster.compute
        compute = StepTime(
            model=self.step_time_model,
            mean=self.by_workers("step_time.mean", n, old.mean),
            spread=0.0
            if self.step_time_model == "constant"
            else self.by_workers("step_time.spread", n, old.spread),
            scale=old.scale,
        )
        by_count = any(key.startswith("step_time.mean.") for key in self.constants)
        if by_count or "device.slots" not in self.constants:
            return replace(cluster, compute=compute)
        return replace(
            cluster, compute=compute, workers_per_device=n, device_slots=self.value("device.slots")
        )

    def _links(self, cluster: Cluster, paced: bool) -> Cluster:
        share = self.value("link.paced.efficiency", 1.0)
        native = self.value("link.native.bandwidth")

        def rate(nominal: float) -> float:
            return nominal * share if paced else native or nominal

        latency = self.constants.get(f"link.{'paced' if paced else 'native'}.latency")
        if cluster.layout is not None:
            path = cluster.layout.latency if latency is None else latency.value
            layout: Layout = replace(cluster.layout, bandwidth=rate(cluster.layout.bandwidth), latency=path)
            servers = cluster.servers
            if servers.bandwidth:
                servers = replace(servers, bandwidth=rate(servers.bandwidth))
            return replace(cluster, layout=layout, servers=servers, machines=(), placement=())
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

    def warnings(self, scenario: Scenario, hardware: Mapping[str, Any] | None = None) -> list[str]:
        """Where a prediction of ``scenario`` (on ``hardware``) leaves what was measured; empty if nowhere."""
        found = []
        for key, here in (hardware or {}).items():
            there = self.hardware.get(key)
            if there is not None and there != here:
                found.append(f"another hardware: {key} is {here!r}, the profile was measured on {there!r}")
        workload = plain(scenario.workload)
        if scenario.run.compute == "native":
            for key, there in self.workload.items():
                if workload.get(key) != there:
                    found.append(
                        f"another workload: {key} is {workload.get(key)!r}, steps were measured at {there!r}"
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
        if not isinstance(values.get("constants"), Mapping):
            raise ScenarioError("constants", values.get("constants"), "a table of constants")
        for name in set(values) - {"when", "step_time_model"}:
            if not isinstance(values[name], Mapping):
                raise ScenarioError(name, values[name], "a table")
        values["constants"] = {name: _constant(name, value) for name, value in values["constants"].items()}
        values["ranges"] = {name: (low, high) for name, (low, high) in values.get("ranges", {}).items()}
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
        try:
            tree = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ScenarioError("profile", str(path), hint=f"cannot be read: {error}") from error
        if not isinstance(tree, Mapping):
            raise ScenarioError("profile", str(path), hint="is no profile: expected a JSON object")
        try:
            return cls.from_dict(tree)
        except ScenarioError as error:
            raise error.under(f"profile {path}") from error
        except (TypeError, ValueError) as error:
            raise ScenarioError("profile", str(path), hint=f"is no profile: {error}") from error


def _constant(name: str, tree: Any) -> Constant:
    if not isinstance(tree, Mapping):
        raise ScenarioError(f"constants.{name}", tree, "value, unit, low, high, samples")
    try:
        return Constant(**tree)
    except ScenarioError as error:
        raise error.under(f"constants.{name}") from error
    except TypeError as error:
        raise ScenarioError(f"constants.{name}", hint=str(error)) from error


def _extent(scenario: Scenario) -> dict[str, float]:
    """Where ``scenario`` stands in the ranges that profiles cover."""
    algorithm = scenario.algorithm.make()
    total = 4.0 * sum(layer_sizes(scenario.workload))
    parts = scenario.cluster.servers.count if algorithm.centralized else scenario.cluster.workers
    extent = {"message_bytes": total / parts, "workers": float(scenario.cluster.workers)}
    if scenario.run.compute == "native":
        extent["workers_per_device"] = float(scenario.cluster.workers_per_device)
    return extent

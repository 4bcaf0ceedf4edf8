"""Scenario = cluster + workload + algorithm + run: what to run, typed, validated and unit-aware.

Rules this module obeys:

* Values are frozen and valid once made: every combination that cannot run is refused here, with
  the field's full path, before anything starts.
* The same scenario from YAML, from ``from_dict`` and from Python objects is equal.
* A scenario says everything that a run depends on; what it ran on is the record's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from core.algorithms import ALGORITHMS, find, make
from core.errors import OptionError
from core.node import Algorithm
from core.sharding import partition
from scenarios.addresses import LOOPBACK, address, check_address
from scenarios.cluster import Cluster, Layout, Machine, Network, Servers, Slowdown, StepTime
from scenarios.errors import ScenarioError, unknown, unknown_field
from scenarios.faults import Fault, check_faults, returns
from scenarios.fields import (
    amount,
    boolean,
    build,
    check,
    choice,
    each,
    integer,
    listed,
    nested,
    number,
    of_kind,
    plain,
    real,
    text,
    whole,
)
from scenarios.workloads.layers import DATASETS, layer_sizes, training_samples

__all__ = [
    "AlgorithmChoice", "Cluster", "Fault", "Layout", "Machine", "Network", "Run", "Scenario", "Servers",
    "Slowdown", "StepTime", "Workload",
]  # fmt: skip


MOST_STEPS = 100_000_000
"""Steps of all workers together: a run beyond it would take days and fill the memory."""


@dataclass(frozen=True)
class Workload:
    """Model and data.

    model       mlp | cnn | resnet50 | vgg16
    data        digits (real, ships with scikit-learn) | cifar10 (real, from ``data_dir``) | synthetic
    batch       samples per worker and step
    image_size  pixels a side; 0: the data set's own. Other sizes are resampled
    classes     outputs; 0: as many as the data set has
    hidden      widths of the MLP's hidden layers; empty: (256,)
    parameters  overrides the model's count, for timing-only runs
    samples     images in the synthetic data set; 0: 50 000
    data_dir    folder that holds CIFAR-10 in its binary or Python form
    """

    model: str = choice("mlp", "mlp", "cnn", "resnet50", "vgg16")
    data: str = choice("digits", *DATASETS)
    batch: int = whole(32, low=1, high=1e9)
    image_size: int = whole(0, high=10_000)
    classes: int = whole(0, high=1e6)
    hidden: tuple[int, ...] = listed(integer(1, 1e6))
    parameters: int = whole(0, high=1e14)
    data_dir: str = text("")
    weight_decay: float = number(1e-4, low=0.0, high=1e3)
    samples: int = whole(0, high=1e12)

    def __post_init__(self) -> None:
        check(self)
        if self.hidden and self.model != "mlp":
            raise ScenarioError("hidden", self.hidden, f"nothing: {self.model} has layers of its own")
        data = DATASETS[self.data]
        if data.real and 0 < self.classes < data.classes:
            raise ScenarioError(
                "classes", self.classes, f"at least {data.classes}, the classes of {self.data}"
            )
        if data.real and self.samples:
            raise ScenarioError("samples", self.samples, f"nothing: {self.data} is as large as it is")
        available = training_samples(self)
        if self.batch > available and not self.parameters:
            what = f"the training samples of {self.data} (or a number of parameters, for timing only)"
            raise ScenarioError("batch", self.batch, f"at most {available}, {what}")
        if self.model == "cnn" and self.image_size == 1:
            raise ScenarioError("image_size", self.image_size, "at least 2 pixels for cnn, which halves them")
        if self.model in ("resnet50", "vgg16") and 0 < self.image_size < 32:
            raise ScenarioError("image_size", self.image_size, f"at least 32 pixels for {self.model}")
        if self.model in ("resnet50", "vgg16") and self.data == "digits" and not self.image_size:
            raise ScenarioError(
                "image_size", self.image_size, f"at least 32 pixels for {self.model} on digits"
            )


SETTINGS = ("lr", "lr_scaling", "momentum", "warmup_epochs", "milestones", "decay")
"""The optimizer's settings, which all algorithms share; all else under ``algorithm`` is its options."""


def _option(value: Any) -> Any:
    """An option as YAML or ``--set`` gave it: text that is a number becomes one."""
    if not isinstance(value, str):
        return value
    if value == "unlimited":
        return math.inf
    try:
        return int(value)
    except ValueError:
        try:
            return float(value)
        except ValueError:
            return value


def _options(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioError(name, value, "a table of options")
    return {str(key): _option(v) for key, v in value.items()}


@dataclass(frozen=True)
class AlgorithmChoice:
    """An algorithm by name with its options, and the optimizer's settings.

    name           one of ``core.algorithms.ALGORITHMS``, or ``package.module:Class``
    options        of the algorithm; in YAML they may stand directly under ``algorithm``
    lr             per worker batch; lr_scaling: linear (times n) | none
    warmup_epochs  linear warm-up from ``lr``; milestones: epochs at which to multiply by ``decay``
    """

    name: str = text("asp")
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"kind": _options})
    lr: float = number(0.05, above=0.0, high=1e6)
    lr_scaling: str = choice("linear", "linear", "none")
    momentum: float = number(0.9, low=0.0)
    warmup_epochs: float = number(0.0, low=0.0, high=1e9)
    milestones: tuple[float, ...] = listed(real(above=0.0))
    decay: float = number(0.1, above=0.0, high=1.0)

    def __post_init__(self) -> None:
        check(self)
        if self.momentum >= 1:
            raise ScenarioError("momentum", self.momentum, "a number in [0, 1)")
        if list(self.milestones) != sorted(self.milestones):
            raise ScenarioError("milestones", self.milestones, "epochs in rising order")
        self.make()

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """Whatever is no field of ours is an option of the algorithm."""
        extra = {name: tree.pop(name) for name in list(tree) if name not in ("name", "options", *SETTINGS)}
        if extra:
            given = tree.get("options") or {}
            tree["options"] = _options(given, "options") | extra
        return tree

    def make(self) -> Algorithm:
        """The algorithm itself; raises ``ScenarioError`` for an unknown name, option or a bad value."""
        if self.name not in ALGORITHMS and "." not in self.name and ":" not in self.name:
            raise unknown("name", self.name, ALGORITHMS)
        try:
            known = [f.name for f in fields(find(self.name)) if f.init]
        except OptionError as error:
            raise ScenarioError("name", self.name, error.valid) from error
        except TypeError:
            known = []
        for option in self.options:
            if option not in known:
                raise unknown_field(option, [*known, *SETTINGS])
        try:
            return make(self.name, self.options)
        except OptionError as error:
            raise ScenarioError(error.field, error.value, error.valid) from error


@dataclass(frozen=True)
class Run:
    """How long, how measured, and how the real driver emulates.

    steps, seconds, samples  the budget: steps per worker, time, or samples of all workers together;
                             exactly one of the three
    warmup_steps             steps per worker that throughput leaves out
    compute                  native: as fast as the device is. paced: held to ``cluster.compute``
    links                    native: as fast as the machine's are. paced: held to ``cluster.machines`` by the
                             senders. shaped: held to them by the kernel, in a test-bed (needs root)
    device                   cpu | cuda: of real runs; of simulations, where their gradients are evaluated
    spans                    record every span of time, for timelines and traces
    span_ranks               simulations: of so many workers (and servers) only; 0: of all
    most_spans               simulations: no more than so many, the first ones; 0: without limit
    step_ranks               simulations: record the steps and gradients of so many workers only, drawn by
                             ``seed``; 0: of all. Totals are exact, rates are extrapolated
    heartbeat_timeout        seconds of silence after which a node is taken for dead
    server_restarts          real runs: how often each server that dies of what nobody planned is started
                             again. Above 0 all servers keep a journal; at 0 the run ends
    checkpoint_every         with it, seconds between a server's checkpoints; 0: as often as its journal has
                             grown enough
    address                  real runs: IPv4 address at which nodes listen; any but loopback's needs ``keys``
    keys                     real runs: folder that ``aladdin keys`` made; nodes then encrypt what they send
    evaluate                 measure loss and accuracy at the end, outside the clock
    numerics                 simulations: evaluate real gradients of the real model in virtual time
    evaluate_every           with numerics, also measure after so many epochs (of the samples of all
                             workers together), again and again; 0: only at the end
    batched                  with numerics: evaluate the gradients in flight together. ``auto`` measures
                             what is faster; losses are then the same up to float rounding from run to
                             run. ``always`` and ``never`` make the record the same byte for byte
    threads                  with numerics: of torch, for gradients; 0: as many as there are
    """

    steps: int = whole(0)
    seconds: float = amount(0.0, "seconds")
    samples: int = whole(0)
    warmup_steps: int = whole(2)
    seed: int = whole(0, high=2**63 - 1)
    compute: str = choice("paced", "native", "paced")
    links: str = choice("native", "native", "paced", "shaped")
    device: str = choice("cpu", "cpu", "cuda")
    spans: bool = boolean(False)
    span_ranks: int = whole(0)
    most_spans: int = whole(5_000_000)
    step_ranks: int = whole(0)
    heartbeat_timeout: float = amount(5.0, "seconds", above=0.0)
    server_restarts: int = whole(0, high=1000)
    checkpoint_every: float = amount(0.0, "seconds")
    address: str = of_kind(LOOPBACK, address)
    keys: str = text("")
    evaluate: bool = boolean(True)
    numerics: bool = boolean(False)
    evaluate_every: float = number(0.0, low=0.0)
    batched: str = choice("auto", "auto", "always", "never")
    threads: int = whole(0, high=4096)

    BUDGETS: ClassVar[tuple[str, ...]] = ("steps", "seconds", "samples")

    def __post_init__(self) -> None:
        check(self)
        given = {name: getattr(self, name) for name in self.BUDGETS if getattr(self, name)}
        if len(given) != 1:
            found = ", ".join(f"{name} {value}" for name, value in given.items()) or "none"
            raise ScenarioError(
                "steps", hint=f"exactly one of steps, seconds and samples must be above 0; got {found}"
            )
        check_address(self.address, self.keys)
        if self.checkpoint_every and not self.server_restarts:
            why = "0 where run.server_restarts is 0 (for crashes that are planned it is a field of the fault)"
            raise ScenarioError("checkpoint_every", self.checkpoint_every, why)
        if 0 < self.checkpoint_every < 1e-3:
            raise ScenarioError("checkpoint_every", self.checkpoint_every, "0 or at least 1 ms")

    def compact(self) -> dict[str, Any]:
        """Its fields; what few choose is not worth a word where nobody has."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        unsaid = {"address": LOOPBACK, "keys": "", "server_restarts": 0, "checkpoint_every": 0.0}
        return {name: value for name, value in found.items() if unsaid.get(name) != value}


@dataclass(frozen=True)
class Scenario:
    """One run, completely described. Raises ``ScenarioError`` for what cannot run."""

    name: str = text("unnamed")
    description: str = text("")
    cluster: Cluster = nested(Cluster)
    workload: Workload = nested(Workload)
    algorithm: AlgorithmChoice = nested(AlgorithmChoice)
    run: Run = nested(Run)
    faults: tuple[Fault, ...] = each(Fault)

    def __post_init__(self) -> None:
        check(self)
        self._check_length()
        algorithm = self.algorithm.make()
        network = self.cluster.network
        try:
            getattr(algorithm, "check", _anything)(self.cluster.workers)
        except OptionError as error:
            field = "cluster.workers" if error.field == "workers" else f"algorithm.{error.field}"
            raise ScenarioError(field, error.value, error.valid) from error
        if algorithm.collective and self.run.links == "paced" and network.collective == "native":
            why = f"{self.algorithm.name}'s native all-reduce would bypass paced links (run.links: paced)"
            raise ScenarioError("cluster.network.collective", "native", f"messages: {why}")
        if self.run.server_restarts and not algorithm.centralized:
            valid = f"0: {self.algorithm.name} has no servers"
            raise ScenarioError("run.server_restarts", self.run.server_restarts, valid)
        if self.faults:
            self._check_faults(algorithm)
        if algorithm.centralized:
            count = self.cluster.servers.count
            try:
                partition(layer_sizes(self.workload), range(count), self.cluster.servers.sharding)
            except OptionError as error:
                raise ScenarioError(
                    f"cluster.servers.{_SERVERS[error.field]}", error.value, error.valid
                ) from error

    def _check_length(self) -> None:
        """Refuse more than ``MOST_STEPS``; of a run in seconds, as many as its compute alone allows."""
        run, n, compute = self.run, self.cluster.workers, self.cluster.compute
        shortest = compute.mean * min(self.cluster.scale, default=1.0)
        most = {
            "steps": MOST_STEPS // n,
            "samples": MOST_STEPS * self.workload.batch,
            "seconds": MOST_STEPS / n * shortest,
        }
        for name, limit in most.items():
            if getattr(run, name) > limit:
                why = f"at most {limit:.15g}: {MOST_STEPS:,} steps of all {n} workers together"
                raise ScenarioError(f"run.{name}", getattr(run, name), why)

    def _check_faults(self, algorithm: Algorithm) -> None:
        """Refuse faults that cannot happen, or that the algorithm does not bear."""
        servers = self.cluster.servers.count if algorithm.centralized else 0
        check_faults(self.faults, self.cluster.workers, servers, algorithm, self.run.heartbeat_timeout)
        if algorithm.collective and self.cluster.network.collective == "messages" and returns(self.faults):
            why = f"{self.algorithm.name}'s all-reduce takes in nobody where messages do it from the start"
            raise ScenarioError("cluster.network.collective", "messages", f"native where workers join: {why}")

    def compact(self) -> dict[str, Any]:
        """Its fields; no faults are not worth a word."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return found if self.faults else {name: value for name, value in found.items() if name != "faults"}

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Scenario:
        """The scenario that ``tree`` (as from ``to_dict`` or YAML) describes."""
        return build(cls, tree)

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """``algorithm: asp`` is short for ``algorithm: {name: asp}``; a missing ``run`` is an empty one."""
        if isinstance(tree.get("algorithm"), str):
            tree["algorithm"] = {"name": tree["algorithm"]}
        tree.setdefault("run", {})
        return tree

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: mappings, lists, text and numbers in base units; infinity as ``unlimited``."""
        tree: dict[str, Any] = plain(self)
        return tree

    def override(self, overrides: Mapping[str, Any]) -> Scenario:
        """The same scenario with fields changed by path: ``{"cluster.workers": 16}``.

        Layouts expand anew. A new ``algorithm.name`` starts without the options of the old one, and without
        restarts of servers if it has none; a new budget (``run.steps``, ``run.seconds``, ``run.samples``)
        replaces the old one.
        """
        from scenarios.overrides import apply

        return Scenario.from_dict(apply(self.to_dict(), overrides))


def _anything(workers: int) -> None:
    """Algorithms without ``check`` take any number of workers."""


_SERVERS = {"servers": "count", "sharding": "sharding"}

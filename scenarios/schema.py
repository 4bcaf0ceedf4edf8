"""Scenario = cluster + workload + algorithm + run: what to run, typed, validated and unit-aware.

(Skeleton: the field names below are the contract; see docs.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepTime:
    """Distribution of one step's compute time. ``spread`` is the coefficient of variation."""

    model: str = "constant"  # constant | lognormal | gamma | shifted_exponential | empirical
    mean: float = 0.1  # seconds, before slow-downs
    spread: float = 0.0
    samples: tuple[float, ...] = ()  # seconds, for `empirical`
    scale: tuple[float, ...] = ()  # optional per-rank factor on the mean (device speeds), length n


@dataclass(frozen=True)
class Slowdown:
    """A straggler: multiplies the step times of ``ranks``."""

    kind: str = "fixed"  # fixed | transient | heavy_tailed | scheduled
    ranks: tuple[int, ...] = ()
    factor: float = 1.0  # fixed, transient (while on); heavy_tailed: scale is 1, see shape
    mean_on: float = 0.0  # transient: mean seconds slow
    mean_off: float = 0.0  # transient: mean seconds at full speed
    shape: float = 2.5  # heavy_tailed: Pareto shape (factor = 1 + Lomax draw per step)
    intervals: tuple[tuple[float, float, float], ...] = ()  # scheduled: (start s, end s, factor)


@dataclass(frozen=True)
class Machine:
    """One machine: full-duplex NIC, and bandwidth of traffic that stays inside it."""

    name: str
    up: float  # bytes/s
    down: float  # bytes/s
    latency: float = 0.0  # seconds added by this NIC to every path through it
    local_bandwidth: float = 8e9  # bytes/s
    local_latency: float = 0.0


@dataclass(frozen=True)
class Servers:
    """Parameter servers: how many, where, and how parameters are split over them."""

    count: int = 1
    placement: str | tuple[str, ...] = "dedicated"  # dedicated | beside | machine name per server
    sharding: str = "memory"  # memory | layer
    bandwidth: float = 0.0  # bytes/s of a dedicated server machine's NIC; 0: as the workers'


@dataclass(frozen=True)
class Network:
    """How messages move: admission, windows, fixed costs, and the all-reduce."""

    admission: str | int = "fifo"  # fifo | <k> | fair
    window: float = 1  # messages per (sender, receiver) in flight; math.inf = unlimited
    inbox: float = 2  # unread messages per (sender, receiver) before grants stop; math.inf = unlimited
    overhead: float = 0.0  # seconds per message
    collective: str = "native"  # native | messages
    allreduce: str = "ring"
    allreduce_alpha: float = 0.0  # seconds per ring step, native closed form; 0: path latency
    allreduce_bandwidth: float = 0.0  # bytes/s of the native ring; 0: that of the slowest NIC


@dataclass(frozen=True)
class Cluster:
    """Machines, who runs where, how fast they compute and how unevenly."""

    workers: int = 4
    machines: tuple[Machine, ...] = ()  # one entry per machine, dedicated server machines included
    placement: tuple[int, ...] = ()  # worker rank -> index into machines
    servers: Servers = field(default_factory=Servers)
    network: Network = field(default_factory=Network)
    compute: StepTime = field(default_factory=StepTime)
    slowdowns: tuple[Slowdown, ...] = ()
    workers_per_device: int = 1  # > 1: processor sharing on one device
    device_slots: float = 1.0  # workers that a device serves at full speed at once
    tensor_rates: Mapping[str, float] = field(default_factory=dict)  # operation -> bytes/s
    tensor_seconds: Mapping[str, float] = field(default_factory=dict)  # operation -> seconds per call


@dataclass(frozen=True)
class Workload:
    """Model and data. ``parameters`` overrides the count for timing-only runs."""

    model: str = "mlp"  # mlp | cnn | resnet50 | vgg16
    data: str = "digits"  # digits | cifar10 | synthetic
    batch: int = 32
    image_size: int = 0  # 0: the data set's own
    classes: int = 0
    hidden: tuple[int, ...] = ()
    parameters: int = 0
    data_dir: str = ""
    weight_decay: float = 1e-4


@dataclass(frozen=True)
class AlgorithmChoice:
    """An algorithm by name with its options, and the optimizer's settings."""

    name: str = "asp"
    options: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 0.05
    lr_scaling: str = "linear"
    momentum: float = 0.9
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 0.1


@dataclass(frozen=True)
class Run:
    """How long, how measured, and how the real driver emulates."""

    steps: int = 0  # per worker; exactly one of steps, seconds, samples
    seconds: float = 0.0
    samples: int = 0
    warmup_steps: int = 2
    seed: int = 0
    compute: str = "paced"  # native | paced
    links: str = "paced"  # native | paced
    device: str = "cpu"  # cpu | cuda
    spans: bool = False
    heartbeat_timeout: float = 5.0
    evaluate: bool = True


@dataclass(frozen=True)
class Scenario:
    """One run, completely described."""

    name: str = "unnamed"
    description: str = ""
    cluster: Cluster = field(default_factory=Cluster)
    workload: Workload = field(default_factory=Workload)
    algorithm: AlgorithmChoice = field(default_factory=AlgorithmChoice)
    run: Run = field(default_factory=Run)

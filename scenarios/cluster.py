"""The cluster: machines, who runs where, how fast they compute and how unevenly, how messages move.

Rules this module obeys:

* Sizes are bytes, rates bytes/s, times seconds; text with units is read on the way in.
* A cluster is given either machine by machine (``machines``, ``placement``) or by a ``Layout`` of
  equal machines, from which machines and placement follow. With a layout they are never given as
  well, so a change of ``workers`` always expands anew.
* Every worker and every server stands on a machine that exists; every slow-down names ranks that do.
* In YAML the layout's fields stand directly under ``cluster``. There, ``latency`` is that of a path
  between two machines; each NIC's ``Machine.latency`` is half of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from core.collectives import ALGORITHMS
from core.tensors import OPERATIONS
from scenarios.compute import Slowdown, StepTime
from scenarios.errors import ScenarioError, unknown
from scenarios.fields import (
    amount,
    check,
    choice,
    each,
    integer,
    listed,
    nested,
    number,
    of_kind,
    real,
    sequence,
    table,
    whole,
)
from scenarios.heterogeneity import Heterogeneity
from scenarios.machines import MOST, Machine, twin
from scenarios.paths import Paths
from scenarios.topology import Topology, spread

__all__ = [
    "MOST", "Cluster", "Heterogeneity", "Host", "Layout", "Machine", "Network", "Servers", "Slowdown",
    "StepTime",
]  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Equal machines, filled with workers in order of rank.

    machines            how many hold workers; 0: as many as ``workers_per_machine`` needs
    workers_per_machine 0: spread evenly over ``machines``
    bandwidth           bytes/s of every NIC, each way
    latency             seconds of a path between two machines (each NIC adds half)
    """

    machines: int = whole(0, high=MOST)
    workers_per_machine: int = whole(0, high=MOST)
    bandwidth: float = amount(1.25e9, "bytes/s", above=0.0)
    latency: float = amount(0.0, "seconds")
    local_bandwidth: float = amount(8e9, "bytes/s", above=0.0)
    local_latency: float = amount(0.0, "seconds")

    def __post_init__(self) -> None:
        check(self)

    def place(self, workers: int) -> tuple[int, ...]:
        """Machine of each worker; raises where the machines do not hold the workers."""
        count, per = self.machines, self.workers_per_machine
        if not count or per:
            per = per or 1
            if count and count * per < workers:
                raise ScenarioError(
                    "machines", count, f"at least {-(-workers // per)}, for {workers} workers, {per} each"
                )
            return tuple(rank // per for rank in range(workers))
        if count > workers:
            raise ScenarioError("machines", count, f"at most {workers}, the number of workers")
        return tuple(rank * count // workers for rank in range(workers))

    def expand(self, workers: int, servers: Servers) -> tuple[tuple[Machine, ...], tuple[int, ...]]:
        """The machines, those of dedicated servers last, and the machine of each worker."""
        placement = self.place(workers)
        shared = (self.latency / 2, self.local_bandwidth, self.local_latency)
        names = [f"machine{i}" for i in range(max(self.machines, placement[-1] + 1))]
        model = Machine("machine", self.bandwidth, self.bandwidth, *shared)
        machines = [twin(model, name) for name in names]
        if servers.placement == "dedicated":
            rate = servers.bandwidth or self.bandwidth
            machines += [Machine(f"server{i}", rate, rate, *shared) for i in range(servers.count)]
        return tuple(machines), placement


_PLACEMENTS = ("dedicated", "beside", "spread")


def _server_placement(value: Any, name: str) -> str | tuple[str, ...]:
    if value in _PLACEMENTS:
        return str(value)
    names: tuple[str, ...] = sequence(_machine_name)(value, name)
    return names


def _machine_name(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ScenarioError(name, value, "dedicated, beside, spread, or a name per server")
    return value


@dataclass(frozen=True)
class Servers:
    """Parameter servers: how many, where, and how parameters are split over them.

    count      number of servers, a shard each (used by centralized algorithms only)
    placement  dedicated: on machines of their own. beside: on the workers' machines, in turn.
               spread: likewise, those of different sites and racks in turn.
               Or, for each server, the name of a machine, or of a rack or site (its machines in turn)
    sharding   memory (equal parts) | layer (whole layers)
    bandwidth  bytes/s of a dedicated server machine's NIC in a layout; 0: as the workers'
    """

    count: int = whole(1, low=1, high=MOST)
    placement: str | tuple[str, ...] = of_kind("dedicated", _server_placement)
    sharding: str = choice("memory", "memory", "layer")
    bandwidth: float = amount(0.0, "bytes/s")

    def __post_init__(self) -> None:
        check(self)
        if isinstance(self.placement, tuple) and len(self.placement) != self.count:
            raise ScenarioError(
                "placement", self.placement, f"one machine's name for each of {self.count} servers"
            )


def _admission(value: Any, name: str) -> str | int:
    if value in ("fifo", "fair"):
        return str(value)
    try:
        return int(integer(1)(value, name))
    except ScenarioError:
        raise ScenarioError(name, value, "fifo, fair, or a whole number of at least 1") from None


@dataclass(frozen=True)
class Network:
    """How messages move: admission, windows, fixed costs, and the all-reduce.

    admission            fifo | fair | k: messages that move at once through one NIC direction
    window               messages per (sender, receiver) not yet delivered; may be unlimited
    inbox                unread messages per (sender, receiver) before grants stop; may be unlimited
    overhead             seconds per message, in addition to latency
    burst                bytes that every NIC direction saves while it is idle and then passes at once, like a
                         token bucket; only where one message moves at a time (fifo, no links between)
    backplane            bytes/s that all traffic between machines shares (a switch's backplane, or
                         one host that plays them all); 0: no such limit
    collective           native (closed form; gloo or NCCL in reality) | messages (a program)
    allreduce            ring | tree | halving_doubling | hierarchical (docs/collectives.md)
    allreduce_alpha      seconds per step of the native closed form; 0: the path's latency
    allreduce_bandwidth  bytes/s per connection of the native closed form; 0: what the NICs leave
    allreduce_chunk      bytes of the pieces in which the tree's all-reduce is pipelined
    """

    admission: str | int = of_kind("fifo", _admission)
    window: float = of_kind(1, integer(1, unlimited=True))
    inbox: float = of_kind(2, integer(1, unlimited=True))
    overhead: float = amount(0.0, "seconds")
    burst: float = amount(0.0, "bytes")
    backplane: float = amount(0.0, "bytes/s")
    collective: str = choice("native", "native", "messages")
    allreduce: str = choice("ring", *ALGORITHMS)
    allreduce_alpha: float = amount(0.0, "seconds")
    allreduce_bandwidth: float = amount(0.0, "bytes/s")
    allreduce_chunk: float = amount(1e6, "bytes", low=1e3)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Host:
    """One machine that plays all nodes of an emulated cluster: they share its cores.

    Steps (where ``run.compute`` is native), tensor work and the moving of bytes slow each other down
    once more cores are asked for than there are. A native step of a worker with companions begins with a
    copy of its parameters, as the real driver makes one. Filled in by a profile; unset for real clusters.

    cores      that the nodes share; 0: every node has a processor of its own
    slots      cores' worth of work that is done while one, two, ... jobs ask for a core, the last also for
               more; none: as many as there are cores
    byte_cost  seconds of one core that moving a byte takes, both ends together
    beside     how many times as much of that jobs lose while one, two, ... of them ask for a core, the last
               also for more; none: once
    moving     cores that a message keeps busy while it moves at its link's own pace, however slowly: what
               wakes its ends up again and again
    gradient   seconds of one core that the real gradient inside a paced step takes
    cold       seconds that a native step takes longer after its worker has been blocked or slowed down for
               ``pause`` seconds (caches gone cold, a processor that slept); a shorter pause costs its share
    pause      seconds of that pause; 0: any pause costs the whole
    ring_lag   seconds by which the messages of an all-reduce by messages ask late, in the mean (drawn for
               every message, exponentially): all its nodes reach a ring step at once and queue for the cores
    handover   seconds for which a link rests between a message of one connection and one of another that has
               waited for it: until the next sender has heard that it is its turn
    message    seconds that a program spends on a message that it sends or takes, beside tensor operations
    draw       which draw of what no run repeats (native steps, cores, lags) a simulation makes; 0, 1, ...
    """

    cores: float = number(0.0, low=0.0, high=MOST)
    slots: tuple[float, ...] = listed(real(above=0.0, high=MOST))
    byte_cost: float = amount(0.0, "seconds")
    beside: tuple[float, ...] = listed(real(low=0.0, high=MOST))
    moving: float = number(0.0, low=0.0, high=MOST)
    gradient: float = amount(0.0, "seconds")
    cold: float = amount(0.0, "seconds")
    pause: float = amount(0.0, "seconds")
    ring_lag: float = amount(0.0, "seconds")
    handover: float = amount(0.0, "seconds")
    message: float = amount(0.0, "seconds")
    draw: int = whole(0)

    def __post_init__(self) -> None:
        check(self)


_LAYOUT = tuple(field.name for field in fields(Layout))


def _optional_layout(value: Any, name: str) -> Layout | None:
    if value is None or isinstance(value, Layout):
        return value
    raise ScenarioError(
        name, value, f"no such field; its parts ({', '.join(_LAYOUT)}) stand directly under cluster"
    )


_TOPOLOGY = tuple(field.name for field in fields(Topology) if field.name != "groups")


def _optional_topology(value: Any, name: str) -> Topology | None:
    if value is None or isinstance(value, Topology):
        return value if value is not None and (value.joined or value.groups) else None
    raise ScenarioError(
        name, value, f"no such field; its parts ({', '.join(_TOPOLOGY)}) stand directly under cluster"
    )


@dataclass(frozen=True)
class Cluster:
    """Machines, who runs where, how fast they compute and how unevenly.

    workers             n
    machines            one entry per machine, dedicated server machines included
    placement           worker rank -> index into ``machines``
    workers_per_device  more than 1: so many workers share a device (processor sharing)
    device_slots        workers that a device serves at full speed at once
    host                the machine that plays all nodes, where one does
    tensor_rates        operation -> bytes/s; tensor_seconds: operation -> seconds per call
    layout              equal machines in short; None where machines are given one by one
    topology            racks, sites and what joins them; None where nothing lies between the NICs
    heterogeneity       how device speeds and NICs differ

    ``scale`` (factor on each worker's step time; empty: 1) and ``paths`` (None without a topology) follow.
    """

    workers: int = whole(4, low=1, high=MOST)
    machines: tuple[Machine, ...] = each(Machine)
    placement: tuple[int, ...] = listed(integer(0))
    servers: Servers = nested(Servers)
    network: Network = nested(Network)
    compute: StepTime = nested(StepTime)
    slowdowns: tuple[Slowdown, ...] = each(Slowdown)
    workers_per_device: int = whole(1, low=1, high=MOST)
    device_slots: float = number(1.0, low=0.01, high=MOST)
    host: Host = nested(Host)
    tensor_rates: Mapping[str, float] = table(real(dimension="bytes/s", above=0.0), *OPERATIONS)
    tensor_seconds: Mapping[str, float] = table(real(dimension="seconds", low=0.0), *OPERATIONS)
    layout: Layout | None = of_kind(None, _optional_layout)
    topology: Topology | None = of_kind(None, _optional_topology)
    heterogeneity: Heterogeneity = nested(Heterogeneity)

    ALSO: ClassVar[tuple[str, ...]] = (*_LAYOUT, *_TOPOLOGY)
    scale: ClassVar[tuple[float, ...]] = ()
    paths: ClassVar[Paths | None] = None

    def __post_init__(self) -> None:
        check(self)
        grouped = self.topology is not None and bool(self.topology.groups)
        if self.layout is None and not self.machines and not grouped:
            object.__setattr__(self, "layout", Layout())
        if self.topology is not None and grouped == (self.layout is not None):
            hint = "needs either a layout or groups of machines, and no machines one by one"
            raise ScenarioError("topology", hint=hint)
        if self.layout is None and not grouped:
            self._check_machines()
        else:
            self._expand(self.layout)
        self._check_references()
        if self.paths is not None:
            used = dict.fromkeys((*self.placement, *self.server_machines()))
            self.paths.check(list(used), [machine.name for machine in self.machines])
        own, factors = self.compute.scale, self.heterogeneity.scale(self.placement, self.compute.mean)
        scale = tuple(a * b for a, b in zip(own, factors, strict=True)) if own and factors else own or factors
        object.__setattr__(self, "scale", scale)

    def _expand(self, layout: Layout | None) -> None:
        machines: tuple[Machine, ...]
        if self.topology is not None:
            dedicated = self.servers.count if self.servers.placement == "dedicated" else 0
            vary = self.heterogeneity.machines
            made = self.topology.arrange(layout, self.workers, dedicated, self.servers.bandwidth, vary)
            machines, placement = made.machines, made.placement
            object.__setattr__(self, "paths", made.paths)
        else:
            assert layout is not None
            machines, placement = layout.expand(self.workers, self.servers)
            machines = self.heterogeneity.machines(machines, placement)
        if (self.machines and self.machines != machines) or (self.placement and self.placement != placement):
            if not self.machines:
                hint = "is for a list of machines, of which there is none"
                raise ScenarioError("placement", self.placement, hint=hint)
            found = f"{len(self.machines)} machines, {len(self.placement)} workers placed"
            hint = (
                f"({found}) contradicts the layout; use Scenario.override, or give layout=None with machines"
            )
            raise ScenarioError("machines", hint=hint)
        object.__setattr__(self, "machines", machines)
        object.__setattr__(self, "placement", placement)

    def _check_machines(self) -> None:
        names = [machine.name for machine in self.machines]
        if self.heterogeneity.networked:
            why = (
                "NICs that differ (heterogeneity) need a layout, or a list of machines that say their workers"
            )
            raise ScenarioError("machines", hint=why)
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            if not name or first.setdefault(name, i) != i:
                raise ScenarioError(f"machines[{i}].name", name, "a name that no other machine has")
        if not self.placement:
            room = len(names) - (self.servers.count if self.servers.placement == "dedicated" else 0)
            if room < 1:
                raise ScenarioError("machines", len(names), "more machines than dedicated servers")
            object.__setattr__(
                self,
                "placement",
                tuple(r * min(room, self.workers) // self.workers for r in range(self.workers)),
            )
        if len(self.placement) != self.workers:
            raise ScenarioError("placement", self.placement, f"a machine for each of {self.workers} workers")
        for rank, machine in enumerate(self.placement):
            if machine >= len(names):
                raise ScenarioError(
                    f"placement[{rank}]", machine, f"a machine between 0 and {len(names) - 1}"
                )

    def _check_references(self) -> None:
        self.server_machines()
        for i, slow in enumerate(self.slowdowns):
            for rank in slow.ranks:
                if rank >= self.workers:
                    raise ScenarioError(
                        f"slowdowns[{i}].ranks", rank, f"a rank between 0 and {self.workers - 1}"
                    )
        if self.compute.scale and len(self.compute.scale) != self.workers:
            raise ScenarioError(
                "compute.scale", self.compute.scale, f"a factor for each of {self.workers} workers"
            )

    def server_machines(self) -> tuple[int, ...]:
        """The machine of each server; raises ``ScenarioError`` where one does not exist."""
        count, where = self.servers.count, self.servers.placement
        hosts = sorted(set(self.placement))
        if where == "beside":
            return tuple(hosts[i % len(hosts)] for i in range(count))
        if where == "dedicated":
            occupied = set(hosts)
            free = [i for i in range(len(self.machines)) if i not in occupied]
            if len(free) < count:
                raise ScenarioError(
                    "servers.count", count, f"at most {len(free)}, the machines without workers"
                )
            return tuple(free[:count])
        if where == "spread":
            hosts = self._spread(hosts)
            return tuple(hosts[i % len(hosts)] for i in range(count))
        names: dict[str, list[int]] = {}
        if self.paths is not None:
            for i, index in enumerate(self.paths.where):
                place = self.paths.places[index]
                site = self.paths.sites[place.site] if self.paths.sites else place.name
                for name in {place.name: None, site: None}:
                    names.setdefault(name, []).append(i)
        names |= {machine.name: [i] for i, machine in enumerate(self.machines)}
        found: list[int] = []
        for i, name in enumerate(where):
            if name not in names:
                raise unknown(f"servers.placement[{i}]", name, [*_PLACEMENTS, *names])
            found.append(names[name][where[:i].count(name) % len(names[name])])
        return tuple(found)

    def _spread(self, hosts: list[int]) -> list[int]:
        """Machines, those of different sites and racks in turn."""
        if self.paths is None:
            return hosts
        held: dict[int, list[int]] = {}
        for machine in hosts:
            held.setdefault(self.paths.where[machine], []).append(machine)
        order = [held[i] for i in spread(self.paths.places) if i in held]
        return [own[i] for i in range(max(map(len, order))) for own in order if i < len(own)]

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """Gathers the layout's fields; reads a list of machines that say how many workers they hold."""
        if tree.get("topology") is None:
            further = {name: tree.pop(name) for name in _TOPOLOGY if name in tree}
            listed = isinstance(tree.get("machines"), (list, tuple))
            groups = tree["machines"] if listed and _grouped(tree, further) else ()
            if further or groups:
                tree["topology"] = _optional_topology(Topology(**further, groups=groups), "topology")
            if groups:
                for name in ("placement", *_LAYOUT):
                    if name != "machines" and name in tree:
                        raise ScenarioError(name, tree[name], hint="has no place beside groups of machines")
                tree.setdefault("workers", tree["topology"].workers)
                return {name: value for name, value in tree.items() if name != "machines"}
        if isinstance(tree.get("machines"), (list, tuple)):
            for name in _LAYOUT:
                if name != "machines" and name in tree:
                    raise ScenarioError(name, tree[name], hint="has no place beside a list of machines")
            return _place_listed(tree)
        given = {name: tree.pop(name) for name in _LAYOUT if name in tree}
        if tree.get("layout") is None:
            tree["layout"] = Layout(**given)
        counted = isinstance(tree.get("topology"), Topology) and isinstance(tree["layout"], Layout)
        if counted and "workers" not in tree:
            racks, machines, per = tree["topology"].counts(tree["layout"])
            tree["workers"] = max(racks, len(tree["topology"].site_names), 1) * machines * per
        return tree

    def compact(self) -> dict[str, Any]:
        """The fields as they are written: the layout's in place of machines and placement."""
        tree = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layout"}
        if self.layout is not None:
            del tree["placement"]
            tree |= {name: getattr(self.layout, name) for name in _LAYOUT}
        del tree["topology"]
        if self.heterogeneity == Heterogeneity():
            del tree["heterogeneity"]
        if self.topology is not None:
            default = Topology()
            given = {name: getattr(self.topology, name) for name in _TOPOLOGY}
            tree |= {name: value for name, value in given.items() if value != getattr(default, name)}
            if self.topology.groups:
                tree |= {"machines": self.topology.groups}
                del tree["placement"], tree["workers"]
            elif self.layout is not None and self.layout.workers_per_machine and self._counted(self.layout):
                del tree["workers"]
        return tree

    def _counted(self, layout: Layout) -> bool:
        """Whether the number of workers follows from other counts of a topology."""
        one = self.topology
        return one is not None and bool(layout.machines or one.machines_per_rack or one.machines_per_site)


def _grouped(tree: Mapping[str, Any], further: Mapping[str, Any]) -> bool:
    """Whether listed machines are groups: because they say so, or something else needs them to be."""
    own = ("count", "rack", "site")
    said = any(
        isinstance(machine, Mapping) and any(name in machine for name in own) for machine in tree["machines"]
    )
    return said or bool(further) or bool(tree.get("heterogeneity"))


def _place_listed(tree: dict[str, Any]) -> dict[str, Any]:
    """Machines that say ``workers: k`` hold the next k ranks."""
    placement: list[int] = []
    machines: list[Any] = []
    for i, machine in enumerate(tree["machines"]):
        held = dict(machine) if isinstance(machine, Mapping) else machine
        if isinstance(held, dict) and "workers" in held:
            placement += [i] * int(integer(0, MOST)(held.pop("workers"), f"machines[{i}].workers"))
        machines.append(held)
    if placement and "placement" in tree:
        raise ScenarioError(
            "placement", tree["placement"], "nothing where machines say how many workers they hold"
        )
    if placement:
        tree["placement"] = placement
        tree.setdefault("workers", len(placement))
    return tree | {"machines": machines}

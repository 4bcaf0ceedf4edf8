"""Plan: what both drivers derive from a scenario, derived once and alike.

Rules this module obeys:

* Nothing here depends on a driver, on time or on values of parameters.
* Workers are nodes 0 .. n-1, servers n .. n+S-1; a decentralized algorithm has no servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from core.collectives import CHOICE, Choice
from core.node import Algorithm, Node
from core.optimizer import MomentumSGD, Schedule
from core.record import Ledger
from core.sharding import Shard, partition
from core.tensors import Tensors
from scenarios.faults import returns
from scenarios.schema import Scenario
from scenarios.streams import stream
from scenarios.workloads.layers import layer_sizes, training_samples

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """A scenario made concrete.

    algorithm          instance, with its options
    layers             elements of each layer; parameters: their sum
    shards             slices of the global model, one per server; empty without servers
    servers            their node ids
    machine_of         node id -> index into ``scenario.cluster.machines``
    schedule           learning rate by global samples
    samples_per_epoch  training samples of the data set
    """

    scenario: Scenario
    algorithm: Algorithm
    layers: tuple[int, ...]
    parameters: int
    shards: tuple[Shard, ...]
    servers: tuple[int, ...]
    machine_of: tuple[int, ...]
    schedule: Schedule
    samples_per_epoch: int

    @property
    def workers(self) -> int:
        """n."""
        return self.scenario.cluster.workers

    @property
    def nodes(self) -> range:
        """Ids of all nodes, workers first."""
        return range(self.workers + len(self.servers))

    @property
    def accounts(self) -> bool:
        """Whether gradients go to servers, whose ledgers then account for all of them."""
        return bool(self.servers) and getattr(self.algorithm, "sends_gradients", True)

    @property
    def native(self) -> bool:
        """Whether gradients are reduced by gloo or NCCL, on connections of their own."""
        return self.algorithm.collective and self.scenario.cluster.network.collective == "native"

    def node(
        self,
        id: int,
        params: Any,
        tensors: Tensors,
        ledger: Ledger | None = None,
        live: set[int] | None = None,
    ) -> Node:
        """Node ``id`` with its ``params`` (a worker's whole vector, a server's slice; or a Phantom).

        ``live``, where given, is the set that the driver keeps; else the node gets one of its own.
        """
        scenario, n = self.scenario, self.workers
        return Node(
            id=id,
            workers=n,
            params=params,
            shards=self.shards,
            tensors=tensors,
            optimizer=MomentumSGD(scenario.algorithm.momentum),
            schedule=self.schedule,
            batch=scenario.workload.batch,
            layers=self.layers,
            live=set(range(n)) if live is None else live,
            ledger=ledger if ledger is not None else Ledger(id),
            stream=self._stream,
            memory={CHOICE: self.reduction},
            joins=returns(scenario.faults),
        )

    @cached_property
    def reduction(self) -> Choice:
        """The all-reduce of the scenario, and which workers share a machine."""
        network = self.scenario.cluster.network
        return Choice(network.allreduce, self.machine_of[: self.workers], network.allreduce_chunk)

    @property
    def _stream(self) -> Callable[[int, str], np.random.Generator]:
        return partial(stream, self.scenario.run.seed)


def plan(scenario: Scenario) -> Plan:
    """The plan of a (valid) scenario."""
    cluster, choice = scenario.cluster, scenario.algorithm
    algorithm = choice.make()
    layers = layer_sizes(scenario.workload)
    n = cluster.workers
    servers = tuple(range(n, n + cluster.servers.count)) if algorithm.centralized else ()
    shards = partition(layers, servers, cluster.servers.sharding) if servers else ()
    samples = training_samples(scenario.workload)
    schedule = Schedule(
        lr=choice.lr,
        workers=n,
        scaling=choice.lr_scaling,
        warmup_epochs=choice.warmup_epochs,
        milestones=choice.milestones,
        decay=choice.decay,
        samples_per_epoch=samples,
    )
    machine_of = cluster.placement + (cluster.server_machines() if servers else ())
    return Plan(scenario, algorithm, layers, sum(layers), shards, servers, machine_of, schedule, samples)

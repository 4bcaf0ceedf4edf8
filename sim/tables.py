"""From the hosts of a finished run to its record.

Rules this module obeys:

* A worker's parts are the sums over its step rows, whether they are kept or not (``sim/sampling.py``), so
  the tables agree; what came before a first step that never ended is added. ``idle`` is what is left of
  the run's length.
* A server's waiting is idle: it has nothing to do.
* A gradient counts as applied (or pending) once it is so on all servers; ``lost`` is the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from core.record import CURVE_COLUMNS, OBSERVATION_COLUMNS, PARTS, SCHEMA_VERSION, Record, StepLog

if TYPE_CHECKING:
    from sim.driver import Driver
    from sim.host import Host
    from sim.link import Link
    from sim.moving import Past

__all__ = ["length", "record"]

INTEGERS = ("node", "step", "blends", "server", "source", "count", "kind", "event", "incarnation")


def record(driver: Driver) -> Record:
    """The record of ``driver``'s run."""
    hosts = driver.hosts
    logs = driver.logs
    steps = logs.steps.table(INTEGERS)
    rows = _parts(driver, steps, length(driver))
    nodes: dict[str, Any] = {
        "node": np.array([host.id for host in hosts], dtype=np.int64),
        "role": np.array(["server" if host.server else "worker" for host in hosts]),
        "steps": np.array([host.made for host in hosts], dtype=np.int64),
        "samples": np.array([host.made * host.node.batch for host in hosts], dtype=np.int64),
        **{part: np.ascontiguousarray(rows[:, i]) for i, part in enumerate(PARTS)},
        "end": np.array([host.end for host in hosts]),
        **_traffic(hosts, driver.past),
        "blends": np.array([host.mixed for host in hosts], dtype=np.int64),
        **_fates(driver),
        "weight": np.array([0.0 if host.server or host.crashed else host.node.weight for host in hosts]),
    }
    return Record(
        manifest={"schema": SCHEMA_VERSION, **driver.manifest},
        nodes=nodes,
        steps=steps,
        gradients=logs.gradients.table(INTEGERS),
        spans=logs.spans.table(INTEGERS) if logs.spans is not None else {},
        links=_links(driver),
        observations=_observations(hosts),
        events=driver.events.table(INTEGERS) if driver.events is not None else {},
        **_numbers(driver),
    )


def length(driver: Driver) -> float:
    """Seconds until the last node ended; servers end when they have last gone on."""
    for host in driver.hosts:
        if host.server and not host.crashed:
            host.end = max(host.end, host.mark)
    return max(host.end for host in driver.hosts)


def _numbers(driver: Driver) -> dict[str, dict[str, np.ndarray]]:
    """The tables that need real gradients."""
    if driver.numerics is None:
        return {"curves": StepLog(CURVE_COLUMNS).table(("step", "samples"))}
    return dict(driver.numerics.tables())


def _observations(hosts: list[Host]) -> dict[str, np.ndarray]:
    """What probe programs measured, node by node."""
    every = StepLog(OBSERVATION_COLUMNS)
    for host in hosts:
        every.values.extend(host.node.observations.values)
    return every.table(INTEGERS)


def _parts(driver: Driver, steps: dict[str, np.ndarray], length: float) -> np.ndarray:
    """Seconds by node and part; every row adds up to ``length``."""
    rows = np.zeros((len(driver.hosts), len(PARTS)))
    idle = len(PARTS) - 1
    for i, part in enumerate(PARTS[:idle]):
        np.add.at(rows[:, i], steps["node"], steps[part])
    for rank, sums in driver.logs.sums(driver.hosts).items():
        rows[rank, :idle] = sums
    wait = PARTS.index("wait")
    for host in driver.hosts:
        row = rows[host.id]
        row[:idle] += host.unrecorded()
        if host.server:
            row[wait] = 0.0
        row[idle] = max(length - row[:idle].sum(), 0.0)
    return rows


def _traffic(hosts: list[Host], past: Past | None) -> dict[str, np.ndarray]:
    """Messages and bytes by node, delivered ones only."""
    messages = np.zeros((2, len(hosts)), dtype=np.int64)
    nbytes = np.zeros((2, len(hosts)))
    for node, counts in past.nodes.items() if past is not None else ():
        messages[:, node] += np.array(counts[:2], dtype=np.int64)
        nbytes[:, node] += counts[2:]
    for host in hosts:
        for pair in host.pairs.values():
            for i, node in enumerate((pair.source.id, pair.target.id)):
                messages[i, node] += pair.messages
                nbytes[i, node] += pair.bytes
    return {
        "messages_out": messages[0], "messages_in": messages[1], "bytes_out": nbytes[0], "bytes_in": nbytes[1]
    }  # fmt: skip


def _fates(driver: Driver) -> dict[str, np.ndarray]:
    """Gradients applied, pending and lost, by node."""
    ledgers = [host.node.ledger for host in driver.hosts if host.server]
    held = [ledger.pending() for ledger in ledgers]
    count = len(driver.hosts)
    applied, pending, lost = (np.zeros(count, dtype=np.int64) for _ in range(3))
    for host in driver.hosts:
        i = host.id
        if host.server:
            applied[i] = host.node.ledger.applied_total
            pending[i] = sum(host.node.ledger.pending().values())
        elif driver.plan.accounts:
            applied[i] = min(ledger.applied.get(i, 0) for ledger in ledgers)
            arrived = min(
                ledger.applied.get(i, 0) + h.get(i, 0) for ledger, h in zip(ledgers, held, strict=True)
            )
            pending[i] = arrived - applied[i]
            lost[i] = max(host.made - arrived, 0)
        else:
            lost[i] = host.lost
    return {"applied": applied, "pending": pending, "lost": lost}


def _links(driver: Driver) -> dict[str, np.ndarray]:
    """Every NIC's two directions: what they carried, and the seconds that this takes at full rate.

    With a topology also the links beyond them that were in use (machine -1), and the names of all.
    """
    table = _nics(driver)
    cluster = driver.plan.scenario.cluster
    if cluster.paths is None:
        return table
    further = driver.network.further
    carried = {link: _before(driver, link) for link in further.values()}
    for host in driver.hosts:
        for pair in host.pairs.values():
            for link in pair.path[1:-1]:
                carried[link] += pair.bytes
    capacity, nbytes = np.array([link.capacity for link in carried]), np.array([*carried.values()])
    parted = [name.rpartition(" ") for name in further]
    ways = [way if way in ("up", "down") else "wan" if own else "shared" for own, _, way in parted]
    names = [name for machine in cluster.machines for name in (machine.name, machine.name)]
    names += [
        own if way in ("up", "down") else name
        for name, way, (own, _, _) in zip(further, ways, parted, strict=True)
    ]
    more = {
        "machine": np.full(len(further), -1),
        "direction": np.array(ways, dtype=str),
        "capacity": capacity,
        "bytes": nbytes,
        "busy": nbytes / capacity,
    }
    joined = {name: np.concatenate([column, more[name]]) for name, column in table.items()}
    return joined | {"name": np.array(names, dtype=str)}


def _nics(driver: Driver) -> dict[str, np.ndarray]:
    """Both directions of every machine's NIC."""
    nics = driver.network.nics
    carried = np.array([(_before(driver, nic.up), _before(driver, nic.down)) for nic in nics]).reshape(-1, 2)
    for host in driver.hosts:
        for pair in host.pairs.values():
            if pair.source.nic is not pair.target.nic:
                carried[pair.source.nic.index, 0] += pair.bytes
                carried[pair.target.nic.index, 1] += pair.bytes
    capacity = np.array([link.capacity for nic in nics for link in (nic.up, nic.down)]).reshape(-1, 2)
    return {
        "machine": np.repeat(np.arange(len(nics)), 2),
        "direction": np.tile(np.array(["up", "down"]), len(nics)),
        "capacity": capacity.ravel(),
        "bytes": carried.ravel(),
        "busy": (carried / capacity).ravel(),
    }


def _before(driver: Driver, link: Link) -> float:
    """Bytes that connections carried over ``link`` before they took another way."""
    return driver.past.links.get(link, 0.0) if driver.past is not None else 0.0

"""What every record of a run with faults promises, on either driver."""

from __future__ import annotations

import numpy as np

from core.algorithms import ALGORITHMS
from core.record import EVENTS, PARTS, Record

__all__ = ["must_reconcile", "of"]


def of(record: Record, node: int) -> list[tuple[str, int]]:
    """(event, incarnation) of a node, in order of time."""
    events = record.events
    mine = events["node"] == node
    return [
        (EVENTS[kind], int(life))
        for kind, life in zip(events["event"][mine], events["incarnation"][mine], strict=True)
    ]


def must_reconcile(record: Record) -> None:
    """Every gradient, every second and every life is accounted for.

    Every gradient that a worker computed is applied, pending or lost; none is lost but by those that were
    killed, and of algorithms that send each gradient and wait for the answer one per death at most.
    """
    nodes, workers = record.nodes, record.nodes["role"] == "worker"
    name = record.manifest["scenario"]["algorithm"]["name"]
    kind = ALGORITHMS[name]
    if kind.centralized and getattr(kind, "sends_gradients", True):
        for i in np.flatnonzero(workers):
            deaths = sum(event == "crash" for event, _ in of(record, int(nodes["node"][i])))
            fates = [int(nodes[fate][i]) for fate in ("applied", "pending", "lost")]
            assert sum(fates) == nodes["steps"][i], f"worker {i}: {fates} of {nodes['steps'][i]}"
            assert min(fates) >= 0, fates
            if name in ("asp", "bsp", "ssp", "dssp"):
                assert nodes["lost"][i] <= deaths, f"worker {i} lost {nodes['lost'][i]} in {deaths} deaths"
            elif not deaths:
                assert nodes["lost"][i] == 0, f"worker {i} lost {nodes['lost'][i]} without dying"
        _none_is_forgotten(record)
        for server in nodes["node"][~workers]:
            for rank in nodes["node"][workers]:
                rows = (record.gradients["server"] == server) & (record.gradients["source"] == rank)
                assert record.gradients["count"][rows].sum() <= nodes["steps"][rank], "applied twice"
    _times(record)
    for rank in nodes["node"][workers]:
        _lives(of(record, int(rank)))
    if name == "gosgd":
        assert nodes["weight"].sum() <= 1 + 1e-9


def _none_is_forgotten(record: Record) -> None:
    """What servers have acknowledged they have applied or hold: of each worker, in all its lives together."""
    servers = record.nodes["role"] == "server"
    held = int(record.nodes["pending"][servers].sum())
    told = {int(rank): count for rank, count in record.manifest.get("acknowledged", {}).items()}
    for rank, count in told.items():
        applied = int(record.gradients["count"][record.gradients["source"] == rank].sum())
        assert count <= applied + held, f"worker {rank}: {count} acknowledged, {applied} applied, {held} held"
    assert sum(told.values()) <= int(record.nodes["applied"][servers].sum()) + held


def _times(record: Record) -> None:
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-6, atol=1e-6)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-6, atol=1e-6)


def _lives(found: list[tuple[str, int]]) -> None:
    """A life begins once, is ready once at most, and ends once at most; the next one begins thereafter."""
    there, life = bool(found) and found[0][0] != "join", 0
    for event, number in found:
        if event == "join":
            assert not there, found
            there, life = True, number
        elif event in ("crash", "leave"):
            assert there, found
            there = False
        assert number == life, found

"""From the nodes' tables to one record; evaluation of the trained model, outside the clock."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np
import torch

from core.errors import Diverged
from core.quality import judged
from core.record import (
    CURVE_COLUMNS,
    GRADIENT_COLUMNS,
    LOSS_COLUMNS,
    NODE_COLUMNS,
    OBSERVATION_COLUMNS,
    PARTS,
    SCHEMA_VERSION,
    SPAN_COLUMNS,
    STEP_COLUMNS,
    Record,
    StepLog,
    losses,
)
from scenarios import hardware
from scenarios.plan import Plan
from scenarios.workloads import load

__all__ = ["assemble", "diverged", "environment", "merged", "remains"]

OVERRUN = 0.2
"""Share of paced steps whose gradients may take longer than they do without a word: machines have moments."""

_LOSS_POINTS = 100

_WAIT, _RECEIVE = PARTS.index("wait"), PARTS.index("receive")


def assemble(
    plan: Plan,
    tables: Mapping[int, dict[str, Any]],
    params: Mapping[int, bytes | bytearray],
    left: Mapping[int, str],
    *,
    complete: bool,
    events: StepLog | None = None,
) -> Record:
    """The record of a run from what each surviving node handed over.

    params  node -> its parameters as float32 bytes; evaluated if there are any
    left    node -> why its process was lost, where nobody had planned that
    events  what befell the nodes; None where the scenario has neither faults nor restarts

    Of a worker that was lost or killed, steps (with samples) and lost gradients are exact (``real.counter``);
    its seconds are those of the steps that its last sign of life told of.
    """
    _split_reductions(tables)
    duration = max((t["totals"]["end"] for t in tables.values()), default=0.0)
    scenario = plan.scenario
    record = Record(
        manifest={
            "schema": SCHEMA_VERSION,
            "driver": "real",
            "name": scenario.name,
            "algorithm": scenario.algorithm.name,
            "scenario": scenario.to_dict(),
            "seed": scenario.run.seed,
            "parameters": plan.parameters,
            "complete": complete,
            "lost": {str(node): why for node, why in left.items()},
            "flags": [
                f"{_name(plan, node)} was lost ({why}); the run went on without it"
                for node, why in left.items()
            ]
            + _overcome(plan, tables)
            + _overrun(tables),
            "transport_seconds": {str(node): t["transport_seconds"] for node, t in tables.items()},
            "overruns": sum(t["overruns"] for t in tables.values()),
            "gradient_seconds": {
                str(node): t["gradient_seconds"] for node, t in tables.items() if node < plan.workers
            },
            "training_loss": _training_loss(tables),
            "tensor_operations": {str(node): t["tensors"] for node, t in tables.items()},
            **_journals(tables),
            "frames_dropped": {str(node): t["dropped"] for node, t in tables.items() if t["dropped"]},
            "environment": environment(),
        },
        nodes=_node_table(plan, tables, duration),
        steps=_table(STEP_COLUMNS, (t["rows"] for t in tables.values()), ("node", "step", "blends")),
        gradients=_table(
            GRADIENT_COLUMNS, (t["gradients"] for t in tables.values()), ("server", "source", "count")
        ),
        spans=_table(SPAN_COLUMNS, (t["spans"] for t in tables.values()), ("node", "kind")),
        observations=_table(
            OBSERVATION_COLUMNS, (t["observations"] for t in tables.values()), ("node", "kind")
        ),
    )
    record.links = _links(plan, tables)
    record.losses = _losses(tables)
    record.curves = _curves(plan, tables, params, duration)
    if events is not None:
        record.events = _in_order(events)
        acknowledged = {str(node): t["acknowledged"] for node, t in tables.items() if node < plan.workers}
        record.manifest["acknowledged"] = acknowledged if plan.accounts else {}
    return record


def _overrun(tables: Mapping[int, dict[str, Any]]) -> list[str]:
    """That paced steps were none, where more of them than ``OVERRUN`` took longer than they should have."""
    steps = sum(t["totals"]["steps"] for t in tables.values() if not t["totals"]["role"])
    late = sum(t["overruns"] for t in tables.values())
    if late <= OVERRUN * steps:
        return []
    return [f"{late} of {steps} paced steps took longer than they were to: their gradients alone did"]


def _name(plan: Plan, node: int) -> str:
    """What ``node`` is called in flags: servers by number, as in ``faults``."""
    return f"worker {node}" if node < plan.workers else f"server {node - plan.workers}"


def _overcome(plan: Plan, tables: Mapping[int, dict[str, Any]]) -> list[str]:
    """Of every server that got over trouble with checkpoints: how often, and the last."""
    noted = {node: table["journal"]["notes"] for node, table in tables.items() if table.get("journal")}
    return [f"{_name(plan, node)} went on without {len(notes)} checkpoints, the last: {notes[-1]}"
            for node, notes in noted.items() if notes]  # fmt: skip


def _journals(tables: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """What servers kept, by node; nothing where none did."""
    kept = {str(node): table["journal"] for node, table in tables.items() if table.get("journal")}
    return {"journals": kept} if kept else {}


def _in_order(events: StepLog) -> dict[str, np.ndarray]:
    """The events by time: processes tell of theirs a moment later."""
    table = events.table(("node", "event", "incarnation"))
    order = np.argsort(table["time"], kind="stable")
    return {name: column[order] for name, column in table.items()}


def _table(columns: tuple[str, ...], parts: Any, integers: tuple[str, ...]) -> dict[str, np.ndarray]:
    log = StepLog(columns)
    for part in parts:
        log.values.frombytes(part)
    return log.table(integers)


def remains(
    node: int, steps: int, rows: bytes, tally: tuple[int, int] = (0, 0), *, server: bool = False
) -> dict[str, Any]:
    """The tables of a node that handed over none, from what its signs of life had told by then.

    tally  steps completed and gradients acknowledged, as ``real.counter.Tally`` has them
    """
    steps = max(steps, tally[0])
    log = StepLog(STEP_COLUMNS)
    log.values.frombytes(rows)
    table = log.table()
    parts = [float(table[part].sum()) if part in table else 0.0 for part in PARTS]
    totals = {
        "node": node, "role": int(server), "steps": steps, "samples": 0, "parts": parts,
        "end": float(table["end"].max(initial=0.0)), "messages_out": 0, "messages_in": 0,
        "bytes_out": 0, "bytes_in": 0, "blends": int(table["blends"].sum()),
        "weight": 0.0,
    }  # fmt: skip
    empty: dict[str, Any] = dict.fromkeys(("gradients", "spans", "observations"), b"")
    nothing: dict[str, Any] = {name: {} for name in ("applied", "pending", "tensors", "dropped")}
    return {
        "totals": totals,
        "rows": rows,
        "joins": [],
        "losses": [],
        "overruns": 0,
        "acknowledged": tally[1],
        "gradient_seconds": 0.0,
        "transport_seconds": 0.0,
        **empty,
        **nothing,
    }


def merged(lives: list[dict[str, Any]]) -> dict[str, Any]:
    """One node's tables from those of its lives, in order. Of a replica's weight the last life's counts."""
    *before, last = lives
    if not before or last["totals"]["role"]:  # a server that comes back goes on where it was
        return last
    totals = dict(last["totals"])
    for name in ("steps", "samples", "messages_out", "messages_in", "bytes_out", "bytes_in", "blends"):
        totals[name] = sum(life["totals"][name] for life in lives)
    totals["parts"] = [sum(parts) for parts in zip(*(life["totals"]["parts"] for life in lives), strict=True)]
    totals["end"] = max(life["totals"]["end"] for life in lives)
    together = {**last, "totals": totals}
    for name in ("rows", "gradients", "spans", "observations"):
        together[name] = b"".join(life[name] for life in lives)
    together["losses"] = [loss for life in lives for loss in life["losses"]]
    for name in ("overruns", "transport_seconds", "acknowledged"):
        together[name] = sum(life[name] for life in lives)
    together["dropped"] = dict(sum((Counter(life["dropped"]) for life in lives), Counter[str]()))
    operations = [life["tensors"] for life in lives if life["tensors"]]
    together["tensors"] = {
        name: [sum(values) for values in zip(*(one[name] for one in operations), strict=True)]
        for name in (operations[0] if operations else ())
    }
    return together


def _node_table(plan: Plan, tables: Mapping[int, dict[str, Any]], duration: float) -> dict[str, np.ndarray]:
    """The ``nodes`` table; ``idle`` is what is left of the run's length."""
    rows = []
    for node in sorted(tables):
        t = tables[node]["totals"]
        parts = dict(zip(PARTS, t["parts"], strict=True))
        parts["idle"] = max(0.0, duration - sum(t["parts"][: PARTS.index("idle")]))
        nbytes = {name: float(t[name]) for name in ("bytes_out", "bytes_in")}
        role = "server" if t["role"] else "worker"
        values = {**t, **parts, **nbytes, "role": role, **_fate(plan, tables, node)}
        values["samples"] = t["steps"] * plan.scenario.workload.batch
        rows.append(tuple(values[name] for name in NODE_COLUMNS))
    return {
        name: np.asarray(column) for name, column in zip(NODE_COLUMNS, zip(*rows, strict=True), strict=True)
    }


def _fate(plan: Plan, tables: Mapping[int, dict[str, Any]], node: int) -> dict[str, int]:
    """Gradients applied, pending and lost: a worker's count as applied once they are so on all servers."""
    if node >= plan.workers:
        table = tables[node]
        return {
            "applied": sum(table["applied"].values()),
            "pending": sum(table["pending"].values()),
            "lost": 0,
        }
    if not plan.accounts:
        return {"applied": 0, "pending": 0, "lost": 0}
    applied = min(tables[server]["applied"].get(node, 0) for server in plan.servers)
    arrived = min(_arrived(plan, tables, node))
    lost = max(0, tables[node]["totals"]["steps"] - arrived)
    return {"applied": applied, "pending": arrived - applied, "lost": lost}


def _arrived(plan: Plan, tables: Mapping[int, dict[str, Any]], node: int) -> list[int]:
    """Gradients of a worker that each server has applied or holds."""
    servers = [tables[server] for server in plan.servers]
    return [server["applied"].get(node, 0) + server["pending"].get(node, 0) for server in servers]


def _links(plan: Plan, tables: Mapping[int, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Every node's NIC, up and down: bytes carried; of links with rates also these and the seconds busy."""
    held = plan.scenario.run.links in ("paced", "shaped")
    rows = []
    for node in sorted(tables):
        machine = plan.scenario.cluster.machines[plan.machine_of[node]]
        for direction, capacity, column in (
            ("up", machine.up, "bytes_out"),
            ("down", machine.down, "bytes_in"),
        ):
            carried = float(tables[node]["totals"][column])
            known = capacity if held else float("nan")
            rows.append((plan.machine_of[node], direction, known, carried, carried / known))
    names = ("machine", "direction", "capacity", "bytes", "busy")
    return {name: np.asarray(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _split_reductions(tables: Mapping[int, dict[str, Any]]) -> None:
    """Native all-reduce: what was booked as receive is wait until the last worker has joined the round."""
    joined: dict[int, float] = {}
    for table in tables.values():
        for number, _, join, _ in table["joins"]:
            joined[number] = max(joined.get(number, join), join)
    width = len(STEP_COLUMNS)
    wait_at, receive_at = STEP_COLUMNS.index("wait"), STEP_COLUMNS.index("receive")
    for table in tables.values():
        rows = array("d")
        rows.frombytes(table["rows"])
        for number, row, join, end in table["joins"]:
            waited = min(joined[number], end) - join
            if row * width < len(rows):
                rows[row * width + wait_at] += waited
                rows[row * width + receive_at] -= waited
            table["totals"]["parts"][_WAIT] += waited
            table["totals"]["parts"][_RECEIVE] -= waited
        table["rows"] = rows.tobytes()
        table["spans"] = _split_spans(table, joined)


def _split_spans(table: dict[str, Any], joined: Mapping[int, float]) -> bytes:
    """The same split in the spans: the receive span of a round starts when all have joined."""
    ends = {(join, end): min(joined[number], end) for number, _, join, end in table["joins"]}
    old, new = array("d"), array("d")
    old.frombytes(table["spans"])
    for node, kind, start, end in zip(*[iter(old)] * 4, strict=True):
        met = ends.get((start, end)) if int(kind) == _RECEIVE else None
        if met is None or met <= start:
            new.extend((node, kind, start, end))
            continue
        new.extend((node, _WAIT, start, met))
        if met < end:
            new.extend((node, kind, met, end))
    return new.tobytes()


def _curves(
    plan: Plan, tables: Mapping[int, dict[str, Any]], params: Mapping[int, bytes | bytearray], duration: float
) -> dict[str, np.ndarray]:
    """One row, on the final model (``core.quality``)."""
    log = StepLog(CURVE_COLUMNS)
    workers = [node for node in sorted(params) if node < plan.workers]
    servers = [node for node in sorted(params) if node >= plan.workers]
    if workers and len(servers) == len(plan.servers):
        replicas = {node: torch.frombuffer(bytearray(params[node]), dtype=torch.float32) for node in params}
        model, distance, lemma = judged(
            [replicas[node] for node in workers],
            [tables[node]["totals"]["weight"] for node in workers],
            [(shard, replicas[shard.server]) for shard in plan.shards],
        )
        device = plan.scenario.run.device
        task = load(plan.scenario.workload, plan.scenario.run.seed, device)
        loss, accuracy = task.evaluate(model.contiguous().to(device))
        steps = sum(table["totals"]["steps"] for table in tables.values())
        samples = steps * plan.scenario.workload.batch
        epoch = samples / plan.samples_per_epoch
        log.append((duration, steps, epoch, samples, loss, accuracy, distance, lemma))
    return log.table(("step", "samples"))


def diverged(record: Record) -> Diverged | None:
    """What ends a run whose final model has a test loss that is no finite number; else None."""
    curves, steps = record.curves, record.steps
    if not len(curves["loss"]) or isfinite(curves["loss"][-1]):
        return None
    row = int(steps["end"].argmax())
    last = int(steps["node"][row]), int(steps["step"][row])
    return Diverged(float(curves["loss"][-1]), record.duration, step=int(curves["step"][-1]), last=last)


def _losses(tables: Mapping[int, dict[str, Any]]) -> dict[str, np.ndarray]:
    """The loss of every worker's every step."""
    log = StepLog(LOSS_COLUMNS)
    for node, table in tables.items():
        for at, step, loss in table["losses"]:
            log.append((at, node, step, loss))
    return losses(log)


def _training_loss(tables: Mapping[int, dict[str, Any]]) -> dict[str, list[float]]:
    """Mean loss of the mini-batches of all workers, in order of time, in at most ``_LOSS_POINTS`` groups."""
    losses = sorted((at, loss) for table in tables.values() for at, _, loss in table["losses"])
    groups = np.array_split(np.array(losses), min(_LOSS_POINTS, len(losses))) if losses else []
    return {
        "time": [float(group[:, 0].mean()) for group in groups],
        "loss": [float(group[:, 1].mean()) for group in groups],
    }


def environment() -> dict[str, Any]:
    """Versions, hardware and date: everything in a record that depends on the machine."""
    gpu = {"gpu": torch.cuda.get_device_name(0)} if torch.cuda.is_available() else {}
    return {
        **hardware.environment(("torch", "numpy", "pyzmq", "msgspec")),
        **gpu,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }

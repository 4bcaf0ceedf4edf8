"""From the nodes' tables to one record; evaluation of the trained model, outside the clock."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.record import (
    CURVE_COLUMNS,
    GRADIENT_COLUMNS,
    NODE_COLUMNS,
    OBSERVATION_COLUMNS,
    PARTS,
    SCHEMA_VERSION,
    SPAN_COLUMNS,
    STEP_COLUMNS,
    Record,
    StepLog,
)
from scenarios.plan import Plan
from scenarios.workloads import load

__all__ = ["assemble", "environment"]

_WAIT, _RECEIVE = PARTS.index("wait"), PARTS.index("receive")


def assemble(
    plan: Plan, tables: Mapping[int, dict[str, Any]], params: Mapping[int, bytes], left: Mapping[int, str], *, complete: bool
) -> Record:
    """The record of a run from what each surviving node handed over.

    params  node -> its parameters as float32 bytes; evaluated if there are any
    left    node -> why its process was lost
    """
    _split_reductions(tables)
    duration = max((t["totals"]["end"] for t in tables.values()), default=0.0)
    nodes = [_totals(tables[node], duration) for node in sorted(tables)]
    columns = dict(zip(NODE_COLUMNS, zip(*nodes, strict=True), strict=True)) if nodes else dict.fromkeys(NODE_COLUMNS, ())
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
            "overruns": sum(t["overruns"] for t in tables.values()),
            "gradient_seconds": {str(node): t["gradient_seconds"] for node, t in tables.items() if t["gradient_seconds"]},
            "tensor_operations": {str(node): t["tensors"] for node, t in tables.items()},
            "frames_dropped": {str(node): t["dropped"] for node, t in tables.items() if t["dropped"]},
            "environment": environment(),
        },
        nodes={name: np.asarray(column) for name, column in columns.items()},
        steps=_table(STEP_COLUMNS, (t["rows"] for t in tables.values()), ("node", "step", "blends")),
        gradients=_table(GRADIENT_COLUMNS, (t["gradients"] for t in tables.values()), ("server", "source", "count")),
        spans=_table(SPAN_COLUMNS, (t["spans"] for t in tables.values()), ("node", "kind")),
        observations=_table(OBSERVATION_COLUMNS, (t["observations"] for t in tables.values()), ("node", "kind")),
    )
    record.curves = _curves(plan, tables, params, duration)
    return record


def _table(columns: tuple[str, ...], parts: Any, integers: tuple[str, ...]) -> dict[str, np.ndarray]:
    log = StepLog(columns)
    for part in parts:
        log.values.frombytes(part)
    return log.table(integers)


def _totals(table: dict[str, Any], duration: float) -> tuple[Any, ...]:
    """One row of the ``nodes`` table; ``idle`` is what is left of the run's length."""
    t = table["totals"]
    parts = dict(zip(PARTS, t["parts"], strict=True))
    parts["idle"] = max(0.0, duration - sum(t["parts"][: PARTS.index("idle")]))
    values = {**t, **parts, "role": "server" if t["role"] else "worker", "lost": 0}
    return tuple(values[name] for name in NODE_COLUMNS)


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
    plan: Plan, tables: Mapping[int, dict[str, Any]], params: Mapping[int, bytes], duration: float
) -> dict[str, np.ndarray]:
    """One row: the final model's loss and accuracy on the test set, and the replicas' mean distance from it."""
    log = StepLog(CURVE_COLUMNS)
    workers = [node for node in sorted(params) if node < plan.workers]
    servers = [node for node in sorted(params) if node >= plan.workers]
    if workers and len(servers) == len(plan.servers):
        replicas = {node: torch.frombuffer(bytearray(params[node]), dtype=torch.float32) for node in params}
        mean = sum(replicas[node] for node in workers) / len(workers)
        model = torch.cat([replicas[node] for node in servers]) if servers else mean
        distance = sum(float((replicas[node] - mean).square().sum()) for node in workers) / len(workers)
        task = load(plan.scenario.workload, plan.scenario.run.seed)
        loss, accuracy = task.evaluate(model.contiguous())
        steps = sum(table["totals"]["steps"] for table in tables.values())
        samples = steps * plan.scenario.workload.batch
        log.append((duration, steps, samples / plan.samples_per_epoch, samples, loss, accuracy, distance))
    return log.table(("step", "samples"))


def environment() -> dict[str, Any]:
    """Versions, hardware and date: everything in a record that depends on the machine."""
    packages = ("torch", "numpy", "pyzmq", "msgspec")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _commit(),
    }


def _processor() -> str:
    """The processor's name as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The commit of the source tree that this runs from; empty where there is none."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

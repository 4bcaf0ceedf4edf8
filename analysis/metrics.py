"""Figures of merit of one run: throughput, speed-up, where the time went, staleness, traffic.

Rules this module obeys:

* It reads records and never asks which driver wrote them.
* Rates and breakdowns are taken over one window, from the end of warm-up to the first worker's
  finish: outside it not all workers are at work in their steady state. A step that straddles an
  edge of the window counts by the share of its duration that lies inside.
* Nothing here returns NaN or infinity. Where that window is empty, ``Window.kind`` says what was
  taken instead: a shorter warm-up (a straggler still in its warm-up when the first worker has
  finished), or else the whole run.

Where workers crash, leave or join, the window is that of those who were there all the time; whoever else was
at work in it counts, too.

A worker *finishes* when it begins its last step: the row of a last step also holds the drain of
what was still on its way (a final flush, the last replies), which no other step has.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import churn
from core.record import PARTS, Record, Table

__all__ = [
    "Window", "accuracy", "breakdown", "busiest", "busiest_link", "consensus", "gradients_per_message",
    "rates", "reached", "sampled", "slow_ranks", "speedup", "staleness", "step_seconds", "summary",
    "throughput", "window",
]  # fmt: skip

STEP_PARTS = PARTS[:-1]
"""The parts that a step can have; ``idle`` comes after a worker's last step."""


@dataclass(frozen=True)
class Window:
    """What rates are measured over: ``start`` to ``stop``, seconds since the start of the run.

    kind    ``steady`` (end of warm-up to the first worker's finish); ``short warm-up`` (the same with
            the longest warm-up that leaves half of the time before the first finish); ``whole run``
    warmup  steps of each worker that are left out
    weight  for every row of the record's ``steps`` table the share of it that lies inside, 0 .. 1
    """

    start: float
    stop: float
    kind: str
    warmup: int
    weight: np.ndarray

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.stop - self.start


def window(record: Record) -> Window:
    """The steady window of a run: every worker is past warm-up, none is in its last step."""
    steps = record.steps
    if not len(steps["node"]):
        return Window(0.0, record.duration, "whole run", 0, np.zeros(0))
    begun, ended = steps["start"], steps["end"]
    order = np.lexsort((steps["step"], steps["node"]))
    first = np.flatnonzero(np.diff(steps["node"][order], prepend=-1))
    own = [order[a:b] for a, b in itertools.pairwise([*first, len(order)])]
    steady = churn.steadfast(record)
    if steady is not None:
        own = [rows for rows in own if int(steps["node"][rows[0]]) in steady]
        if not own:
            return Window(float(begun.min()), float(ended.max()), "whole run", 0, np.ones(len(begun)))
    stop = min(float(begun[rows[-1]]) for rows in own)
    asked = int(_scenario(record, "run").get("warmup_steps", 0))
    for warmup in range(min(asked, *(len(rows) - 1 for rows in own)), -1, -1):
        start = max(float(ended[rows[warmup - 1]]) if warmup else float(begun[rows[0]]) for rows in own)
        if start < stop if warmup == asked else start <= stop / 2 and stop > 0:
            kind = "steady" if warmup == asked else "short warm-up"
            return Window(start, stop, kind, warmup, _shares(begun, ended, start, stop))
    return Window(float(begun.min()), float(ended.max()), "whole run", 0, np.ones(len(begun)))


def _shares(begun: np.ndarray, ended: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Share of every interval ``begun .. ended`` inside ``start .. stop``; instants count 1 or 0."""
    inside = np.minimum(ended, stop) - np.maximum(begun, start)
    length = ended - begun
    instant = ((begun >= start) & (begun < stop)).astype(float)
    share = np.divide(inside, length, out=instant, where=length > 0)
    return np.asarray(np.clip(share, 0.0, 1.0))


def rates(record: Record, within: Window | None = None) -> dict[int, float]:
    """Samples per second of every worker, by rank, over the window."""
    within = within or window(record)
    batch = _batches(record)
    if within.seconds <= 0:
        return dict.fromkeys(batch, 0.0)
    steps = np.bincount(record.steps["node"], weights=within.weight, minlength=max(batch, default=-1) + 1)
    shown = sampled(record)
    return {
        rank: float(steps[rank]) * samples / within.seconds
        for rank, samples in batch.items() if shown is None or rank in shown
    }  # fmt: skip


def sampled(record: Record) -> set[int] | None:
    """The workers whose steps have rows, where not all workers' have (``run.step_ranks``); else None."""
    if "steps" not in record.manifest.get("sampled", {}):
        return None
    return set(np.unique(record.steps["node"]).tolist())


def throughput(record: Record, within: Window | None = None) -> float:
    """Samples per second of all workers together (DESIGN, section 5); 0 for a run without steps.

    Where only some workers' steps have rows, theirs is scaled up by the samples of all over theirs.
    """
    total, shown = float(sum(rates(record, within).values())), sampled(record)
    if shown is None or not shown:
        return total
    nodes = record.nodes
    own = np.isin(nodes["node"], sorted(shown))
    return total * float(nodes["samples"].sum()) / max(float(nodes["samples"][own].sum()), 1.0)


def step_seconds(record: Record) -> float:
    """Seconds that one step of one worker takes when it computes alone and talks to nobody.

    That is the mean of the scenario's step-time model, before slow-downs. A run whose steps are
    neither simulated nor paced has its own device's speed: there it is the median of the compute
    times of the workers that were not slowed down.
    """
    cluster, run = _scenario(record, "cluster"), _scenario(record, "run")
    compute: Mapping[str, Any] = cluster.get("compute", {})
    if record.manifest.get("driver") == "real" and run.get("compute") == "native":
        nodes = record.steps["node"]
        fast = ~np.isin(nodes, sorted(slow_ranks(record)))
        chosen = record.steps["compute"][fast if fast.any() else slice(None)]
        return float(np.median(chosen)) if len(chosen) else 0.0
    samples = compute.get("samples") or ()
    if compute.get("model") == "empirical" and len(samples):
        return float(np.mean(samples))
    return float(compute.get("mean", 0.0))


def speedup(record: Record) -> float:
    """Throughput over that of one worker that never communicates; 0 where that is unknown."""
    batch = [samples for samples in _batches(record).values() if samples]
    if not batch:
        return 0.0
    return throughput(record) * step_seconds(record) * len(batch) / sum(batch)


def breakdown(record: Record, ranks: set[int] | None = None, within: Window | None = None) -> dict[str, Any]:
    """Where the workers' time went, over the window: the paper's Figure 2.

    ``ranks`` restricts it to these workers. Returns ``{"step": seconds per step, "seconds":
    {part: seconds per step}, "fraction": {part: share of the time}}``; the fractions add up to 1
    (to 0 without steps).
    """
    within = within or window(record)
    weight = within.weight
    if ranks is not None and len(weight):
        weight = np.where(np.isin(record.steps["node"], sorted(ranks)), weight, 0.0)
    count = float(weight.sum())
    sums = {part: float((weight * record.steps[part]).sum()) if count else 0.0 for part in STEP_PARTS}
    total = sum(sums.values())
    return {
        "step": total / count if count else 0.0,
        "seconds": {part: value / count if count else 0.0 for part, value in sums.items()},
        "fraction": {part: value / total if total else 0.0 for part, value in sums.items()},
    }


def slow_ranks(record: Record) -> set[int]:
    """Workers that the scenario slows down: by a slow-down, or by a device slower than the fastest."""
    cluster = _scenario(record, "cluster")
    slow: set[int] = set()
    for entry in cluster.get("slowdowns", ()):
        if entry.get("kind", "fixed") != "fixed" or entry.get("factor", 1.0) > 1.0:
            slow.update(int(rank) for rank in entry.get("ranks", ()))
    scale = cluster.get("compute", {}).get("scale") or ()
    slow.update(rank for rank, factor in enumerate(scale) if factor > min(scale))
    return slow


def staleness(record: Record) -> dict[str, float] | None:
    """Mean, 95th percentile and maximum of the gradients' staleness; None where nothing is stale.

    Staleness is the number of updates that a server made between the parameters that a gradient
    was computed at and its application. A message that sums up several gradients counts as many.
    """
    if not len(record.gradients.get("staleness", ())):
        return None
    value, count = record.gradients["staleness"], record.gradients["count"].astype(float)
    order = np.argsort(value, kind="stable")
    reached = np.cumsum(count[order])
    if reached[-1] <= 0:
        return None
    p95 = value[order][int(np.searchsorted(reached, 0.95 * reached[-1] * (1 - 1e-12)))]
    return {
        "mean": float((value * count).sum() / reached[-1]),
        "p95": float(p95),
        "max": float(value.max()),
    }


def busiest(record: Record) -> dict[str, Any]:
    """The node that most bytes went through, in and out.

    Returns ``{"node", "role", "bytes", "bytes_per_s", "bytes_per_step"}``. A step is here one of every
    worker: the bytes of the whole run over the steps of the mean worker. A server of n workers that
    push and pull a model of b bytes at every step so has 2 n b.
    """
    nodes = record.nodes
    if not len(nodes["node"]):
        return {"node": -1, "role": "none", "bytes": 0.0, "bytes_per_s": 0.0, "bytes_per_step": 0.0}
    through = nodes["bytes_in"].astype(float) + nodes["bytes_out"].astype(float)
    row = int(np.argmax(through))
    duration = record.duration
    workers = _is_worker(record)
    steps = float(nodes["steps"][workers].mean()) if workers.any() else 0.0
    return {
        "node": int(nodes["node"][row]),
        "role": "worker" if workers[row] else "server",
        "bytes": float(through[row]),
        "bytes_per_s": float(through[row]) / duration if duration else 0.0,
        "bytes_per_step": float(through[row]) / steps if steps else 0.0,
    }


def busiest_link(record: Record) -> dict[str, Any] | None:
    """The link direction that is busy for the largest share of the run; None where links are not recorded.

    Returns ``{"machine": index, "direction": up | down, "use", "bytes", "capacity"}``. ``use`` is the time
    that its bytes take at its full rate over the length of the run, warm-up and drain included: a link that
    is never free comes to a little less than 1, and to 1 where messages outlive the run (D-PSGD's).
    Simulations of a topology add ``name``, of the machine, rack or WAN link; beyond the NICs ``machine`` is
    -1, and the direction may be ``wan`` or ``shared`` (the backplane). A closed-form all-reduce moves no
    messages and counts nowhere.
    """
    links, duration = record.links, record.duration
    if not len(links.get("busy", ())) or not duration:
        return None
    row = int(np.argmax(links["busy"]))
    named = {"name": str(links["name"][row])} if "name" in links else {}
    return {
        **named,
        "machine": int(links["machine"][row]),
        "direction": str(links["direction"][row]),
        "use": min(float(links["busy"][row]) / duration, 1.0),
        "bytes": float(links["bytes"][row]),
        "capacity": float(links["capacity"][row]),
    }


def gradients_per_message(record: Record) -> float | None:
    """Gradients that a gradient message sums up, on average; None where none are sent to servers.

    Above 1 a worker had to keep gradients back (ALADDIN's ``on_busy: coalesce``): the servers or the
    network are slower than it, and its gradients arrive late.
    """
    counts = record.gradients.get("count", ())
    return float(np.mean(counts)) if len(counts) else None


def accuracy(record: Record) -> dict[str, float]:
    """The last evaluation of the model: ``{"loss", "accuracy"}``, those that were measured."""
    found = {}
    for name in ("loss", "accuracy"):
        values = record.curves.get(name)
        known = values[np.isfinite(values)] if values is not None else np.zeros(0)
        if len(known):
            found[name] = float(known[-1])
    return found


def reached(curves: Table, accuracy: float, by: str = "time") -> float | None:
    """When the model was first found to be that accurate; None where it never was.

    by   the axis to answer on: ``time`` (seconds), ``step`` or ``epoch`` of the ``curves`` table

    The crossing is interpolated linearly between the first evaluation that reaches ``accuracy`` and the
    one before it, so that algorithms can be told apart that cross between the same two evaluations.
    Where the first evaluation of all reaches it, the answer is that evaluation's place. Accuracy may
    fall below the mark again afterwards; that does not count.
    """
    if "accuracy" not in curves:
        return None
    known = np.isfinite(curves["accuracy"])
    order = np.argsort(curves["time"][known], kind="stable")
    values = np.asarray(curves["accuracy"], dtype=float)[known][order]
    places = np.asarray(curves[by], dtype=float)[known][order]
    good = np.flatnonzero(values >= accuracy)
    if not len(good):
        return None
    at = int(good[0])
    if at == 0:
        return float(places[0])
    share = (accuracy - values[at - 1]) / (values[at] - values[at - 1])
    return float(places[at - 1] + share * (places[at] - places[at - 1]))


def consensus(curves: Table) -> float | None:
    """Consensus distance: the mean over the evaluations in the second half of training; None if unknown.

    It is the replicas' mean squared distance from their mean. The mean over many evaluations says more
    than the last one, at which a synchronous algorithm has just brought all replicas together. Half is
    by epochs: by time the second half may be a straggler's alone.
    """
    if "consensus" not in curves or not len(curves["consensus"]):
        return None
    epoch, values = curves["epoch"], np.asarray(curves["consensus"], dtype=float)
    late = values[(epoch >= epoch.max() / 2) & np.isfinite(values)]
    return float(late.mean()) if len(late) else None


def summary(record: Record) -> dict[str, Any]:
    """All of the above as one JSON-friendly mapping (docs: how to read the output)."""
    within = window(record)
    workers, by_rank = int(_is_worker(record).sum()), rates(record, within)
    slow = slow_ranks(record) & by_rank.keys()
    parts: dict[str, Any] = {"all": breakdown(record, within=within)}
    if slow and len(slow) < len(by_rank):
        parts["slow"] = breakdown(record, slow, within)
        parts["fast"] = breakdown(record, set(by_rank) - slow, within)
    scenario = record.manifest.get("scenario", {})
    distance = consensus(record.curves)
    befell = churn.happened(record)
    evaluation = record.manifest.get("environment", {}).get("numerics")
    return {
        "scenario": scenario.get("name", "unnamed"),
        "algorithm": _scenario(record, "algorithm").get("name", "unknown"),
        "driver": record.manifest.get("driver", "unknown"),
        "data": _scenario(record, "workload").get("data", "unknown"),
        "workers": workers,
        "servers": len(record.nodes["node"]) - workers,
        "steps": int(record.nodes["steps"].sum()),
        "samples": int(record.nodes["samples"].sum()),
        "seconds": record.duration,
        "window": {
            "kind": within.kind,
            "warmup_steps": within.warmup,
            "start": within.start,
            "stop": within.stop,
        },
        "throughput": throughput(record, within),
        "throughput_by_worker": [by_rank[rank] for rank in sorted(by_rank)],
        "speedup": speedup(record),
        "step": parts["all"]["step"],
        "breakdown": parts,
        "staleness": staleness(record),
        "busiest": busiest(record),
        "link": busiest_link(record),
        "gradients_per_message": gradients_per_message(record),
        "pending": int(record.nodes["pending"][_is_worker(record)].sum()),
        **accuracy(record),
        **({} if distance is None else {"consensus": distance}),
        **({} if befell is None else {"churn": befell}),
        **({} if evaluation is None else {"evaluation": dict(evaluation)}),
        "flags": list(record.manifest.get("flags", [])),
    }


def _scenario(record: Record, section: str) -> Mapping[str, Any]:
    """A section of the scenario that the manifest holds; empty where it is missing."""
    found: Mapping[str, Any] = record.manifest.get("scenario", {}).get(section, {})
    return found


def _is_worker(record: Record) -> np.ndarray:
    """Which rows of the ``nodes`` table are workers."""
    return np.asarray(record.nodes["role"].astype(str) == "worker")


def _batches(record: Record) -> dict[int, float]:
    """Samples per step of every worker, by rank."""
    nodes, workers = record.nodes, _is_worker(record)
    return {
        int(node): float(samples) / float(steps) if steps else 0.0
        for node, samples, steps in zip(
            nodes["node"][workers], nodes["samples"][workers], nodes["steps"][workers], strict=True
        )
    }

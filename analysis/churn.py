"""Who crashed, left and joined in a run, and how long workers were there.

Rules this module obeys:

* A worker is there from the start, or from when it joins, until it crashes, leaves or ends; ``end`` of a
  record's nodes is its last end. Seconds before a joiner has its parameters count: it is paid for.
* What faults did to the model is in the losses and curves, and what became of gradients in ``nodes``;
  here are counts and seconds alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from core.record import EVENTS, Record

__all__ = ["Absence", "absences", "happened", "line", "presence", "steadfast"]

CRASH, LEAVE, JOIN, READY = (EVENTS.index(event) for event in ("crash", "leave", "join", "ready"))
SILENCES = {
    f"{kind}s": (EVENTS.index(kind), EVENTS.index(end)) for kind, end in (("freeze", "thaw"), ("cut", "heal"))
}


class Absence(NamedTuple):
    """When a node was not there, or held up, or nothing is known of it. Seconds since the start of the run.

    why  "away" (not there), "frozen", "cut off", or "not recorded": a life that a crash ended, with its spans
    """

    node: int
    start: float
    end: float
    why: str


def absences(record: Record, nodes: Collection[int]) -> list[Absence]:
    """By node and time, when ``nodes`` were away, frozen or cut off, and lives of theirs that left no spans.

    A server that leaves, or joins late, is not away: what it has to do is done elsewhere meanwhile.
    """
    if not _befell(record):
        return []
    workers = int((record.nodes["role"] == "worker").sum())
    found = []
    for why, (begins, ends) in zip(("frozen", "cut off"), SILENCES.values(), strict=True):
        silent = _silent(record, {begins}, {ends})
        found += [Absence(node, start, end, why) for node, start, end in silent if node in nodes]
    own: dict[int, list[tuple[float, int]]] = {}
    for time, node, event in _told(record):
        if node in nodes and event in (CRASH, LEAVE, JOIN) and (node < workers or event != LEAVE):
            own.setdefault(node, []).append((time, event))
    for node, events in own.items():
        away: float | None = 0.0 if events[0][1] == JOIN and node < workers else None
        life = 0.0
        for time, event in events:
            if event == JOIN:
                found += [Absence(node, away, time, "away")] if away is not None else []
                away, life = None, time
                continue
            if event == CRASH and not _spans(record, node, life, time):
                found.append(Absence(node, life, time, "not recorded"))
            away = time
        found += [Absence(node, away, record.duration, "away")] if away is not None else []
    return sorted(one for one in found if one.end > one.start)


def _spans(record: Record, node: int, since: float, until: float) -> bool:
    """Whether the record holds any span of ``node`` that begins in that time."""
    if not len(record.spans):
        return False
    start = record.spans["start"][record.spans["node"] == node]
    return bool(((start >= since) & (start < until)).any())


def _told(record: Record) -> Iterator[tuple[float, int, int]]:
    """Every event: seconds, node, what."""
    table = record.events
    return zip(*(table[name].tolist() for name in ("time", "node", "event")), strict=True)


def _silent(record: Record, began: Collection[int], ended: Collection[int]) -> list[tuple[int, float, float]]:
    """When nodes were held up by what ``began``, perhaps several times over, until all had ``ended``.

    Who crashes or leaves is held up no more.
    """
    since, depth, found = dict[int, float](), dict[int, int](), list[tuple[int, float, float]]()
    for time, node, event in _told(record):
        before = depth.get(node, 0)
        after = max(before + (event in began) - (event in ended), 0)
        depth[node] = 0 if event in (CRASH, LEAVE) else after
        if depth[node] and not before:
            since[node] = time
        elif before and not depth[node]:
            found.append((node, since[node], time))
    return found + [(node, since[node], record.duration) for node, still in depth.items() if still]


def _befell(record: Record) -> bool:
    return bool(record.events) and len(record.events["time"]) > 0


def steadfast(record: Record) -> set[int] | None:
    """Ranks that were there from the start to their end; None where that is everybody."""
    if not _befell(record):
        return None
    workers = record.nodes["node"][record.nodes["role"] == "worker"]
    moved = np.isin(record.events["event"], (CRASH, LEAVE, JOIN, READY))
    return set(workers.tolist()) - set(record.events["node"][moved].tolist())


def presence(record: Record) -> dict[int, float]:
    """Seconds for which each worker was there, by rank."""
    workers = record.nodes["role"] == "worker"
    ends = record.nodes["end"][workers].tolist()
    found = dict(zip(record.nodes["node"][workers].tolist(), ends, strict=True))
    if not _befell(record):
        return found
    since: dict[int, float] = {}
    there: dict[int, float] = {}
    table = record.events
    order = np.lexsort((np.arange(len(table["time"])), table["time"]))
    for i in order.tolist():
        time, node, event = float(table["time"][i]), int(table["node"][i]), int(table["event"][i])
        if node not in found:
            continue
        if event == JOIN:
            since[node] = time
            there.setdefault(node, 0.0)
        elif event in (CRASH, LEAVE):
            there[node] = there.get(node, 0.0) + time - since.get(node, 0.0)
            since[node] = float("inf")
    for node, start in since.items():
        there[node] = there.get(node, 0.0) + max(found[node] - start, 0.0)
    return found | there


def happened(record: Record) -> dict[str, Any] | None:
    """Counts of what befell workers and servers, samples per second that a worker was there; or None.

    Keys: crashes, leaves, joins (of workers, returns included), server_crashes, lost (gradients),
    worker_seconds, samples_per_worker_second, seconds_to_join (mean, from joining to having parameters);
    where servers left or joined server_leaves and hand_overs (of their slices, completed); where any node was
    silent also freezes, cuts (of workers and servers) and silent_seconds of both.
    """
    if not _befell(record):
        return None
    nodes, events = record.nodes, record.events
    workers = nodes["role"] == "worker"
    of_worker = events["node"] < int(workers.sum())
    count = {event: int((of_worker & (events["event"] == event)).sum()) for event in range(len(EVENTS))}
    seconds = float(sum(presence(record).values()))
    samples = int(nodes["samples"][workers].sum())
    waits = _waits(record)
    return {
        "crashes": count[CRASH],
        "leaves": count[LEAVE],
        "joins": count[JOIN],
        "server_crashes": int((~of_worker & (events["event"] == CRASH)).sum()),
        "lost": int(nodes["lost"][workers].sum()),
        "worker_seconds": seconds,
        "samples_per_worker_second": samples / seconds if seconds else 0.0,
        "seconds_to_join": float(np.mean(waits)) if waits else 0.0,
        **_moves(record),
        **_silences(record),
    }


def _moves(record: Record) -> dict[str, Any]:
    """How often servers left, and their slices moved; nothing where none did."""
    events = record.events["event"][record.events["node"] >= (record.nodes["role"] == "worker").sum()]
    found = {"server_leaves": int((events == LEAVE).sum()), "hand_overs": int((events == READY).sum())}
    return found if any(found.values()) else {}


def _silences(record: Record) -> dict[str, Any]:
    """How often nodes were frozen and cut off, and for how many seconds; nothing where none was."""
    table = record.events
    found: dict[str, Any] = {
        name: int((table["event"] == kind).sum()) for name, (kind, _) in SILENCES.items()
    }
    if not any(found.values()):
        return {}
    began, ended = ({pair[i] for pair in SILENCES.values()} for i in (0, 1))
    seconds = sum(max(end - start, 0.0) for _, start, end in _silent(record, began, ended))
    return {**found, "silent_seconds": seconds}


def _waits(record: Record) -> list[float]:
    """Seconds from each worker's join to the parameters, for those that got them."""
    asked, found = dict[int, float](), list[float]()
    workers = int((record.nodes["role"] == "worker").sum())
    for time, node, event in _told(record):
        if event == JOIN and node < workers:
            asked[node] = time
        elif event == READY and node in asked:
            found.append(time - asked.pop(node))
    return found


def line(found: dict[str, Any]) -> str:
    """``happened`` in a sentence."""
    servers = f", server crashes {found['server_crashes']}" if found["server_crashes"] else ""
    if "hand_overs" in found:
        servers += f", server leaves {found['server_leaves']}, slices handed over {found['hand_overs']}"
    silent = f", freezes {found['freezes']}, cuts {found['cuts']}" if "freezes" in found else ""
    rate = f"{found['samples_per_worker_second']:.4g} samples/s of a worker there"
    gone = f"crashes {found['crashes']}, leaves {found['leaves']}, joins {found['joins']}{servers}{silent}"
    return f"{gone}; gradients lost {found['lost']}; {rate}"

"""Delta debugging: the smallest trial that fails as a given one does.

Rules this module obeys:

* A trial is made smaller one change at a time: faults are dropped (first many at once, then one by one, then
  one victim of several), workers, servers and steps taken away, everything else set to what is plainest. A
  change is kept if the trial still fails in the same way; that goes on until no change is.
* The same way: the same kind of error with the same words, whatever numbers are in them.
* What is not valid any more (a fault of a worker that was taken away) is no smaller trial.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from scenarios import ScenarioError
from tests.conformance.trials import Trial

__all__ = ["shrink", "way"]

Change = Callable[[dict[str, Any]], None]

PLAIN = {
    "cluster.workers_per_machine": 1,
    "cluster.latency": 0,
    "cluster.slowdowns": [],
    "cluster.tensor_seconds": {},
    "cluster.workers_per_device": 1,
    "cluster.host": {},
    "cluster.servers.placement": "dedicated",
    "cluster.network.admission": "fifo",
    "cluster.network.window": 1,
    "cluster.network.inbox": 2,
    "cluster.network.overhead": 0,
    "cluster.network.allreduce": "ring",
    "cluster.compute": {"model": "constant", "mean": 0.05},
    "cluster.bandwidth": 1e6,
    "run.heartbeat_timeout": 5.0,
    "run.seed": 0,
}
"""What is plainest, by path."""


def way(error: BaseException) -> str:
    """How something failed: the kind of error and its words, without numbers."""
    first = str(error).strip().split("\n", 1)[0]
    words = re.sub(r"[-+]?[0-9][0-9.e+-]*", "#", first)
    return f"{type(error).__name__}: {re.sub(r'#([ ,]+#)+', '#', words)}"[:90]


def shrink(
    trial: Trial, play: Callable[[Trial], Any], told: Callable[[str], None] | None = None, most: int = 3000
) -> tuple[Trial, Exception]:
    """The smallest trial that ``play`` fails on as it does on ``trial``, and how; at most so many are played.

    Raises ``ValueError`` if it does not fail on ``trial``.
    """
    error = _failure(trial, play)
    if error is None:
        raise ValueError("this trial does not fail")
    wanted, smallest, played = way(error), trial, 1
    going = True
    while going and played < most:
        going = False
        for what, candidate in _smaller(smallest):
            played += 1
            found = _failure(candidate, play)
            if found is not None and way(found) == wanted:
                smallest, error, going = candidate, found, True
                if told is not None:
                    told(what)
                break
            if played >= most:
                break
    return smallest, error


def _failure(trial: Trial, play: Callable[[Trial], Any]) -> Exception | None:
    try:
        play(trial)
    except ScenarioError:
        return None
    except Exception as error:
        return error
    return None


def _smaller(trial: Trial) -> Iterator[tuple[str, Trial]]:
    """Trials that are one step smaller, the largest steps first."""
    for what, change in _changes(trial):
        tree = copy.deepcopy(trial.scenario)
        change(tree)
        if tree != trial.scenario:
            yield what, replace(trial, scenario=tree)
    if trial.order is not None:
        yield "the simulator's own order", replace(trial, order=None, delay=0.0)
    if trial.delay:
        yield "no delays", replace(trial, delay=0.0)
    if trial.order:
        yield "another order", replace(trial, order=0)


def _changes(trial: Trial) -> Iterator[tuple[str, Change]]:
    scenario = trial.scenario
    faults = len(scenario["faults"])
    size = faults
    while size:
        for start in range(0, faults, size):
            yield f"without faults {start} to {start + size - 1}", _without(start, size)
        size //= 2
    workers, slices, room = trial.sizes
    for gone in reversed(range(workers)):
        yield f"without worker {gone}", _fewer_workers(gone, workers, slices, room)
    for gone in reversed(range(slices)):
        yield f"without server {gone}", _fewer_servers(gone, workers, slices, room)
    for name in ("steps", "samples", "seconds"):
        budget = scenario["run"].get(name)
        for less in _less(budget) if budget else ():
            yield f"run.{name} {less}", _put(f"run.{name}", less)
        if budget and name != "steps":
            yield "a budget in steps", _steps(name)
    for path, plainest in PLAIN.items():
        if not _said(scenario, path):
            continue
        yield f"{path} {plainest}", _put(path, plainest)
    for option in scenario["algorithm"].get("options", {}):
        yield f"without option {option}", lambda tree, name=option: tree["algorithm"]["options"].pop(name)
    for i, fault in enumerate(scenario["faults"]):
        yield from _plainer(i, fault)


def _plainer(i: int, fault: dict[str, Any]) -> Iterator[tuple[str, Change]]:
    """Changes of a fault that leave it where it is."""
    at = fault.get("at")
    if "servers" not in fault and fault["kind"] in ("leave", "join", "churn"):
        for rank in fault.get("ranks") or (0, 1):
            yield f"fault {i} a crash", _set(i, {"kind": "crash", "ranks": [rank], "at": at or 0.1})
    if at and at > 0.02:
        yield f"fault {i}: sooner", _set(i, {**fault, "at": round(at / 2, 3)})
    for name, least in (("checkpoint_every", 0.0), ("back", None)):
        if fault.get(name):
            yield f"fault {i} without {name}", _set(i, {k: v for k, v in fault.items() if k != name} | (
                {name: least} if least is not None else {}))  # fmt: skip
    for name in ("at", "back"):
        for digits in (1, 2, 3):
            value = fault.get(name)
            if value and 0 < round(value, digits) != value:
                yield f"fault {i}: {name} rounded", _set(i, {**fault, name: round(value, digits)})
    if fault.get("step", 1) > 1:
        yield f"fault {i}: a step sooner", _set(i, {**fault, "step": fault["step"] - 1})


def _said(tree: Any, path: str) -> bool:
    """Whether a field is given."""
    for name in path.split("."):
        if name not in tree:
            return False
        tree = tree[name]
    return True


def _less(budget: float) -> list[Any]:
    """Smaller budgets: 1, half of it, one less."""
    if isinstance(budget, int):
        return sorted({1, budget // 2, budget - 1} - {0, budget})
    return [round(budget / 2, 3)] if budget > 0.05 else []


def _without(start: int, size: int) -> Change:
    def change(tree: dict[str, Any]) -> None:
        del tree["faults"][start : start + size]

    return change


def _set(i: int, fault: dict[str, Any]) -> Change:
    def change(tree: dict[str, Any]) -> None:
        tree["faults"][i] = fault

    return change


def _put(path: str, value: Any) -> Change:
    def change(tree: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            tree = tree[parent]
        tree[name] = value

    return change


def _steps(name: str) -> Change:
    def change(tree: dict[str, Any]) -> None:
        del tree["run"][name]
        tree["run"]["steps"] = 10

    return change


def _fewer_workers(gone: int, workers: int, slices: int, room: int) -> Change:
    def change(tree: dict[str, Any]) -> None:
        tree["cluster"]["workers"] = workers - 1
        tree["workload"]["parameters"] = (workers - 1) * slices * room
        _renumber(tree["faults"], "ranks", gone)
        _renumber(tree["cluster"].get("slowdowns", []), "ranks", gone)

    return change


def _fewer_servers(gone: int, workers: int, slices: int, room: int) -> Change:
    def change(tree: dict[str, Any]) -> None:
        if slices > 1:
            tree["cluster"]["servers"]["count"] = slices - 1
            tree["workload"]["parameters"] = workers * (slices - 1) * room
            _renumber(tree["faults"], "servers", gone)

    return change


def _renumber(things: list[dict[str, Any]], field: str, gone: int) -> None:
    """Take ``gone`` out of all that name it; whoever names nobody else goes along."""
    kept = []
    for thing in things:
        if field in thing:
            left = [number - (number > gone) for number in thing[field] if number != gone]
            if not left:
                continue
            thing = {**thing, field: left}
        kept.append(thing)
    things[:] = kept

"""What each algorithm promises (ALGORITHMS), as checks on an audited run with tagged gradients.

Rules this module obeys:

* ``during`` holds after everything that any program does, whatever is under way and whoever has left;
  ``after`` once all is drained. Both hold for every schedule, of every driver.
* A gradient's fate is read from parameters, never from what the algorithm says of itself; where it
  keeps a ledger, the ledger must agree.
* After a crash only what can be promised then is asked: nothing doubled, staleness still bounded,
  replicas that must agree still do. (That survivors finish is the business of who ran it.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import numpy as np

from core.node import GRADIENT, Message
from tests.conformance.audit import Audit
from tests.conformance.tags import Tags

__all__ = ["CONTRACTS", "Contract"]

Check = Callable[[Audit, Tags], None]
EXACT = 1e-9
"""Sums of some hundred float64 numbers of size one may differ by so much."""


def _nothing(audit: Audit, tags: Tags) -> None:
    """No promise."""


def _no_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Contract:
    """An algorithm's promises, and options to hold it to them with.

    options  draws options that go with so many workers
    fewest   workers that it needs
    """

    options: Callable[[np.random.Generator, int], dict[str, Any]] = _no_options
    during: Check = _nothing
    after: Check = _nothing
    fewest: int = 1


def _computed(audit: Audit, tags: Tags) -> np.ndarray:
    """(workers, steps): one where a gradient was handed to its worker, be it in part, before it died."""
    begun = {node.id: node.step for node in audit.workers}
    if getattr(audit.algorithm, "overlap", None) == "backward":
        begun |= {step.rank: step.step + 1 for step in audit.steps if step.rank in audit.died}
    return np.array([[float(step < begun[node.id]) for step in range(tags.steps)] for node in audit.workers])


def _close(found: np.ndarray, expected: Any, what: str) -> None:
    worst = np.abs(found - expected)
    if worst.max(initial=0.0) > EXACT:
        where = tuple(int(i) for i in np.unravel_index(worst.argmax(), worst.shape))
        wanted = np.broadcast_to(expected, found.shape)[where]
        raise AssertionError(f"{what}: at {where} {found[where]!r}, expected {wanted!r}")


# Servers that apply gradients


def _server_fates(audit: Audit, tags: Tags, unit: Callable[[float], bool]) -> None:
    """computed = applied + pending + lost with its dead worker; each applied with one ``unit`` of eta."""
    for server in audit.servers:
        shares = tags.shares(server.params)[0]
        pending = server.ledger.pending()
        sent: dict[int, int] = defaultdict(int)
        for source, to, message in audit.messages(GRADIENT):
            if to == server.id:
                sent[source] += message.count
        for node in audit.workers:
            mine, applied = shares[node.id], server.ledger.applied.get(node.id, 0)
            who = f"server {server.id}, gradients of worker {node.id}"
            assert (np.abs(mine[node.step :]) <= EXACT).all(), f"{who}: applied before they were computed"
            found = [share for share in mine[: node.step] if abs(share) > EXACT]
            assert all(unit(share) for share in found), f"{who}: applied in shares of {found}"
            assert len(found) == applied, f"{who}: {len(found)} in the parameters, {applied} in the ledger"
            lost = node.step - applied - pending.get(node.id, 0)
            if node.id in audit.died:
                assert lost >= 0, f"{who}: {-lost} more than were computed"
            else:
                assert lost == 0, f"{who}: {lost} of {node.step} lost"
                assert not sent[node.id], f"{who}: {sent[node.id]} never delivered"


def _single(audit: Audit, tags: Tags) -> None:
    """Every gradient moves the global model by eta / n, once."""
    _server_fates(audit, tags, lambda share: abs(share - 1 / tags.workers) <= EXACT)


def _averaged(audit: Audit, tags: Tags) -> None:
    """Every gradient is in one mean: those of an update have equal shares, and these sum to one."""
    _server_fates(audit, tags, lambda share: share <= 1 + EXACT)
    for server in audit.servers:
        total = 0.0
        for number, move in enumerate(audit.moves.get(server.id, ())):
            total = total + move
            _is_mean(-tags.shares(move)[0], f"server {server.id}, update {number}")
        _close(server.params, -np.broadcast_to(total, server.params.shape), f"server {server.id}")


def _is_mean(shares: np.ndarray, what: str) -> None:
    found = shares[np.abs(shares) > EXACT]
    mean = np.full(found.shape, 1 / max(len(found), 1))
    assert len(found), f"{what}: of no gradient"
    assert np.allclose(found, mean, rtol=0, atol=EXACT), f"{what}: not a mean, but shares of {found}"


def _averaged_by_step(audit: Audit, tags: Tags) -> None:
    """And a mean is of one step: of each step the shares are equal and sum to one, or nobody made it."""
    _averaged(audit, tags)
    for server in audit.servers:
        for step, shares in enumerate(tags.shares(server.params)[0].T):
            if np.abs(shares).max(initial=0.0) > EXACT:
                _is_mean(shares, f"server {server.id}, step {step}")


def _of_aladdin(audit: Audit, tags: Tags) -> None:
    (_averaged if audit.algorithm.reduce == "mean" else _single)(audit, tags)


def _steps_apart(audit: Audit) -> int:
    steps = [node.step for node in audit.present]
    return max(steps) - min(steps) if steps else 0


def _within(bound: Callable[[Any], float]) -> Check:
    """Completed steps of the workers that are there differ by at most ``bound(algorithm)``."""

    def check(audit: Audit, tags: Tags) -> None:
        apart, limit = _steps_apart(audit), bound(audit.algorithm)
        assert apart <= limit, (
            f"{apart} steps apart, at most {limit} allowed: {[(n.id, n.step) for n in audit.present]}"
        )

    return check


# Replicas that agree


def _agree_at(due: Callable[[Any, int], bool]) -> Check:
    """Whoever starts a step at which replicas are due to agree, and lives, starts it at the same parameters.

    Not asked after a crash once somebody has ended: if a worker dies in a round that others completed,
    and these were their last, nobody is left to pass its result on.
    """

    def check(audit: Audit, tags: Tags) -> None:
        seen: dict[int, np.ndarray] = {}
        for step in (step for step in audit.steps if step.rank not in audit.died):
            if due(audit.algorithm, step.step) and not (audit.died and step.thinned):
                same = np.array_equal(seen.setdefault(step.step, step.params), step.params)
                assert same, f"worker {step.rank} starts step {step.step} where nobody else did"

    return check


# Sums that only gradients move


def _sum_moves_by_gradients(audit: Audit, tags: Tags) -> None:
    """The sum of all replicas holds every gradient once."""
    if not audit.died:
        total = sum(node.params for node in audit.workers)
        _close(tags.shares(total), _computed(audit, tags), "the sum of the replicas")
    _nothing_doubled(audit, tags)


def _elastic(audit: Audit, tags: Tags) -> None:
    """Centre and replicas together hold every gradient once, what a reply still has to take off deducted.

    A reply under way carries the centre y from before the exchange, which has already gained
    alpha (x_i - y); x_i has not lost it yet. This holds through crashes, too: such replies are lost.
    """
    alpha = audit.algorithm.beta / tags.workers
    computed = _computed(audit, tags)
    for shard in audit.workers[0].shards:
        centre = audit.nodes[shard.server]
        total = centre.params + sum(shard.of(node.params) for node in audit.workers)
        for source, to, reply in audit.messages("easgd.centre"):
            if source == shard.server:
                total = total - alpha * (shard.of(audit.nodes[to].params) - reply.tensor)
        _close(tags.shares(total)[0], computed, f"centre {shard.server} and all replicas")


# Weighted sums


def _shares(audit: Audit, tag: str) -> list[Message]:
    """All shares that no worker has merged: under way, or lost on the way."""
    return [message for _, _, message in audit.messages(tag)]


def _weighted(audit: Audit, shares: list[Message], total: float) -> Any:
    """The sum of all w x, workers and shares; that of all w is ``total``, and every worker has some."""
    weight = sum(node.weight for node in audit.workers) + sum(share.number for share in shares)
    assert abs(weight - total) <= EXACT, f"weights sum to {weight!r}, not {total}"
    assert all(node.weight > 0 for node in audit.workers), [node.weight for node in audit.workers]
    mass = sum(node.weight * node.params for node in audit.workers)
    return sum((share.number * share.tensor for share in shares if share.number), mass)


def _push_sum(audit: Audit, tags: Tags) -> None:
    """The sum of all w is n, and that of all x = w z holds every gradient once."""
    mass = _weighted(audit, _shares(audit, "sgp.share"), tags.workers)
    _close(tags.shares(mass)[0], _computed(audit, tags), "the sum of all x")


def _gossip(audit: Audit, tags: Tags) -> None:
    """The sum of all w is 1, and that of all w x gains eta w of each gradient, w being its worker's then."""
    mass = _weighted(audit, _shares(audit, "gosgd.share"), 1.0)
    _close(mass, -audit.weighted, "the weighted sum")
    _close(_applied(audit, tags), _computed(audit, tags), "what was applied")


def _applied(audit: Audit, tags: Tags) -> np.ndarray:
    """(workers, steps): how often a worker has applied each gradient."""
    return -tags.shares(np.zeros(tags.size) + audit.applied)[0]


# Pairs


def _pairs(audit: Audit, tags: Tags) -> None:
    """The sum of all replicas holds every gradient once, what replies under way still bring included.

    The passive side of an exchange has moved by (x_i - x_j) / 2 when its reply, the x_j from before,
    leaves; the active side, who asked at the start of its step, moves by the opposite when it has it. So
    through crashes, too.
    """
    total = sum(node.params for node in audit.workers)
    for _, to, reply in audit.messages("adpsgd.reply"):
        asked = (step.params for step in audit.steps if (step.rank, step.step) == (to, reply.step))
        total = total + (reply.tensor - next(asked, audit.nodes[to].params)) / 2
    _close(tags.shares(total)[0], _applied(audit, tags), "the sum over all pairs")


def _all_applied(audit: Audit, tags: Tags) -> None:
    """Whoever lives has applied each of its gradients once; with the dead the last one may be lost."""
    applied, computed = _applied(audit, tags), _computed(audit, tags)
    for rank in audit.died:
        last = audit.nodes[rank].step - 1
        computed[rank, last] = min(computed[rank, last], applied[rank, last])
    _close(applied, computed, "what was applied")


def _mean_by_step(audit: Audit, tags: Tags) -> None:
    """While all are there, the sum over all at step k holds every gradient of the steps before, once."""
    if audit.died:
        return
    starts: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    for step in audit.steps:
        starts[step.step][step.rank] = step.params
    for number, found in starts.items():
        thinned = any(step.thinned for step in audit.steps if step.step == number)
        if len(found) == tags.workers and not thinned:
            before = np.broadcast_to(np.arange(tags.steps) < number, (tags.workers, tags.steps))
            _close(tags.shares(sum(found.values()))[0], before, f"sum at step {number}")
    if len({node.step for node in audit.workers}) == 1:
        total = sum(node.params for node in audit.workers)
        _close(tags.shares(total)[0], _computed(audit, tags), "sum at the end")


def _one_step_apart(audit: Audit, tags: Tags) -> None:
    """Whoever begins step k has completed k, and each neighbour that is there k - 1 or more."""
    if audit.steps:
        begun = audit.steps[-1]
        weights = audit.algorithm.weights(tags.workers)[begun.rank]
        for node in audit.present:
            ahead = begun.step - node.step
            assert ahead <= 1 or not weights[node.id], (
                f"worker {begun.rank} begins step {begun.step}, {ahead} ahead of its neighbour {node.id}"
            )


def _nothing_doubled(audit: Audit, tags: Tags) -> None:
    """Replicas are means of replicas and their own steps: of no gradient they hold more than all of it."""
    computed = _computed(audit, tags)
    for node in [*audit.workers, *audit.servers]:
        shares = tags.shares(node.params)
        assert np.isfinite(shares).all(), f"node {node.id}: {node.params}"
        over = np.maximum(shares - computed, -shares)
        assert over.max(initial=0.0) <= EXACT, f"node {node.id} holds a gradient to {shares.max()!r}"


def _post_local(audit: Audit, tags: Tags) -> None:
    """Replicas agree at every step up to the switch, then after every average."""
    node = audit.workers[0]
    epoch = node.schedule.samples_per_epoch / (tags.workers * node.batch)
    synchronous = ceil(audit.algorithm.switch * epoch)
    _sum_moves_by_gradients(audit, tags)
    _agree_at(lambda a, step: step <= synchronous or (step - synchronous) % a.h == 0)(audit, tags)


def _diloco(audit: Audit, tags: Tags) -> None:
    """Replicas agree after every exchange; with outer lr 1 and no outer momentum it is local SGD."""
    _agree_at(lambda a, step: step % a.h == 0)(audit, tags)
    if audit.algorithm.outer_lr == 1:
        _sum_moves_by_gradients(audit, tags)


def _together(*checks: Check) -> Check:
    def check(audit: Audit, tags: Tags) -> None:
        for one in checks:
            one(audit, tags)

    return check


def _of(rng: np.random.Generator, values: Iterable[Any]) -> Any:
    values = list(values)
    return values[int(rng.integers(len(values)))]


def _arsgd_options(rng: np.random.Generator, _: int) -> dict[str, Any]:
    overlaps, buckets = bool(rng.integers(2)), int(rng.integers(4))
    return {"overlap": "backward", "buckets": buckets} if overlaps else {}


def _aladdin_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    return {
        "pi": _of(rng, (1, 1, 2, 3, 4)),
        "alpha": _of(rng, ("n_pi", "count", 0.0, 0.5, 1.0)),
        "reduce": _of(rng, ("sum", "mean")),
        "on_busy": _of(rng, ("coalesce", "wait")),
        "push": _of(rng, ("try", "queue")),
    }


def _dssp_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    low = int(rng.integers(4))
    return {"s_l": low, "s_u": low + int(rng.integers(4))}


def _diloco_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    outer = _of(rng, ({"outer_lr": 1.0, "outer_momentum": 0.0}, {"outer_lr": 0.7, "outer_momentum": 0.9}))
    return {"h": int(rng.integers(1, 5)), **outer}


def _dpsgd_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    return {"graph": _of(rng, ("ring", "complete", "exponential", "star"))}


def _adpsgd_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    return {"graph": _of(rng, ("bipartite", "star", [[i, i + 1] for i in range(workers - 1)]))}


def _sgp_options(rng: np.random.Generator, workers: int) -> dict[str, Any]:
    return {
        "graph": _of(rng, ("one_peer_exponential", "exponential", "ring", "complete")),
        "overlap": _of(rng, (0, 1, 1, 2, "none")),
        "least": _of(rng, (0.25, 0.0)),
    }


CONTRACTS: dict[str, Contract] = {
    "bsp": Contract(after=_together(_averaged_by_step, _agree_at(lambda *_: True))),
    "asp": Contract(after=_single),
    "ssp": Contract(
        lambda rng, _: {"s": _of(rng, (0, 0, 1, 2, 3, inf))}, _within(lambda a: a.s + 1), after=_single
    ),
    "dssp": Contract(_dssp_options, _within(lambda a: a.s_u + 1), after=_single),
    "easgd": Contract(
        lambda rng, n: {"tau": int(rng.integers(1, 4)), "beta": _of(rng, (0.3, 0.9, 1.0, float(n)))},
        _elastic,
        _together(_elastic, _nothing_doubled),
    ),
    "aladdin": Contract(_aladdin_options, after=_of_aladdin),
    "aladdin_l1": Contract(_aladdin_options, after=_of_aladdin),
    "aladdin_l2": Contract(_aladdin_options, after=_of_aladdin),
    "arsgd": Contract(
        _arsgd_options,
        after=_together(_sum_moves_by_gradients, _agree_at(lambda *_: True)),
    ),
    "local_sgd": Contract(
        lambda rng, _: {"h": int(rng.integers(1, 5))},
        after=_together(_sum_moves_by_gradients, _agree_at(lambda a, step: step % a.h == 0)),
    ),
    "post_local_sgd": Contract(
        lambda rng, n: {"h": int(rng.integers(1, 5)), "switch": n * float(rng.integers(5))},
        after=_post_local,
    ),
    "diloco": Contract(_diloco_options, after=_diloco),
    "dpsgd": Contract(_dpsgd_options, _one_step_apart, _together(_mean_by_step, _nothing_doubled), fewest=2),
    "adpsgd": Contract(_adpsgd_options, _pairs, _together(_pairs, _all_applied, _nothing_doubled), fewest=2),
    "sgp": Contract(_sgp_options, _push_sum, _push_sum, fewest=2),
    "gosgd": Contract(
        lambda rng, _: {"p": _of(rng, (0.0, 0.1, 0.5, 1.0)), "on_busy": _of(rng, ("skip", "wait"))},
        _gossip,
        _together(_gossip, _nothing_doubled),
        fewest=2,
    ),
}
"""By name, in the order of the table of algorithms."""

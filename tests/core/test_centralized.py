"""SSP, DSSP and EASGD: what each promises; and what these and the family of local SGD refuse."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scenarios
from core.algorithms import make
from core.algorithms.dssp import ForecastingGate
from core.algorithms.ssp import Gate
from core.effects import Receive, Send
from core.errors import OptionError
from core.node import GRADIENT, Left, Message, Node
from scenarios.errors import ScenarioError
from tests.conformance import problem
from tests.conformance.scripted import Scripted
from tests.core.runs import digest, run, simulated

seeds = st.integers(0, 2**32 - 1)

# Bad input ------------------------------------------------------------------------------------------

BAD = [
    ("ssp", {"s": -1}, "s"), ("ssp", {"s": 1.5}, "s"), ("ssp", {"s": nan}, "s"), ("ssp", {"s": "3"}, "s"),
    ("ssp", {"s": True}, "s"), ("ssp", {"s": None}, "s"), ("ssp", {"s": -inf}, "s"),
    ("dssp", {"s_l": -1}, "s_l"), ("dssp", {"s_l": 4, "s_u": 3}, "s_u"), ("dssp", {"s_u": inf}, "s_u"),
    ("dssp", {"s_u": nan}, "s_u"), ("dssp", {"s_l": 1.0}, "s_l"), ("dssp", {"s": 3}, "s"),
    ("easgd", {"tau": 0}, "tau"), ("easgd", {"tau": 1.5}, "tau"), ("easgd", {"tau": True}, "tau"),
    ("easgd", {"beta": 0}, "beta"), ("easgd", {"beta": -0.1}, "beta"), ("easgd", {"beta": nan}, "beta"),
    ("easgd", {"beta": inf}, "beta"), ("easgd", {"beta": "much"}, "beta"),
    ("local_sgd", {"h": 0}, "h"), ("local_sgd", {"h": 2.5}, "h"), ("local_sgd", {"h": inf}, "h"),
    ("post_local_sgd", {"h": -8}, "h"), ("post_local_sgd", {"switch": -0.5}, "switch"),
    ("post_local_sgd", {"switch": nan}, "switch"), ("post_local_sgd", {"switch": "never"}, "switch"),
    ("diloco", {"h": 0}, "h"), ("diloco", {"outer_lr": 0}, "outer_lr"),
    ("diloco", {"outer_lr": nan}, "outer_lr"), ("diloco", {"outer_lr": inf}, "outer_lr"),
    *(("diloco", {"outer_momentum": value}, "outer_momentum") for value in (1, -0.1, nan, False)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "field"), BAD)
def test_bad_options_are_refused_by_name(name: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        make(name, options)
    assert caught.value.field == field


def test_elastic_steps_beyond_one_another_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm\.beta.*4.5.*at most 4"):
        scenarios.load("demo", {"algorithm": "easgd", "algorithm.beta": 4.5, "cluster.workers": 4})
    scenarios.load("demo", {"algorithm": "easgd", "algorithm.beta": 4, "cluster.workers": 4})


def test_thresholds_the_wrong_way_round_are_named_in_a_scenario() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm\.s_u.*2.*at least s_l, 5"):
        scenarios.load("demo", {"algorithm": "dssp", "algorithm.s_l": 5, "algorithm.s_u": 2})


# SSP ------------------------------------------------------------------------------------------------


@given(
    seed=seeds, s=st.integers(0, 3), workers=st.integers(2, 5), servers=st.integers(1, 3), slow=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_ssp_bounds_the_spread_of_live_workers(
    seed: int, s: int, workers: int, servers: int, slow: bool
) -> None:
    """At all times, also with workers that die or end early."""
    rng = np.random.default_rng(seed)
    victim, last = int(rng.integers(workers)), int(rng.integers(workers))

    def look(nodes: list[Node], driver: Scripted) -> None:
        steps = [node.step for node in nodes[:workers] if node.id not in driver.gone]
        assert not steps or max(steps) - min(steps) <= s + 1

    run(
        "ssp", {"s": s}, seed, workers=workers, servers=servers, look=look,
        steps={i: 2 if i == last else 8 for i in range(workers + servers)},
        crashes={int(rng.integers(400)): victim}, speeds={0: 0.02} if slow else None,
    )  # fmt: skip


@pytest.mark.parametrize("s", [0, 1, 2, 4])
def test_ssp_lets_the_fast_run_ahead_as_far_as_it_may(s: int) -> None:
    """The bound is met: the fast do not wait any earlier than they must."""
    record = simulated("ssp", {"algorithm.s": s, "cluster.slowdowns": [{"ranks": [0], "factor": 100}]})
    steps = record.steps
    slow = (steps["node"] == 0) & (steps["step"] == 0)
    first_of_slow = float(steps["start"][slow][0] + steps["compute"][slow][0])
    begun = steps["step"][(steps["node"] == 1) & (steps["start"] < first_of_slow)].max()
    assert begun == s


def test_ssp_without_a_bound_is_asp_event_for_event() -> None:
    uneven = {"cluster.slowdowns": [{"ranks": [1], "factor": 3}], "run.seconds": 2.0, "run.spans": True}
    asp = simulated("asp", uneven)
    assert digest(simulated("ssp", uneven | {"algorithm.s": "unlimited"})) == digest(asp)
    assert digest(simulated("ssp", uneven | {"algorithm.s": 1})) != digest(asp)


@given(seed=seeds, workers=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_ssp_zero_is_lock_step(seed: int, workers: int) -> None:
    """Nobody starts step k + 1 before everybody's gradient of step k is applied: all start at one model."""
    started: dict[int, list[np.ndarray]] = {}

    def gradient(params: np.ndarray, rank: int, step: int) -> np.ndarray:
        started.setdefault(step, []).append(params.copy())
        return problem.gradient(params, rank, step)

    run("ssp", {"s": 0}, seed, workers=workers, gradient=gradient)
    for starts in started.values():
        assert len(starts) == workers
        assert all(np.array_equal(start, starts[0]) for start in starts)


def test_a_withheld_reply_carries_the_model_of_the_moment_it_is_sent() -> None:
    """Worker 0 is held; when worker 1 catches up, both get the model with both gradients."""
    nodes = problem.build(2, 1, momentum=0.0)
    server = nodes[2]
    program = make("ssp", {"s": 0}).server(server)
    assert program.send(None) == Receive((GRADIENT, "left"))
    shape = server.params.shape
    waits = program.send(Message(GRADIENT, np.ones(shape), step=0, source=0))
    assert isinstance(waits, Receive)
    replies = program.send(Message(GRADIENT, np.ones(shape), step=0, source=1))
    assert isinstance(replies, Send)
    assert [to for to, _ in replies.pairs] == [0, 1]
    for _, reply in replies.pairs:
        assert (reply.step, reply.versions) == (0, 2)
        np.testing.assert_array_equal(reply.tensor, server.params)
        assert not np.shares_memory(reply.tensor, server.params)


def test_a_departure_frees_whom_it_held_up() -> None:
    program = make("ssp", {"s": 0}).server(problem.build(3, 1)[3])
    program.send(None)
    for rank in (0, 1):
        program.send(Message(GRADIENT, problem.initial(), step=0, source=rank))
    replies = program.send(Left(2))
    assert isinstance(replies, Send)
    assert [to for to, _ in replies.pairs] == [0, 1]


@given(data=st.data(), workers=st.integers(1, 5), s=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_the_gate_does_what_its_definition_says(data: st.DataObject, workers: int, s: int) -> None:
    """Against the definition, evaluated anew at every event."""
    gate, clock, waiting = Gate(workers, s), dict.fromkeys(range(workers), 0), list[int]()
    for _ in range(data.draw(st.integers(0, 40))):
        able = [rank for rank in clock if rank not in waiting]
        if not clock:
            break
        if not able or data.draw(st.integers(0, 9)) == 0:
            rank = data.draw(st.sampled_from(sorted(clock)))
            del clock[rank]
            waiting = [other for other in waiting if other != rank]
            free = gate.leave(rank)
        else:
            rank = data.draw(st.sampled_from(able))
            clock[rank] += 1
            waiting.append(rank)
            free = gate.push(rank, clock[rank], 0.0)
        expected = [other for other in waiting if clock[other] - min(clock.values()) <= s]
        assert free == expected
        waiting = [other for other in waiting if other not in expected]
        assert len(waiting) < max(len(clock), 1)


# DSSP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0, 2, 5])
def test_dssp_with_one_threshold_is_ssp_event_for_event(s: int) -> None:
    uneven = {
        "cluster.slowdowns": [{"ranks": [1], "factor": 4}],
        "cluster.tensor_rates": {"apply": 1e9, "snapshot": 1e9, "assign": 1e9},
        "run.spans": True,
    }
    fixed = digest(simulated("ssp", uneven | {"algorithm.s": s}))
    assert digest(simulated("dssp", uneven | {"algorithm.s_l": s, "algorithm.s_u": s})) == fixed
    assert digest(simulated("dssp", uneven | {"algorithm.s_l": s, "algorithm.s_u": s + 4})) != fixed


@given(seed=seeds, low=st.integers(0, 2), more=st.integers(0, 3), workers=st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_dssp_never_exceeds_its_upper_threshold(seed: int, low: int, more: int, workers: int) -> None:
    def look(nodes: list[Node], driver: Scripted) -> None:
        steps = [node.step for node in nodes[:workers] if node.id not in driver.gone]
        assert not steps or max(steps) - min(steps) <= low + more + 1

    victim = seed % workers
    run(
        "dssp", {"s_l": low, "s_u": low + more}, seed, workers=workers, servers=2, steps=10, look=look,
        crashes={seed % 997: victim}, speeds={workers - 1: 0.03},
    )  # fmt: skip


@given(data=st.data(), workers=st.integers(2, 4), low=st.integers(0, 3), more=st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_the_forecasting_gate_stays_between_its_thresholds(
    data: st.DataObject, workers: int, low: int, more: int
) -> None:
    """Whatever the times: at most ``low`` ahead is never held, more than ``high`` never let go."""
    gate, clock, now, waiting = ForecastingGate(workers, low, low + more), [0] * workers, 0.0, set[int]()
    for _ in range(data.draw(st.integers(0, 60))):
        rank = data.draw(st.sampled_from([r for r in range(workers) if r not in waiting]))
        now += data.draw(st.floats(0, 10))
        clock[rank] += 1
        waiting.add(rank)
        free = gate.push(rank, clock[rank], now)
        waiting -= set(free)
        gate.answered(free, now)
        ahead = {r: clock[r] - min(clock) for r in range(workers)}
        assert all(ahead[r] <= low + more for r in free)
        assert all(ahead[r] > low for r in waiting)
        assert len(waiting) < workers


def test_the_forecast_grants_the_steps_that_fit_until_the_slowest_is_expected() -> None:
    """Worker 0 takes 1 s, worker 1 takes 10 s: at 13 s, one ahead of the limit, 7 more fit before 20 s."""
    gate = ForecastingGate(2, low=1, high=20)

    def push(rank: int, clock: int, now: float) -> list[int]:
        free = gate.push(rank, clock, now)
        gate.answered(free, now)
        return free

    assert push(0, 1, 1.0) == [0]
    assert push(0, 2, 2.0) == [], "nothing is known of worker 1: held as under SSP(1)"
    assert push(1, 1, 10.0) == [0, 1]
    assert push(0, 3, 11.0) == [0], "9 s until the slowest comes, 1 s a step: 9 extra steps"
    free = [push(0, clock, 8.0 + clock) for clock in range(4, 13)]
    assert free == [[0]] * 8 + [[]], "and no more"
    assert push(1, 2, 20.0) == [0, 1], "held until the slowest's next push, as forecast"


def test_a_reply_that_was_withheld_does_not_count_as_a_slow_worker() -> None:
    gate = ForecastingGate(2, low=0, high=100)
    assert gate.push(0, 1, 1.0) == []
    free = gate.push(1, 1, 10.0)
    gate.answered(free, 10.0)
    assert sorted(free) == [0, 1]
    gate.push(0, 2, 11.0)
    assert gate.extra(0) == 9, "1 s a step since its reply; 10 s since its push"


def test_dssp_waits_less_than_ssp_where_somebody_is_slow_for_a_while() -> None:
    """What it is for; and it does use its freedom."""
    pause = {
        "cluster.workers": 2, "cluster.servers.count": 1, "run.steps": 40,
        "cluster.compute": {"model": "constant", "mean": 0.05}, "cluster.bandwidth": "10 GB/s",
        "cluster.slowdowns": [{"ranks": [0], "kind": "scheduled", "intervals": [[0.5, 1.3, 8]]}],
    }  # fmt: skip
    fixed, moving = (
        simulated("ssp", pause | {"algorithm.s": 1}),
        simulated("dssp", pause | {"algorithm.s_l": 1, "algorithm.s_u": 12}),
    )
    assert moving.nodes["wait"][1] < 0.7 * fixed.nodes["wait"][1]


# EASGD ----------------------------------------------------------------------------------------------


def nothing(params: np.ndarray, rank: int, step: int) -> np.ndarray:
    return np.zeros_like(params)


def one(params: np.ndarray, rank: int, step: int) -> np.ndarray:
    return np.ones_like(params)


def apart(nodes: list[Node]) -> None:
    """Every node starts somewhere else."""
    for node in nodes:
        node.params += np.random.default_rng(node.id).normal(size=node.params.shape)


def total(nodes: list[Node], workers: int) -> np.ndarray:
    """The sum of centre and replicas."""
    centre = np.concatenate([node.params for node in nodes[workers:]])
    return np.sum([node.params for node in nodes[:workers]], axis=0) + centre


@given(
    seed=seeds,
    workers=st.integers(1, 4),
    servers=st.integers(1, 3),
    tau=st.integers(1, 3),
    part=st.floats(0.05, 1),
)
@settings(max_examples=40, deadline=None)
def test_an_elastic_exchange_preserves_the_sum(
    seed: int, workers: int, servers: int, tau: int, part: float
) -> None:
    before = list[np.ndarray]()

    def spoil(nodes: list[Node]) -> None:
        apart(nodes)
        before.append(total(nodes, workers))

    nodes, _ = run(
        "easgd", {"tau": tau, "beta": part * workers}, seed, workers=workers, servers=servers,
        gradient=nothing, spoil=spoil,
    )  # fmt: skip
    np.testing.assert_allclose(total(nodes, workers), before[0], rtol=0, atol=1e-13)
    for node in nodes[:workers]:
        assert node.blends == 6 // tau
    assert all(server.version == workers * (6 // tau) for server in nodes[workers:])


def test_an_exchange_is_an_elastic_step_on_both_sides() -> None:
    """alpha = beta / n towards the other's value from before."""
    starts = list[np.ndarray]()

    def spoil(nodes: list[Node]) -> None:
        apart(nodes)
        starts.extend(node.params.copy() for node in nodes)

    nodes, _ = run("easgd", {"tau": 1, "beta": 0.3}, workers=1, steps=1, gradient=nothing, spoil=spoil)
    x, centre = starts
    np.testing.assert_allclose(nodes[0].params, x - 0.3 * (x - centre), rtol=1e-14)
    np.testing.assert_allclose(nodes[1].params, centre + 0.3 * (x - centre), rtol=1e-14)


@given(seed=seeds, workers=st.integers(1, 4), servers=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_the_sum_of_centre_and_replicas_moves_by_gradients_only(
    seed: int, workers: int, servers: int
) -> None:
    """With constant gradients of one, no momentum: every step takes eta from the sum, whoever mixes when."""
    nodes = problem.build(workers, servers, momentum=0.0)
    expected = total(nodes, workers) - sum(
        nodes[0].schedule.at(step * workers) * workers for step in range(5)
    )
    rng = np.random.default_rng(seed)
    Scripted(make("easgd"), nodes, one, 5, lambda count: int(rng.integers(count))).run()
    np.testing.assert_allclose(total(nodes, workers), expected, rtol=1e-12)


def test_easgd_records_no_gradient_as_sent_or_lost() -> None:
    record = simulated("easgd", {})
    for fate in ("applied", "pending", "lost"):
        assert (record.nodes[fate] == 0).all()
    assert len(record.gradients["server"]) == 0
    assert (record.nodes["blends"][:4] == 15).all()

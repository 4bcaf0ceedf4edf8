"""Local SGD, post-local SGD and DiLoCo: their definitions, their ends, and departures in mid-round."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.effects import AllReduce
from tests.conformance import problem
from tests.conformance.scripted import Scripted
from tests.core.runs import digest, run, simulated

seeds = st.integers(0, 2**32 - 1)


def reference(
    workers: int, steps: int, h: int, synchronous: int = 0, outer: tuple[float, float] | None = None
):  # type: ignore[no-untyped-def]
    """Their definitions in one loop over all workers: replicas after ``steps``."""
    eta, mu = problem.schedule_of(workers).at, 0.9
    xs = np.array([problem.initial()] * workers)
    velocities, start, outer_velocity = np.zeros_like(xs), problem.initial(), np.zeros(problem.SIZE)
    for step in range(steps):
        gradients = np.array([problem.gradient(x, rank, step) for rank, x in enumerate(xs)])
        if step < synchronous:
            gradients[:] = gradients.mean(axis=0)
        velocities = mu * velocities + gradients
        xs = xs - eta(step * workers) * velocities
        local = step + 1 - synchronous
        if local > 0 and local % h == 0:
            mean = xs.mean(axis=0)
            if outer is not None:
                rate, momentum = outer
                outer_velocity = momentum * outer_velocity + (start - mean)
                mean = start = start - rate * ((start - mean) + momentum * outer_velocity)
            xs[:] = mean
    return xs


LOCAL = [
    ("local_sgd", {"h": 3}, {"h": 3}),
    ("local_sgd", {"h": 1}, {"h": 1}),
    ("local_sgd", {"h": 100}, {"h": 100}),
    ("post_local_sgd", {"h": 2, "switch": 1}, {"h": 2, "synchronous": 2}),
    ("post_local_sgd", {"h": 2, "switch": 1.2}, {"h": 2, "synchronous": 3}),
    ("diloco", {"h": 2}, {"h": 2, "outer": (0.7, 0.9)}),
    ("diloco", {"h": 3, "outer_lr": 0.5, "outer_momentum": 0.0}, {"h": 3, "outer": (0.5, 0.0)}),
]


@pytest.mark.parametrize(("name", "options", "meaning"), LOCAL)
@given(seed=seeds, workers=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_local_steps_and_averages_are_those_of_the_definition(
    name: str, options: dict[str, Any], meaning: dict[str, Any], seed: int, workers: int
) -> None:
    nodes, _ = run(name, options, seed, workers=workers, steps=8)
    expected = reference(workers, 8, **meaning)
    np.testing.assert_allclose([node.params for node in nodes], expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), [
    ("local_sgd", {"h": 1}), ("post_local_sgd", {"switch": inf}),
    ("diloco", {"h": 1, "outer_lr": 1, "outer_momentum": 0}),
])  # fmt: skip
def test_one_local_step_is_large_batch_sgd_momentum_and_all(name: str, options: dict[str, Any]) -> None:
    nodes, _ = run(name, options, workers=4, steps=7)
    expected = problem.large_batch(4, 7, problem.schedule_of(4))
    for node in nodes:
        np.testing.assert_allclose(node.params, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("collective", ["messages", "native"])
def test_post_local_sgd_at_its_ends_is_arsgd_and_local_sgd_event_for_event(collective: str) -> None:
    network = {"cluster.network.collective": collective, "run.links": "native"}
    post = {"algorithm.h": 4} | network
    never, at_once = (
        simulated("post_local_sgd", post | {"algorithm.switch": "unlimited"}),
        simulated("post_local_sgd", post | {"algorithm.switch": 0}),
    )
    assert digest(never) == digest(simulated("arsgd", network))
    assert digest(at_once) == digest(simulated("local_sgd", post))
    assert digest(at_once) != digest(never)


ROUNDS = [
    ("local_sgd", {"h": 2}), ("post_local_sgd", {"h": 2, "switch": 0.9}), ("diloco", {"h": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ROUNDS)
@given(seed=seeds, data=st.data())
@settings(max_examples=40, deadline=None)
def test_rounds_outlive_departures(
    name: str, options: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    """Some end early, in mid-round or not, some die: the rest finish, and agree after the last average."""
    workers = data.draw(st.integers(2, 5))
    victims = data.draw(st.lists(st.integers(0, workers - 1), max_size=workers - 1, unique=True))
    crashes = {data.draw(st.integers(0, 60)): victim for victim in victims}
    early = data.draw(st.dictionaries(st.integers(0, workers - 1), st.integers(0, 7)))
    budgets = dict.fromkeys(range(workers), 8) | early
    nodes, driver = run(name, options, seed, workers=workers, steps=budgets, crashes=crashes)
    survivors = [node for node in nodes if node.id not in driver.crashed]
    assert all(node.step == budgets[node.id] for node in survivors)
    last = [node for node in survivors if node.step == 8]
    for node in last:
        assert np.isfinite(node.params).all()
        np.testing.assert_array_equal(node.params, last[0].params)


@pytest.mark.parametrize(("name", "options"), [*ROUNDS, ("arsgd", {})])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_reduced_is_left_alone_until_the_next_all_reduce(
    name: str, options: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule of core/collectives.py: survivors may have to hand the last result on."""
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    checked = 0
    begin = Scripted._begin

    def watched(self: Scripted, task: Any, effect: Any) -> None:
        nonlocal checked
        state = task.node.memory.get("allreduce")
        if state is not None and state.result is not None:
            tensor, copy = kept.setdefault(task.node.id, (state.result, state.result.copy()))
            if tensor is state.result:
                np.testing.assert_array_equal(tensor, copy)
                checked += 1
        if isinstance(effect, AllReduce):
            kept.pop(task.node.id, None)
            if state is not None and state.result is not None:
                assert not np.shares_memory(effect.tensor, state.result)
        begin(self, task, effect)

    monkeypatch.setattr(Scripted, "_begin", watched)
    run(name, options, seed, workers=3, steps=8)
    assert checked > 20


@pytest.mark.parametrize("collective", ["messages", "native"])
@pytest.mark.parametrize(("name", "options"), ROUNDS)
@pytest.mark.parametrize("budget", [{"run.seconds": 0.83}, {"run.samples": 32 * 41}])
def test_budgets_that_end_in_mid_round_do_not_block_the_rest(
    collective: str, name: str, options: dict[str, Any], budget: dict[str, Any]
) -> None:
    """Workers of different speeds make different numbers of steps; all of them end."""
    uneven = {
        "cluster.network.collective": collective, "run.links": "native",
        "cluster.compute": {"model": "constant", "mean": 0.05},
        "cluster.slowdowns": [{"ranks": [1], "factor": 2}],
        **{f"algorithm.{key}": value for key, value in options.items()}, "algorithm.h": 5, **budget,
        **({"algorithm.switch": 0.05} if "switch" in options else {}),
    }  # fmt: skip
    record = simulated(name, uneven)
    assert len(set(record.nodes["steps"].tolist())) > 1

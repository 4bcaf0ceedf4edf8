"""Every algorithm under adversarial schedules: the invariants of ALGORITHMS, delivery by delivery."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.algorithms import ALGORITHMS, make
from core.node import Node
from tests.conformance import problem
from tests.conformance.scripted import Scripted

ACCOUNTED = [
    name for name, kind in ALGORITHMS.items() if kind.centralized and getattr(kind, "sends_gradients", True)
]
SYNCHRONOUS = ["bsp", "arsgd"]
ALADDINS = [
    {"pi": pi, "on_busy": busy, "push": push, "alpha": alpha, "reduce": reduce}
    for pi, busy, push, alpha, reduce in [
        (1, "coalesce", "try", "n_pi", "sum"),
        (2, "wait", "queue", "count", "mean"),
        (4, "coalesce", "queue", 0.5, "sum"),
        (1, "wait", "try", "count", "sum"),
        (3, "coalesce", "try", 1.0, "mean"),
    ]
]


def run(
    name: str,
    seed: int,
    workers: int = 3,
    servers: int = 1,
    steps: int | dict[int, int] = 6,
    options: dict[str, object] | None = None,
    crashes: dict[int, int] | None = None,
    window: float = 1,
) -> tuple[list[Node], Scripted]:
    algorithm = make(name, options)
    nodes = problem.build(workers, servers if algorithm.centralized else 0)
    rng = np.random.default_rng(seed)
    driver = Scripted(
        algorithm, nodes, problem.gradient, steps, lambda count: int(rng.integers(count)), window=window
    )
    driver.run(crashes)
    return nodes, driver


def servers_of(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if node.id >= node.workers]


seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3))


@pytest.mark.parametrize("name", ACCOUNTED)
@given(seed=seeds, shape=shapes)
@settings(max_examples=25, deadline=None)
def test_no_gradient_is_lost_or_applied_twice(name: str, seed: int, shape: tuple[int, int]) -> None:
    nodes, _ = run(name, seed, *shape)
    for server in servers_of(nodes):
        pending = server.ledger.pending()
        for rank in range(shape[0]):
            assert server.ledger.applied.get(rank, 0) + pending.get(rank, 0) == 6


@pytest.mark.parametrize("options", ALADDINS)
@given(seed=seeds, shape=shapes)
@settings(max_examples=15, deadline=None)
def test_aladdin_loses_nothing_under_any_option(
    options: dict[str, object], seed: int, shape: tuple[int, int]
) -> None:
    nodes, _ = run("aladdin", seed, *shape, options=options)
    for server in servers_of(nodes):
        pending = server.ledger.pending()
        for rank in range(shape[0]):
            assert server.ledger.applied.get(rank, 0) + pending.get(rank, 0) == 6
        assert sum(pending.values()) < shape[0] * int(options["pi"]) + 1  # type: ignore[call-overload]


@given(seed=seeds, shape=shapes)
@settings(max_examples=25, deadline=None)
def test_aladdin_worker_never_blocks_under_coalesce(seed: int, shape: tuple[int, int]) -> None:
    """Only the final flush may wait; every other blocking effect is a server's or a compute."""
    _, driver = run("aladdin", seed, *shape, options={"on_busy": "coalesce"})
    flushes = [entry for entry in driver.blocked if entry == "0:Send"]
    assert not any(entry in ("0:Receive", "0:Flush") for entry in driver.blocked)
    assert len(flushes) <= 1


def test_aladdin_worker_does_block_under_wait() -> None:
    """The previous test can fail: the other option does block."""
    assert any(
        entry == "0:Send"
        for seed in range(20)
        for entry in run("aladdin", seed, options={"on_busy": "wait"})[1].blocked
    )


@pytest.mark.parametrize("name", SYNCHRONOUS)
@given(seed=seeds, workers=st.integers(1, 5), servers=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_synchronous_equals_large_batch_sgd(name: str, seed: int, workers: int, servers: int) -> None:
    nodes, _ = run(name, seed, workers, servers)
    expected = problem.large_batch(workers, 6, problem.schedule_of(workers))
    for node in nodes[:workers]:
        np.testing.assert_allclose(node.params, expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(node.params, nodes[0].params)


@given(seed=seeds, workers=st.integers(1, 4), servers=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_asp_with_one_worker_is_sgd(seed: int, workers: int, servers: int) -> None:
    """One worker: plain SGD. More: the server's vector is what its log of applied gradients says."""
    nodes, _ = run("asp", seed, 1, servers)
    np.testing.assert_allclose(nodes[0].params, problem.large_batch(1, 6, problem.schedule_of(1)), rtol=1e-12)
    nodes, _ = run("asp", seed, workers, servers)
    assert all(server.version == 6 * workers for server in servers_of(nodes))


@pytest.mark.parametrize("name", list(ALGORITHMS))
@given(seed=seeds, data=st.data())
@settings(max_examples=40, deadline=None)
def test_survivors_finish_when_workers_die(name: str, seed: int, data: st.DataObject) -> None:
    """No deadlock, whoever dies and whenever; of the living no gradient is lost."""
    workers = data.draw(st.integers(2, 5))
    victims = data.draw(st.lists(st.integers(0, workers - 1), max_size=workers - 1, unique=True))
    crashes = {data.draw(st.integers(0, 300)): victim for victim in victims}
    nodes, driver = run(name, seed, workers, 2, crashes=crashes)
    crashed = driver.crashed
    survivors = [n for n in nodes[:workers] if n.id not in crashed]
    assert all(node.step == 6 for node in survivors)
    for server in servers_of(nodes) if name in ACCOUNTED else ():
        pending = server.ledger.pending()
        for node in survivors:
            assert server.ledger.applied.get(node.id, 0) + pending.get(node.id, 0) == 6
        for rank in crashed:
            assert server.ledger.applied.get(rank, 0) + pending.get(rank, 0) <= 6
    assert driver.gone >= set(range(workers))


@given(seed=seeds, data=st.data())
@settings(max_examples=60, deadline=None)
def test_replicas_agree_after_a_crash_in_mid_all_reduce(seed: int, data: st.DataObject) -> None:
    """A crash well before the end: the survivors' replicas end bit-identical."""
    workers = data.draw(st.integers(3, 5))
    victim = data.draw(st.integers(0, workers - 1))
    turn = data.draw(st.integers(0, 60))
    nodes, driver = run("arsgd", seed, workers, steps=8, crashes={turn: victim})
    survivors = [n for n in nodes[:workers] if n.id != victim]
    assert driver.crashed == {victim}
    for node in survivors:
        np.testing.assert_array_equal(node.params, survivors[0].params)


@pytest.mark.parametrize("name", SYNCHRONOUS)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_uneven_budgets_do_not_block_the_rest(name: str, seed: int) -> None:
    nodes, _ = run(name, seed, 3, 1, steps={0: 2, 1: 6, 2: 4, 3: 0})
    assert [node.step for node in nodes[:3]] == [2, 6, 4]

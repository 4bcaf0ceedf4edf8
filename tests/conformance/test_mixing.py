"""The stated matrices against the algorithms themselves, by linear response.

With zero gradients a run is linear in what it starts from. Worker i starts at the unit vector e_i (and the
server at one of its own), so its final parameters are row i of the matrix that the run applied. Where
chance decides who mixes with whom, the run is watched: messages sent and taken, in their order, pick the
factors, and the stated matrices say what each does. BSP and AR-SGD average gradients, so there the
impulse is a gradient of the first step.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scenarios
from core import mixing
from core.algorithms import make
from core.effects import Send, TrySend
from core.mixing import Matrix
from core.node import Message, Node
from core.optimizer import MomentumSGD, Schedule
from core.record import Ledger
from core.sharding import partition
from core.tensors import Tensors
from core.topology import PeerSchedule, graph, schedule
from scenarios.plan import plan
from scenarios.streams import stream
from sim.driver import Driver
from tests.conformance.scripted import Scripted

SEEDS = st.integers(0, 2**32 - 1)
OTHER = [[0.6, 0.4, 0, 0], [0.4, 0.1, 0.5, 0], [0, 0.5, 0.2, 0.3], [0, 0, 0.3, 0.7]]


class Watched(Scripted):
    """Keeps who sent to whom, and who took whose message, in the order in which it happened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.events: list[tuple[str, int, int, int]] = []
        self.known: dict[tuple[int, int], frozenset[int]] = {}
        super().__init__(*args, **kwargs)

    def _begin(self, task: Any, effect: Any) -> None:
        """Also keep whom a sender knew to be there when it chose its peers of a step."""
        if isinstance(effect, Send | TrySend):
            self.known.setdefault((task.node.id, effect.pairs[0][1].step), frozenset(task.node.live))
        super()._begin(task, effect)

    def _take(self, source: int, pairs: Any) -> None:
        self.events += [("sent", source, to, m.step) for to, m in pairs]  # to those who left, too: it is lost
        super()._take(source, pairs)

    def _match(self, to: int, effect: Any) -> Any:
        found = super()._match(to, effect)
        if type(found) is Message:
            self.events.append(("taken", found.source, to, found.step))
        return found


def still(params: Matrix, rank: int, step: int) -> Matrix:
    """No gradient at all."""
    return np.zeros_like(params)


def impulse(params: Matrix, rank: int, step: int) -> Matrix:
    """Minus the unit vector of the rank in the first step, nothing thereafter."""
    return -1.0 * (np.arange(len(params)) == rank) * (step == 0)


def run(
    name: str, start: Matrix, steps: int, seed: int, options: dict[str, Any] | None = None,
    gradient: Any = still, centre: Matrix | None = None,
) -> tuple[list[Node], Watched]:  # fmt: skip
    """Worker i from row i of ``start`` (and one server from ``centre``), on a random schedule; eta is 1."""
    algorithm = make(name, options)
    n, size = start.shape
    shards = partition([size], [n]) if algorithm.centralized else ()
    rows = [*start, *([start.mean(axis=0) if centre is None else centre] if shards else [])]
    nodes = [
        Node(
            i, n, row.copy(), shards, Tensors(), MomentumSGD(0.0), Schedule(1.0, n, "none"), ledger=Ledger(i),
            stream=lambda node, purpose: stream(seed, node, purpose),
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    driver = Watched(algorithm, nodes, gradient, steps, lambda count: int(rng.integers(count)))
    driver.run()
    return nodes, driver


def rows(nodes: list[Node]) -> Matrix:
    return np.array([node.params for node in nodes])


class Still:
    """No gradient, as the simulator takes it."""

    def __init__(self, size: int) -> None:
        self.initial = np.zeros(size)

    def __call__(self, params: Matrix, rank: int, step: int) -> Matrix:
        return np.zeros_like(params)


def simulated(name: str, n: int, steps: int, options: dict[str, Any], centre: Matrix | None = None) -> Driver:
    """The same on the simulator: equal workers, a fast network, unit vectors to start from."""
    changes = {
        "algorithm.name": name, "cluster.workers": n, "workload.parameters": n, "run.steps": steps,
        "cluster.servers.count": 1, "cluster.network.collective": "messages",
        "cluster.compute": {"model": "constant", "mean": 0.05}, "cluster.bandwidth": "10 Gbit/s",
    }  # fmt: skip
    options = {f"algorithm.{key}": value for key, value in options.items()}
    driver = Driver(plan(scenarios.load("demo", changes | options)), gradients=Still(n))
    for node in driver.nodes:
        node.params[:] = np.eye(n)[node.id] if node.id < n else centre
    driver.run()
    return driver


# Deterministic mixing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "n"),
    [
        ("ring", 5), ("ring", 2), ("torus", 6), ("hypercube", 8), ("exponential", 7), ("complete", 4),
        ("bipartite", 5), ("random_regular", 6), ("star", 5), ([[0, 1], [1, 2], [2, 0], [2, 3]], 4),
    ],
)  # fmt: skip
@given(seed=SEEDS, steps=st.integers(0, 5))
@settings(max_examples=8)
def test_dpsgd_applies_the_metropolis_weights_of_its_graph(spec: Any, n: int, seed: int, steps: int) -> None:
    nodes, _ = run("dpsgd", np.eye(n), steps, seed, {"graph": spec})
    W = mixing.metropolis(graph(spec, n))
    assert np.allclose(rows(nodes), np.linalg.matrix_power(W, steps), rtol=0, atol=1e-12)


@given(seed=SEEDS, steps=st.integers(0, 5))
@settings(max_examples=15)
def test_dpsgd_applies_a_users_matrix(seed: int, steps: int) -> None:
    nodes, _ = run("dpsgd", np.eye(4), steps, seed, {"matrix": OTHER})
    assert np.allclose(rows(nodes), np.linalg.matrix_power(np.array(OTHER), steps), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", ["ring", "star", "complete"])
def test_dpsgd_on_the_simulator_too(spec: str) -> None:
    driver = simulated("dpsgd", 5, 4, {"graph": spec})
    W = mixing.metropolis(graph(spec, 5))
    assert np.allclose(rows(driver.nodes), np.linalg.matrix_power(W, 4), rtol=0, atol=1e-6)


@given(
    spec=st.sampled_from(["one_peer_exponential", "exponential", "ring", "star", "complete"]),
    n=st.integers(2, 7), steps=st.integers(0, 6), seed=SEEDS,
)  # fmt: skip
@settings(max_examples=40)
def test_sgp_without_overlap_is_the_push_sum_sequence(spec: str, n: int, steps: int, seed: int) -> None:
    """Weights and parameters: P = ... P_1 P_0, w = P 1, z = P z_0 / w."""
    nodes, _ = run("sgp", np.eye(n), steps, seed, {"graph": spec, "overlap": 0, "least": 0})
    peers = schedule(spec, n)
    P = mixing.product([np.eye(n), *(mixing.push_sum(peers, step) for step in range(steps))])
    w = P.sum(axis=1)
    assert np.allclose([node.weight for node in nodes], w, rtol=0, atol=1e-12)
    assert np.allclose(rows(nodes), P / w[:, None], rtol=0, atol=1e-12)


@given(n=st.sampled_from([2, 4, 8]), seed=SEEDS)
@settings(max_examples=10)
def test_sgp_reaches_the_mean_exactly_after_one_period_of_one_peer_exponential(n: int, seed: int) -> None:
    nodes, _ = run("sgp", np.eye(n), n.bit_length() - 1, seed, {"overlap": 0})
    assert np.allclose(rows(nodes), mixing.average(n), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [4, 5])
def test_sgp_with_overlap_1_on_equal_workers_is_push_sum_a_step_late(n: int) -> None:
    """What is sent at step k is added at the end of step k + 1, and what is under way at the end at last."""
    steps = 6
    driver = simulated("sgp", n, steps, {"overlap": 1})
    peers = schedule("one_peer_exponential", n)
    kept, under_way = np.eye(n), np.zeros((n, n))
    for step in range(steps):
        P = mixing.push_sum(peers, step)
        kept, under_way = np.diag(np.diag(P)) @ kept + under_way, (P - np.diag(np.diag(P))) @ kept
    total = kept + under_way
    w = total.sum(axis=1)
    assert np.allclose([node.weight for node in driver.nodes], w, atol=1e-6)
    assert np.allclose(rows(driver.nodes), total / w[:, None], atol=1e-6)


@pytest.mark.parametrize("name", ["bsp", "arsgd"])
@given(n=st.integers(1, 5), seed=SEEDS)
@settings(max_examples=10)
def test_synchronous_algorithms_average_gradients(name: str, n: int, seed: int) -> None:
    nodes, _ = run(name, np.zeros((n, n)), 2, seed, gradient=impulse)
    assert np.allclose(rows(nodes[:n]), mixing.average(n), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["local_sgd", "post_local_sgd"])
@given(n=st.integers(1, 5), h=st.integers(2, 4), steps=st.integers(1, 6), seed=SEEDS)
@settings(max_examples=15)
def test_local_sgd_is_the_identity_and_at_every_h_th_step_the_mean(
    name: str, n: int, h: int, steps: int, seed: int
) -> None:
    options = {"h": h} | ({"switch": 0.0} if name == "post_local_sgd" else {})
    nodes, _ = run(name, np.eye(n), steps, seed, options)
    W = mixing.average(n) if steps >= h else mixing.identity(n)
    assert np.allclose(rows(nodes), W, rtol=0, atol=1e-12)


@given(n=st.integers(1, 5), lr=st.floats(0.1, 1), momentum=st.floats(0, 0.9), seed=SEEDS)
@settings(max_examples=15)
def test_diloco_moves_all_replicas_by_the_mean_alike(n: int, lr: float, momentum: float, seed: int) -> None:
    options = {"h": 2, "outer_lr": lr, "outer_momentum": momentum}
    nodes, _ = run("diloco", np.zeros((n, n)), 2, seed, options, gradient=impulse)
    assert np.allclose(rows(nodes), lr * (1 + momentum) * mixing.average(n), rtol=0, atol=1e-12)


# Mixing whose order chance decides ---------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "n"), [("bipartite", 5), ("ring", 6), ("hypercube", 4), ("star", 4)])
@given(seed=SEEDS, steps=st.integers(1, 5))
@settings(max_examples=12)
def test_adpsgd_is_a_product_of_pairwise_averages(spec: str, n: int, seed: int, steps: int) -> None:
    nodes, driver = run("adpsgd", np.eye(n), steps, seed, {"graph": spec})
    sides = graph(spec, n).sides()
    assert sides is not None
    exchanges = [(i, j) for what, i, j, _ in driver.events if what == "taken" and j in sides[1]]
    assert len(exchanges) == len(sides[0]) * (steps + 1)  # one begun before the budget is known to be met
    W = mixing.product([np.eye(n), *(mixing.pairwise(n, i, j) for i, j in exchanges)])
    assert np.allclose(rows(nodes), W, rtol=0, atol=1e-12)


@given(
    n=st.integers(1, 5), tau=st.integers(1, 3), beta=st.floats(0.1, 0.9), steps=st.integers(1, 6), seed=SEEDS
)
@settings(max_examples=30)
def test_easgd_is_a_product_of_elastic_exchanges(
    n: int, tau: int, beta: float, steps: int, seed: int
) -> None:
    eye = np.eye(n + 1)
    nodes, driver = run("easgd", eye[:n], steps, seed, {"tau": tau, "beta": beta}, centre=eye[n])
    order = [source for what, source, to, _ in driver.events if what == "taken" and to == n]
    assert len(order) == n * (steps // tau)
    W = mixing.product([eye, *(mixing.easgd_exchange(n, beta / n, i) for i in order)])
    assert np.allclose(rows(nodes), W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [2, 6, 20])
def test_exchanges_in_turn_are_those_at_once_up_to_alpha_squared(n: int) -> None:
    """Why the symmetric matrix of Cooperative SGD stands for EASGD, whose server takes one at a time."""
    apart = []
    for alpha in (0.1 / n, 0.05 / n):
        turns = mixing.product(mixing.easgd_exchange(n, alpha, i) for i in range(n))
        apart.append(np.abs(turns - mixing.easgd(n, alpha)).max())
    assert apart[0] / apart[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("name", ["aladdin", "aladdin_l2"])
@given(n=st.integers(1, 5), pi=st.integers(1, 3), steps=st.integers(1, 7), seed=SEEDS)
@settings(max_examples=20)
def test_aladdin_pulls_its_workers_to_the_server(name: str, n: int, pi: int, steps: int, seed: int) -> None:
    """State (x_1 .. x_n, x~): one ``aladdin_pull`` of worker i per push that it mixed in."""
    eye, alpha = np.eye(n + 1), mixing.aladdin_alpha(n, pi)
    nodes, _ = run(name, eye[:n], steps, seed, {"pi": pi}, centre=eye[n])
    pulls = [i for i in range(n) for _ in range(nodes[i].blends)]
    W = mixing.product([eye, *(mixing.aladdin_pull(n, alpha, [i]) for i in pulls)])
    assert np.allclose(rows(nodes), W, rtol=0, atol=1e-12)


@given(n=st.integers(1, 5), pi=st.integers(1, 3), steps=st.integers(1, 7), seed=SEEDS)
@settings(max_examples=20)
def test_eq_6_is_its_reduction_where_the_server_is_the_mean(n: int, pi: int, steps: int, seed: int) -> None:
    nodes, _ = run("aladdin", np.eye(n), steps, seed, {"pi": pi})
    W = mixing.aladdin(n, mixing.aladdin_alpha(n, pi))
    expected = [np.linalg.matrix_power(W, node.blends)[node.id] for node in nodes[:n]]
    assert np.allclose(rows(nodes[:n]), expected, rtol=0, atol=1e-12)


def test_equal_workers_of_aladdin_apply_eq_6_all_at_once() -> None:
    n, pi, steps = 4, 2, 9
    driver = simulated("aladdin", n, steps, {"pi": pi}, np.full(n, 1 / n))
    blends = {node.blends for node in driver.nodes[:n]}
    assert len(blends) == 1
    assert min(blends) >= steps // pi - 1
    W = mixing.aladdin(n, mixing.aladdin_alpha(n, pi))
    assert np.allclose(rows(driver.nodes[:n]), np.linalg.matrix_power(W, blends.pop()), atol=1e-6)


def test_the_ablation_without_pulls_mixes_nothing() -> None:
    nodes, _ = run("aladdin_l1", np.eye(3), 5, 0)
    assert np.array_equal(rows(nodes[:3]), mixing.identity(3))


class Shares:
    """Weighted sums and weights of workers and messages, moved by the stated columns as watched."""

    def __init__(self, n: int, weight: float) -> None:
        self.sums, self.weights = weight * np.eye(n), np.full(n, weight)
        self.wires: dict[tuple[int, int], deque[tuple[Matrix, float]]] = {}

    def push(self, source: int, to: int, part: float, base: tuple[Matrix, float]) -> None:
        """``part`` of what the sender held at the start of its step goes under way."""
        x, w = base
        self.sums[source] -= part * x
        self.weights[source] -= part * w
        self.wires.setdefault((source, to), deque()).append((part * x, part * w))

    def merge(self, source: int, to: int) -> None:
        x, w = self.wires[source, to].popleft()
        self.sums[to] += x
        self.weights[to] += w

    def held(self, rank: int) -> tuple[Matrix, float]:
        return self.sums[rank].copy(), float(self.weights[rank])

    def total(self) -> Matrix:
        """Of all parameters, by the unit vector that they come from: nothing is lost."""
        return self.sums.sum(axis=0) + sum(x for wire in self.wires.values() for x, _ in wire)


def replay(events: list[tuple[str, int, int, int]], n: int, weight: float, parts: Any) -> Shares:
    """``parts(source, to, step)`` is the share of the sender's that the stated matrix moves."""
    shares, bases = Shares(n, weight), {}
    for what, source, to, step in events:
        if what == "taken":
            shares.merge(source, to)
        else:
            base = bases.setdefault((source, step), shares.held(source))
            shares.push(source, to, parts(source, to, step), base)
    return shares


@pytest.mark.parametrize("overlap", [0, 1, 2, "none"])
@given(
    spec=st.sampled_from(["one_peer_exponential", "exponential", "ring", "complete"]),
    n=st.integers(2, 6), steps=st.integers(1, 6), seed=SEEDS,
)  # fmt: skip
@settings(max_examples=20)
def test_sgp_moves_the_stated_shares_whatever_the_overlap(
    overlap: Any, spec: str, n: int, steps: int, seed: int
) -> None:
    nodes, driver = run("sgp", np.eye(n), steps, seed, {"graph": spec, "overlap": overlap, "least": 0})
    peers = schedule(spec, n)

    def part(source: int, to: int, step: int) -> float:
        there = driver.known[source, step]
        left = tuple(tuple(j for j in peers.out(i, step) if j in there) for i in range(n))
        return float(mixing.push_sum(PeerSchedule(n, (left,)), 0)[to, source])

    shares = replay(driver.events, n, 1.0, part)
    assert np.allclose([node.weight for node in nodes], shares.weights, rtol=0, atol=1e-12)
    assert np.allclose(rows(nodes), shares.sums / shares.weights[:, None], rtol=0, atol=1e-10)
    assert np.allclose(shares.total(), 1)


@pytest.mark.parametrize("busy", ["skip", "wait"])
@given(n=st.integers(2, 6), p=st.floats(0.2, 1), steps=st.integers(1, 8), seed=SEEDS)
@settings(max_examples=25)
def test_gosgd_moves_half_of_the_share(busy: str, n: int, p: float, steps: int, seed: int) -> None:
    nodes, driver = run("gosgd", np.eye(n), steps, seed, {"p": p, "on_busy": busy})
    shares = replay(
        driver.events, n, 1 / n, lambda source, to, _: mixing.gossip_share(n, source, to)[to, source]
    )  # fmt: skip
    assert np.allclose([node.weight for node in nodes], shares.weights, rtol=0, atol=1e-12)
    assert np.allclose(rows(nodes), shares.sums / shares.weights[:, None], rtol=0, atol=1e-10)
    assert np.allclose(shares.total(), 1 / n)


def test_gosgd_pushes_to_everybody_as_the_expectation_says() -> None:
    """Pushes by (sender, receiver) over many seeds against n steps x the stated share p/2/(n-1)."""
    n, p, steps, seeds = 4, 0.5, 40, 25
    counts = np.zeros((n, n))
    for seed in range(seeds):
        _, driver = run("gosgd", np.eye(n), steps, seed, {"p": p, "on_busy": "wait"})
        for what, source, to, _ in driver.events:
            counts[to, source] += what == "sent"
    expected = mixing.gossip_expected(n, p)
    rates = counts / (steps * seeds) / 2
    away = ~np.eye(n, dtype=bool)
    spread = np.sqrt(expected[away].max() / 2 / (steps * seeds))
    late = 0.12 * expected[away].max()  # at the end there are fewer workers to send to
    assert np.abs(rates - expected)[away].max() <= 4 * spread + late

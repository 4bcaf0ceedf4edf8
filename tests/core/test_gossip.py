"""The decentralized algorithms: what they conserve, what they converge to, and what they refuse.

All on the scripted driver: ``seed`` is a schedule of deliveries and resumptions. ``Audit`` counts what is
under way, so sums are checked after everything that any program does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scenarios
from core import mixing, topology
from core.algorithms.adpsgd import ADPSGD
from core.algorithms.dpsgd import DPSGD
from core.algorithms.gosgd import GoSGD, another
from core.algorithms.sgp import SGP
from core.errors import OptionError
from core.node import Node
from core.optimizer import MomentumSGD, Schedule
from scenarios.errors import ScenarioError
from scenarios.streams import stream
from sim import simulate
from tests.conformance.audit import Audit
from tests.conformance.scripted import Scripted

SIZE = 5
LR = 0.05

seeds = st.integers(0, 2**32 - 1)
GRAPHS = ["ring", "torus", "hypercube", "exponential", "complete", "star", [[0, 1], [1, 2], [2, 3], [0, 2]]]
Gradient = Callable[[np.ndarray, int, int], np.ndarray]


def start(n: int) -> np.ndarray:
    """Parameters of all workers, (n, SIZE), different from each other."""
    return np.random.default_rng(n).normal(size=(n, SIZE))


def none(params: np.ndarray, rank: int, step: int) -> np.ndarray:
    """No gradient: averaging alone."""
    return np.zeros_like(params)


def pull(params: np.ndarray, rank: int, step: int) -> np.ndarray:
    """Towards another point for every worker and step."""
    return params - np.random.default_rng([rank, step]).normal(size=SIZE)


class Run:
    """A run to its end.

    history[step]  parameters at which the workers asked for that step's gradients
    moved          eta times the sum of all gradients that were handed out
    weighted_move  the same, each times the weight of its worker
    """

    def __init__(
        self, algorithm: Any, n: int, seed: int, gradient: Gradient = none, *,
        steps: int | dict[int, int] = 6, during: Callable[[Run], None] | None = None, momentum: float = 0.0,
        crashes: dict[int, int] | None = None, speeds: dict[int, float] | None = None,
        window: float = 1, inbox: float = 2,
    ) -> None:  # fmt: skip
        self.history: dict[int, dict[int, np.ndarray]] = {}
        self.moved, self.weighted_move = np.zeros(SIZE), np.zeros(SIZE)
        self._gradient = gradient
        self.nodes = [
            Node(i, n, x, optimizer=MomentumSGD(momentum), schedule=Schedule(LR, n, "none"),
                 stream=lambda node, purpose: stream(seed, node, purpose))
            for i, x in enumerate(start(n))
        ]  # fmt: skip
        self.audit = Audit(algorithm, (lambda _: during(self)) if during else None)
        rng = np.random.default_rng(seed)
        self.driver = Scripted(
            self.audit, self.nodes, self._record, steps,  # type: ignore[arg-type]
            lambda count: int(rng.integers(count)), window=window, inbox=inbox, speeds=speeds,
        )  # fmt: skip
        self.driver.run(crashes)
        self.audit.over = True

    def _record(self, params: np.ndarray, rank: int, step: int) -> np.ndarray:
        self.history.setdefault(step, {})[rank] = params.copy()
        gradient = self._gradient(params, rank, step)
        self.moved += LR * gradient
        self.weighted_move += LR * self.nodes[rank].weight * gradient
        return gradient

    def at(self, step: int) -> np.ndarray:
        """(n, SIZE): everybody's parameters at the start of ``step``."""
        return np.array([self.history[step][node.id] for node in self.nodes])

    @property
    def params(self) -> np.ndarray:
        """(n, SIZE): everybody's parameters now."""
        return np.array([node.params for node in self.nodes])

    def weighted(self, *tags: str) -> tuple[float, np.ndarray]:
        """Sums of all weights and of all w x, messages under way included."""
        weight = sum(node.weight for node in self.nodes)
        total = sum((node.weight * node.params for node in self.nodes), np.zeros(SIZE))
        for _, _, message in self.audit.messages(*tags):
            weight += message.number
            if message.number:
                total = total + message.number * message.tensor
        return weight, total


def apart(x: np.ndarray) -> float:
    """Distance to consensus."""
    return float(np.linalg.norm(x - x.mean(axis=0)))


# D-PSGD ---------------------------------------------------------------------------------------------


def workers_of(graph: Any) -> int:
    return 8 if graph in ("hypercube", "exponential") else 4


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@given(seed=seeds, inbox=st.sampled_from([1, 2, float("inf")]))
@settings(max_examples=8, deadline=None)
def test_dpsgd_averages_by_its_matrix(graph: Any, seed: int, inbox: float) -> None:
    """X_k+1 = W X_k, step for step: the mean stays, and consensus comes at the rate sqrt(rho) or faster."""
    n = workers_of(graph)
    W = mixing.metropolis(topology.graph(graph, n))
    run = Run(DPSGD(graph=graph), n, seed, inbox=inbox)
    for k in range(5):
        before, after = run.at(k), run.at(k + 1)
        np.testing.assert_allclose(after, W @ before, rtol=0, atol=1e-12)
        np.testing.assert_allclose(after.mean(axis=0), start(n).mean(axis=0), rtol=0, atol=1e-12)
        assert apart(after) <= mixing.second_eigenvalue(W) * apart(before) + 1e-12


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_dpsgd_adds_the_gradient_from_before_the_averaging(seed: int) -> None:
    """X_k+1 = W X_k - eta V_k with V_k = momentum V_k-1 + G(X_k): so the mean moves by gradients only."""
    run = Run(DPSGD(graph="ring"), 5, seed, pull, momentum=0.5)
    W = mixing.metropolis(topology.graph("ring", 5))
    velocity = np.zeros((5, SIZE))
    for k in range(5):
        velocity = 0.5 * velocity + [pull(x, i, k) for i, x in enumerate(run.at(k))]
        np.testing.assert_allclose(run.at(k + 1), W @ run.at(k) - LR * velocity, rtol=0, atol=1e-12)
        moved = run.at(k + 1).mean(axis=0) - run.at(k).mean(axis=0)
        np.testing.assert_allclose(moved, -LR * velocity.mean(axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("algorithm", "n"), [(DPSGD(graph="torus"), 6), (SGP(overlap=0), 5), (SGP(graph="star", overlap=0), 4)]
)
def test_synchronous_gossip_does_not_depend_on_deliveries(algorithm: Any, n: int) -> None:
    runs = [Run(algorithm, n, seed, pull, momentum=0.9, inbox=1 + seed % 2).params for seed in range(8)]
    for params in runs:
        np.testing.assert_array_equal(params, runs[0])


def test_dpsgd_takes_a_matrix() -> None:
    """Its support is the graph: worker 0 and 2 never exchange anything."""
    W = np.array([[0.7, 0.3, 0.0], [0.3, 0.5, 0.2], [0.0, 0.2, 0.8]])
    sent: set[tuple[int, int]] = set()
    run = Run(
        DPSGD(matrix=W.tolist()), 3, 1,
        during=lambda run: sent.update((source, to) for source, to, _ in run.audit.messages()),
    )  # fmt: skip
    np.testing.assert_allclose(run.at(5), np.linalg.matrix_power(W, 5) @ start(3), rtol=0, atol=1e-12)
    assert sent == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_dpsgd_does_not_wait_where_rounding_left_a_weight() -> None:
    """W[3, 0] = 1e-17 and W[0, 3] = 0: neither is the other's neighbour."""
    W = mixing.metropolis(topology.graph([[0, 1], [1, 2], [2, 3]], 4))
    W[3, 0] = 1e-17
    run = Run(DPSGD(matrix=W.tolist()), 4, 1)
    assert [node.step for node in run.nodes] == [6] * 4


def test_dpsgd_checks_its_matrix_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    n, made = 6, []
    W = (0.9 * np.eye(n) + 0.1 * mixing.average(n)).tolist()
    check = mixing.matrix
    monkeypatch.setattr(mixing, "matrix", lambda *given: made.append(given) or check(*given))
    Run(DPSGD(matrix=W), n, 1)
    assert len(made) == 1


@given(seed=seeds, turn=st.integers(0, 120), victim=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_dpsgd_survivors_go_on_averaging(seed: int, turn: int, victim: int) -> None:
    """What a neighbour that died leaves to the others is still an average of what they have."""
    run = Run(DPSGD(graph="complete"), 4, seed, steps=25, crashes={turn: victim})
    survivors = np.array([node.params for node in run.nodes if node.id not in run.driver.crashed])
    assert apart(survivors) < 1e-3
    low, high = start(4).min(axis=0), start(4).max(axis=0)
    assert ((survivors >= low - 1e-12) & (survivors <= high + 1e-12)).all()


def test_dpsgd_that_ends_early_leaves_its_last_parameters() -> None:
    """Its neighbour averages with them once more, then goes on alone."""
    run = Run(DPSGD(), 2, 0, steps={0: 2, 1: 6})
    assert [node.step for node in run.nodes] == [2, 6]
    mean = start(2).mean(axis=0)
    np.testing.assert_allclose(run.nodes[1].params, mean, rtol=0, atol=1e-12)
    assert run.nodes[1].blends == 3


# AD-PSGD --------------------------------------------------------------------------------------------


def pair_sums(run: Run) -> None:
    """The sum over all workers stays; a reply under way is half of an exchange that its receiver owes."""
    total = run.params.sum(axis=0)
    for _, active, reply in run.audit.messages("adpsgd.reply"):
        total = total + (reply.tensor - run.nodes[active].params) / 2
    np.testing.assert_allclose(total, start(len(run.nodes)).sum(axis=0), rtol=0, atol=1e-11)


@given(
    seed=seeds,
    n=st.integers(2, 6),
    window=st.sampled_from([1, 2, float("inf")]),
    inbox=st.sampled_from([1, 2]),
)
@settings(max_examples=40, deadline=None)
def test_adpsgd_preserves_pair_sums(seed: int, n: int, window: float, inbox: float) -> None:
    budgets = {i: 3 + (seed >> i) % 5 for i in range(n)}
    run = Run(ADPSGD(), n, seed, steps=budgets, during=pair_sums, window=window, inbox=inbox)
    assert not list(run.audit.messages())
    active = sum(node.blends for node in run.nodes[::2])
    passive = sum(node.blends for node in run.nodes[1::2])
    assert active == passive == sum(budgets[i] + 1 for i in range(0, n, 2))


def test_adpsgd_reaches_consensus() -> None:
    run = Run(ADPSGD(graph="ring"), 6, 3, steps=120)
    assert apart(run.params) < 1e-3 * apart(start(6))


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_adpsgd_mean_moves_by_gradients(seed: int) -> None:
    """Each enters once, whoever averages while it is under way."""
    run = Run(ADPSGD(), 5, seed, pull)
    moved = run.params.sum(axis=0) - start(5).sum(axis=0)
    np.testing.assert_allclose(moved, -run.moved, rtol=0, atol=1e-11)


def test_adpsgd_active_waits_for_no_third() -> None:
    """A passive worker that computes a hundred times slower still answers at once."""
    run = Run(ADPSGD(graph=[[0, 1], [1, 2]]), 3, 0, steps={0: 40, 1: 1, 2: 40})
    assert [node.step for node in run.nodes] == [40, 1, 40]
    assert run.nodes[1].blends == 82


# SGP ------------------------------------------------------------------------------------------------

OVERLAPS: list[int | str] = [0, 1, 2, 5, "none"]
SCHEDULES = ["one_peer_exponential", "exponential", "ring", "star", [[0, 1], [1, 2]]]
SHARE = "sgp.share"


def conserved(n: int, total: float) -> Callable[[Run], None]:
    """Sum of weights = ``total``; sum of w x as at the start."""
    first = total / n * start(n).sum(axis=0)

    def check(run: Run) -> None:
        weight, x = run.weighted()
        assert weight == pytest.approx(total, abs=1e-12)
        np.testing.assert_allclose(x, first, rtol=0, atol=1e-11)

    return check


@pytest.mark.parametrize("overlap", OVERLAPS)
@given(
    seed=seeds, graph=st.sampled_from(SCHEDULES), even=st.booleans(),
    window=st.sampled_from([1, 2, float("inf")]), inbox=st.sampled_from([1, 2, float("inf")]),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_sgp_conserves_weights_and_their_sum(
    overlap: int | str, seed: int, graph: Any, even: bool, window: float, inbox: float
) -> None:
    n = 3 if isinstance(graph, list) else 2 + seed % 5
    budgets = {i: 7 if even else 4 + (seed >> i) % 5 for i in range(n)}
    algorithm = SGP(graph=graph, overlap=overlap)
    speeds = {i: 0.1 ** ((seed >> i) % 3) for i in range(n)}
    run = Run(algorithm, n, seed, steps=budgets, during=conserved(n, n), speeds=speeds, window=window,
              inbox=inbox)  # fmt: skip
    if even and overlap != "none":
        assert not list(run.audit.messages()), "whoever had the same budget has got everything"


@pytest.mark.parametrize("graph", SCHEDULES, ids=str)
def test_sgp_without_overlap_is_push_sum(graph: Any) -> None:
    """x_k+1 = P_k x_k and w_k+1 = P_k w_k: its z are the quotients, and tend to the mean."""
    n = 3 if isinstance(graph, list) else 6
    run = Run(SGP(graph=graph, overlap=0), n, 11, steps=40)
    schedule = topology.schedule(graph, n)
    x, w = start(n), np.ones(n)
    for k in range(39):
        P = mixing.push_sum(schedule, k)
        x, w = P @ x, P @ w
        np.testing.assert_allclose(run.at(k + 1), x / w[:, None], rtol=0, atol=1e-12)
    np.testing.assert_allclose(run.params - start(n).mean(axis=0), 0, rtol=0, atol=1e-3)


@pytest.mark.parametrize("overlap", [0, 1, 2, 4])
@given(seed=seeds, graph=st.sampled_from(SCHEDULES[:3]))
@settings(max_examples=20, deadline=None)
def test_sgp_takes_in_everything_in_time(overlap: int, seed: int, graph: str) -> None:
    """Whoever begins step k + s + 1 has absorbed what was sent to it at step k."""
    late: list[tuple[int, int, int]] = []

    def check(run: Run) -> None:
        for step in run.audit.steps[-1:]:
            late.extend(
                (step.rank, step.step, message.step)
                for _, to, message in run.audit.messages(SHARE)
                if to == step.rank and message.step < step.step - overlap
            )

    Run(SGP(graph=graph, overlap=overlap), 5, seed, steps=8, during=check, speeds={0: 0.05, 3: 0.3})
    assert not late


@pytest.mark.parametrize("overlap", OVERLAPS)
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_sgp_sum_moves_by_gradients(overlap: int | str, seed: int) -> None:
    """Whatever the weights are, a gradient moves the sum of all x = w z by eta g."""
    run = Run(SGP(overlap=overlap), 4, seed, pull)
    weight, x = run.weighted()
    assert weight == pytest.approx(4)
    np.testing.assert_allclose(x - start(4).sum(axis=0), -run.moved, rtol=0, atol=1e-10)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_sgp_without_waiting_never_waits(seed: int) -> None:
    slow = {0: 0.02}
    assert not Run(SGP(overlap="none"), 4, seed, speeds=slow).driver.blocked
    assert any(Run(SGP(overlap=1), 4, s, speeds=slow).driver.blocked for s in range(5))


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_sgp_weights_do_not_run_dry(seed: int) -> None:
    """A worker that nobody sends to any more, and one whose senders are slow, keep a weight of ``least``."""
    lowest = []

    def check(run: Run) -> None:
        lowest.append(min(node.weight for node in run.nodes))

    Run(SGP(graph="ring", overlap="none"), 4, seed, steps=60, crashes={30: 0}, during=check)
    Run(SGP(overlap="none"), 3, seed, steps={0: 3, 1: 100, 2: 100}, speeds={0: 0.01}, during=check)
    assert min(lowest) > 0.25 - 1e-9
    lowest.clear()
    Run(SGP(overlap="none", least=0.0), 3, 5, steps={0: 3, 1: 100, 2: 100}, speeds={0: 0.01}, during=check)
    assert min(lowest) < 0.1


@pytest.mark.parametrize(("overlap", "degree"), [(0, 1), (0, 3), (0, 31), (1, 1)])
def test_sgp_least_does_not_bind_in_ordinary_runs(overlap: int, degree: int) -> None:
    """Not even at the start, when everything that was sent is late by as much as is allowed."""
    algorithm = SGP(overlap=overlap)
    weight, sent = 1.0, [0.0] * overlap
    for _ in range(40):
        sent.append(algorithm._share(weight, degree))
        assert sent[-1] == pytest.approx(weight / (1 + degree), rel=1e-12)
        weight += degree * (sent[-1 - overlap] - sent[-1])


# GoSGD ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_busy", ["skip", "wait"])
@given(
    seed=seeds, n=st.integers(2, 5), p=st.sampled_from([0.0, 0.3, 1.0]),
    window=st.sampled_from([1, 2, float("inf")]), inbox=st.sampled_from([1, 2, float("inf")]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_gosgd_conserves_weights_and_their_sum(
    on_busy: str, seed: int, n: int, p: float, window: float, inbox: float
) -> None:
    budgets = {i: 2 + (seed >> i) % 12 for i in range(n)}
    run = Run(GoSGD(p=p, on_busy=on_busy), n, seed, steps=budgets, during=conserved(n, 1.0), window=window,
              inbox=inbox)  # fmt: skip
    assert (p > 0) or not any(node.blends for node in run.nodes)


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_gosgd_weighted_sum_moves_by_gradients(seed: int) -> None:
    """Each by the share that its worker holds when it is applied."""
    run = Run(GoSGD(p=0.5), 4, seed, pull)
    moved = run.weighted()[1] - start(4).mean(axis=0)
    np.testing.assert_allclose(moved, -run.weighted_move, rtol=0, atol=1e-11)


@pytest.mark.parametrize("there", [{0, 2, 3, 5, 6, 7}, {2, 6, 7}, {2}])
def test_gosgd_draws_all_others_that_are_there_alike(there: set[int]) -> None:
    node, rng = Node(2, 8, None, live=there), np.random.default_rng(0)
    drawn = [another(node, rng) for _ in range(4000)]
    others = there - {2}
    assert set(drawn) == (others or {None})
    for rank in others:
        share = 1 / len(others)
        assert drawn.count(rank) == pytest.approx(4000 * share, abs=4 * (4000 * share * (1 - share)) ** 0.5)


def test_gosgd_reaches_consensus() -> None:
    run = Run(GoSGD(p=1.0), 4, 2, steps=80)
    assert apart(run.params) < 1e-3 * apart(start(4))


def test_gosgd_never_waits_unless_told_to() -> None:
    def blocked(on_busy: str) -> list[str]:
        return [entry for seed in range(10) for entry in Run(GoSGD(1.0, on_busy), 3, seed).driver.blocked]

    assert not blocked("skip")
    assert set(blocked("wait")) <= {f"{i}:Send" for i in range(3)}
    assert blocked("wait")


# The record -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "total"),
    [("sgp", {"overlap": 0}, 4), ("sgp", {"overlap": 2}, 4), ("gosgd", {"p": 0.0}, 1), ("asp", {}, 4)],
)
def test_the_record_tells_the_weights(name: str, options: dict[str, Any], total: float) -> None:
    """Nothing is lost where all have the same budget and wait for each other at the end."""
    chosen = {"algorithm.name": name} | {f"algorithm.options.{key}": v for key, v in options.items()}
    uneven = {"cluster.slowdowns": [{"kind": "fixed", "ranks": [1], "factor": 5}], "run.steps": 12}
    weight = simulate(scenarios.load("demo", chosen | uneven)).nodes["weight"]
    assert weight.sum() == pytest.approx(total)
    assert (weight[:4] > 0).all()


def test_the_record_tells_what_was_lost() -> None:
    """Shares that reach a worker that has ended: half of the straggler's weight each."""
    late = {"cluster.slowdowns": [{"kind": "fixed", "ranks": [1], "factor": 50}], "run.steps": 12}
    chosen = {"algorithm.name": "gosgd", "algorithm.options.p": 1.0}
    weight = simulate(scenarios.load("demo", chosen | late)).nodes["weight"]
    assert 0 < weight.sum() < 1


# Bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpsgd", "adpsgd", "sgp", "gosgd"])
def test_a_single_worker_cannot_gossip(name: str) -> None:
    with pytest.raises(ScenarioError, match=r"cluster\.workers: 1 .*at least 2"):
        scenarios.load("demo", {"algorithm.name": name, "cluster.workers": 1})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dpsgd", {"graph": [[0, 1], [2, 3]]}, r"algorithm\.graph.* 2 parts: \{0, 1\}, \{2, 3\}"),
        ("dpsgd", {"graph": "rnig"}, "did you mean 'ring'"),
        ("dpsgd", {"graph": [[0, 4]]}, r"workers of 0 \.\. 3"),
        ("dpsgd", {"matrix": [[0.5, 0.5], [0.5, 0.5]]}, "2 x 2.* 4 x 4"),
        ("dpsgd", {"matrix": [[0.5, 0.4, 0, 0], [0.4, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
         r"algorithm\.matrix.*row 0 sums to 0\.9"),
        ("dpsgd", {"matrix": [[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]},
         "connected"),
        ("adpsgd", {"graph": [[0, 1], [1, 2], [2, 0], [2, 3]]}, r"algorithm\.graph.*odd length"),
        ("adpsgd", {"graph": "complete"}, "odd length"),
        ("adpsgd", {"graph": [[0, 1], [2, 3]]}, "connected"),
        ("sgp", {"graph": [[0, 1], [2, 3]]}, "connected"),
        ("sgp", {"overlap": -1}, r"algorithm\.overlap: -1 .*at least 0, or none"),
        ("sgp", {"overlap": 0.5}, "at least 0, or none"),
        ("sgp", {"overlap": "always"}, "at least 0, or none"),
        ("sgp", {"overlap": True}, "at least 0, or none"),
        ("sgp", {"least": 0.75}, r"algorithm\.least: 0\.75"),
        ("gosgd", {"p": 1.5}, r"algorithm\.p: 1\.5 .*\[0, 1\]"),
        ("gosgd", {"p": -0.1}, r"\[0, 1\]"),
        ("gosgd", {"p": float("nan")}, r"\[0, 1\]"),
        ("gosgd", {"on_busy": "drop"}, "skip or wait"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenarios.load(
            "demo", {"algorithm.name": name} | {f"algorithm.options.{key}": v for key, v in options.items()}
        )


@pytest.mark.parametrize("name", ["dpsgd", "adpsgd", "sgp"])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("degree", [3]), ("degree", 0), ("degree", 2.0), ("degree", True), ("degree", "x"), ("degree", None),
        ("graph_seed", "x"), ("graph_seed", -1), ("graph_seed", [0]), ("graph_seed", False),
    ],
)  # fmt: skip
def test_options_of_random_graphs_are_checked_whatever_the_graph_is(
    name: str, option: str, value: Any
) -> None:
    """A ring has no use for them: what is plainly wrong is refused all the same."""
    for graph in ("ring", "random_regular"):
        with pytest.raises(ScenarioError, match=rf"algorithm\.{option}: .* a whole number of at least [01]"):
            scenarios.load("demo", {"algorithm": {"name": name, "graph": graph, option: value}})


def test_a_matrix_leaves_no_choice_of_a_graph() -> None:
    W = mixing.average(4).tolist()
    chosen = {"algorithm.name": "dpsgd", "algorithm.options.matrix": W}
    assert scenarios.load("demo", chosen | {"algorithm.options.graph": "ring"})
    for graph in ("torus", [[0, 1], [1, 2], [2, 3]]):
        with pytest.raises(ScenarioError, match=r"algorithm\.graph: .* no graph where a matrix is given"):
            scenarios.load("demo", chosen | {"algorithm.options.graph": graph})


def test_checks_name_the_option() -> None:
    with pytest.raises(OptionError) as caught:
        DPSGD(graph="hypercube").check(6)
    assert caught.value.field == "graph"

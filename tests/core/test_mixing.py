"""Mixing matrices: stochasticity, spectra in closed form, and that the rates they promise are kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core import mixing, topology
from core.errors import OptionError
from core.mixing import Matrix
from core.topology import Graph, graph, schedule

N = st.integers(1, 24)
SHARE = st.floats(0, 1)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def graphs(draw: st.DrawFn, least: int = 1) -> Graph:
    """Connected graphs: a random tree and some edges more."""
    n = draw(st.integers(least, 16))
    edges = [(draw(st.integers(0, i - 1)), i) for i in range(1, n)]
    if n > 1:
        pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] != e[1])
        edges += draw(st.lists(pairs, max_size=12))
    return Graph(n, tuple(edges))


def distance(X: Matrix) -> float:
    """Consensus distance: sqrt(sum |x_i - mean|^2)."""
    return float(np.linalg.norm(X - X.mean(axis=0)))


def check(W: Matrix) -> None:
    """Symmetric, doubly stochastic, eigenvalues in [-1, 1] with 1 among them."""
    mixing.check_symmetric(W)
    mixing.check_doubly_stochastic(W)
    values = mixing.eigenvalues(W)
    assert np.allclose(values.imag, 0)
    assert np.abs(values).max() == pytest.approx(1, abs=1e-12)
    assert np.any(np.abs(values - 1) < 1e-9)


@given(N, st.integers(1, 50))
def test_aladdin_is_doubly_stochastic_with_zeta_1_minus_alpha(n: int, pi: int) -> None:
    alpha = mixing.aladdin_alpha(n, pi)
    W = mixing.aladdin(n, alpha)
    check(W)
    if n > 1:
        assert W[0, 0] == pytest.approx(1 - alpha / n * (n - 1))
        assert mixing.second_eigenvalue(W) == pytest.approx(1 / math.sqrt(n * pi))
        assert mixing.rho(W) == pytest.approx((1 - alpha) ** 2)
        assert mixing.spectral_gap(W) == pytest.approx(alpha)


@given(N, SHARE, SEEDS)
def test_aladdins_pull_of_all_is_eq_6_where_the_server_is_the_mean(n: int, alpha: float, seed: int) -> None:
    X = np.random.default_rng(seed).normal(size=(n, 3))
    state = np.vstack([X, X.mean(axis=0)])
    pulled = mixing.aladdin_pull(n, alpha) @ state
    assert np.allclose(pulled[:n], mixing.aladdin(n, alpha) @ X)
    assert np.allclose(pulled[n], pulled[:n].mean(axis=0))


@given(st.integers(2, 12), st.floats(0.05, 1), SEEDS)
def test_a_pull_of_one_leaves_the_mean_of_all(n: int, alpha: float, seed: int) -> None:
    """Why Lemma 1 needs all workers to mix at once."""
    X = np.random.default_rng(seed).normal(size=(n, 1))
    state = np.vstack([X, X.mean(axis=0)])
    W = mixing.aladdin_pull(n, alpha, [0])
    mixing.check_rows(W)
    pulled = W @ state
    moved = abs((pulled[:n].mean(axis=0) - pulled[n]).item())
    assert moved == pytest.approx(alpha / n * abs((X[0] - X.mean()).item()), abs=1e-12)


@given(graphs())
def test_metropolis_weights_mix_every_connected_graph(g: Graph) -> None:
    W = mixing.metropolis(g)
    check(W)
    assert mixing.second_eigenvalue(W) < 1 - 1e-6
    assert {(i, j) for i, j in np.argwhere(np.triu(W, 1)).tolist()} == set(g.edges)
    assert (np.diag(W) > 0).all()
    for i in range(g.n):
        row = mixing.metropolis_row(g, i)
        assert row.keys() == set(np.flatnonzero(W[i]).tolist())
        np.testing.assert_allclose([row[j] for j in sorted(row)], W[i][W[i] > 0], rtol=1e-12)


@given(graphs(2), SEEDS, st.integers(1, 12))
def test_consensus_distance_shrinks_by_zeta_a_step_at_least(g: Graph, seed: int, steps: int) -> None:
    W = mixing.metropolis(g)
    X = np.random.default_rng(seed).normal(size=(g.n, 2))
    mean, before = X.mean(axis=0), distance(X)
    for _ in range(steps):
        X = W @ X
    assert np.allclose(X.mean(axis=0), mean)
    assert distance(X) <= mixing.second_eigenvalue(W) ** steps * before + 1e-12


@given(graphs(2))
def test_that_rate_is_attained(g: Graph) -> None:
    W = mixing.metropolis(g)
    values, vectors = np.linalg.eigh(W)
    slow = vectors[:, np.argsort(np.abs(values))[-2]]
    assert distance(W @ slow) == pytest.approx(mixing.second_eigenvalue(W) * distance(slow), abs=1e-9)
    assert mixing.contraction(W) == pytest.approx(mixing.second_eigenvalue(W), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "n", "zeta"),
    [
        ("ring", 16, (1 + 2 * math.cos(2 * math.pi / 16)) / 3),
        ("ring", 5, (1 + 2 * math.cos(2 * math.pi / 5)) / 3),
        ("hypercube", 16, 3 / 5), ("hypercube", 2, 0.0), ("complete", 9, 0.0), ("torus", 16, 3 / 5),
        ("bipartite", 16, 7 / 9), ("star", 16, 15 / 16), ("exponential", 16, 1 / 2),
    ],
)  # fmt: skip
def test_spectra_in_closed_form(name: str, n: int, zeta: float) -> None:
    assert mixing.second_eigenvalue(mixing.metropolis(graph(name, n))) == pytest.approx(zeta, abs=1e-12)


@given(st.integers(1, 20), st.floats(0.05, 1.0))
def test_easgd_has_the_zeta_of_cooperative_sgd(n: int, beta: float) -> None:
    alpha = beta / n
    W = mixing.easgd(n, alpha)
    check(W)
    assert mixing.second_eigenvalue(W) == pytest.approx(
        max(abs(1 - alpha) if n > 1 else 0, abs(1 - (n + 1) * alpha))
    )


@given(st.integers(1, 12), st.floats(0.05, 1.0), st.data())
def test_an_elastic_exchange_preserves_the_sum(n: int, beta: float, data: st.DataObject) -> None:
    worker = data.draw(st.integers(0, n - 1))
    W = mixing.easgd_exchange(n, beta / n, worker)
    check(W)
    X = np.random.default_rng(0).normal(size=n + 1)
    assert (W @ X)[worker] + (W @ X)[n] == pytest.approx(X[worker] + X[n])


@given(graphs(2), st.data())
def test_a_pairwise_average_is_a_projection(g: Graph, data: st.DataObject) -> None:
    i, j = data.draw(st.sampled_from(g.edges))
    W = mixing.pairwise(g.n, i, j)
    check(W)
    assert np.allclose(W @ W, W)


@given(graphs(2), SEEDS)
def test_expected_pairwise_averaging_is_the_mean_of_all_choices(g: Graph, seed: int) -> None:
    """And, a projection each, it gives the decay of the squared distance: E|x'|^2 = x E[W] x."""
    active = range(g.n)
    W = mixing.pairwise_expected(g, active)
    check(W)
    chosen = [(i, j, 1 / (g.n * g.degree(i))) for i in active for j in g.neighbours(i)]
    assert np.allclose(W, sum(p * mixing.pairwise(g.n, i, j) for i, j, p in chosen))
    x = np.random.default_rng(seed).normal(size=g.n)
    squared = sum(p * distance(mixing.pairwise(g.n, i, j) @ x) ** 2 for i, j, p in chosen)
    assert squared <= mixing.second_eigenvalue(W) * distance(x) ** 2 + 1e-9


def test_by_default_one_side_of_a_bipartite_graph_starts() -> None:
    g = graph("star", 5)
    W = mixing.pairwise_expected(g)
    assert W[0, 0] == pytest.approx(0.5)
    with pytest.raises(OptionError, match="bipartite"):
        mixing.pairwise_expected(graph("ring", 5))


@given(st.sampled_from(topology.SCHEDULES), st.sampled_from([2, 4, 6, 8, 9, 12, 16]), st.integers(0, 9))
def test_push_sum_conserves_sums(name: str, n: int, step: int) -> None:
    assume(not (name == "hypercube" and n & (n - 1)))
    assume(not (name == "torus" and topology.grid(n)[0] == 1))
    assume(not (name == "random_regular" and (n % 2 or n < 4)))
    P = mixing.push_sum(schedule(name, n), step)
    mixing.check_columns(P)
    regular = name != "star" and not (name == "bipartite" and n % 2)
    if regular:
        mixing.check_rows(P)
    x = np.random.default_rng(step).normal(size=n)
    assert (P @ x).sum() == pytest.approx(x.sum())


@pytest.mark.parametrize("n", [2, 4, 8, 16, 32])
def test_one_peer_exponential_averages_exactly_in_log2_n_steps(n: int) -> None:
    peers = schedule("one_peer_exponential", n)
    period = [mixing.push_sum(peers, step) for step in range(peers.period)]
    assert np.allclose(mixing.product(period), mixing.average(n))
    assert mixing.steps_to_shrink(period) == math.log2(n)
    assert all(mixing.second_eigenvalue(P) > 0.4 for P in period[1:])


@given(st.sampled_from(["star", "bipartite"]), st.integers(3, 11))
def test_push_sum_finds_the_mean_where_plain_averaging_does_not(name: str, n: int) -> None:
    """On an irregular graph the column-stochastic average is biased; the weights undo that."""
    P = mixing.push_sum(schedule(name, n), 0)
    assume(not np.allclose(P.sum(axis=1), 1))
    x = np.arange(n, dtype=float)
    powers = np.linalg.matrix_power(P, 400)
    assert np.allclose(powers @ x / (powers @ np.ones(n)), x.mean())
    assert not np.allclose(powers @ x, x.mean())


@given(st.integers(2, 10), SEEDS)
def test_gossip_on_parameters_is_gossip_on_shares_divided_by_weights(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sender, receiver = (int(i) for i in rng.choice(n, 2, replace=False))
    w, x = rng.uniform(0.1, 1, n), rng.normal(size=n)
    A = mixing.gossip_share(n, sender, receiver)
    mixing.check_columns(A)
    W = mixing.gossip(n, sender, receiver, w)
    mixing.check_rows(W)
    assert np.allclose(W @ x, A @ (w * x) / (A @ w))


@given(st.integers(2, 6), SHARE)
def test_expected_gossip_is_the_mean_over_all_choices_of_all_workers(n: int, p: float) -> None:
    W = mixing.gossip_expected(n, p)
    check(W)
    one = np.zeros((n, n))
    for i in range(n):
        column = (1 - p) * np.eye(n)[:, i]
        for j in set(range(n)) - {i}:
            column = column + p / (n - 1) * mixing.gossip_share(n, i, j)[:, i]
        one[:, i] = column
    assert np.allclose(W, one)
    assert mixing.second_eigenvalue(W) == pytest.approx(abs(1 - p / 2 * n / (n - 1)))


@pytest.mark.parametrize(("n", "p", "steps"), [(16, 0.1, 85), (16, 0.5, 16), (4, 0.5, 13)])
def test_single_runs_of_gossip_take_about_twice_as_long_as_its_expectation(
    n: int, p: float, steps: int
) -> None:
    """The figures of docs/theory.md: root mean square over seeds, everybody sending in the same step."""
    squared = np.zeros(100)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        sums, w = np.eye(n) / n, np.full(n, 1 / n)
        for k in range(len(squared)):
            squared[k] += distance(sums / w[:, None]) ** 2 / (n - 1)
            A = np.eye(n)
            for i in range(n):
                if rng.random() < p:
                    A[:, i] = mixing.gossip_share(n, i, (i + 1 + int(rng.integers(n - 1))) % n)[:, i]
            sums, w = A @ sums, A @ w
    measured = int(np.argmax(np.sqrt(squared / 100) <= 0.1))
    assert measured == pytest.approx(steps, rel=0.1)
    assert measured / mixing.steps_to_shrink(mixing.gossip_expected(n, p)) == pytest.approx(2, abs=0.3)


@given(graphs(2), st.floats(1.5, 1000))
def test_steps_to_shrink_is_the_first_step_that_does(g: Graph, factor: float) -> None:
    W = mixing.metropolis(g)
    steps = int(mixing.steps_to_shrink(W, factor))
    reached = mixing.contraction(np.linalg.matrix_power(W, steps))
    assert reached <= 1 / factor * (1 + 1e-6)
    if steps > 1:
        assert mixing.contraction(np.linalg.matrix_power(W, steps - 1)) > 1 / factor * (1 - 1e-6)


@given(st.sampled_from(["one_peer_exponential", "star", "bipartite"]), st.integers(3, 13))
def test_steps_to_shrink_counts_through_periods(name: str, n: int) -> None:
    peers = schedule(name, n)
    period = [mixing.push_sum(peers, step) for step in range(peers.period)]
    steps = int(mixing.steps_to_shrink(period))
    total = mixing.product(period[k % len(period)] for k in range(steps))
    assert mixing.contraction(total) <= 0.1 * (1 + 1e-6)
    if steps > 1:
        total = mixing.product(period[k % len(period)] for k in range(steps - 1))
        assert mixing.contraction(total) > 0.1


def test_what_never_mixes_takes_forever() -> None:
    assert mixing.steps_to_shrink(mixing.identity(4)) == math.inf
    assert mixing.steps_to_shrink(mixing.metropolis(graph([[0, 1], [2, 3]], 4))) == math.inf
    assert mixing.steps_to_shrink(mixing.pairwise(3, 0, 1)) == math.inf
    assert mixing.second_eigenvalue(mixing.identity(4)) == 1


@given(st.lists(graphs(2).map(mixing.metropolis), min_size=2, max_size=4), SEEDS)
def test_products_stay_doubly_stochastic_and_shrink_by_the_product_of_zetas(
    matrices: list[Matrix], seed: int
) -> None:
    n = min(len(W) for W in matrices)
    matrices = [mixing.metropolis(_prefix(W, n)) for W in matrices]
    total = mixing.product(matrices)
    mixing.check_doubly_stochastic(total)
    bound = math.prod(mixing.second_eigenvalue(W) for W in matrices)
    assert mixing.contraction(total) <= bound + 1e-9
    x = np.random.default_rng(seed).normal(size=n)
    step = x
    for W in matrices:
        step = W @ step
    assert np.allclose(total @ x, step)


def _prefix(W: Matrix, n: int) -> Graph:
    """The first n workers of a matrix's graph, joined by a path so that it stays connected."""
    edges = [(int(i), int(j)) for i, j in np.argwhere(np.triu(W[:n, :n], 1))]
    return Graph(n, (*edges, *((i, i + 1) for i in range(n - 1))))


THIRD = [[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3]]


def test_a_users_matrix_is_taken_as_it_is() -> None:
    assert np.array_equal(mixing.matrix(THIRD, 3), np.array(THIRD))
    assert mixing.matrix([[1.0]], 1).shape == (1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.4, 0], [0.4, 0.5, 0.1], [0, 0.1, 0.9]], r"row 0 sums to 0.9, off by -0.1"),
        ([[0.5, 0.5, 0], [0.5, 0.5, 0.1], [0, 0.1, 0.9]], r"row 1 sums to 1.1, off by \+0.1"),
        ([[0.5, 0.5, 0], [0.25, 0.5, 0.25], [0, 0.5, 0.5]], r"column 1 sums to 1.5, off by \+0.5"),
        ([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]], r"\[0, 1\] is 0.3 and \[1, 0\] is 0.2"),
        ([[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]], r"2 parts: \{0\}, \{1, 2\}"),
        ([[1.5, -0.5, 0], [-0.5, 1.5, 0], [0, 0, 1]], r"\[0, 0\] is 1.5.*between 0 and 1"),
        ([[0.5, 0.5], [0.5, 0.5]], r"2 x 2.*3 x 3, one row and column per worker"),
        ([[1, 0, 0], [0, 1]], "same length"), ([1, 0, 0], "3 x 3"), ("x", "rows of numbers"), ([], "3 x 3"),
        ([[math.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "nan"),
    ],
)  # fmt: skip
def test_bad_matrices_say_where_and_by_how_much(rows: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        mixing.matrix(rows, 3)


def test_a_matrix_that_swaps_forever_is_refused() -> None:
    with pytest.raises(OptionError, match="keep a share of its own"):
        mixing.matrix([[0, 1], [1, 0]])


def test_columns_are_checked_by_themselves() -> None:
    W = np.array([[0.5, 0.5], [0.75, 0.25]])
    mixing.check_rows(W)
    with pytest.raises(OptionError, match=r"column 0 sums to 1.25, off by \+0.25"):
        mixing.check_doubly_stochastic(W)


@pytest.mark.parametrize(
    "build",
    [
        lambda: mixing.aladdin(0, 0.5), lambda: mixing.aladdin(4, 1.5), lambda: mixing.aladdin_alpha(4, 0),
        lambda: mixing.pairwise(4, 1, 1), lambda: mixing.pairwise(4, 1, 4), lambda: mixing.easgd(4, -0.1),
        lambda: mixing.gossip_expected(1, 0.5), lambda: mixing.gossip_expected(4, 2.0),
        lambda: mixing.aladdin_pull(4, 0.5, [4]), lambda: mixing.gossip(3, 0, 1, [1.0, 1.0]),
        lambda: mixing.steps_to_shrink(mixing.average(2), 1.0),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(build: object) -> None:
    with pytest.raises(OptionError):
        build()  # type: ignore[operator]


def test_what_rounding_left_of_a_weight_is_no_edge() -> None:
    """Both ends of an edge must see it: whoever waits for a neighbour is sent to by that neighbour."""
    ring = mixing.metropolis(graph("ring", 4))
    ring[2, 0], ring[0, 1] = 1e-17, ring[0, 1] + 1e-16
    W = mixing.matrix(ring.tolist(), 4)
    assert np.array_equal(W, W.T)
    assert W[2, 0] == W[0, 2] == 0
    check(W)


@given(st.integers(2, 8), SEEDS)
def test_a_matrix_is_symmetric_to_the_last_bit_and_has_no_dust(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = mixing.metropolis(graph("ring", n)) + rng.uniform(0, 4e-10, (n, n)) * (rng.random((n, n)) < 0.5)
    W = mixing.matrix(noisy.tolist(), n)
    assert np.array_equal(W, W.T)
    assert not ((W != 0) & (np.abs(W) < mixing.TOLERANCE)).any()
    assert np.allclose(W.sum(axis=0), (noisy + noisy.T).sum(axis=0) / 2, rtol=0, atol=1e-15)
    assert {(i, j) for i, j in np.argwhere(np.triu(W, 1)).tolist()} == set(graph("ring", n).edges)


def test_a_number_too_large_for_a_matrix_is_refused() -> None:
    with pytest.raises(OptionError, match="rows of numbers"):
        mixing.matrix([[10**400, 0], [0, 1]], 2)


def test_local_steps_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A period of a thousand local steps is as quick as the exchange after it."""
    looked = []
    contraction = mixing.contraction
    monkeypatch.setattr(mixing, "contraction", lambda W: looked.append(1) or contraction(W))
    period = [mixing.identity(4)] * 999 + [mixing.aladdin(4, 0.5)]
    assert mixing.product(period) is not period[0]
    assert np.array_equal(mixing.product(period), period[-1])
    assert mixing.steps_to_shrink(period) == 4000
    assert len(looked) < 20

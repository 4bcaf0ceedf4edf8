"""Graphs and peer schedules: their shapes, their symmetries, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import topology
from core.errors import OptionError
from core.topology import Graph, graph, schedule

SIZES = st.integers(1, 40)


def fits(name: str, n: int) -> bool:
    if name == "hypercube":
        return n & (n - 1) == 0
    if name == "torus":
        return n == 1 or topology.grid(n)[0] > 1
    return name != "random_regular" or n == 1 or (n > 3 and n % 2 == 0)


@given(st.sampled_from(topology.GRAPHS), SIZES)
def test_named_graphs_are_connected_and_symmetric(name: str, n: int) -> None:
    if not fits(name, n):
        with pytest.raises(OptionError):
            graph(name, n)
        return
    g = graph(name, n)
    assert g.connected()
    assert all(i < j for i, j in g.edges)
    assert sum(g.degree(i) for i in range(n)) == 2 * len(g.edges)
    assert all(i in g.neighbours(j) for i in range(n) for j in g.neighbours(i))
    assert g.diameter() < n


@pytest.mark.parametrize(
    ("name", "n", "degree", "diameter", "bipartite"),
    [
        ("ring", 16, 2, 8, True), ("ring", 7, 2, 3, False), ("ring", 2, 1, 1, True),
        ("torus", 16, 4, 4, True), ("torus", 12, 4, 3, False), ("torus", 4, 2, 2, True),
        ("hypercube", 16, 4, 4, True), ("exponential", 16, 7, 2, False), ("complete", 9, 8, 1, False),
        ("bipartite", 16, 8, 2, True),
    ],
)  # fmt: skip
def test_shapes(name: str, n: int, degree: int, diameter: int, bipartite: bool) -> None:
    g = graph(name, n)
    assert {g.degree(i) for i in range(n)} == {degree}
    assert g.diameter() == diameter
    assert (g.sides() is not None) is bipartite


def test_a_star_has_its_centre_at_0() -> None:
    g = graph("star", 6)
    assert g.neighbours(0) == (1, 2, 3, 4, 5)
    assert g.neighbours(3) == (0,)
    assert g.sides() == ((0,), (1, 2, 3, 4, 5))


@given(st.integers(4, 30), st.integers(2, 12), st.integers(0, 1000))
def test_random_regular_graphs_are_regular_and_repeatable(n: int, degree: int, seed: int) -> None:
    if degree >= n or n * degree % 2:
        with pytest.raises(OptionError, match="degree"):
            graph("random_regular", n, degree=degree)
        return
    g = graph("random_regular", n, degree=degree, seed=seed)
    assert {g.degree(i) for i in range(n)} == {degree}
    assert g.connected()
    topology._named.cache_clear()
    assert graph("random_regular", n, degree=degree, seed=seed) == g


def test_random_regular_graphs_depend_on_their_seed() -> None:
    assert len({graph("random_regular", 12, seed=seed) for seed in range(10)}) > 5


EDGES = st.integers(2, 9).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] != e[1]),
            max_size=16,
        ),
    )
)


@given(EDGES)
def test_either_two_sides_or_an_odd_cycle(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    n, edges = drawn
    g = graph(edges, n)
    sides, cycle = g.sides(), g.odd_cycle()
    assert (sides is None) == bool(cycle)
    if sides is None:
        assert len(cycle) % 2 == 1
        assert len(set(cycle)) == len(cycle)
        assert all(b in g.neighbours(a) for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True))
        with pytest.raises(OptionError, match="odd length"):
            topology.check_bipartite(g)
    else:
        assert sorted((*sides[0], *sides[1])) == list(range(n))
        assert all((i in sides[0]) != (j in sides[0]) for i, j in g.edges)
        topology.check_bipartite(g)


@pytest.mark.parametrize("parts", [1, 5])
def test_whether_a_graph_is_bipartite_is_seen_by_looking_at_each_worker_once(parts: int) -> None:
    n = 40 // parts
    edges = [[k * n + i, k * n + i + 1] for k in range(parts) for i in range(n - 1)]
    looked: Counter[int] = Counter()

    class Watched(tuple):  # type: ignore[type-arg]
        def __getitem__(self, i: Any) -> Any:
            looked[i] += 1
            return super().__getitem__(i)

    g = graph(edges, 40)
    object.__setattr__(g, "_near", Watched(g._near))
    assert g.odd_cycle() == ()
    assert looked == dict.fromkeys(range(40), 1)


@given(EDGES)
def test_components_are_a_partition_without_edges_between(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    n, edges = drawn
    g = graph(edges, n)
    parts = g.components()
    assert sorted(i for part in parts for i in part) == list(range(n))
    where = {i: k for k, part in enumerate(parts) for i in part}
    assert all(where[i] == where[j] for i, j in g.edges)
    assert g.connected() == (len(parts) == 1)


def test_a_graph_in_parts_is_refused_by_their_names() -> None:
    with pytest.raises(OptionError, match=r"2 parts: \{0, 1\}, \{2, 3\}"):
        topology.check_connected(graph([[0, 1], [2, 3]], 4))


@pytest.mark.parametrize(
    ("spec", "n", "message"),
    [
        ("rong", 8, "did you mean 'ring'"), ("", 8, "ring, torus"), (7, 8, "ring, torus"),
        ("hypercube", 12, r"power of two \(8 or 16"), ("torus", 7, "a x b"),
        ([[0, 8]], 8, r"0 .. 7"), ([[0, 0]], 8, "different"), ([[0, 1, 2]], 8, r"\[i, j\]"),
        ([[0, 1.0]], 8, r"\[i, j\]"), (["01"], 8, r"\[i, j\]"), ("ring", 0, "at least 1"),
        ([[-1, 0]], 8, r"0 .. 7"), ([[True, 0]], 8, r"\[i, j\]"),
    ],
)  # fmt: skip
def test_bad_graphs_say_what_would_do(spec: topology.Spec, n: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        graph(spec, n)


def test_an_edge_counts_once() -> None:
    assert graph([[0, 1], [1, 0], [2, 1]], 3) == Graph(3, ((0, 1), (1, 2)))


@given(st.sampled_from(topology.SCHEDULES), SIZES, st.integers(0, 50))
def test_what_one_sends_the_other_receives(name: str, n: int, step: int) -> None:
    if not fits(name, n):
        return
    peers = schedule(name, n)
    sent = Counter((i, j) for i in range(n) for j in peers.out(i, step))
    received = Counter((i, j) for j in range(n) for i in peers.into(j, step))
    assert sent == received
    assert all(i != j for i, j in sent)
    assert all(count == 1 for count in sent.values())
    assert peers.out(0, step) == peers.out(0, step + peers.period)


@pytest.mark.parametrize(("n", "period"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (16, 4)])
def test_one_peer_exponential_hops_by_powers_of_two(n: int, period: int) -> None:
    peers = schedule("one_peer_exponential", n)
    assert peers.period == period
    if n > 1:
        assert [peers.out(0, step)[0] for step in range(period)] == [2**k % n for k in range(period)]
        assert all(len(peers.into(i, step)) == 1 for i in range(n) for step in range(period))


def test_exponential_sends_to_all_hops_at_once() -> None:
    assert schedule("exponential", 8).out(6, 3) == (7, 0, 2)


def test_an_unknown_schedule_has_a_near_miss() -> None:
    with pytest.raises(OptionError, match="did you mean 'one_peer_exponential'"):
        schedule("one_peer_exponental", 8)

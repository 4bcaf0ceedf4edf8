"""Links that save what they do not use: what passes at once, what a pause costs, and what never passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from scenarios import load
from sim.buckets import Savings
from tests.sim.test_network import deliveries


def test_what_an_idle_link_has_saved_passes_at_once() -> None:
    """5 bytes at 1 byte/s over links that are 2 ahead: 3 s. What begins half a second after that ends when it
    would have ended without the pause; after a long one all is saved again, and never more."""
    sends = [(0.0, 0, 1, 5.0), (3.5, 0, 1, 5.0), (20.0, 0, 1, 5.0), (40.0, 0, 1, 1.5)]
    found = deliveries(sends, [0, 1], burst=2.0)
    assert found == {0: 3.0, 1: 8.0, 2: 23.0, 3: 40.0}
    assert deliveries(sends, [0, 1]) == {0: 5.0, 1: 10.0, 2: 25.0, 3: 41.5}


def test_latency_is_made_up_for_but_overhead_counts() -> None:
    """Back and forth: each link is idle while the other one carries, so it is always 2 ahead."""
    sends = [(0.0, 0, 1, 6.0), (4.5, 1, 0, 6.0), (9.0, 0, 1, 6.0)]
    assert deliveries(sends, [0, 1], burst=2.0, latency=0.5) == {0: 4.5, 1: 9.0, 2: 13.5}
    assert deliveries(sends[:1], [0, 1], burst=2.0, overhead=0.25) == {0: 4.25}


def test_each_direction_of_each_nic_saves_for_itself() -> None:
    """Node 2 gets from 0 and then from 1: their uplinks are ahead, its downlink no longer is."""
    sends = [(0.0, 0, 2, 5.0), (0.0, 1, 2, 5.0), (3.0, 2, 0, 5.0)]
    assert deliveries(sends, [0, 1, 2], burst=2.0) == {0: 3.0, 1: 8.0, 2: 6.0}


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 20)), min_size=1, max_size=12),
    st.floats(0.5, 4),
    st.floats(0, 10),
)
def test_no_link_carries_more_than_its_rate_and_its_burst(
    messages: list[tuple[float, float]], rate: float, burst: float
) -> None:
    """Between the start of any message and the end of any later one; and none is slower than without."""
    path = Savings(burst).path(0, rate, 1, 4.0)
    now, spans = 0.0, []
    for pause, nbytes in messages:
        start = now + pause
        now = path.last(start, nbytes)
        path.spend(start, nbytes)
        assert start <= now <= start + nbytes / rate + 1e-9
        spans.append((start, now, nbytes))
    for i, (start, _, _) in enumerate(spans):
        for j in range(i, len(spans)):
            carried = sum(nbytes for _, _, nbytes in spans[i : j + 1])
            assert carried <= burst + rate * (spans[j][1] - start) + 1e-6


def test_a_scenario_says_how_much() -> None:
    """BSP on one server: a step has four message times on the server's links, each ahead by some bytes."""
    few = {"run.steps": 3, "cluster.workers": 1, "cluster.latency": 0.0}
    plain = load("demo", few | {"algorithm.name": "bsp"})
    ahead = plain.override({"cluster.network.burst": "100 kB"})
    ends = [float(sim.simulate(one).steps["end"].max()) for one in (plain, ahead)]
    assert ends[0] - ends[1] == pytest.approx(3 * 2 * 100e3 / 125e6)


def test_neighbours_in_a_ring_do_not_keep_step_where_their_messages_ask_late() -> None:
    """With lags some are ahead of their left neighbours and send while nothing comes; what links have saved
    makes up for most of the lag, not for the waiting. The same seed draws the same lags."""

    def ring(**host: float) -> dict[str, float]:
        tree = {"run.steps": 20, "cluster.bandwidth": "200 Mbit/s", "algorithm.name": "arsgd"}
        lags = {f"cluster.host.{name}": value for name, value in host.items()}
        one = load("demo", tree | lags | {"cluster.network.burst": 131072})
        records = [sim.simulate(one.override({"run.seed": seed})).steps for seed in (1, 1, 2)]
        same, other = ([bool((records[0][k] == r[k]).all()) for k in ("end", "wait")] for r in records[1:])
        assert all(same)
        assert all(other) == (not host)
        return {part: float(records[0][part].mean()) for part in ("send", "wait", "receive")}

    even, late = ring(), ring(ring_lag=2e-3)
    assert even["send"] < 1e-5  # parts differ by an element
    assert late["send"] > 0.003
    assert late["wait"] - even["wait"] > 0.4 * 6 * 2e-3  # less: while one asks, its neighbour may move
    assert sum(late.values()) - sum(even.values()) < 0.5 * 6 * 2e-3

"""Closed forms of the all-reduce against its messages, event by event; and what may be asked for."""

from __future__ import annotations

from math import ceil, log2
from typing import Any

import numpy as np
import pytest

import sim
from core.collectives import ALGORITHMS
from scenarios.errors import ScenarioError
from scenarios.plan import plan
from scenarios.schema import Scenario
from sim.driver import Driver

BYTES = 4 * 9_240_000
RATE, LATENCY, OVERHEAD = 1e9, 1e-3, 2e-4
ALPHA, TRANSFER = LATENCY + OVERHEAD, BYTES / RATE


def scenario(workers: int, algorithm: str, collective: str, steps: int = 2, **cluster: Any) -> Scenario:
    network = {
        "allreduce": algorithm, "collective": collective, "overhead": OVERHEAD, "inbox": 2,
        **cluster.pop("network", {}),
    }  # fmt: skip
    return Scenario.from_dict({
        "cluster": {
            "workers": workers, "bandwidth": RATE, "latency": LATENCY, "local_bandwidth": 4 * RATE,
            "local_latency": LATENCY / 4, "network": network,
            "compute": {"model": "constant", "mean": 1.0}, **cluster,
        },
        "workload": {"parameters": BYTES // 4, "batch": 1, "data": "synthetic", "samples": 1},
        "algorithm": {"name": "arsgd"}, "run": {"steps": steps},
    })  # fmt: skip


def seconds(*args: Any, **cluster: Any) -> float:
    """Of one all-reduce among workers in step."""
    return sim.simulate(scenario(*args, steps=2, **cluster)).duration / 2 - 1


def both(workers: int, algorithm: str, **cluster: Any) -> tuple[float, float]:
    native = seconds(workers, algorithm, "native", **cluster)
    return native, seconds(workers, algorithm, "messages", **cluster)


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("workers", range(2, 17))
def test_hierarchical_is_exact(workers: int, admission: str) -> None:
    """Without company on the machines: a ring. With it: in, ring, out, wherever all machines are full."""
    network = {"admission": admission}
    ring = 2 * (workers - 1) * (ALPHA + TRANSFER / workers)
    native, messages = both(workers, "hierarchical", network=network)
    assert native == pytest.approx(ring)
    assert messages == pytest.approx(native, rel=1e-6)
    for each in (2, 3, workers):
        if workers % each == 0:
            inside = LATENCY / 4 + OVERHEAD + (each - 1) * TRANSFER / 4
            machines = workers // each
            across = 2 * (machines - 1) * (ALPHA + TRANSFER / machines)
            native, messages = both(workers, "hierarchical", network=network, workers_per_machine=each)
            assert native == pytest.approx(2 * inside + across)
            assert messages == pytest.approx(native, rel=1e-6)


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("workers", range(2, 17))
def test_halving_doubling_is_exact_for_powers_of_two(workers: int, admission: str) -> None:
    """Else members that are not folded begin at once, and what they send delays what folds.

    That is at most what they send while they halve, (1 - 1/p) of the tensor.
    """
    power = 1 << (workers.bit_length() - 1)
    theory = 2 * log2(power) * ALPHA + 2 * (1 - 1 / power) * TRANSFER
    theory += 2 * (ALPHA + TRANSFER) if workers > power else 0
    native, messages = both(workers, "halving_doubling", network={"admission": admission})
    assert native == pytest.approx(theory)
    if workers == power:
        assert messages == pytest.approx(native, rel=1e-6)
    else:
        assert native * (1 - 1e-6) <= messages <= native + (1 - 1 / power) * TRANSFER + ALPHA


@pytest.mark.parametrize(("admission", "bound"), [("fifo", 2.0), ("fair", 1.5), (4, 1.5)])
@pytest.mark.parametrize("workers", [2, 3, 4, 5, 7, 8, 11, 16])
def test_the_tree_comes_near_its_closed_form(workers: int, admission: Any, bound: float) -> None:
    """Sanders colours the edges so that nobody ever has two partners at once; grants are greedy.

    Under ``fifo`` a sender waits for a receiver that is busy while another would be free, which costs up
    to twice the time; shared links lose less. Queued messages ask ahead, so latency shows less often
    than the closed form has it: at most once per hop.
    """
    network = {"admission": admission, "allreduce_chunk": 1e6}
    native, messages = both(workers, "tree", network=network)
    hops = 2 * np.ceil(log2(workers))
    assert native - hops * LATENCY <= messages <= bound * native
    assert messages >= BYTES / RATE * min(2, 2 * (workers - 1) / workers)


def test_the_tree_needs_fewer_steps_than_the_ring_and_as_many_bytes() -> None:
    """Small tensors: 2 h alpha against 2 (n-1) alpha."""
    small = {"network": {"allreduce_alpha": "10 ms"}}
    ring, tree, halving = (
        seconds(16, algorithm, "native", **small) for algorithm in ("ring", "tree", "halving_doubling")
    )
    assert halving < ring
    assert tree < ring
    big = [seconds(16, name, "native", latency=0, network={"overhead": 0}) for name in ("ring", "tree")]
    assert big[1] == pytest.approx(2 * TRANSFER, rel=0.3)
    assert big[0] == pytest.approx(2 * 15 / 16 * TRANSFER)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_given_constants_replace_what_the_links_say(algorithm: str) -> None:
    """Phases of one connection each: alpha per phase, its bytes by the given bandwidth; a tree of two sends
    half the vector each way, in chunks of about 1 MB, of which all but the first cost no alpha."""
    network = {"allreduce_alpha": 0.5, "allreduce_bandwidth": BYTES * 10}
    found = seconds(2, algorithm, "native", network=network)
    if algorithm != "tree":
        assert found == pytest.approx(2 * 0.5 + 1 / 10)
        return
    chunks = ceil(BYTES / 2 / 1e6)
    assert found == pytest.approx(2 * (0.5 + 1 / (20 * chunks)) + (chunks - 1) / (20 * chunks))


def placed(
    placement: list[int], collective: str, algorithm: str = "halving_doubling", **network: Any
) -> float:
    """Seconds of an all-reduce among workers on these machines."""
    tree = scenario(len(placement), algorithm, collective, network=network).to_dict()
    nics = {"up": RATE, "down": RATE, "latency": LATENCY / 2, "local_bandwidth": 4 * RATE}
    machines = [{"name": f"m{i}", **nics} for i in range(max(placement) + 1)]
    kept = {name: tree["cluster"][name] for name in ("workers", "network", "compute")}
    tree["cluster"] = {
        **kept, "machines": machines, "placement": placement, "servers": {"placement": "beside"}
    }  # fmt: skip
    return sim.simulate(Scenario.from_dict(tree)).duration / 2 - 1


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_halving_doubling_suffers_from_ranks_dealt_out_in_turn(collective: str) -> None:
    """Neighbours exchange half of the tensor: beside each other it costs no network, dealt out it does.

    Four machines of two: by blocks (1/2 inside, both ways at once on one bus; 1/4 + 1/8) twice over the
    NIC; dealt out (1/2 + 1/4) twice, and 1/8 inside.
    """
    blocks = placed([0, 0, 1, 1, 2, 2, 3, 3], collective)
    dealt = placed([0, 1, 2, 3, 0, 1, 2, 3], collective)
    inside = {"blocks": 2 * 2 * 0.5 / 4, "dealt": 2 * 2 * 0.125 / 4}
    if collective == "native":
        latencies = 6 * OVERHEAD + 4 * LATENCY + 4 * OVERHEAD
        assert blocks == pytest.approx((inside["blocks"] + 2 * 2 * 0.375) * TRANSFER + latencies)
        assert dealt == pytest.approx((inside["dealt"] + 2 * 2 * 0.75) * TRANSFER + latencies)
    assert dealt > 1.4 * blocks


@pytest.mark.parametrize("placement", [[0, 0, 0, 1], [0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2, 2]])
def test_machines_unequally_full_reduce_hierarchically_no_slower_than_the_closed_form(
    placement: list[int],
) -> None:
    """It lets all begin the ring, and what comes after, when the fullest machine does."""
    native, messages = (placed(placement, c, "hierarchical") for c in ("native", "messages"))
    assert 0.5 * native <= messages <= native * (1 + 1e-6)


def test_a_trees_longest_way_counts_its_own_hops() -> None:
    """One chunk, three workers: 0 - 2 - 1 and 1 - 0 - 2; apart two hops up and two down, else one of each."""
    network = {"allreduce_chunk": BYTES, "allreduce_bandwidth": RATE}
    apart = seconds(3, "tree", "native", network=network)
    assert apart == pytest.approx(4 * (ALPHA + TRANSFER / 2))
    together = placed([0, 1, 0], "native", "tree", **network)
    assert together == pytest.approx(2 * (ALPHA + OVERHEAD + 2 * TRANSFER / 2))


@pytest.mark.parametrize("collective", ["native", "messages"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("at", [0.5, 1.02, 1.06, 2.1])
def test_all_reduce_goes_on_with_the_survivors(collective: str, algorithm: str, at: float) -> None:
    made = Driver(plan(scenario(6, algorithm, collective, steps=4, workers_per_machine=2)))
    made.crash(2, at)
    record = made.run()
    assert record.nodes["steps"][[0, 1, 3, 4, 5]].tolist() == [4] * 5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bytes_in_the_record_are_the_theoretical_ones(algorithm: str) -> None:
    record = sim.simulate(scenario(8, algorithm, "messages", steps=3))
    total = record.nodes["bytes_out"].sum()
    assert total == pytest.approx(3 * 2 * 7 * BYTES, rel=1e-6)


def test_unknown_algorithms_are_refused_with_those_that_exist() -> None:
    with pytest.raises(ScenarioError, match=r"cluster\.network\.allreduce: 'halving-doubling'") as caught:
        scenario(4, "halving-doubling", "native")
    assert "halving_doubling" in str(caught.value)
    with pytest.raises(ScenarioError, match=r"allreduce_chunk"):
        scenario(4, "tree", "native", network={"allreduce_chunk": 10})


UPLINK = {"oversubscription": 3, "latency": LATENCY / 2, "overhead": OVERHEAD / 2}
WAN = [{"between": ["east", "west"], "forth": RATE / 2, "back": RATE / 10, "latency": 20 * LATENCY}]
RACKS: dict[str, dict[str, Any]] = {
    "two racks": {"racks": 2, "machines_per_rack": 4, "uplink": UPLINK},
    "four racks": {"racks": 4, "machines_per_rack": 2, "uplink": UPLINK},
    "sites": {"sites": ["east", "west"], "machines_per_site": 4, "wan": WAN},
}
"""Eight machines of one worker; all NICs are alike."""


def joined(collective: str, algorithm: str, admission: str, cluster: dict[str, Any]) -> float:
    """Seconds of an all-reduce among the workers of racks or sites."""
    tree = scenario(1, algorithm, collective, network={"admission": admission}).to_dict()
    kept = ("network", "compute", "bandwidth", "latency", "local_bandwidth", "local_latency")
    shared = {name: tree["cluster"][name] for name in kept}
    tree["cluster"] = {**shared, "servers": {"placement": "beside"}, **cluster}
    return sim.simulate(Scenario.from_dict(tree)).duration / 2 - 1


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("where", RACKS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_over_up_links_and_a_wan_too(algorithm: str, where: str, admission: str) -> None:
    """Ring and halving-doubling are exact. Under ``fifo`` hierarchical rings ask ahead over a long link."""
    native, messages = (joined(c, algorithm, admission, RACKS[where]) for c in ("native", "messages"))
    if algorithm in ("ring", "halving_doubling"):
        assert messages == pytest.approx(native, rel=1e-6)
    elif algorithm == "hierarchical":
        assert (0.7 if admission == "fifo" else 1 - 1e-6) * native <= messages <= native * (1 + 1e-6)
    else:
        assert 0.7 * native <= messages <= 2 * native


@pytest.mark.parametrize("admission", ["fifo", "fair"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_among_nics_that_differ_the_ring_is_exact_and_the_others_near(algorithm: str, admission: str) -> None:
    """Who is done with a step early sends the next to one who is not, and competes with what that one awaits.

    That costs halving-doubling up to half as much again; the closed form has all begin each step together.
    """
    low, high = {
        "ring": (1 - 1e-6, 1 + 1e-6), "hierarchical": (0.7, 1 + 1e-6), "halving_doubling": (0.9, 1.5),
        "tree": (0.7, 2.0),
    }[algorithm]  # fmt: skip
    for seed, workers in enumerate((4, 8, 16)):
        cluster = {"workers": workers, "heterogeneity": {"bandwidth": 0.5, "seed": seed}}
        native, messages = (joined(c, algorithm, admission, cluster) for c in ("native", "messages"))
        assert low * native <= messages <= high * native

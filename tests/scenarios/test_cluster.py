"""Layouts expand, machines are placed, and every node stands on a machine that exists."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.cluster import Cluster, Layout, Machine, Servers, StepTime
from scenarios.errors import ScenarioError
from scenarios.fields import build

NICS = (Machine("a"), Machine("b", up=1e6, down=2e6), Machine("c"))


def test_a_layout_expands_to_machines_and_servers() -> None:
    tree = {
        "workers": 8,
        "machines": 4,
        "workers_per_machine": 2,
        "bandwidth": "10 Gbit/s",
        "latency": "50 us",
        "local_bandwidth": "8 GB/s",
        "servers": {"count": 2, "bandwidth": "25 Gbit/s"},
    }
    cluster = build(Cluster, tree)
    assert cluster.placement == (0, 0, 1, 1, 2, 2, 3, 3)
    assert [m.name for m in cluster.machines] == [*(f"machine{i}" for i in range(4)), "server0", "server1"]
    assert cluster.machines[0] == Machine("machine0", 1.25e9, 1.25e9, 25e-6, 8e9, 0.0)
    assert cluster.machines[4].up == cluster.machines[4].down == 3.125e9
    assert cluster.server_machines() == (4, 5)


def test_servers_beside_the_workers_take_turns() -> None:
    cluster = Cluster(workers=4, layout=Layout(workers_per_machine=2), servers=Servers(3, "beside"))
    assert len(cluster.machines) == 2
    assert cluster.server_machines() == (0, 1, 0)


@given(workers=st.integers(1, 40), machines=st.integers(0, 12), per=st.integers(0, 5))
def test_workers_fill_machines_in_order(workers, machines, per) -> None:
    layout = Layout(machines=machines, workers_per_machine=per)
    try:
        placement = layout.place(workers)
    except ScenarioError:
        assert (machines and per and machines * per < workers) or (machines > workers and not per)
        return
    held = [placement.count(m) for m in set(placement)]
    assert list(placement) == sorted(placement)
    assert len(placement) == workers
    assert max(held) <= (per or (1 if not machines else -(-workers // machines)))
    assert not machines or max(placement) < machines


def test_machines_one_by_one() -> None:
    cluster = Cluster(workers=2, machines=NICS)
    assert cluster.placement == (0, 1)
    assert cluster.server_machines() == (2,)
    named = Cluster(workers=2, machines=NICS, placement=(2, 2), servers=Servers(2, ("b", "a")))
    assert named.server_machines() == (1, 0)


def test_machines_say_how_many_workers_they_hold() -> None:
    machines = [
        {"name": "a", "bandwidth": "1 Gbit/s", "workers": 2},
        {"name": "b", "workers": 1},
        {"name": "s", "up": 5},
    ]
    cluster = build(Cluster, {"machines": machines})
    assert (cluster.workers, cluster.placement) == (3, (0, 0, 1))
    assert cluster.machines[0].up == cluster.machines[0].down == 125e6
    assert cluster.server_machines() == (2,)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"machines": (*NICS, Machine("a"))}, r"machines\[3\]\.name: 'a'"),
        ({"machines": (Machine(),)}, "a name that no other machine has"),
        ({"placement": (0,)}, "for each of 2 workers"),
        ({"placement": (0, 3)}, r"placement\[1\]: 3 .* between 0 and 2"),
        ({"servers": Servers(4)}, "more machines than dedicated servers"),
        ({"placement": (0, 1), "servers": Servers(2)}, r"servers\.count: 2 .* at most 1"),
        ({"servers": Servers(1, ("d",))}, r"servers\.placement\[0\]: 'd'"),
        ({"compute": StepTime(scale=(1.0,))}, r"compute\.scale"),
    ],
)
def test_what_does_not_fit_is_refused(change, says) -> None:
    with pytest.raises(ScenarioError, match=says):
        Cluster(**{"workers": 2, "machines": NICS, **change})


def test_a_layout_and_other_machines_contradict_each_other() -> None:
    cluster = Cluster(workers=4)
    assert replace(cluster, compute=StepTime(mean=1.0)).machines == cluster.machines
    with pytest.raises(ScenarioError, match=r"contradicts the layout; use Scenario\.override"):
        replace(cluster, workers=8)
    with pytest.raises(ScenarioError, match="has no place beside a list of machines"):
        build(Cluster, {"machines": [{"name": "a"}], "latency": "1 ms"})
    with pytest.raises(ScenarioError, match=r"^placement: \(0, 0\) is for a list of machines"):
        Cluster(workers=2, placement=(0, 0))
    with pytest.raises(ScenarioError, match="nothing where machines say"):
        build(Cluster, {"machines": [{"name": "a", "workers": 1}], "placement": [0]})


def test_measured_step_times_bring_their_own_mean() -> None:
    model = StepTime("empirical", samples=(1.0, 3.0))
    assert (model.mean, model.spread) == (2.0, 0.5)

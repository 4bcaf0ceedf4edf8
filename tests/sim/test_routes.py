"""Messages over up-links and WAN links, worked out by hand; what the links of a record say."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import metrics, report
from core.algorithms import ALGORITHMS
from core.record import PARTS, Record
from scenarios.cluster import Cluster
from scenarios.fields import build
from scenarios.schema import Scenario
from sim import simulate
from sim.alarm import Alarm
from sim.clock import Clock
from sim.endpoint import Endpoint
from sim.network import Network, Transfer
from sim.routes import routes

RACKS = """
racks: 2
machines_per_rack: 4
uplink: {bandwidth: %s, latency: 0.25 s}
bandwidth: 1
latency: 1 s
servers: {placement: beside}
"""
SITES = """
sites: [east, west]
machines_per_site: 2
bandwidth: 4
latency: 1 s
wan: {between: [east, west], forth: 2, back: 0.5, latency: 3 s, latency_back: 5 s, overhead: 0.5 s}
servers: {placement: beside}
"""


class Ear(Endpoint):
    """Logs deliveries and reads at once."""

    def __init__(self, id: int, log: dict[int, float]) -> None:
        super().__init__(id)
        self.log = log

    def delivered(self, transfer: Transfer) -> None:
        network = transfer.pair.network
        self.log[transfer.message] = network.clock.now
        network.pair(transfer.pair.source, self).read()


class Start(Alarm):
    def __init__(self, network: Network, ends: tuple[Ear, Ear], index: int, nbytes: float) -> None:
        self.network, self.ends, self.index, self.nbytes = network, ends, index, nbytes

    def fire(self) -> None:
        self.network.pair(*self.ends).send(self.index, self.nbytes)


def deliveries(text: str, sends: list[tuple[float, int, int, float]], **network: Any) -> dict[int, float]:
    """When each send (time, machine from, machine to, bytes) is delivered, one node per machine."""
    cluster = build(Cluster, yaml.safe_load(text) | {"network": network})
    clock, log = Clock(), dict[int, float]()
    settings = cluster.network
    net = Network(
        clock, cluster.machines, admission=settings.admission, inbox=inf, overhead=settings.overhead,
        routes=routes(cluster),
    )  # fmt: skip
    ears = [Ear(i, log) for i in range(len(cluster.machines))]
    for ear in ears:
        net.attach(ear, ear.id)
    for i, (time, source, target, nbytes) in enumerate(sends):
        clock.at(time, Start(net, (ears[source], ears[target]), i, nbytes))
    clock.drain()
    return log


@pytest.mark.parametrize("admission", ["fifo", 2, "fair"])
@pytest.mark.parametrize("flows", [1, 2, 3, 4])
def test_an_uplink_is_shared_by_what_leaves_the_rack(admission: str | int, flows: int) -> None:
    """k flows of 6 bytes over 2 bytes/s, NICs of 1: latency 1 + 2 * 0.25 s, then 6 / min(1, 2 / k) s."""
    sends = [(0.0, i, 4 + i, 6.0) for i in range(flows)]
    due = 1.5 + 6 / min(1, 2 / flows)
    found = deliveries(RACKS % 2, sends, admission=admission)
    assert found == pytest.approx(dict.fromkeys(range(flows), due), rel=1e-12)


def test_within_a_rack_the_uplink_is_not_in_the_way() -> None:
    found = deliveries(RACKS % 0.001, [(0.0, 0, 1, 6.0), (0.0, 2, 3, 6.0)])
    assert found == {0: 7.0, 1: 7.0}


def test_both_ways_of_an_uplink_are_links_of_their_own() -> None:
    sends = [(0.0, 0, 4, 6.0), (0.0, 5, 1, 6.0)]
    assert deliveries(RACKS % 1, sends) == {0: 7.5, 1: 7.5}
    assert deliveries(RACKS % "1, up: 0.5", sends) == {0: 13.5, 1: 13.5}


@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_a_wan_has_latency_rate_and_overhead_of_each_way(admission: str) -> None:
    """There: 1 + 3 s, 0.5 s overhead, 6 bytes at 2 bytes/s. Back: 1 + 5, 0.5, 6 at 0.5. Local: 1 + 6 / 4."""
    sends = [(0.0, 0, 2, 6.0), (0.0, 3, 1, 6.0), (20.0, 0, 1, 6.0)]
    assert deliveries(SITES, sends, admission=admission) == {0: 7.5, 1: 18.5, 2: 22.5}


def test_two_messages_share_a_wan_link_fairly_and_wait_for_nics_in_turn() -> None:
    """Fair: the two of 6 bytes share 2 bytes/s. Fifo, one receiver: one after the other."""
    apart = [(0.0, 0, 2, 6.0), (0.0, 1, 3, 6.0)]
    assert deliveries(SITES, apart, admission="fair") == {0: 10.5, 1: 10.5}
    assert deliveries(SITES, apart) == {0: 10.5, 1: 10.5}
    together = [(0.0, 0, 2, 6.0), (0.0, 1, 2, 6.0)]
    assert deliveries(SITES, together) == {0: 7.5, 1: 11.0}


def run(text: str, algorithm: Any = "asp", parameters: int = 250, **more: Any) -> Record:
    tree = {
        "cluster": yaml.safe_load(text) | {"compute": {"mean": 1}} | more,
        "workload": {"parameters": parameters}, "algorithm": algorithm,
        "run": {"steps": 3, "warmup_steps": 0},
    }  # fmt: skip
    return simulate(Scenario.from_dict(tree))


LINE = """
machines:
  - {name: server, bandwidth: 1000, latency: 0.5 s, site: east}
  - {name: worker, workers: 1, bandwidth: 1000, latency: 0.5 s, site: west}
sites: [east, west]
wan: {between: [east, west], forth: 500, back: 100, latency: 3 s, latency_back: 5 s}
"""


@pytest.mark.parametrize("admission", ["fifo", "fair"])
def test_a_step_of_asp_across_a_wan(admission: str) -> None:
    """Compute 1 s; 1000 bytes west to east: 6 + 10 s; and east to west: 4 + 2 s."""
    record = run(LINE, network={"admission": admission})
    ends = record.steps["end"] - record.steps["start"]
    assert ends == pytest.approx([23.0] * 3)
    assert record.steps["send"] == pytest.approx([10.0] * 3)
    assert record.steps["receive"] == pytest.approx([2.0] * 3)


def test_the_links_of_a_record_have_names_and_the_busiest_is_found() -> None:
    record = run(LINE)
    ways = zip(record.links["name"].tolist(), record.links["direction"].tolist(), strict=True)
    links = dict(zip((" ".join(way) for way in ways), record.links["busy"].tolist(), strict=True))
    assert links == pytest.approx({
        "server up": 3.0, "server down": 3.0, "worker up": 3.0, "worker down": 3.0,
        "west > east wan": 30.0, "east > west wan": 6.0,
    })  # fmt: skip
    assert record.links["machine"].tolist() == [0, 0, 1, 1, -1, -1]
    found = metrics.busiest_link(record)
    assert found == {
        "name": "west > east", "machine": -1, "direction": "wan", "use": pytest.approx(30 / 69),
        "bytes": 3000.0, "capacity": 100.0,
    }  # fmt: skip
    table = report.table([metrics.summary(record)])
    column = next(c for c in table.columns if "link" in str(c.header))
    assert list(column.cells) == ["west > east (43 %)"]
    local = run("{machines: [{name: a, count: 1, workers: 2}], servers: {placement: beside}}")
    assert metrics.busiest_link(local)["use"] == 0
    assert list(report.table([metrics.summary(local)]).columns[-1].cells) == ["–"]


def test_without_a_topology_links_have_no_names() -> None:
    record = run("{workers: 2}")
    assert "name" not in record.links
    assert "name" not in (metrics.busiest_link(record) or {})
    assert not any("link" in str(c.header) for c in report.table([metrics.summary(record)]).columns)


@pytest.mark.parametrize("admission", ["fifo", 2, "fair"])
@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_runs_over_racks_and_sites(name: str, admission: str | int) -> None:
    """Every second is booked once, and no link carries more than it can in the time of the run."""
    text = """
        sites: 2
        racks_per_site: 2
        machines_per_rack: 1
        workers_per_machine: 2
        bandwidth: 5000
        latency: 0.01 s
        uplink: {up: 3000, down: 1000, latency: 0.02 s, overhead: 1 ms}
        wan: {between: [site0, site1], forth: 4000, back: 500, latency: 0.3 s, latency_back: 0.1 s}
        servers: {count: 3, placement: spread}
        heterogeneity: {speed: 0.3, bandwidth: 0.3}
    """
    record = run(text, name, network={"admission": admission, "collective": "messages"})
    total = np.sum([record.nodes[part] for part in PARTS], axis=0)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9)
    assert record.nodes["steps"][:8].tolist() == [3] * 8
    if name != "dpsgd":  # its last exchange ends after its last step does
        assert record.links["busy"].max() <= record.duration
    if "server" in record.nodes["role"] and record.nodes["bytes_in"].any():
        carried = record.links["bytes"][record.links["direction"] == "wan"]
        assert len(carried) == 2
        assert carried.min() > 0


SENDS = st.lists(
    st.tuples(st.floats(0, 10), st.integers(0, 7), st.integers(0, 7), st.floats(0.1, 5)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(SENDS, st.sampled_from(["fifo", 2, "fair"]), st.floats(0.3, 6), st.floats(0.3, 6), st.floats(0.1, 6))
def test_whatever_is_sent_arrives_no_sooner_than_its_links_allow(
    sends: list[tuple[float, int, int, float]], admission: str | int, up: float, down: float, wan: float
) -> None:
    """Eight machines in four racks at two sites: each link's bytes fit into the time it had."""
    text = f"""
        sites: 2
        racks_per_site: 2
        machines_per_rack: 2
        bandwidth: 2
        uplink: {{up: {up}, down: {down}, latency: 0.5 s}}
        wan: {{bandwidth: {wan}, latency: 2 s}}
        servers: {{placement: beside}}
    """
    found = deliveries(text, sends, admission=admission)
    assert len(found) == len(sends)
    loads: dict[tuple[str, int], list[int]] = {}
    for i, (start, a, b, nbytes) in enumerate(sends):
        crossed = 2 * (a // 4 != b // 4) + 2 * 0.5 * (a // 2 != b // 2)
        least = min([2.0] + [up, down] * (a // 2 != b // 2) + [wan] * (a // 4 != b // 4))
        if a != b:
            assert found[i] >= start + crossed + nbytes / least - 1e-9
        if a // 2 != b // 2:
            loads.setdefault(("up", a // 2), []).append(i)
            loads.setdefault(("down", b // 2), []).append(i)
        if a // 4 != b // 4:
            loads.setdefault(("wan", a // 4), []).append(i)
    for (kind, _), own in loads.items():
        rate = {"up": up, "down": down, "wan": wan}[kind]
        first, last = min(sends[i][0] for i in own), max(found[i] for i in own)
        assert sum(sends[i][3] for i in own) <= rate * (last - first) + 1e-9


RING = """
racks: 2
machines_per_rack: 2
workers_per_machine: %d
bandwidth: 100
latency: 0.25 s
local_bandwidth: 1000
uplink: {bandwidth: %s, latency: 0.5 s, overhead: 0.125 s}
"""


@pytest.mark.parametrize(("rate", "slowest"), [(20, 20), (100, 100), (199, 100), (1000, 100)])
def test_a_ring_goes_as_fast_as_its_slowest_link(rate: float, slowest: float) -> None:
    """Four workers: 2 * 3 steps of 0.25 + 2 * 0.5 s latency, two overheads of 0.125 s, bytes / 4."""
    took = 6 * (1.25 + 0.25 + 1000 / 4 / slowest)
    native = run(RING % (1, rate), "arsgd", network={"collective": "native"})
    assert native.steps["end"] - native.steps["start"] == pytest.approx([1 + took] * 12)
    messages = run(RING % (1, rate), "arsgd", 252, network={"collective": "messages"})
    took = 6 * (1.25 + 0.25 + 1008 / 4 / slowest)
    ends = messages.steps["end"].reshape(-1) - messages.steps["start"].reshape(-1)
    assert ends.max() == pytest.approx(1 + took, rel=1e-9)


def test_workers_of_a_rack_share_the_uplink_of_its_ring() -> None:
    """Eight workers in order of machines: the ring crosses each up-link once, whoever sits behind it."""
    took = 14 * (1.25 + 0.25 + 1000 / 8 / 20)
    record = run(RING % (2, 20), "arsgd", network={"collective": "native"})
    assert record.steps["end"] - record.steps["start"] == pytest.approx([1 + took] * 24)


def test_an_uplink_that_nothing_can_fill_is_no_link() -> None:
    """Four NICs of 1 byte/s and an up-link of 4: its latency counts, a place in the records it has none."""
    wide = build(Cluster, yaml.safe_load(RACKS % 4))
    found = routes(wide)
    assert found is not None
    assert (found(0, 4), found.delay(0, 4)) == ([], (0.5, 0.0))
    uneven = yaml.safe_load(RACKS % 4) | {"heterogeneity": {"bandwidth": 0.5}}
    made = build(Cluster, uneven)
    fast = sum(machine.up for machine in made.machines[:4]) > 4
    assert [name for name, _ in routes(made)(0, 4)][:1] == ["rack0 up"] * fast  # type: ignore[misc]
    sends = [(0.0, i, 4 + i, 6.0) for i in range(4)]
    assert deliveries(RACKS % 4, sends) == dict.fromkeys(range(4), 7.5)


def test_the_backplane_lies_on_every_path_too() -> None:
    text = RACKS % 3.5
    cluster = build(Cluster, yaml.safe_load(text) | {"network": {"backplane": 3}})
    found = routes(cluster)
    assert found is not None
    assert found(0, 4) == [("rack0 up", 3.5), ("rack1 down", 3.5), ("backplane", 3.0)]
    assert found(0, 1) == [("backplane", 3.0)]
    assert found.delay(0, 4) == (0.5, 0.0)
    record = run(text, network={"backplane": 3})
    ways = dict(zip(record.links["name"].tolist(), record.links["direction"].tolist(), strict=True))
    assert ways["backplane"] == "shared"
    assert routes(build(Cluster, {})) is None

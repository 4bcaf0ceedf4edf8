"""Topologies: counts multiply out, groups stand where they say, paths lead everywhere; bad input."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.cluster import Cluster, Layout, Machine, Servers
from scenarios.errors import ScenarioError
from scenarios.fields import build, plain
from scenarios.topology import Rack, Topology, Uplink, Wan

GROUPS = """
machines:
  - {name: a, count: 3, workers: 2, bandwidth: 100, rack: r0}
  - {name: b, count: 2, workers: 1, up: 10, down: 20, rack: r1}
  - {name: store, bandwidth: 1000, latency: 1 s, site: east}
racks:
  - {name: r0, site: east, up: 50, down: 60, latency: 2 s}
  - {name: r1, site: west, oversubscription: 2}
sites: [east, west]
wan:
  - {between: [east, west], forth: 7, back: 3, latency: 5 s, latency_back: 6 s, overhead: 1 s}
"""


def cluster(text: str) -> Cluster:
    return build(Cluster, yaml.safe_load(text))


def names(found: Cluster, a: int, b: int) -> list[str]:
    assert found.paths is not None
    return [wire.name for wire in found.paths.between(a, b).wires]


def test_counts_make_racks_machines_and_workers() -> None:
    made = cluster("{racks: 32, machines_per_rack: 16, workers_per_machine: 8}")
    assert made.workers == 32 * 16 * 8
    assert len(made.machines) == 32 * 16 + 1
    assert made.placement[:9] == (0,) * 8 + (1,)
    assert made.paths is not None
    assert made.paths.where[:17] == (0,) * 16 + (1,)
    assert names(made, 0, 15) == []
    assert names(made, 0, 16) == ["rack0 up", "rack1 down"]
    assert made.paths.between(0, 16).wires[0].rate == 16 * 1.25e9


@given(racks=st.integers(1, 5), machines=st.integers(1, 5), per=st.integers(1, 4), sites=st.integers(1, 3))
def test_whichever_count_is_left_out_follows(racks: int, machines: int, per: int, sites: int) -> None:
    full: dict[str, Any] = {
        "sites": sites, "racks": sites * racks, "racks_per_site": racks, "machines": sites * racks * machines,
        "machines_per_rack": machines, "workers_per_machine": per, "workers": sites * racks * machines * per,
        "wan": {"bandwidth": 1},
    }  # fmt: skip
    whole = build(Cluster, full)
    for left_out in (["workers"], ["racks"], ["racks_per_site"], ["machines"], ["machines_per_rack"],
                     ["workers_per_machine"], ["machines", "machines_per_rack"], ["machines", "racks"],
                     ["workers", "machines", "racks_per_site"]):  # fmt: skip
        made = build(Cluster, {name: value for name, value in full.items() if name not in left_out})
        assert (made.machines, made.placement) == (whole.machines, whole.placement)
        assert made.paths is not None
        assert whole.paths is not None
        assert made.paths.places == whole.paths.places


def test_groups_of_machines_stand_in_racks_and_at_sites() -> None:
    made = cluster(GROUPS)
    assert made.workers == 8
    assert [machine.name for machine in made.machines] == ["a0", "a1", "a2", "b0", "b1", "store"]
    assert made.placement == (0, 0, 1, 1, 2, 2, 3, 4)
    assert made.server_machines() == (5,)
    assert made.machines[3] == Machine("b0", up=10, down=20)
    assert names(made, 0, 1) == []
    assert names(made, 0, 5) == ["r0 up"]
    assert names(made, 5, 0) == ["r0 down"]
    assert names(made, 0, 3) == ["r0 up", "east > west", "r1 down"]
    assert made.paths is not None
    there, back = made.paths.between(0, 3), made.paths.between(3, 0)
    assert [wire.rate for wire in there.wires] == [50, 7, 20]
    assert [wire.rate for wire in back.wires] == [10, 3, 60]
    assert (there.latency, back.latency, there.overhead) == (7, 8, 1)


def test_a_wan_of_every_two_sites_and_ways_over_several_links() -> None:
    made = cluster("{sites: 3, machines_per_site: 1, wan: {bandwidth: 5, latency: 1 s}}")
    assert names(made, 0, 2) == ["site0 > site2"]
    chain = """
        sites: [a, b, c, d]
        machines_per_site: 2
        wan:
          - {between: [a, b], bandwidth: 5, latency: 1 s}
          - {between: [b, c], bandwidth: 5, latency: 1 s}
          - {between: [c, d], forth: 5, back: 0, latency: 1 s}
          - {between: [a, c], bandwidth: 5, latency: 3 s}
          - {between: [a, d], bandwidth: 5, latency: 9 s}
        servers: {placement: beside}
    """
    made = cluster(chain)
    assert names(made, 0, 5) == ["a > b", "b > c"]  # 2 s, not 3
    assert names(made, 0, 6) == ["a > b", "b > c", "c > d"]
    assert names(made, 7, 5) == ["d > a", "a > b", "b > c"]  # nothing leads from d to c


def test_servers_are_spread_over_sites_and_racks() -> None:
    text = """
        sites: 2
        racks_per_site: 2
        machines_per_rack: 2
        wan: {bandwidth: 1}
        servers: {count: 5, placement: %s}
    """
    assert cluster(text % "spread").server_machines() == (0, 4, 2, 6, 1)
    assert cluster(text % "beside").server_machines() == (0, 1, 2, 3, 4)
    assert cluster(text % "[rack3, site0, machine1, rack3, site0]").server_machines() == (6, 0, 1, 7, 1)
    apart = cluster(text % "dedicated")
    assert apart.server_machines() == (8, 9, 10, 11, 12)
    assert apart.paths is not None
    assert apart.paths.where[8:] == (0, 2, 1, 3, 0)
    rackless = cluster("""
        sites: [a, b]
        machines_per_site: 2
        wan: {bandwidth: 1}
        servers: {count: 3, placement: [a, a, b]}
    """)
    assert rackless.server_machines() == (0, 1, 2)
    plain_cluster = Cluster(workers=4, layout=Layout(workers_per_machine=2), servers=Servers(3, "spread"))
    assert plain_cluster.server_machines() == (0, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "{racks: 4, machines_per_rack: 2, workers_per_machine: 2, uplink: {oversubscription: 3, latency: 1}}",
        "{racks: 2, workers: 8, uplink: 1 Gbit/s}",
        "{racks: 2, workers: 8, workers_per_machine: 2}",
        "{sites: 2, workers: 8, workers_per_machine: 2, wan: {bandwidth: 5}}",
        "{racks: [{name: x, bandwidth: 5}, {name: y, oversubscription: 2}], machines_per_rack: 2}",
        "{sites: [a, b], machines_per_site: 2, wan: {bandwidth: 5}, servers: {placement: spread}}",
        "{machines: [{name: m, count: 4, workers: 2}], servers: {placement: beside}}",
        GROUPS,
    ],
)
def test_what_is_written_is_what_was_given(text: str) -> None:
    made = cluster(text)
    written = plain(made)
    assert build(Cluster, written) == made
    assert len(str(written)) < 2500
    assert "placement" not in written


def test_a_changed_count_expands_anew() -> None:
    written = plain(cluster("{racks: 4, machines_per_rack: 2, workers_per_machine: 2}"))
    assert build(Cluster, written | {"racks": 8}).workers == 32


def test_python_objects_give_the_same_cluster() -> None:
    made = Cluster(
        workers=8,
        layout=Layout(workers_per_machine=2),
        topology=Topology(racks=2, uplink=Uplink(oversubscription=4)),
    )
    text = "{workers: 8, workers_per_machine: 2, racks: 2, uplink: {oversubscription: 4}}"
    assert made == cluster(text)
    assert Wan(("a", "b"), 1.0, 2.0) == build(Wan, {"between": ["a", "b"], "forth": 1, "back": 2})
    assert Rack(up=1.0, down=1.0, name="r") == build(Rack, {"name": "r", "bandwidth": 1})


def test_a_million_workers_are_not_too_many() -> None:
    made = cluster("{racks: 1000, machines_per_rack: 10, workers_per_machine: 100}")
    assert made.workers == len(made.placement) == 1_000_000
    assert names(made, 0, 9_999) == ["rack0 up", "rack999 down"]


REFUSED = [
    ("{racks: 4, machines_per_rack: 2, workers_per_machine: 2, workers: 15}",
     r"^workers: 15 is not valid; expected 16, which is machines 8 times workers_per_machine 2$"),
    ("{racks: 4, machines_per_rack: 2, machines: 9}", r"machines: 9 .* 8, which is racks 4 times"),
    ("{racks: 4, workers: 9}", r"workers: 9 .* a multiple of 4 \(racks times 1\)"),
    ("{racks: 4, machines: 9}", r"machines: 9 .* a multiple of 4 \(racks\)"),
    ("{racks: 2, machines_per_rack: 2, uplink: {oversubscription: 0}}", "oversubscription: 0 .* above 0"),
    ("{racks: [{oversubscription: 0}, {up: 1, down: 1}], machines_per_rack: 2}",
     "oversubscription: 0 .* above 0"),
    ("{racks: 3, machines_per_rack: 2, workers: 8}", r"workers: 8 .* a multiple of 6 \(machines\)"),
    ("{sites: 2, racks: 3, machines_per_rack: 1, wan: {bandwidth: 1}}", "racks: 3 .* a multiple of 2"),
    ("{sites: 2, racks: 6, racks_per_site: 2, machines_per_rack: 1, wan: {bandwidth: 1}}",
     "racks: 6 .* 4, which is sites 2 times racks_per_site 2"),
    ("{servers: {placement: moon}}",
     r"servers.placement\[0\]: 'moon' .* one of beside, dedicated, machine0, .* spread"),
    ("{workers: 1000, servers: {placement: moon}}",
     r"one of dedicated, beside, spread, machine0, machine1, .*, machine26, \.\.\. \(1,003 in all\)$"),
    ("{servers: {placement: dedciated}}", "did you mean 'dedicated'"),
    ("{racks: 4}", "machines_per_rack: missing"),
    ("{machines_per_rack: 4}", "machines_per_rack: 4 .* nothing without racks"),
    ("{racks: 4, racks_per_site: 2, machines_per_rack: 1}", "racks_per_site: 2 .* sites with counted racks"),
    ("{sites: [a], racks: [{name: x, site: a, bandwidth: 1}], racks_per_site: 1, machines_per_rack: 1}",
     "racks_per_site: 1 .* sites with counted racks"),
    ("{racks: 2, machines_per_site: 2}", "machines_per_site: 2 .* sites without racks"),
    ("{racks: 1000000, machines_per_rack: 2}", "at most 1000000"),
    ("{uplink: 5}", "uplink: nothing has an up-link"),
    ("{wan: {bandwidth: 5}}", "wan: nothing to join"),
    ("{topology: {racks: 2}}", r"topology: .* its parts \(racks, .* stand directly under cluster"),
    ("{racks: 2, machines_per_rack: 1, layout: {}}", "layout: {} .* stand directly under cluster"),
    ("{racks: many}", "racks: 'many' .* whole number"),
    ("{sites: 1000, machines_per_site: 1}", "sites: 1000 .* at most 256"),
    ("{racks: [{name: a, bandwidth: 1}, {name: a, bandwidth: 1}], machines_per_rack: 1}",
     r"racks\[1\].name: 'a'"),
    ("{sites: [up, down], machines_per_site: 1}", r"sites\[0\]: 'up' .* does not end in up or down"),
    ("{sites: [x, x], machines_per_site: 1}", r"sites\[1\]: 'x'"),
    ("{machines: [{name: a, count: 2, workers: 1}, {name: a1}]}", r"machines\[2\]\.name: 'a1'"),
    ("{racks: [{name: a}], machines_per_rack: 1}", r"racks\[0\].bandwidth: missing: the path from rack a"),
    ("{racks: 2, machines_per_rack: 1, uplink: {up: 5}}", "uplink.down: missing"),
    ("{racks: 2, machines_per_rack: 1, uplink: {bandwidth: 5, oversubscription: 2}}", "oversubscription: 2"),
    ("{racks: 2, machines_per_rack: 1, uplink: {bandwith: 5}}",
     "uplink.bandwith: no such field .* 'bandwidth'"),
    ("{racks: 2, machines_per_rack: 1, uplink: -1}", "uplink.bandwidth: -1"),
    ("{racks: 2, machines_per_rack: 1, uplink: 0}", "uplink.up: 0.0 has no capacity but is in use"),
    ("{racks: 2, machines_per_rack: 1, uplink: {up: 5, down: 0}}", "uplink.down: 0.0 has no capacity"),
    ("{racks: [{name: a, bandwidth: 1}], machines_per_rack: 1, uplink: 5}", "uplink: no such field beside"),
    ("{sites: 2, machines_per_site: 1}",
     "wan: no link leads from site0 to site1: machine machine1, at site1"),
    ("{sites: [a, b], machines_per_site: 1, wan: {between: [a, c], bandwidth: 1}}", r"wan\[0\].between: 'c'"),
    ("{sites: [a, b], machines_per_site: 1, wan: {between: [a], bandwidth: 1}}",
     r"wan\[0\].between.*two or more"),
    ("{sites: [a, b], machines_per_site: 1, wan: {latency: 1}}", r"wan\[0\].forth: missing"),
    ("{sites: [a, b], machines_per_site: 1, wan: {forth: 1, back: 2}}",
     r"wan\[0\].between: 'all' .* two sites"),
    ("{sites: [a, b], machines_per_site: 1, wan: [{bandwidth: 1}, {between: [b, a], bandwidth: 1}]}",
     r"wan\[1\].between: \['b', 'a'\] .* wan\[0\] does not join already"),
    ("{sites: [a, b], machines_per_site: 1, wan: {between: [a, b], forth: 1, back: 0}}",
     r"wan\[0\].back: 0.0 has no capacity but is in use: there is no other way from b to a"),
    ("{machines: [{name: a, workers: 1, rack: x}]}", r"machines\[0\].rack: 'x'"),
    ("{machines: [{name: a, workers: 1, site: x}], sites: [y]}", r"machines\[0\].site: 'x'"),
    ("{machines: [{name: a, workers: 1}], sites: [x, y]}", r"machines\[0\].site: missing: one of x, y"),
    ("{machines: [{name: a, count: 2, workers: 1}], workers: 3}", "workers: 3 .* 2, as many as"),
    ("{machines: [{name: a, count: 0}]}", r"machines\[0\].count: 0"),
    ("{machines: [{name: a, count: 2}]}", "machines: say how many workers"),
    ("{machines: [{name: a, count: 2, workers: 1}], racks: 2}", "racks: 2 .* a list of racks"),
    ("{machines: [{name: a, count: 2, workers: 1}], machines_per_rack: 2}", "machines_per_rack: 2"),
    ("{machines: [{name: a, count: 2, workers: 1}], latency: 1 s}",
     "latency: '1 s' has no place beside groups"),
    ("{machines: [{name: a, rack: r, site: s}], racks: [{name: r, site: s, bandwidth: 1}], sites: [s]}",
     r"machines\[0\].site: 's' .* nothing in a rack"),
    ("{racks: 2, machines_per_rack: 1, servers: {placement: [rack7]}}", r"servers.placement\[0\]: 'rack7'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        cluster(text)


def test_a_topology_needs_machines_that_it_places() -> None:
    one_by_one = tuple(Machine(name) for name in "abs")
    with pytest.raises(ScenarioError, match="topology: needs either a layout or groups"):
        Cluster(2, machines=one_by_one, topology=Topology(racks=2, machines_per_rack=1))


def test_up_links_count_the_nics_that_there_are() -> None:
    """Measured NICs, not the layout's."""
    fast = "heterogeneity: {devices: {up: [4e9, 2e9], down: [1e9, 1e9]}}"
    made = cluster(f"{{racks: 2, machines_per_rack: 2, uplink: {{oversubscription: 2}}, {fast}}}")
    assert made.paths is not None
    assert [place.up.rate for place in made.paths.places] == [3e9, 3e9]
    assert [place.down.rate for place in made.paths.places] == [1e9, 1e9]


def test_links_that_nobody_uses_may_be_down() -> None:
    """A rack without nodes, a WAN link with another way round."""
    text = """
        machines:
          - {name: a, count: 2, workers: 1, rack: r0}
          - {name: spare, rack: r1}
        racks: [{name: r0, bandwidth: 0}, {name: r1, bandwidth: 0}]
        servers: {placement: beside}
    """
    assert cluster(text).workers == 2
    with pytest.raises(ScenarioError, match=r"racks\[0\].up: 0.0 has no capacity but is in use"):
        cluster(text.replace("beside", "dedicated"))
    ways = (
        "[{between: [a, b], bandwidth: 0}, {between: [a, c], bandwidth: 1}, {between: [b, c], bandwidth: 1}]"
    )
    assert names(cluster(f"{{sites: [a, b, c], machines_per_site: 1, wan: {ways}}}"), 0, 1) == [
        "a > c",
        "c > b",
    ]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 5), st.floats(), st.text(max_size=3), st.just([]), st.just({}),
    st.lists(st.one_of(st.integers(-1, 3), st.sampled_from("ab"), st.none()), max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "rack", "site", "bandwidth", "up", "back", "between", "count", "workers"]),
        st.one_of(st.integers(-1, 3), st.sampled_from(["a", "b"]), st.just(["a", "b"]), st.none()),
        max_size=4,
    ),
)  # fmt: skip
FIELDS = (
    "racks", "machines_per_rack", "uplink", "sites", "racks_per_site", "machines_per_site", "wan", "machines",
    "workers", "workers_per_machine", "heterogeneity", "topology", "layout", "placement",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), st.one_of(JUNK, st.lists(JUNK, max_size=3)), max_size=5))
def test_whatever_is_given_is_read_or_refused_with_its_field(tree: dict[str, Any]) -> None:
    try:
        made = build(Cluster, tree)
    except ScenarioError as error:
        found = error.path
    else:
        found = "workers"
        assert build(Cluster, plain(made)) == made
    assert found.split(".")[0].split("[")[0] in (*FIELDS, "servers", "slowdowns", "compute")

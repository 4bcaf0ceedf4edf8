"""Profiles fill a scenario with measured constants, say where they do not hold, and survive a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from scenarios.cluster import Host
from scenarios.errors import ScenarioError
from scenarios.profile import Constant, Profile
from scenarios.schema import Scenario
from scenarios.steptime import StepTimes


def constant(value: float, unit: str = "s") -> Constant:
    return Constant(value, unit, 0.9 * value, 1.1 * value, 20)


PROFILE = Profile(
    constants={
        "step_time.mean": constant(0.02),
        "step_time.spread": constant(0.1, "1"),
        "pacing.overhead": constant(1e-4),
        "link.paced.latency": constant(2e-4),
        "link.paced.overhead": constant(3e-5),
        "link.paced.efficiency": constant(0.98, "1"),
        "link.native.latency": constant(2e-4),
        "link.native.overhead": constant(3e-5),
        "link.native.bandwidth": constant(2e9, "bytes/s"),
        "tensor_rate.apply": constant(5e9, "bytes/s"),
        "tensor_seconds.apply": constant(1e-6),
        "allreduce.alpha.2": constant(1e-4),
        "allreduce.alpha.4": constant(3e-4),
        "allreduce.bandwidth.2": constant(1e9, "bytes/s"),
        "device.slots": constant(2.0, "1"),
    },
    hardware={"cpu": "this one", "cores": 2},
    when="2026-01-01T00:00:00Z",
    step_time_model="lognormal",
    workload={"model": "mlp", "batch": 32},
    ranges={"workers": (2, 4), "message_bytes": (1e5, 1e7)},
)


def scenario(**run) -> Scenario:
    cluster = {"workers": 3, "bandwidth": "1 Gbit/s", "slowdowns": [{"ranks": [1], "factor": 4}]}
    cluster["network"] = {"collective": "messages", "backplane": "3 GB/s"}
    tree = {"cluster": cluster, "workload": {"parameters": 1_000_000}, "run": {"steps": 5, **run}}
    return Scenario.from_dict(tree)


def test_paced_runs_keep_their_rates_and_gain_what_pacing_costs() -> None:
    cluster = PROFILE.apply(scenario(compute="paced", links="paced")).cluster
    assert {m.up for m in cluster.machines} == {0.98 * 125e6}
    assert {m.latency for m in cluster.machines} == {1e-4}
    assert math.prod(StepTimes(cluster, 0).draw(1, 0, 0.0)) == pytest.approx(4 * 0.1 + 1e-4)
    assert cluster.network.overhead == 3e-5
    assert cluster.tensor_rates == {"apply": 5e9}
    assert cluster.tensor_seconds == {"apply": 1e-6}
    assert cluster.network.allreduce_alpha == pytest.approx(2e-4)
    assert cluster.network.allreduce_bandwidth == 1e9


def test_native_runs_take_what_was_measured() -> None:
    cluster = PROFILE.apply(scenario(compute="native", links="native")).cluster
    assert {m.down for m in cluster.machines} == {2e9}
    assert (cluster.compute.model, cluster.compute.mean, cluster.compute.spread) == ("lognormal", 0.02, 0.1)
    assert (cluster.workers_per_device, cluster.device_slots) == (3, 2.0)
    assert cluster.slowdowns == scenario().cluster.slowdowns


def test_step_times_measured_by_number_of_workers_need_no_model_of_sharing() -> None:
    by_count = {"step_time.mean.2": constant(0.02), "step_time.mean.4": constant(0.04)}
    profile = Profile({**PROFILE.constants, **by_count}, step_time_model="constant")
    cluster = profile.apply(scenario(compute="native")).cluster
    assert cluster.compute.mean == pytest.approx(0.03)
    assert cluster.workers_per_device == 1


def ring_of(n: int, *rates: str) -> Scenario:
    """A ring of ``n`` by messages over paced links, whose machines take turns with ``rates``."""
    machines = [{"name": f"m{i}", "bandwidth": rates[i % len(rates)]} for i in range(n + 1)]
    network = {"collective": "messages"}
    tree = {"cluster": {"workers": n, "machines": machines, "network": network}}
    return Scenario.from_dict({**tree, "run": {"steps": 1, "links": "paced", "device": "cpu"}})


def test_a_ring_is_less_late_at_a_slower_pace_by_the_power_that_was_probed() -> None:
    late = {f"ring.paced.lag.{n}": constant(value) for n, value in ((2, 1e-3), (4, 2e-3), (8, 6e-3))}
    host = {"host.paced.byte_cost": constant(1e-9)}
    ranges = {"link_rate": (31.25e6, 125e6)}
    profile = Profile({**PROFILE.constants, **late, **host}, ranges=ranges)
    slow = {"ring.paced.lag.8.slow": constant(3e-3)}  # half as late at a quarter of the rate
    probed = Profile({**profile.constants, **slow}, ranges=ranges)
    odd = Profile({**profile.constants, "ring.paced.lag.8.slow": constant(9e-3)}, ranges=ranges)

    def lag(profile: Profile, n: int, *rates: str) -> float:
        return profile.apply(ring_of(n, *rates)).cluster.host.ring_lag

    for one in (profile, probed, odd):
        assert [lag(one, n, "1 Gbit/s") for n in (2, 4, 6, 8)] == pytest.approx([1e-3, 2e-3, 4e-3, 6e-3])
        assert lag(one, 8, "10 Gbit/s") == pytest.approx(6e-3)
        assert lag(one, 8, "1 Gbit/s", "500 Mbit/s") == lag(one, 8, "500 Mbit/s")  # the slowest sets the pace
    assert lag(probed, 8, "250 Mbit/s") == pytest.approx(3e-3)
    assert lag(probed, 4, "250 Mbit/s") == pytest.approx(1e-3)
    assert lag(probed, 8, "62.5 Mbit/s") == pytest.approx(1.5e-3)
    assert lag(profile, 8, "250 Mbit/s") == pytest.approx(1.5e-3)  # in proportion
    assert lag(odd, 8, "250 Mbit/s") == pytest.approx(6e-3)  # never later than at the nominal rate


def test_what_messages_cost_programs_is_that_of_the_host_which_plays_them() -> None:
    spent = {"program.message": constant(2e-4)}
    host = {"host.paced.byte_cost": constant(1e-9)}
    played = Profile({**PROFILE.constants, **spent, **host}).apply(scenario(compute="paced", links="paced"))
    assert played.cluster.host.message == 2e-4
    others = Profile({**PROFILE.constants, **spent}).apply(scenario(compute="paced", links="paced"))
    assert others.cluster.host.message == 0.0


def test_links_are_handed_over_as_was_probed_for_so_many_senders() -> None:
    found = {f"hub.paced.handover.{n}": constant(value) for n, value in ((2, 1e-3), (4, 3e-3))}
    host = {"host.paced.byte_cost": constant(1e-9)}
    profile = Profile({**PROFILE.constants, **found, **host})
    for n, handover in ((1, 0.0), (2, 1e-3), (3, 2e-3), (4, 3e-3), (8, 3e-3)):
        assert profile.apply(ring_of(n, "1 Gbit/s")).cluster.host.handover == pytest.approx(handover)
    many = Profile({**PROFILE.constants, "hub.paced.handover.7": constant(6e-3), **host})
    assert many.apply(ring_of(2, "1 Gbit/s")).cluster.host.handover == pytest.approx(1e-3)  # one has none


def test_slow_links_carry_what_was_probed_of_them() -> None:
    """What a byte takes of its own counts for less at lower rates; nothing is made of a slower slow probe."""
    shares = {"link.paced.efficiency": constant(0.96, "1"), "link.paced.efficiency.slow": constant(0.99, "1")}
    ranges = {"link_rate": (25e6, 125e6)}
    profile = Profile({**PROFILE.constants, **shares}, ranges=ranges)
    worse = Profile({**profile.constants, "link.paced.efficiency.slow": constant(0.95, "1")}, ranges=ranges)

    def carried(profile: Profile, rate: str) -> float:
        return profile.apply(ring_of(2, rate)).cluster.machines[0].up

    assert carried(profile, "1 Gbit/s") == pytest.approx(0.96 * 125e6)
    assert carried(profile, "200 Mbit/s") == pytest.approx(0.99 * 25e6)
    assert 0.96 * 62.5e6 < carried(profile, "500 Mbit/s") < 0.99 * 62.5e6
    assert carried(worse, "200 Mbit/s") == pytest.approx(0.96 * 25e6)
    above = {"link.paced.efficiency": constant(1.1, "1"), "link.paced.efficiency.slow": constant(1.2, "1")}
    for rate in ("1 kbit/s", "10 Mbit/s", "200 Mbit/s", "500 Mbit/s", "1 Gbit/s", "10 Gbit/s"):
        nominal = ring_of(2, rate).cluster.machines[0].up
        for one in (profile, worse, replace(profile, constants={**profile.constants, **above})):
            assert carried(one, rate) <= nominal  # a probe that says more was disturbed


def test_a_shaped_link_saves_what_it_was_set_to() -> None:
    burst = {"link.shaped.burst": constant(131072.0, "bytes")}
    profile = Profile({**PROFILE.constants, **burst})
    assert profile.apply(scenario(links="shaped")).cluster.network.burst == 131072.0
    assert profile.apply(scenario()).cluster.network.burst == 0.0


def test_slots_are_those_of_as_many_workers_as_compute_at_once() -> None:
    slots = {f"device.slots.{n}": constant(value, "1") for n, value in ((2, 2.0), (4, 1.8))}
    profile = Profile({**PROFILE.constants, **slots})
    for n, expected in ((2, 2.0), (3, 1.9), (4, 1.8), (8, 1.8)):
        chosen = scenario(compute="native").override({"algorithm.name": "asp", "cluster.workers": n})
        assert profile.apply(chosen).cluster.device_slots == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cores", "probed", "expected"),
    [
        (2, {2: 1.9, 4: 1.8}, (1.0, 1.9, 1.85, 1.8)), (2, {4: 1.7}, (1.0, 1.9, 1.8, 1.7)),
        (2, {2: 1.8}, (1.0, 1.8)), (6, {2: 1.9, 4: 3.6}, (1.0, 1.9, 2.775, 3.6, 4.5, 5.4)),
        (0, {2: 1.8}, (1.0, 1.8)), (1, {2: 1.0}, (1.0, 1.0)), (2, {}, (1.0, 1.6)),
    ],
)  # fmt: skip
def test_what_is_lost_where_several_compute_lies_between_the_numbers_that_were_probed(
    cores: int, probed: dict[int, float], expected: tuple[float, ...]
) -> None:
    """By the share of the cores there are; where more are there than were probed, they serve as well."""
    slots = {f"device.slots.{n}": constant(value, "1") for n, value in probed.items()}
    known = {"host.paced.byte_cost": constant(2e-9), "device.slots": constant(1.6, "1"), **slots}
    profile = Profile({**PROFILE.constants, **known}, hardware={"cores": cores} if cores else {})
    native = ring_of(2, "1 Gbit/s").override({"run.compute": "native", "algorithm.name": "asp"})
    host = profile.apply(native).cluster.host
    assert host.slots == pytest.approx(expected)
    assert host.cores == (cores or 2)


def test_bytes_that_come_slowly_cost_more_each() -> None:
    """A fixed part, and one by the second that a message takes; without a second rate all is by the byte.

    Native steps lose as much more, or less, as was probed: by how many compute.
    """
    cost = {"host.paced.byte_cost": constant(2e-9), "host.paced.byte_cost.slow": constant(4e-9)}
    steps = {"host.paced.beside.1": constant(0.0), "host.paced.beside.3": constant(2e-9)}
    constants = {**PROFILE.constants, **cost, **steps}
    profile = Profile(constants, ranges={"link_rate": (25e6, 125e6)})

    def host(profile: Profile, compute: str) -> Host:
        return profile.apply(ring_of(2, "1 Gbit/s").override({"run.compute": compute})).cluster.host

    found = host(profile, "paced")
    assert [found.byte_cost + found.moving / rate for rate in (125e6, 25e6)] == pytest.approx([2e-9, 4e-9])
    assert found.beside == ()
    native = host(profile, "native")
    assert (native.byte_cost, native.moving) == (found.byte_cost, found.moving)
    assert native.beside == pytest.approx((0.0, 0.5, 1.0))
    crowded = host(replace(profile, hardware={"cores": 2}), "native")
    assert crowded.beside == pytest.approx((0.0, 1.0))  # of three that were idle nothing is known
    roomy = host(replace(profile, hardware={"cores": 4}), "native")
    assert roomy.beside == pytest.approx((0.0, 0.5, 1.0, 1.0))
    all_by_the_byte = host(Profile(constants), "paced")
    assert (all_by_the_byte.byte_cost, all_by_the_byte.moving) == (2e-9, 0.0)
    unknown = {name: one for name, one in constants.items() if "beside" not in name}
    assert host(replace(profile, constants=unknown), "native").beside == ()


def test_machines_one_by_one_are_calibrated_too() -> None:
    machines = [{"name": n, "bandwidth": "1 Gbit/s"} for n in "abcd"]
    tree = {"cluster": {"workers": 3, "machines": machines}, "run": {"steps": 1, "links": "paced"}}
    cluster = PROFILE.apply(Scenario.from_dict(tree)).cluster
    assert {(m.up, m.latency) for m in cluster.machines} == {(0.98 * 125e6, 1e-4)}


def test_an_empty_profile_changes_nothing() -> None:
    for run in ({"compute": "native", "links": "native"}, {"compute": "paced", "links": "paced"}):
        assert Profile({}).apply(scenario(**run)) == scenario(**run)


def test_warnings() -> None:
    inside = scenario(compute="native")
    assert PROFILE.warnings(inside, {"cpu": "this one", "cores": 2}) == []
    found = PROFILE.warnings(
        inside.override({"cluster.workers": 8, "workload.batch": 64}), {"cpu": "another"}
    )
    assert [line.split(":")[0] for line in found] == ["another hardware", "another workload", "out of range"]
    assert "workers is 8, calibrated between 2 and 4" in found[-1]
    large = PROFILE.warnings(inside.override({"workload.parameters": 10_000_000}))
    assert any("message_bytes is 4e+07" in line for line in large)


def test_what_a_prediction_does_without_is_told() -> None:
    """Without one of them the host is as fast as one with a core for everybody."""
    cost = {"host.paced.byte_cost": constant(2e-9), "device.slots": constant(2.0, "1")}
    whole = replace(PROFILE, constants={**PROFILE.constants, **cost, "host.native.byte_cost": constant(1e-9)})
    for compute in ("native", "paced"):
        made = scenario(compute=compute, links="paced")
        assert not any("not measured" in flag for flag in whole.warnings(made))
        for name in ("device.slots", "step_time.mean", "host.paced.byte_cost"):
            short = replace(whole, constants={k: c for k, c in whole.constants.items() if k != name})
            assert f"not measured: {name}; the prediction does without" in short.warnings(made)
    other = scenario(compute="paced", links="paced").override({"workload.batch": 64})
    assert any("another workload: batch is 64" in flag for flag in whole.warnings(other))
    assert PROFILE.warnings(other) == []  # nothing of the host: paced steps take what they are told to


def test_files(tmp_path) -> None:
    path = tmp_path / "profile.json"
    PROFILE.write(path)
    assert Profile.read(path) == PROFILE
    with pytest.raises(ScenarioError, match="cannot be written"):
        PROFILE.write(tmp_path / "no" / "folder.json")
    with pytest.raises(ScenarioError, match="cannot be read"):
        Profile.read(tmp_path / "none.json")


def one(name: str = "step_time.mean", **parts: object) -> dict:
    """A profile's table of constants with one in it, some of its parts changed."""
    return {"constants": {name: {"value": 1, "unit": "s", "low": 0, "high": 3, **parts}}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 9}, "calibrate again"),
        ({"version": 1}, "version: 1 is not valid; expected 3; calibrate again"),
        ({"hardware": {"cores": 0.5}}, "hardware.cores: 0.5 is not valid; expected a whole number"),
        ({"hardware": {"cores": "many"}}, "hardware.cores: 'many' is not valid"),
        ({"constants": []}, "a table of constants"),
        ({"constants": {"link.paced.latency": {"value": 1}}}, r"constants\.link\.paced\.latency"),
        ({"constants": {}}, r"constants: \{\} is not valid; expected a table of constants, one at least"),
        (one(low=2, high=3), r"constants\.step_time\.mean\.low: 2"),
        (one(value=None), r"constants\.step_time\.mean\.value: null is not valid; expected a finite number"),
        (one(value="1 s"), r"constants\.step_time\.mean\.value: '1 s'"),
        (one(value=10**400), r"constants\.step_time\.mean\.value: 1000"),
        (one(value=-1, low=-1), r"bad\.json: constants\.step_time\.mean\.value: -1 .* above 0"),
        (one(unit="kg"), r"constants\.step_time\.mean\.unit: 'kg' is not valid; expected 's'"),
        (one(samples="x"), r"constants\.step_time\.mean\.samples: 'x' .* whole number of at least 1"),
        (one(samples=0), r"constants\.step_time\.mean\.samples: 0"),
        (one(note=3), r"constants\.step_time\.mean\.note: 3"),
        (one(valeu=3), r"constants\.step_time\.mean\.valeu: no such field — did you mean 'value'"),
        (one("link.paced.bandwidth", unit="bytes/s", value=0, low=0), r"link\.paced\.bandwidth\.value: 0"),
        (one("step_time.maen"), r"constants\.step_time\.maen: no such constant"),
        (one("step_time.mean.x"), r"no such constant"),
        (
            one("step_time.spread", unit="1", value=2, low=2, high=2)
            | {"step_time_model": "shifted_exponential"},
            r"constants\.step_time\.spread\.value: 2",
        ),
        (
            {"step_time_model": "gaussian"},
            r"step_time_model: 'gaussian' .* one of constant, gamma, lognormal",
        ),
        ({"step_time_model": ["gamma"]}, r"step_time_model: \['gamma'\]"),
        ({"when": 3}, r"when: 3 is not valid; expected a date in ISO 8601"),
        ({"when": "yesterday"}, r"when: 'yesterday'"),
        ({"ranges": {"message_bytes": ["a", "b"]}}, r"ranges\.message_bytes: 'a' .* finite number"),
        (
            {"ranges": {"workers": [4, 2]}},
            r"ranges\.workers: \[4, 2\] .* the lowest number, then the highest",
        ),
        ({"ranges": {"wrokers": [1, 2]}}, r"ranges\.wrokers: no such field — did you mean 'workers'"),
        ({"hardwear": {}}, "did you mean 'hardware'"),
        ({"ranges": {"workers": 3}}, r"ranges\.workers: 3 is not valid; expected two numbers"),
        ({"ranges": []}, r"ranges: \[\] is not valid; expected a table"),
        ({"workload": "mlp"}, "workload: 'mlp'"),
    ],
)
def test_bad_profiles(tmp_path, change, says) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(PROFILE.to_dict() | change), encoding="utf-8")
    with pytest.raises(ScenarioError, match=says):
        Profile.read(path)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(ScenarioError, match="is no profile"):
        Profile.read(path)


def test_files_that_cannot_be_read(tmp_path) -> None:
    path = tmp_path / "profile.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ScenarioError, match="nested too deeply"):
        Profile.read(path)
    path.write_text('{"version": ' + "1" * 5000 + "}", encoding="utf-8")
    with pytest.raises(ScenarioError, match="cannot be read"):
        Profile.read(path)
    path.write_text("\ufeff" + json.dumps(PROFILE.to_dict()), encoding="utf-8")
    assert Profile.read(path) == PROFILE


def test_a_profile_leaves_the_links_of_a_topology_as_they_are() -> None:
    tree = {"racks": 2, "machines_per_rack": 2, "bandwidth": 1e9, "uplink": 5e8}
    scenario = Scenario.from_dict({"cluster": tree, "run": {"steps": 5}})
    predicted = PROFILE.apply(scenario)
    assert predicted.cluster.machines == scenario.cluster.machines
    assert predicted.cluster.topology == scenario.cluster.topology
    assert predicted.cluster.network.overhead == 3e-5
    assert Scenario.from_dict(predicted.to_dict()) == predicted

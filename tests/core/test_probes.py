"""Probe programs, in virtual time: what they measure is what they say, and they end when they should."""

from __future__ import annotations

import numpy as np
import pytest

import scenarios
from analysis.calibrate import fit_message, fit_tensors, observed, step_times
from core.probes import DUPLEX, HUB, PING, STREAM, TALKS, TURN, fewest
from core.record import KINDS, Record
from core.tensors import OPERATIONS
from sim import simulate

GROUPS = [1, 2, 4, 8]


def probe(name: str, workers: int, **fields: object) -> Record:
    own = {f"algorithm.options.{key}": value for key, value in fields.items() if "." not in key}
    rest = {key: value for key, value in fields.items() if "." in key}
    given = {"algorithm.name": f"core.probes:{name}", "cluster.workers": workers, "run.steps": 1000}
    return simulate(scenarios.load("demo", {**given, "run.compute": "native", **own, **rest}))


@pytest.mark.parametrize("seconds", [0.0, 1.35])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_every_measured_step_is_one_beside_as_many_others(seconds: float, spread: float) -> None:
    """Eight on a device that serves two at full speed: of n at once each is n / 2 times slower."""
    compute = {"mean": 0.1} if not spread else {"model": "gamma", "mean": 0.1, "spread": spread}
    shared = {"cluster.workers_per_device": 8, "cluster.device_slots": 2.0, "cluster.compute": compute}
    record = probe("StepProbe", 8, groups=GROUPS, seconds=seconds, **shared)
    for n in GROUPS:
        times = step_times(record, n)
        assert len(times) >= n * (fewest(n) - 1) >= 8
        expected = 0.1 * max(1.0, n / 2)
        near = 1e-6 if not spread else 4 * spread / np.sqrt(len(times))
        assert times.mean() == pytest.approx(expected, rel=near)
        least = n * (fewest(n) - 1)
        assert (len(times) > least) == (seconds > fewest(n) * expected) or spread
    assert sum(len(step_times(record, n)) for n in GROUPS) < len(record.steps["step"])
    assert record.duration < (6 if seconds == 0 else 12)


def test_a_step_probe_makes_no_more_steps_than_it_may() -> None:
    record = probe("StepProbe", 1, groups=[1], seconds=1e6, most=12)
    assert len(step_times(record, 1)) == 11
    assert len(record.steps["step"]) == 12
    budget = probe("StepProbe", 2, groups=[2], seconds=1e6, **{"run.steps": 7})
    assert len(budget.steps["step"]) == 14, "and ends with its budget"


def test_tensor_operations_follow_steps_each_of_them_first_in_turn_and_messages_follow_others() -> None:
    seconds = dict(zip(OPERATIONS, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True))
    host = {"cluster.host": {"cores": 4, "message": 0.25}, "cluster.tensor_seconds": seconds}
    record = probe("TensorProbe", 2, repeats=6, **host)
    kinds = record.observations["kind"].reshape(6, len(OPERATIONS))
    assert sorted(kinds[:, 0].tolist()) == list(range(len(OPERATIONS)))
    assert all(sorted(row) == list(range(len(OPERATIONS))) for row in kinds.tolist())
    taken = fit_tensors(record)
    for operation, each in seconds.items():
        rate = record.observations["bytes"][0] / each
        assert taken[f"tensor_rate.{operation}"].value == pytest.approx(rate, rel=1e-6)
    assert fit_message(record).value == pytest.approx(0.25, rel=1e-6)
    assert fit_message(record).samples == 6, "the first round counts in neither"
    assert len(record.steps["step"]) == TALKS * 7
    quiet = probe("TensorProbe", 2, repeats=6, **{"cluster.host": {"cores": 4}})
    assert fit_message(quiet).value == 0.0
    with pytest.raises(ValueError, match="workers: 3 is not valid; expected 2 for"):
        probe("TensorProbe", 3)


def test_a_hub_observes_rounds_of_one_message_from_each() -> None:
    record = probe("AllReduceProbe", 5, parts=[], hub=0.5, **{"run.steps": 1, "cluster.host.cores": 2})
    (nbytes,) = set(record.observations["bytes"])
    one = nbytes / 125e6
    nbytes_all, seconds = observed(record, HUB)
    assert len(nbytes_all) == len(seconds) == 3
    assert seconds == pytest.approx(np.full(3, one), rel=0.01)
    host = {"cores": 2, "handover": one}
    late = probe("AllReduceProbe", 5, parts=[], hub=0.5, **{"run.steps": 1, "cluster.host": host})
    assert observed(late, HUB)[1] == pytest.approx(np.full(3, 2 * one), rel=0.01)
    with pytest.raises(ValueError, match="workers: 2 is not valid; expected 3 or more"):
        probe("AllReduceProbe", 2, parts=[], hub=0.5)


def test_only_small_messages_make_round_trips() -> None:
    seen = probe("LinkProbe", 2, repeats=3, pings=2).observations
    sizes = {kind: sorted(set(seen["bytes"][seen["kind"] == kind])) for kind in (PING, STREAM, DUPLEX)}
    assert sizes[STREAM] == sizes[DUPLEX]
    assert sizes[PING] == sizes[STREAM][:2]
    assert len(sizes[STREAM]) == 4
    none = probe("LinkProbe", 2, repeats=3, pings=0).observations
    assert not (none["kind"] == PING).any()


def test_probes_send_parts_of_the_vector() -> None:
    for name, n in (("RelayProbe", 2), ("BesideProbe", 3)):
        whole, half = (probe(name, n, part=part, **{"run.steps": 12}).nodes for part in (1.0, 0.5))
        if name == "RelayProbe":
            assert half["bytes_out"].sum() == pytest.approx(whole["bytes_out"].sum() / 2, rel=1e-3)
        else:
            per_message = [nodes["bytes_out"][1:] / nodes["messages_out"][1:] for nodes in (whole, half)]
            assert per_message[1] == pytest.approx(per_message[0] / 2, rel=0.1)


def test_messages_move_both_ways_in_every_second_phase_and_only_then() -> None:
    """Four compute; a message of 36 ms takes 0.36 of a step of 0.1 s, and is answered at once."""
    own = {"cluster.compute.mean": 0.1, "run.spans": True, "run.steps": 16}
    record = probe("BesideProbe", 6, phase=4, **own)
    assert sorted(set(record.steps["node"].tolist())) == [0, 1, 2, 3]
    spans = record.spans
    moved = spans["kind"] == KINDS.index("transfer")
    large = moved & (spans["end"] - spans["start"] > 0.01)
    assert set(spans["node"][large].tolist()) == {4, 5}
    middles = (spans["start"][large] + spans["end"][large]) / 2
    assert 2 * 2 * 11 <= len(middles) <= 2 * 2 * 13, "0.4 / 0.036 each way and phase, and what was under way"
    assert ((middles % 0.8 >= 0.4) | (middles % 0.8 <= 0.08)).all()


def test_who_has_its_turn_in_a_relay_makes_several_steps() -> None:
    rows = probe("RelayProbe", 2, **{"run.steps": 3 * TURN}).steps
    assert len(rows["step"]) == 2 * 3 * TURN
    paused = rows["receive"] + rows["wait"] > 0.05  # booked to the step before
    paused[(rows["node"] == 1) & (rows["step"] == 0)] = False  # before its first
    last_of_turn = rows["step"] % TURN == TURN - 1
    assert not paused[~last_of_turn].any()
    assert paused[last_of_turn & (rows["step"] < 2 * TURN)].all()

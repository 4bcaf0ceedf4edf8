"""Constants of several repetitions: intervals cover changes, the disturbed are outvoted, doubts told."""

from __future__ import annotations

import pytest

from analysis.repetitions import doubt, doubts, merge, merged, middle
from scenarios.profile import Constant


def constant(value: float, width: float = 0.02, unit: str = "s") -> Constant:
    return Constant(value, unit, value * (1 - width), value * (1 + width), 10)


def test_one_repetition_is_what_it_is() -> None:
    assert merge([constant(0.05)]) == constant(0.05)


def test_the_interval_of_two_covers_both() -> None:
    both = merge([constant(0.05), constant(0.06)])
    assert both.value == pytest.approx(0.055)
    assert (both.low, both.high) == (pytest.approx(0.049), pytest.approx(0.0612))
    assert both.samples == 20


def test_a_disturbed_repetition_is_outvoted_and_the_note_says_so() -> None:
    three = merge([constant(0.05), constant(0.2), constant(0.051)])
    assert three.value == pytest.approx(0.0505)
    assert three.high < 0.06
    assert three.note == "1 of 3 repetitions outvoted"
    four = merge([constant(0.05), constant(0.2), constant(0.051), constant(0.052)])
    assert four.value == pytest.approx(0.051)
    with pytest.raises(ValueError, match="no repetition"):
        merge([])


def test_the_middle_half_is_nearer_to_the_mean_than_those_that_lie_closest_together() -> None:
    """Most pauses cost nothing, some much; what disturbs one probe in five is left out all the same."""
    costs = [constant(value, 0.1) for value in (0.0001, 0.001, 0.0002, 0.004, 0.005, 0.0001, 0.9, 0.003)]
    found = middle(costs)
    assert found.value == pytest.approx((0.0002 + 0.001 + 0.003 + 0.004) / 4)
    assert found.value > 2 * merge(costs).value
    assert (found.low, found.high) == pytest.approx((0.0002 * 0.9, 0.004 * 1.1))
    assert middle(costs[:1]) == costs[0]
    exact = constant(1.9999999999999993, 0.0)
    for count in range(1, 40):  # the mean of equal ones may lie beside them, by its last bit
        assert middle([exact] * count).value == pytest.approx(2.0)
    assert middle(costs[:2]).value == pytest.approx(0.00055)
    with pytest.raises(ValueError, match="no repetition"):
        middle([])


def test_what_scatters_or_disagrees_is_in_doubt() -> None:
    """A device that served one worker the first time and two the second is not believed."""
    slots = merge([constant(1.0, unit="1"), constant(2.0, unit="1")])
    assert "times as wide as it may be" in doubt("device.slots", slots)
    assert not doubt("device.slots", merge([constant(2.0, unit="1")] * 2))
    assert doubt("step_time.mean", constant(0.05, 0.2))
    assert not doubt("step_time.mean", constant(0.05, 0.05))
    assert not doubt("link.paced.latency", constant(1e-4, 0.9)), "nobody notices 0.1 ms"
    assert not doubt("some.other", constant(1.0, 0.9))
    assert doubt("device.slots", constant(1.0, 0.1501)).endswith(", 1.1 times as wide as it may be")
    assert doubt("device.slots", constant(1.0, 30.0)).endswith("more than 100 times as wide as it may be")


def test_tables_are_merged_by_name() -> None:
    first = {"step_time.mean": constant(0.05), "device.slots": constant(2.0, unit="1")}
    second = {"step_time.mean": constant(0.09)}
    found = merged([first, second])
    assert found["step_time.mean"].value == pytest.approx(0.07)
    assert found["device.slots"] == first["device.slots"]
    assert set(doubts(found)) == {"step_time.mean"}

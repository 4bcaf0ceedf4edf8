"""Steps on shared devices: processor sharing, exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

import sim
from sim.alarm import Alarm
from sim.clock import Clock
from sim.compute import Device, devices
from sim.cores import Cores
from tests.sim.programs import scenario


class Done(Alarm):
    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, -1.0

    def fire(self) -> None:
        self.at = self.clock.now


class Begin(Alarm):
    def __init__(self, device: Device | Cores, done: Done, base: float, factor: float) -> None:
        self.device, self.done, self.base, self.factor = device, done, base, factor

    def fire(self) -> None:
        self.device.run(self.done, self.base, self.factor)


def ends(jobs: list[tuple[float, float, float]], slots: float) -> list[float]:
    """When jobs (start, base seconds, factor) on one device end."""
    return ends_on(jobs, lambda clock: Device(clock, slots))


def ends_on(
    jobs: Sequence[tuple[float, float, float]], made: Callable[[Clock], Device | Cores]
) -> list[float]:
    """The same on what ``made`` makes."""
    clock = Clock()
    device = made(clock)
    done = [Done(clock) for _ in jobs]
    for (start, base, factor), one in zip(jobs, done, strict=True):
        clock.at(start, Begin(device, one, base, factor))
    clock.drain()
    return [one.at for one in done]


def test_workers_share_a_device_equally() -> None:
    assert ends([(0, 1, 1), (0, 1, 1)], 1) == pytest.approx([2, 2])
    assert ends([(0, 2, 1), (1, 2, 1)], 1) == pytest.approx([3, 4])


def test_slots_serve_so_many_at_full_speed() -> None:
    assert ends([(0, 1, 1), (0, 1, 1)], 2) == pytest.approx([1, 1])
    assert ends([(0, 1, 1)] * 3, 2) == pytest.approx([1.5] * 3)
    assert ends([(0, 3, 1), (0, 3, 1), (1, 1, 1)], 1.5) == pytest.approx([14 / 3, 14 / 3, 3], rel=1e-9)


def test_a_slow_down_is_lost_beside_the_device() -> None:
    assert ends([(0, 1, 3)], 1) == pytest.approx([3])
    assert ends([(0, 1, 3), (0, 1, 1)], 1) == pytest.approx([2 + 2 * 2, 2])


class Cancel(Alarm):
    def __init__(self, device: Device | Cores, done: Done) -> None:
        self.device, self.done, self.left = device, done, -1.0

    def fire(self) -> None:
        self.left = self.device.cancel(self.done)


def test_what_is_cancelled_leaves_the_device_to_the_others_and_never_ends() -> None:
    """Jobs of 1 and 2 s: at 0.5 s a quarter of a second of each is done. A third comes at 1 s."""
    clock = Clock()
    device = Device(clock, 1.0)
    first, second, third, stranger = (Done(clock) for _ in range(4))
    device.run(first, 1.0, 1.0)
    device.run(second, 2.0, 1.0)
    ends = [Cancel(device, first), Cancel(device, stranger), Cancel(device, third)]
    for at, end in zip((0.5, 0.6, 3.25), ends, strict=True):
        clock.at(at, end)
    clock.at(1.0, Begin(device, third, 1.0, 1.0))
    clock.drain()
    assert [end.left for end in ends] == pytest.approx([0.75, 0.0, 0.0])
    assert (first.at, second.at, third.at) == (-1.0, pytest.approx(3.25), pytest.approx(3.0))


def test_a_device_that_is_left_by_all_serves_the_next_at_full_speed() -> None:
    clock = Clock()
    device = Device(clock, 0.5)
    first, next_one = Done(clock), Done(clock)
    device.run(first, 1.0, 1.0)
    end = Cancel(device, first)
    clock.at(0.4, end)
    clock.at(0.4, Begin(device, next_one, 1.0, 1.0))
    clock.drain()
    assert end.left == pytest.approx(0.8)
    assert (first.at, next_one.at) == (-1.0, pytest.approx(2.4))


def test_devices_are_filled_in_order_of_rank() -> None:
    made = devices(Clock(), 5, 2, 1.0)
    assert made[0] is made[1] is not made[2]
    assert made[2] is made[3] is not made[4]
    assert devices(Clock(), 3, 1, 1.0) == [None] * 3


def test_a_shared_device_shows_in_the_step_times() -> None:
    record = sim.simulate(scenario(4, 3, "arsgd", workers_per_device=2, bandwidth=1e15))
    assert record.nodes["compute"] == pytest.approx([6.0] * 4)
    assert record.steps["compute"] == pytest.approx([2.0] * 12)

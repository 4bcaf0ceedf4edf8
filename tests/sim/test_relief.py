"""What the dead and the silent were at keeps no device busy: those that share one with them go on faster."""

from __future__ import annotations

from typing import Any

import pytest

from core.record import Record
from scenarios.plan import plan
from sim.alarm import Alarm
from sim.cores import Cores
from sim.faults import Faulty
from tests.sim.test_faults import chosen, run
from tests.sim.test_silence import EASY, NEVER

ONE_CORE: dict[str, Any] = {"cores": 1, "byte_cost": 0.0, "gradient": 0.0, "cold": 0.0, "ring_lag": 0.0}

ON_A_HOST = EASY | {"cluster__host": ONE_CORE, "run__compute": "paced"}


def crash(rank: int, at: float, **more: Any) -> dict[str, Any]:
    return {"kind": "crash", "ranks": [rank], "at": at, **more}


def first(record: Record, part: str) -> float:
    """Seconds of a part of the first step of worker 0; ``end``: when its second begins."""
    steps = record.steps
    return float(steps[part][(steps["node"] == 0) & (steps["step"] == 0)][0])


def test_a_step_of_who_has_died_leaves_the_shared_device_to_the_other() -> None:
    """Steps of 0.1 s, two workers on a device: half done after 0.1 s, and alone it takes 0.05 s more."""
    sharing = EASY | {"cluster__workers_per_device": 2}
    alone = first(run("aladdin", [crash(1, 0.1)], **sharing), "compute")
    assert alone == pytest.approx(0.15, rel=1e-9)
    both = first(run("aladdin", [crash(1, 1.0)], **sharing), "compute")
    assert both == pytest.approx(0.2, rel=1e-9)


def test_a_backward_pass_of_who_has_died_leaves_the_shared_device_to_the_other() -> None:
    sharing = EASY | {"cluster__workers_per_device": 2, "algorithm__options": {"overlap": "backward"}}
    alone = first(run("arsgd", [crash(1, 0.1)], **sharing), "compute")
    assert alone == pytest.approx(0.15, rel=1e-9)


def test_tensor_work_of_who_has_died_leaves_the_host_to_the_others() -> None:
    """After steps of 0.1 s gradients are applied for 0.1 s of the one core: two at once for 0.2 s."""
    paced = ON_A_HOST | {"cluster__tensor_seconds": {"apply": 0.1}}
    both = first(run("aladdin", [crash(1, 9.0)], **paced), "update")
    assert both == pytest.approx(0.2, rel=1e-9)
    alone = first(run("aladdin", [crash(1, 0.2)], **paced), "update")
    assert alone == pytest.approx(0.15, rel=1e-9)


def test_gradients_that_the_dead_computed_beside_a_pause_leave_the_host() -> None:
    """Steps last 0.1 s whatever they cost the host; that goes on without the 0.2 s of who died at 0.05 s."""
    paced = ON_A_HOST | {"cluster__host": ONE_CORE | {"gradient": 0.2}}
    driver = Faulty(plan(chosen("aladdin", [crash(1, 0.05)], **paced)))
    seen: list[int] = []
    lose = driver.lose

    def watched(host: Any) -> None:
        assert driver.processor is not None
        seen.append(len(driver.processor.work))
        lose(host)
        seen.append(len(driver.processor.work))

    driver.lose = watched  # type: ignore[method-assign]
    driver.run()
    assert seen == [2, 1]


def test_a_request_of_who_has_died_leaves_the_host_to_the_others() -> None:
    """Two requests of 0.1 s each are half made 0.1 s after the step; what is left of one takes 0.05 s alone.

    Then its message takes 0.05 s, and the model comes back in 0.1 s and 0.05 s.
    """
    late = {"cluster__latency": 0.1}
    end = first(run("asp", [crash(1, 0.2)], **ON_A_HOST | late), "end")
    assert end == pytest.approx(0.1 + 0.1 + 0.05 + 0.05 + 0.15, rel=1e-9)


@pytest.mark.parametrize("links", ["native", "paced"])
def test_a_message_of_who_has_died_leaves_the_host_to_the_others(links: str) -> None:
    """Worker 0 waits for the message of worker 1, with whose 0.05 s the core is busy for 0.1 s."""
    bytes_cost = {"cluster__host": ONE_CORE | {"byte_cost": 2e-9}, "run__links": links}
    slow = {"cluster__slowdowns": [{"kind": "fixed", "ranks": [0], "factor": 1.2}]}
    before, after = (
        first(run("asp", [crash(1, at)], **ON_A_HOST | bytes_cost | slow), "end") for at in (9.0, 0.15)
    )
    assert after == pytest.approx(0.15 + 0.1 + 0.1, rel=1e-9)
    assert before > after


def test_a_message_of_who_has_died_amid_its_overhead_leaves_its_slot_and_the_host() -> None:
    """Worker 0 asks at 0.12 s; it has its grant when worker 1 dies at 0.13 s: 0.2 s each way from then on.

    0.05 s of overhead and as much of bytes, in which it asks for two cores and has one.
    """
    bytes_cost = {"cluster__host": ONE_CORE | {"byte_cost": 2e-9}, "cluster__network__overhead": 0.05}
    slow = {"cluster__slowdowns": [{"kind": "fixed", "ranks": [0], "factor": 1.2}]}
    end = first(run("asp", [crash(1, 0.13)], **ON_A_HOST | bytes_cost | slow), "end")
    assert end == pytest.approx(0.13 + 0.2 + 0.2, rel=1e-9)


@pytest.mark.parametrize(("links", "amid"), [("native", 1.5), ("paced", 1.4)])
@pytest.mark.parametrize("kind", ["freeze", "cut"])
def test_what_a_message_on_a_busy_host_had_left_it_has_left_after_a_silence(
    kind: str, links: str, amid: float
) -> None:
    """The core is busy for 0.1 s with 0.05 s of message; half of it is left at 0.15 s, and for a second.

    Paced links know when an overhead is over: that of messages over native ones takes its part of the core.
    """
    bytes_cost = {"cluster__host": ONE_CORE | {"byte_cost": 2e-9}, "cluster__workers": 1, "run__links": links}
    fault = {"kind": kind, "servers": [0], "at": 0.15, "back": 1.0}
    assert first(run("asp", [NEVER], **ON_A_HOST | bytes_cost), "end") == pytest.approx(0.3, rel=1e-9)
    assert first(run("asp", [fault], **ON_A_HOST | bytes_cost), "end") == pytest.approx(1.3, rel=1e-9)
    amid_overhead = bytes_cost | {"cluster__network__overhead": 0.05}
    early = fault | {"at": 0.12, "back": 1.0}
    end = first(run("asp", [early], **ON_A_HOST | amid_overhead), "end")
    assert end == pytest.approx(amid, rel=1e-9)


def test_a_paced_message_is_a_load_while_its_bytes_move_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Granted at 0.1 s, its bytes move from 0.15 s on; they would for 0.05 s, but cost the core 0.1 s."""
    loads: list[tuple[float, float, float]] = []
    move = Cores.move

    def noted(self: Cores, alarm: Alarm, seconds: float, weight: float, *, paced: bool = False) -> None:
        assert paced
        loads.append((self._clock._now, seconds, weight))
        move(self, alarm, seconds, weight, paced=paced)

    monkeypatch.setattr(Cores, "move", noted)
    paced = {"cluster__host": ONE_CORE | {"byte_cost": 2e-9}, "cluster__workers": 1, "run__links": "paced"}
    end = first(run("asp", [NEVER], **ON_A_HOST | paced | {"cluster__network__overhead": 0.05}), "end")
    assert loads[:2] == [pytest.approx((0.15, 0.05, 2.0)), pytest.approx((0.3, 0.05, 2.0))]
    assert end == pytest.approx(0.4)

"""What a scheduler's trace says of steps, on traces written by hand."""

from __future__ import annotations

import pytest

from benchmarks.where_steps_wait import follow, read, report

HEAD = "python 9/9 [{cpu:03}] {time}: sched:sched_"


def lines(*events: tuple[float, int, str]) -> list[str]:
    return [HEAD.format(cpu=cpu, time=time) + what for time, cpu, what in events]


def fork(parent: int, child: int) -> str:
    return f"process_fork: comm=python pid={parent} child_comm=python child_pid={child}"


def switch(before: int, state: str, after: int, name: str = "python") -> str:
    return (
        f"switch: prev_comm=a b prev_pid={before} prev_prio=120 prev_state={state} "
        f"==> next_comm={name} next_pid={after} next_prio=120"
    )


def waking(tid: int, cpu: int) -> str:
    return f"waking: comm=computer pid={tid} prio=120 target_cpu={cpu:03}"


START = ((0.0, 0, fork(1, 10)), (0.0, 0, fork(10, 11)), (0.0, 0, fork(1, 12)))


def seen(*events: tuple[float, int, str]) -> dict[tuple[str, str, str], float]:
    """Seconds of one step by where it was."""
    (step,), _ = follow(read(lines(*START, *events), root=1), skip=0.0, least=0.001)
    return {key: pytest.approx(value) for key, value in step.spent.items() if value > 1e-9}


def test_a_step_runs_and_waits_behind_what_has_its_core() -> None:
    """Thread 10 computes; 11 is another thread of the run, 12 computes too, 99 is none of it."""
    found = seen(
        (1.0, 1, switch(0, "S", 12, "computer")),
        (1.0, 0, waking(10, 0)),
        (1.001, 0, switch(0, "S", 10, "computer")),
        (1.011, 0, switch(10, "R+", 11)),
        (1.014, 0, switch(11, "S", 99, "editor")),
        (1.018, 0, switch(99, "S", 10, "computer")),
        (1.020, 0, switch(10, "S", 0, "swapper/0")),
    )
    assert found == {
        ("off", "idle", "step"): 0.001,
        ("on", "itself", "step"): 0.012,
        ("off", "messages", "step"): 0.003,
        ("off", "others", "step"): 0.004,
    }


def test_a_step_waits_on_the_core_that_it_was_woken_for_or_moved_to() -> None:
    found = seen(
        (1.0, 0, switch(0, "S", 12, "computer")),
        (1.0, 1, switch(0, "S", 11)),
        (1.0, 1, waking(10, 0)),
        (1.002, 1, switch(11, "S", 0, "swapper/1")),
        (1.005, 1, "migrate_task: comm=computer pid=10 prio=120 orig_cpu=0 dest_cpu=1"),
        (1.006, 1, switch(0, "S", 10, "computer")),
        (1.010, 1, switch(10, "S", 0, "swapper/1")),
    )
    assert found == {
        ("off", "step", "messages"): 0.002,
        ("off", "step", "idle"): 0.003,
        ("off", "idle", "step"): 0.001,
        ("on", "itself", "step"): 0.004,
    }


def test_who_is_woken_up_before_it_has_gone_to_sleep_begins_with_its_next_turn() -> None:
    found = seen(
        (0.5, 0, switch(0, "S", 10, "computer")),
        (0.5003, 0, waking(10, 0)),
        (0.5004, 0, switch(10, "S", 0, "swapper/0")),
        (0.501, 0, switch(0, "S", 10, "computer")),
        (0.561, 0, switch(10, "S", 0, "swapper/0")),
    )
    assert found == {("on", "itself", ""): 0.06}


def test_short_and_early_steps_and_those_of_others_do_not_count() -> None:
    turns = [
        (at + late, 0, switch(*who))
        for at, long in ((1.0, 0.02), (3.0, 0.0005), (5.0, 0.02))
        for late, who in ((0.0, (0, "S", 10, "computer")), (long, (10, "S", 0, "swapper/0")))
    ]
    foreign = [(4.0, 1, switch(0, "S", 77, "computer")), (4.9, 1, switch(77, "S", 0, "swapper/1"))]
    trace = read(lines(*START, *sorted([*turns, *foreign])), root=1)
    assert trace.computers == {10}
    steps, used = follow(trace, skip=2.0, least=0.001)
    assert [step.began for step in steps] == [5.0]
    found = report(steps, used)
    assert (found["steps"], found["length"], found["on_core"], found["off_core"]) == (1, 20.0, 20.0, 0.0)
    assert found["rows"] == [["on", "itself", "idle", 20.0]]


def test_what_is_no_trace_is_none() -> None:
    assert (
        read(
            ["", "nonsense", "python 1/1 [000] 1.0: sched:sched_switch: python:13 [120] S ==> a:0 [120]"], 1
        ).events
        == []
    )

"""Random faults, delays and reorderings: hundreds by default, thousands marked slow, and what they found.

A failure says how to see it again, made as small as possible; ``benchmarks/fault_schedules.py`` does so for
as many as are asked for.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.algorithms import ALGORITHMS
from sim.frozen import Silences
from tests.conformance.dst import Outcome, play
from tests.conformance.shrinking import shrink, way
from tests.conformance.trials import Trial, draw

SEEDS, MANY = 15, 1500
"""Trials of each algorithm by default, and further ones marked slow."""

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "fault_schedules.py"


def hold(trial: Trial) -> Outcome:
    """Play it; a failure comes with the smallest trial that fails so."""
    try:
        return play(trial)
    except Exception as error:
        smallest, found = shrink(trial, play)
        again = f"python benchmarks/fault_schedules.py --replay '{json.dumps(smallest.plain())}'"
        error.add_note(f"made as small as possible ({found}), again with:\n{again}")
        raise


def hold_all(name: str, seeds: range) -> Counter[str]:
    """What struck in all of these trials."""
    return sum((hold(draw(name, seed)).faults for seed in seeds), Counter())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_whatever_happens_every_promise_is_kept(name: str) -> None:
    struck = hold_all(name, range(SEEDS))
    kinds = {"crash", "leave", "freeze", "cut"} | ({"join"} if name not in ("dpsgd", "sgp") else set())
    kinds |= {"server crash", "server freeze", "server cut"} if ALGORITHMS[name].centralized else set()
    assert kinds <= set(struck), "the trials are as varied as they claim"


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_whatever_else_happens_every_promise_is_kept(name: str) -> None:
    hold_all(name, range(SEEDS, SEEDS + MANY))


def test_a_trial_is_the_same_whenever_it_is_drawn_and_survives_json() -> None:
    for seed in range(10):
        trial = draw("aladdin", seed)
        assert trial == draw("aladdin", seed)
        again = Trial(**json.loads(json.dumps(trial.plain())))
        assert again.plain() == trial.plain()
        assert play(again) == play(trial)


def test_orders_differ_and_matter() -> None:
    """Another order or delay of messages gives another run of the same scenario."""
    drawn = [draw("asp", seed) for seed in range(40)]
    assert 10 < sum(trial.order is not None for trial in drawn) < 40
    changed = [replace(trial, order=1, delay=0.05) for trial in drawn]
    assert [play(trial).steps for trial in drawn] != [play(trial).steps for trial in changed]


# What checks and shrinking are worth


def spoiled(trial: Trial, name: str) -> Trial:
    tree = copy.deepcopy(trial.scenario)
    tree["algorithm"]["name"] = f"tests.conformance.careless.{name}"
    return replace(trial, scenario=tree)


def first_failure(base: str, name: str) -> tuple[Trial, Exception]:
    for seed in range(60):
        trial = spoiled(draw(base, seed), name)
        try:
            play(trial)
        except Exception as error:
            return trial, error
    raise AssertionError(f"{name} is as good as {base}")


@pytest.mark.parametrize(
    ("base", "name", "words", "kinds", "workers"),
    [
        ("asp", "Twice", "applied as", [{"crash"}, {"leave"}], 1),
        ("gosgd", "Generous", "of all weight is missing", [{"join"}, {"crash"}], 2),
        ("ssp", "Hasty", "ahead, not", [{"join"}, {"crash"}, {"leave"}], 3),
    ],
)
def test_a_broken_promise_is_found_and_made_as_small_as_can_be(
    base: str, name: str, words: str, kinds: list[set[str]], workers: int
) -> None:
    """One fault, no more workers than it takes, nothing more that can be dropped; it can be played again."""
    trial, error = first_failure(base, name)
    assert len(trial.scenario["faults"]) > 1
    smallest, found = shrink(trial, play)
    assert words in str(found)
    assert way(found) == way(error)
    scenario = smallest.scenario
    assert {fault["kind"] for fault in scenario["faults"]} in kinds
    assert len(scenario["faults"]) == 1
    assert scenario["cluster"]["workers"] <= workers
    assert scenario["cluster"]["servers"]["count"] == 1
    nothing = replace(smallest, scenario={**scenario, "faults": []})
    assert play(nothing).end == "over"
    with pytest.raises(AssertionError, match=words):
        play(Trial(**json.loads(json.dumps(smallest.plain()))))


def test_what_does_not_fail_cannot_be_shrunk() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        shrink(draw("asp", 0), play)


# The command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def test_the_command_reports_what_it_ran() -> None:
    done = command("--runs", "6", "--jobs", "1", "--algorithm", "asp", "gosgd", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["runs"] == 6
    assert {name: of["runs"] for name, of in report["by_algorithm"].items()} == {"asp": 3, "gosgd": 3}
    assert report["failed"] == []
    assert sum(report["ends"].values()) == 6


def test_the_command_replays_and_exits_with_1_where_a_promise_is_broken() -> None:
    trial = draw("asp", 2)
    assert command("--replay", json.dumps(trial.plain())).returncode == 0
    failing, _ = first_failure("asp", "Twice")
    done = command("--replay", json.dumps(failing.plain()))
    assert done.returncode == 1
    assert "applied as" in done.stderr


def test_the_command_refuses_bad_input_with_2() -> None:
    nobody = draw("asp", 2).plain()
    nobody["scenario"]["cluster"]["workers"] = 0
    for arguments, words in (
        (("--algorithm", "aspp"), "--algorithm: 'aspp' is not valid; expected one of"),
        (("--runs", "0"), "--runs, --jobs: a whole number of at least 1"),
        (("--replay", "[]"), "--replay: "),
        (("--replay", json.dumps(nobody)), "--replay: cluster.workers: 0 is not valid"),
    ):
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(words)


# What was found


def small(
    name: str, workers: int, parameters: int, run: dict[str, Any], faults: list[Any], **more: Any
) -> Trial:
    """A trial that once failed, as it was shrunk; ``order``, ``delay``: of the trial."""
    cluster: dict[str, Any] = {
        "workers": workers, "bandwidth": 1e6, "latency": 0.05,
        "servers": {"count": 1, "placement": "dedicated", "sharding": "memory"},
        "network": {"window": 1, "collective": "messages"},
        "compute": {"model": "constant", "mean": 0.05},
    }  # fmt: skip
    options, order, delay = more.pop("options", {}), more.pop("order", None), more.pop("delay", 0.0)
    tree = {
        "name": "found", "cluster": cluster | more, "run": run, "faults": faults,
        "workload": {"parameters": parameters, "batch": 1, "data": "synthetic", "samples": 1},
        "algorithm": {
            "name": name, "options": options, "lr": 1.0, "lr_scaling": "none", "momentum": 0.0,
        },
    }  # fmt: skip
    return Trial(tree, order, delay)


FAST = {"model": "shifted_exponential", "mean": 0.05, "spread": 1.0}
LOGNORMAL = {"model": "lognormal", "mean": 0.05, "spread": 0.8}
WORK = {"apply": 0.02, "mix": 0.01, "accumulate": 0.005, "snapshot": 0.005}


def test_who_is_held_up_by_a_window_does_not_send_to_a_former_life() -> None:
    """A blocked send to a worker that had left went off in the instant in which that came back."""
    leave = {"kind": "leave", "ranks": [0], "at": 0.47, "back": 0.000319}
    hold(small("gosgd", 5, 500, {"seed": 101, "steps": 10}, [leave], bandwidth=20800.0, latency=0,
               options={"p": 0.5, "on_busy": "wait"}))  # fmt: skip


def test_a_joiner_that_finds_all_done_has_no_weight() -> None:
    """It was recorded with 1/n, so that all weights summed to more than 1."""
    join = {"kind": "join", "ranks": [0], "at": 0.22}
    hold(small("gosgd", 2, 200, {"seed": 0, "steps": 4}, [join], compute=LOGNORMAL))


def test_weight_that_is_given_to_a_joiner_during_a_refused_push_is_given_once() -> None:
    """GoSGD took back what it had held before the push, the joiner's share included."""
    faults = [{"kind": "crash", "ranks": [2], "at": 0.01}, {"kind": "join", "ranks": [0], "at": 0.25}]
    hold(small("gosgd", 4, 400, {"seed": 550, "steps": 5}, faults, compute=FAST, tensor_seconds=WORK,
               options={"p": 0.5}))  # fmt: skip


def test_time_does_not_go_back_by_a_rounding_error() -> None:
    """A flow that rounding had served beyond its last byte ended before now."""
    churn = {"kind": "churn", "servers": [0], "crash": 1.0, "back": 0.01}
    fair = {"admission": "fair", "window": 1, "inbox": 2, "collective": "messages"}
    hold(small("dssp", 2, 200, {"seed": 241, "steps": 3}, [churn], bandwidth=15500.0, latency=0, network=fair,
               compute=LOGNORMAL))  # fmt: skip


def test_a_run_waits_for_a_frozen_server_that_has_something_to_finish() -> None:
    """All workers had ended or died: nobody waited for it to go on."""
    faults = [
        {"kind": "freeze", "servers": [0], "at": 0.1, "back": 0.6},
        {"kind": "crash", "ranks": [1], "at": 0.1},
    ]
    beside = {"count": 1, "placement": "beside", "sharding": "memory"}
    hold(small("dssp", 2, 200, {"seed": 0, "seconds": 0.05}, faults, bandwidth=11400.0, latency=0,
               servers=beside, network={"window": 1, "inbox": 2, "collective": "messages"}))  # fmt: skip


def test_time_goes_on_while_all_who_will_come_back_still_deliver() -> None:
    """Nobody was there, and nobody was known to come yet: faults were forgotten, and happened too late."""
    faults = [
        {"kind": "leave", "ranks": [1], "at": 0.2},
        {"kind": "cut", "servers": [0], "at": 0.3, "back": 0.04},
        {"kind": "leave", "ranks": [0], "step": 3, "back": 0.3},
    ]
    hold(small("aladdin_l2", 2, 200, {"seed": 0, "steps": 3}, faults, bandwidth=28600.0,
               network={"admission": 2, "window": 2, "inbox": 2, "collective": "messages"}))  # fmt: skip


NATIVE = {"admission": 2, "window": 1, "inbox": 2, "collective": "native"}


def test_a_request_that_is_late_makes_nobody_a_stranger() -> None:
    """A joiner had asked one that left, then another one that took it in, before its first request arrived:
    the others went on without it, and it was a step behind what it began with."""
    faults = [
        {"kind": "leave", "ranks": [2], "at": 0.1},
        {"kind": "crash", "ranks": [1], "step": 1, "back": 0.049},
        {"kind": "leave", "ranks": [0], "at": 0.06},
    ]
    hold(small("local_sgd", 4, 400, {"seed": 0, "steps": 6}, faults, network=NATIVE, options={"h": 2},
               order=449736))  # fmt: skip


def test_a_late_request_where_many_come_and_go() -> None:
    """The same of AR-SGD, whose replicas must be alike at each step."""
    faults = [
        {"kind": "cut", "ranks": [0], "at": 0.02, "back": 0.02},
        {"kind": "leave", "ranks": [1], "at": 0.01, "back": 0.01},
        {"kind": "freeze", "ranks": [5], "at": 0.02, "back": 0.04},
        {"kind": "freeze", "ranks": [3], "step": 4, "back": 0.1},
        {"kind": "join", "ranks": [5], "at": 0.02},
        {"kind": "churn", "leave": 1.7428, "back": 0.3},
    ]
    hold(small("arsgd", 6, 600, {"seed": 90255, "steps": 6}, faults, network=NATIVE, compute=LOGNORMAL,
               order=443865, delay=0.01))  # fmt: skip


def test_time_frozen_in_a_backward_pass_is_booked_once() -> None:
    """It was compute, and wait, too, from when the frozen worker was told that another one had died."""
    faults = [
        {"kind": "crash", "ranks": [0], "at": 0.04},
        {"kind": "freeze", "ranks": [1], "at": 0.035, "back": 0.02},
    ]
    hold(small("arsgd", 2, 8, {"seed": 0, "samples": 2}, faults, latency=0,
               options={"overlap": "backward", "buckets": 3}, order=0, delay=0.05))  # fmt: skip


def test_a_joiner_that_was_frozen_asks_who_has_come_meanwhile() -> None:
    """It was told that its peer had died, not that it was back: it awaited an answer without having asked."""
    faults = [
        {"kind": "join", "ranks": [0], "at": 0.2},
        {"kind": "freeze", "ranks": [0], "at": 0.35, "back": 0.03},
        {"kind": "crash", "ranks": [1], "at": 0.36, "back": 0.01},
    ]
    hold(small("arsgd", 2, 200, {"seed": 0, "steps": 4}, faults, bandwidth=20500.0, latency=0,
               network={**NATIVE, "admission": "fifo"}, tensor_seconds=WORK))  # fmt: skip


HOST = {"cores": 1, "byte_cost": 0.0, "gradient": 0.01, "cold": 0.0, "ring_lag": 0.0}


def test_nobody_computes_for_the_dead() -> None:
    """A step of who had crashed went on on the device that it shared, beside that of its next life."""
    crash = {"kind": "crash", "ranks": [0], "step": 1, "back": 0.1}
    hold(small("asp", 1, 100, {"seed": 0, "steps": 2}, [crash], latency=0, workers_per_device=2))


def test_no_host_plays_a_message_twice_that_a_silence_has_held_up() -> None:
    """What was left of it went on afterwards, and all of it meanwhile."""
    cut = {"kind": "cut", "ranks": [1], "at": 0.01, "back": 0.6}
    hold(small("ssp", 4, 400, {"seed": 0, "heartbeat_timeout": 0.3, "steps": 1, "compute": "native"}, [cut],
               host=HOST | {"cold": 0.001}))  # fmt: skip


def test_a_run_in_which_many_crash_comes_to_its_end() -> None:
    """Requests of the dead kept the host busy, ever more of them: nothing arrived in any life."""
    faults = [
        {"kind": "crash", "ranks": [4], "step": 4, "back": 0.271},
        {"kind": "join", "ranks": [1], "at": 0.2935},
        {"kind": "churn", "crash": 1.4703, "back": 0.00119},
        {"kind": "leave", "ranks": [3], "step": 2, "back": 0.00255},
    ]
    run = {"seed": 600045, "heartbeat_timeout": 0.3, "steps": 7, "compute": "native", "links": "paced"}
    trial = small("adpsgd", 6, 1200, run, faults, bandwidth=1.04e6, compute=LOGNORMAL, host=HOST,
                  network={**NATIVE, "collective": "messages"}, options={"graph": "star"}, order=713359,
                  delay=0.05)  # fmt: skip
    assert hold(trial).end == "over"


def test_a_run_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody lives for as long as a step takes: no gradient is ever computed, nor are events used up."""
    monkeypatch.setattr("sim.clock.BEAT", 256)
    churn = {"kind": "churn", "crash": 100.0, "back": 1e-3}
    assert play(small("asp", 2, 200, {"seed": 0, "steps": 5}, [churn])).end == "endless"


def test_a_run_that_goes_on_although_nobody_comes_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.clock.BEAT", 8)
    monkeypatch.setattr("tests.conformance.lives.BEATS", 4)
    with pytest.raises(AssertionError, match="no end after 4 beats, and nobody has come in the last"):
        play(small("asp", 2, 200, {"seed": 0, "steps": 50}, []))


def test_a_server_is_lost_where_its_silence_is_too_long_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freeze = {"kind": "freeze", "servers": [0], "at": 0.1, "back": 0.2}
    short = small("asp", 2, 200, {"seed": 0, "steps": 4}, [freeze])
    assert play(short).end == "over"
    assert play(small("asp", 2, 200, {"seed": 0, "steps": 4}, [{**freeze, "back": 6}])).end == "server lost"
    begin = Silences.__init__
    monkeypatch.setattr(Silences, "__init__", lambda own, driver, _, log: begin(own, driver, 0.05, log))
    with pytest.raises(AssertionError, match="but no server may be lost"):
        play(short)


def test_who_asks_and_ends_or_pays_for_its_message_before_the_other_hears_of_it() -> None:
    """Whom a joiner awaits was read off what it was blocked in: it is blocked a little later, or never."""
    host = {"cores": 2, "byte_cost": 0.0, "gradient": 0.01, "message": 0.002}
    leave = {"kind": "leave", "ranks": [0], "at": 0.01, "back": 0.001}
    run = {"seed": 700598, "samples": 1, "compute": "native", "links": "paced"}
    hold(small("adpsgd", 2, 200, run, [leave], latency=0.05, host=host))
    crash = {"kind": "crash", "ranks": [0], "at": 0.07, "back": 0.01}
    run = {"seed": 0, "steps": 3, "compute": "native"}
    trial = small("local_sgd", 2, 200, run, [crash], latency=0, host=host, network=NATIVE)
    assert hold(trial).end == "over"

"""What goes wrong in a run, and how it ends: dead and silent workers, dead servers, Ctrl-C, a dead parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import numpy as np
import psutil

import real
from core.errors import Diverged
from real import launch
from real.errors import Interrupted, TransportError
from scenarios.errors import ScenarioError
from tests.real.runs import tiny

ROOT = Path(__file__).resolve().parents[2]


def survivors() -> list[psutil.Process]:
    """Node processes that outlived their run: children of the fork server, which stays for the next one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            parent = child.parent()
            if parent is not None and parent.pid != os.getpid() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(autouse=True)
def _no_orphans() -> object:
    yield
    end = time.monotonic() + 5
    while survivors() and time.monotonic() < end:
        time.sleep(0.05)
    assert not survivors()


@pytest.mark.parametrize("algorithm", ["asp", "bsp", "aladdin", "arsgd"])
def test_a_dead_worker_leaves_the_run_to_the_rest(algorithm: str) -> None:
    scenario = tiny(algorithm, workers=3, run={"steps": 10, "links": "paced"})
    record = real.train(scenario, kill={1: 4})
    assert record.nodes["steps"][[0, 2]].tolist() == [10, 10]
    assert record.nodes["steps"][1] <= 4
    assert list(record.manifest["lost"]) == ["1"]
    assert [flag for flag in record.manifest["flags"] if flag.startswith("worker 1 was lost (its process")]


def test_a_worker_that_dies_in_a_native_all_reduce_does_not_take_the_others_along() -> None:
    scenario = tiny("arsgd", workers=3, cluster={"network": {"collective": "native"}}, run={"steps": 10})
    record = real.train(scenario, kill={1: 4})
    assert record.nodes["steps"][[0, 2]].tolist() == [10, 10]
    assert record.curves["consensus"][0] >= 0


def test_workers_that_end_early_do_not_stop_an_all_reduce() -> None:
    for collective in ("native", "messages"):
        scenario = tiny(
            "arsgd", workers=3, cluster={"network": {"collective": collective}}, run={"samples": 16 * 10}
        )
        assert real.train(scenario).nodes["steps"].sum() == 10


def test_a_silent_worker_is_taken_for_dead() -> None:
    scenario = tiny("bsp", workers=3, run={"steps": 10, "heartbeat_timeout": "1 s"})
    record = real.train(scenario, stall={2: 3})
    assert record.nodes["steps"][:2].tolist() == [10, 10]
    assert "silent" in record.manifest["lost"]["2"]


def test_a_dead_server_ends_the_run_with_a_clear_error() -> None:
    with pytest.raises(TransportError, match=r"server 0 \(node 2, process \d+\) is gone .*cannot go on"):
        real.train(tiny("asp", run={"steps": 500}), kill={2: 6})


def test_a_process_that_is_killed_while_it_starts_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for it; the launcher waits for one of those."""
    expect = launch._Launch._expect

    def kill_the_last(self: launch._Launch, member: launch.Member, what: str) -> dict[str, object]:
        if member.node == 0 and what == "listening":
            self.members[2].process.kill()
        return expect(self, member, what)

    monkeypatch.setattr(launch._Launch, "_expect", kill_the_last)
    scenario = tiny("arsgd", workers=3, cluster={"network": {"collective": "native"}})
    with pytest.raises(TransportError, match=r"worker 2 .* starting up: .* SIGKILL, as kernels do"):
        real.train(scenario)


def test_all_workers_dead_ends_the_run() -> None:
    with pytest.raises(TransportError, match="all workers are gone"):
        real.train(tiny("asp", run={"steps": 500}), kill={0: 2, 1: 3})


def test_ctrl_c_keeps_what_is_finished() -> None:
    started = threading.Event()
    main = os.getpid()

    def interrupt() -> None:
        started.wait(30)
        os.kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted) as caught:
        real.train(
            tiny("asp", run={"seconds": 600}), on_progress=lambda done, _: started.set() if done > 4 else None
        )
    thread.join()
    record = caught.value.record
    assert not record.manifest["complete"]
    assert record.nodes["steps"][:2].min() > 0
    assert len(record.steps["node"]) >= 4


def test_ctrl_c_while_processes_start_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    """The fork server imports torch then, for seconds; Ctrl-C on a terminal goes to it as well."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import real
            from real import forking
            from tests.real.runs import tiny

            def start():
                before()
                print("starting", flush=True)

            if __name__ == "__main__":
                before, forking.start = forking.start, start
                try:
                    real.train(tiny("asp"))
                except KeyboardInterrupt:
                    print("stopped", flush=True)
            """
        )
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"starting\n"
        time.sleep(0.5)
        family = psutil.Process(parent.pid).children(recursive=True)
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=60)
    assert out.endswith(b"stopped\n")
    assert err.decode() == ""
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """The parent is a script that guards nothing: its nodes' processes must not import it again."""
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import real
            from tests.real.runs import tiny

            real.train(tiny("asp", run={"seconds": 600}), on_progress=lambda *_: print("on", flush=True))
            """
        )
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"on\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_a_run_in_which_nothing_moves_ends_and_says_who_waits_for_what(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "_STANDSTILL", 1.0)
    scenario = tiny("tests.real.stuck:Stuck", run={"heartbeat_timeout": "1 s"})
    with pytest.raises(
        TransportError, match=r"nothing moves any more:\n  worker 0 .* waits for never from node 1"
    ):
        real.train(scenario)


def test_a_message_that_stays_under_way_for_ever_is_a_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    """It seems to move on both sides, but no frame does."""
    monkeypatch.setattr(launch, "_STANDSTILL", 1.0)
    scenario = tiny("tests.real.stuck:Deaf", run={"heartbeat_timeout": "1 s"})
    with pytest.raises(TransportError, match="nothing moves any more:") as caught:
        real.train(scenario)
    assert "waits for delivery to 1" in str(caught.value)
    assert "waits for gradient from node 0" in str(caught.value)


def test_a_worker_that_is_stopped_while_it_talks_to_the_launcher_is_silent() -> None:
    """Its message never ends; the launcher does not wait for the rest."""
    record = real.train(tiny("tests.real.stuck:Choking", run={"heartbeat_timeout": "1 s"}))
    assert record.nodes["steps"][0] == 8
    assert "silent" in record.manifest["lost"]["1"]


def test_ctrl_c_does_not_wait_for_a_message_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_STOPPING", 2.0)
    hear = launch._Launch._hear

    def interrupt(self: launch._Launch, member: launch.Member) -> None:
        hear(self, member)
        if self.members[1].pipe._filled and self.members[0].steps > 2 and not self.interrupted:  # type: ignore[attr-defined]
            self.interrupted = True  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(launch._Launch, "_hear", interrupt)
    monkeypatch.setattr(launch._Launch, "interrupted", False, raising=False)
    scenario = tiny("tests.real.stuck:Choking", run={"seconds": 600, "heartbeat_timeout": "600 s"})
    with pytest.raises(Interrupted) as caught:
        real.train(scenario)
    assert caught.value.record.nodes["steps"][0] > 2


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        (
            "Oversized",
            r"worker 0 .* failed:(.|\n)*yield Send\((.|\n)*cannot send 'gradient' .*float64",
        ),
        ("Garbage", r"worker 1 .* failed:(.|\n)*yield \"rubbish\"(.|\n)*a program yielded 'rubbish'"),
        ("Programless", r"Programless has None for a program; expected a generator"),
        ("Tireless", r"yield Compute\(\)(.|\n)*Finished: no steps are left"),
        ("Faulty", r"worker 1 .* failed:(.|\n)*ZeroDivisionError: a mistake in the third step"),
    ],
)
def test_a_programs_mistake_ends_the_run_and_shows_the_line(algorithm: str, says: str) -> None:
    with pytest.raises(TransportError, match=says) as caught:
        real.train(tiny(f"tests.real.stuck:{algorithm}"))
    assert "in _advance" not in str(caught.value)


def test_bad_input_that_only_a_process_notices_is_bad_input_all_the_same(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    scenario = tiny(
        "asp", workload={"model": "cnn", "data": "cifar10", "hidden": [], "data_dir": str(missing)}
    )
    with pytest.raises(ScenarioError, match="missing"):
        real.train(scenario)


def test_a_diverged_run_ends_says_where_and_keeps_its_record() -> None:
    scenario = tiny({"name": "arsgd", "lr": 1e6}, run={"steps": 400})
    with pytest.raises(Diverged, match=r"the loss of worker \d at its step \d+, .* is (nan|inf)") as caught:
        real.train(scenario)
    record = caught.value.record
    assert not record.manifest["complete"]
    assert 0 < record.nodes["steps"].max() < 400
    assert not np.isfinite(record.losses["loss"]).all()


def test_a_run_whose_last_step_ruins_the_model_has_diverged_too() -> None:
    """No step's loss shows it, for there is none after; the model that is evaluated does."""
    scenario = tiny({"name": "arsgd", "lr": 1e6}, run={"steps": 5})
    with pytest.raises(
        Diverged, match=r"test loss after 10 steps .*worker \d's step 4\).* is (nan|inf)"
    ) as caught:
        real.train(scenario)
    record = caught.value.record
    assert np.isfinite(record.losses["loss"]).all()
    assert record.nodes["steps"].tolist() == [5, 5]
    assert "diverged" in record.manifest["flags"][0]


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_a_worker_that_dies_amid_buckets_does_not_take_the_others_along(collective: str) -> None:
    chosen = {"name": "arsgd", "options": {"overlap": "backward", "buckets": 3}}
    network = {"collective": collective, "allreduce": "ring" if collective == "native" else "tree"}
    record = real.train(tiny(chosen, workers=3, cluster={"network": network}, run={"steps": 10}), kill={1: 4})
    assert record.nodes["steps"][[0, 2]].tolist() == [10, 10]
    assert record.curves["consensus"][0] == 0

"""``aladdin testbed``: what it says and refuses; with root, that it runs and cleans up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("zmq")


from aladdin.cli.testbed import ACTIONS, rates
from real.testbed import Nic, names, unavailable
from scenarios import Scenario, ScenarioError
from tests.aladdin.test_cli import Shell

_MISSING = unavailable()
needs_testbed = pytest.mark.skipif(_MISSING is not None, reason=f"no test-bed here: {_MISSING}")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize("verb", ACTIONS)
def test_every_verb_has_help_with_an_example(shell: Shell, verb: str) -> None:
    done = shell("testbed", verb, "--help")
    assert done.code == 0
    assert "Example" in done.out
    assert f"aladdin testbed {verb}" in done.out


def test_without_a_verb_it_shows_the_help(shell: Shell) -> None:
    done = shell("testbed")
    assert "Usage" in done.out + done.err
    assert all(verb in done.out + done.err for verb in ACTIONS)


# ---- rates ----------------------------------------------------------------------------------------


def test_any_mix_of_rates() -> None:
    told = ["200 Mbit/s", "1=1 Gbit/s", "2:up=10 MB/s", "2:down=1 MB/s"]
    assert rates(3, told) == [Nic(25e6, 25e6), Nic(125e6, 125e6), Nic(10e6, 1e6)]
    assert rates(2, []) == [Nic(125e6, 125e6)] * 2
    assert rates(1, ["0=1 MB/s", "2 MB/s"]) == [Nic(2e6, 2e6)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2=40 Gbit/s", ("--rate", "'2=40 Gbit/s'", "32 Gbit/s")),
        ("fast", ("--rate", "'fast'", "10 Gbit/s")),
        ("5 MB", ("--rate", "bytes/s", "not bytes")),
        ("3=1 MB/s", ("--rate", "'3=1 MB/s'", "from 0 to 2")),
        ("-1=1 MB/s", ("--rate", "from 0 to 2")),
        ("=1 MB/s", ("--rate", "from 0 to 2")),
        ("1:sideways=1 MB/s", ("--rate", "sideways", "up or down")),
    ],
)
def test_rates_that_are_none(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ScenarioError) as error:
        rates(3, [text])
    assert all(word in str(error.value) for word in words)


# ---- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run"], ("SCENARIO", "--nodes")),
        (["run", "--nodes", "2"], ("COMMAND", "after --")),
        (["run", "--nodes", "1000", "--", "true"], ("--nodes", "1000", "1 to 128")),
        (["run", "--nodes", "0", "--", "true"], ("--nodes", "0", "1 to 128")),
        (["run", "--nodes", "-1", "--", "true"], ("--nodes", "-1", "1 to 128")),
        (["run", "--nodes", "2", "--rate", "1 bit/s", "--", "true"], ("--rate", "1 bit/s", "1 Mbit/s")),
        (["run", "--nodes", "2", "--", "no-such-program"], ("COMMAND", "'no-such-program'")),
        (["run", "--nodes", "2", "-a", "asp", "--", "true"], ("--algorithm", "'asp'", "nothing")),
        (["run", "demo", "--rate", "1 MB/s"], ("--rate", "cluster.bandwidth")),
        (["run", "demo", "--json", "--", "true"], ("--json", "nothing")),
        (["run", "nowhere"], ("scenario", "'nowhere'")),
        (["run", "nowhere", "--", "true"], ("scenario", "'nowhere'")),
        (["check", "--rate", "1 bit/s"], ("--rate", "1 Mbit/s")),
    ],
)
def test_bad_input_is_one_message(shell: Shell, argv: list[str], words: tuple[str, ...]) -> None:
    done = shell("testbed", *argv)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert all(word in done.err for word in words), done.err
    assert "Traceback" not in done.err


# ---- without root ---------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["check"], ["clean"], ["run", "--nodes", "2", "--", "true"]])
def test_without_root_it_says_so_and_offers_loopback(shell: Shell, no_root: None, argv: list[str]) -> None:
    done = shell("testbed", *argv)
    assert (done.code, done.out) == (2, "")
    assert "network namespaces need root" in done.err
    assert "run.links=paced" in done.err


def test_without_root_a_scenario_is_trained_on_loopback(
    shell: Shell, drivers: list[Scenario], no_root: None, tmp_path: Path
) -> None:
    done = shell("testbed", "run", "demo", "-a", "asp,bsp", "-o", tmp_path / "out")
    assert done.code == 0
    assert "warning: there can be no test-bed here: network namespaces need root" in done.err
    assert "run.links=paced" in done.err
    assert [(one.algorithm.name, one.run.links) for one in drivers] == [("asp", "paced"), ("bsp", "paced")]


def test_without_root_training_on_shaped_links_names_the_alternative(shell: Shell, no_root: None) -> None:
    pytest.importorskip("torch")
    done = shell("train", "demo", "-s", "run.links=shaped")
    assert (done.code, done.out) == (2, "")
    assert "run.links: 'shaped' is not valid; expected paced" in done.err
    assert "need root" in done.err


def test_without_pyroute2_it_says_how_to_install_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("real.testbed.find_spec", lambda _: None)
    done = shell("testbed", "check")
    assert done.code == 2
    assert "pip install 'aladdin[testbed]'" in done.err


# ---- with root ------------------------------------------------------------------------------------


@needs_testbed
def test_a_scenario_is_trained_over_shaped_links(shell: Shell, drivers: list[Scenario]) -> None:
    done = shell("testbed", "run", "demo", "--json", "-s", "cluster.bandwidth=200 Mbit/s", "-o", "unused")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)
    assert [(one.run.links, one.cluster.machines[0].up) for one in drivers] == [("shaped", 25e6)]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs are written below the test's own folder; the program is still found from there."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)


@needs_testbed
def test_check_measures_a_link(shell: Shell) -> None:
    done = shell("testbed", "check", "--rate", "100 Mbit/s", "--seconds", "0.3", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["available"]
    assert [row["direction"] for row in found["links"]] == ["up", "down"]
    for row in found["links"]:
        assert row["nominal"] < found["rate"] == 12.5e6
        assert row["error"] == pytest.approx(row["measured"] / row["nominal"] - 1)
        assert row["measured"] > 0
    assert "can be a test-bed" in shell("testbed", "check", "--seconds", "0.1").out


@needs_testbed
def test_a_command_on_every_node_of_a_scenario(shell: Shell, tmp_path: Path) -> None:
    done = shell(
        "testbed", "run", "demo", "-s", "cluster.workers=2", "--", "sh", "-c", f"touch {tmp_path}/node-$RANK"
    )
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in tmp_path.glob("node-*")) == ["node-0", "node-1", "node-2"]


@needs_testbed
def test_a_command_that_fails_is_told_apart_from_bad_input(shell: Shell) -> None:
    done = shell("testbed", "run", "--nodes", "2", "--", "sh", "-c", "exit $((RANK * 9))")
    assert done.code == 3
    assert done.err == "error: node 1: sh ended with exit code 9\n"


@needs_testbed
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_command_and_testbed(tmp_path: Path, number: signal.Signals, code: int) -> None:
    line = [sys.executable, "-m", "aladdin", "testbed", "run", "--nodes", "2", "--", "sh", "-c"]
    with subprocess.Popen(
        [*line, "echo $$; exec sleep 600"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        assert [name for name in os.listdir(names.FOLDER) if name.startswith(f"aladdin-{process.pid}-")]
        process.send_signal(number)
        assert process.wait(60) == code
    assert not [name for name in os.listdir(names.FOLDER) if name.startswith(f"aladdin-{process.pid}-")]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@needs_testbed
def test_clean_removes_what_a_killed_testbed_left(shell: Shell) -> None:
    line = [sys.executable, "-m", "aladdin", "testbed", "run", "--nodes", "1", "--", "sh", "-c"]
    with subprocess.Popen(
        [*line, "echo $$; exec sleep 600"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    left = [name for name in os.listdir(names.FOLDER) if name.startswith(f"aladdin-{process.pid}-")]
    assert len(left) == 2
    done = shell("testbed", "clean")
    assert (done.code, done.err) == (0, "")
    assert all(f"removed {name}" in done.out for name in left)
    assert not set(left) & set(os.listdir(names.FOLDER))

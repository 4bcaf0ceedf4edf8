"""How commands end that are told to: by a terminal that closes, by a scheduler, by their parent's death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from aladdin import api, pool
from analysis import store
from tests.aladdin.test_cli_testbed import needs_testbed

ROOT = Path(__file__).parents[2]
LONG = ["--set", "run.steps=20000000"]


PROGRAM = """
import os, signal, sys
import sim
from aladdin.cli import main

def simulate(*args, run=sim.simulate, **kwargs):
    print("begun", file=sys.stderr, flush=True)
    return run(*args, **kwargs)

sim.simulate = simulate
for number in (signal.SIGTERM, signal.SIGHUP):  # the tests may have been started by nohup
    signal.signal(number, signal.SIG_DFL)
os.chdir(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""

TRAIN = """
import os, signal, sys
import real
from aladdin.cli import main

def train(*args, run=real.train, on_progress=None, **kwargs):
    told = []

    def watch(done, total):
        if done > 12 and not told:
            told.append(done)
            print("steps are made", file=sys.stderr, flush=True)

    return run(*args, on_progress=watch, **kwargs)

real.train = train
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.chdir(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_simulation_that_is_told_to_end_keeps_what_it_has(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path, "simulate", "demo", *LONG, "--out", "kept"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "begun\n"
            time.sleep(0.5)
            process.send_signal(number)
            rest = process.communicate(timeout=60)[1]
        finally:
            process.kill()  # whatever went wrong, it does not go on for ever
    assert process.returncode == code
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert f"stopped: by {name}" in rest
    assert (tmp_path / "kept" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("number", "code", "links"),
    [
        (signal.SIGTERM, 143, "paced"),
        (signal.SIGHUP, 129, "native"),
        pytest.param(signal.SIGTERM, 143, "shaped", marks=needs_testbed),
    ],
)
def test_a_real_run_whose_whole_group_is_told_to_end_keeps_what_it_has(
    tmp_path: Path, number: signal.Signals, code: int, links: str
) -> None:
    """As terminals and schedulers do: the nodes' processes get it as well, and leave it to the command."""
    argv = ["train", "demo", "--set", "run.seconds=600", "--algorithm", "asp", "--set", "cluster.workers=2"]
    argv += ["--set", f"run.links={links}"]
    with subprocess.Popen(
        [sys.executable, "-c", TRAIN, tmp_path, *argv, "--out", "kept"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "steps are made\n"
            family = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, number)
            rest = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == code
    assert f"stopped: by {number.name}" in rest
    record = store.read(tmp_path / "kept")
    assert "interrupted: the run is not complete" in record.manifest["flags"]
    assert not [flag for flag in record.manifest["flags"] if "lost" in flag]
    assert record.nodes["steps"][:2].min() > 0
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


def test_a_process_of_the_pool_ends_with_its_parent_whatever_it_is_about() -> None:
    scene = api.load("demo", overrides={"run.steps": 20_000_000})
    job = {"scenario": scene.to_dict(), "profile": None, "path": None}
    with subprocess.Popen(
        [sys.executable, "-c", pool._START, json.dumps([*map(str, sys.path)])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            print(json.dumps(job), file=process.stdin, flush=True)
            assert 0 <= float(process.stdout.readline()) < 0.5
            process.stdin.close()
            assert process.wait(30) == 1
        finally:
            process.kill()


def test_a_process_of_the_pool_that_has_nothing_to_do_ends_in_order() -> None:
    done = subprocess.run(
        [sys.executable, "-c", pool._START, json.dumps([*map(str, sys.path)])], input="", text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

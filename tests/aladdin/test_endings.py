"""How commands end that are told to: by a terminal that closes, by a scheduler, by their parent's death."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aladdin import api, pool

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

"""Long simulations from the command line: Ctrl-C saves, the same command goes on; divergence is told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from aladdin import api
from aladdin.saving import taking
from analysis.store import read
from scenarios import ScenarioError

pytest.importorskip("torch")
pytest.importorskip("safetensors")

ROOT = Path(__file__).parents[2]

LONG = """
name: long
cluster: {workers: 4, bandwidth: 1 Gbit/s, compute: {mean: 10 ms}}
workload: {model: mlp, data: digits, hidden: [8], batch: 4}
algorithm: {name: aladdin, lr: 0.01}
run: {steps: 600, numerics: true, batched: never, threads: 1, evaluate_every: 5}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "long.yaml"
    path.write_text(LONG, encoding="utf-8")
    return path


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "aladdin", "simulate", *map(str, arguments)]


def test_ctrl_c_saves_and_the_same_command_goes_on(scenario: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "saved", tmp_path / "out"
    arguments = (scenario, "--checkpoint", file, "--every", "5 ms", "--out", out)
    with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while not file.exists():
            assert process.poll() is None, "finished, or failed, before anything was saved"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=60)[1]
    assert process.returncode == 130, message
    reached = r"[\d.]+ simulated seconds, [\d,]+ steps begun"
    said = re.fullmatch(rf"stopped: by Ctrl-C, at ({reached}); what was finished is in (.*)\n", message)
    assert said, message
    assert said[2] == str(file)
    assert file.is_file()
    assert not out.exists()
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"resumed: from {file}, at {said[1]}\n"
    assert not file.exists()
    resumed, whole = read(out), api.simulate(scenario).record
    for name, table in whole.tables().items():
        for column, values in table.items():
            assert resumed.tables()[name][column].tobytes() == values.tobytes(), f"{name}.{column}"


def test_a_diverged_run_is_told_and_kept(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ("--set", "algorithm.lr=1e6", "--set", "algorithm.name=asp", "--set", "run.steps=500")
    done = subprocess.run(
        command(scenario, *settings, "--out", out), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: training diverged: the loss of worker ")
    assert done.stderr.endswith(f"what was recorded is in {out}\n")
    kept = read(out)
    assert [flag.partition(":")[0] for flag in kept.manifest["flags"]] == ["incomplete"]
    assert len(kept.losses["loss"])


def test_bad_uses_are_refused(scenario: Path, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"every: '0 s' is not valid"), taking(tmp_path / "c", "0 s"):
        pass
    with pytest.raises(ScenarioError, match=r"run\.numerics"):
        api.simulate(scenario, overrides={"run.numerics": False}, checkpoint=tmp_path / "c")
    with pytest.raises(ScenarioError, match=r"checkpoint.*one algorithm"):
        list(api.runs(scenario, "asp,bsp", checkpoint=tmp_path / "c"))


def test_the_handler_of_ctrl_c_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with taking(tmp_path / "c"):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before

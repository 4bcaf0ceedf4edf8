"""The face over the real simulator: whole commands, nothing replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import aladdin
import scenarios
from aladdin import validation
from aladdin.calibration import calibrate
from core.record import Record
from sim import simulate
from tests.aladdin.test_cli import Shell, loaded

ORACLE = Path(__file__).parents[1] / "data" / "oracle.json"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_the_paper_s_ordering_comes_out(shell: Shell) -> None:
    done = shell("simulate", "paper/vgg16", "-a", "bsp,asp,aladdin", "--json")
    assert done.code == 0
    found = {run["algorithm"]: run for run in json.loads(done.out)["runs"]}
    assert found["bsp"]["speedup"] < found["asp"]["speedup"] < found["aladdin"]["speedup"]
    assert found["aladdin"]["breakdown"]["all"]["fraction"]["wait"] == 0
    for run in found.values():
        assert sum(run["breakdown"]["all"]["fraction"].values()) == pytest.approx(1)


def test_the_same_scenario_gives_the_same_tables_byte_for_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        aladdin.simulate("paper/vgg16", algorithm="asp", overrides={"run.steps": 8}, out=tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert len(files) > 3
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_run_that_was_written_reads_back_to_the_same_summary(tmp_path: Path) -> None:
    from analysis import metrics, store

    result = aladdin.simulate("demo", algorithm="asp", overrides={"run.spans": True}, out=tmp_path / "run")
    assert metrics.summary(store.read(tmp_path / "run")) == result.summary


def test_ctrl_c_in_a_cross_check_says_where_the_finished_cells_are(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = tmp_path / "check", iter(range(2))

    def run(scenario: scenarios.Scenario) -> Record:
        if next(runs, None) is None:
            raise KeyboardInterrupt
        return simulate(scenario)

    monkeypatch.setattr(validation, "run_for_real", run)
    calibrate("demo", out=tmp_path / "profile.json", run=simulate, budget=1e-3)
    profile = tmp_path / "profile.json"
    done = shell("crosscheck", "-d", "basic", "--profile", profile, "--seconds", 2, "--out", folder)
    assert done.code == 130
    assert done.err.endswith(f"stopped: by Ctrl-C; what was finished is in {folder}\n")
    assert len(json.loads((folder / "cells.json").read_text())) == 2


def test_cuda_where_there_is_none(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = shell("train", "demo", "-s", "run.device=cuda", "-o", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: run.device: 'cuda' is not valid; expected cpu")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pictures_and_traces_of_simulated_runs(shell: Shell, tmp_path: Path) -> None:
    done = shell(
        "simulate", "demo", "-a", "asp,aladdin", "-s", "run.steps=6", "--spans", "-o", tmp_path / "runs"
    )
    assert done.code == 0
    runs = [tmp_path / "runs" / name for name in ("asp", "aladdin")]
    assert shell("plot", *runs, "-o", tmp_path / "pictures").code == 0
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"breakdown.png", "timeline.png"}
    assert shell("trace", *runs, "-o", tmp_path / "trace.json").code == 0
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {event["name"] for event in events if event["ph"] == "X"} >= {"compute", "transfer"}


def test_simulating_loads_neither_torch_nor_the_drawing_and_storing_libraries() -> None:
    assert loaded("simulate", "demo").isdisjoint(
        {"torch", "matplotlib", "pyarrow", "scipy", "sklearn", "zmq"}
    )


def test_the_oracle_passes_and_a_wrong_answer_does_not(shell: Shell, tmp_path: Path) -> None:
    assert shell("verify", ORACLE).code == 0
    tree = json.loads(ORACLE.read_text())
    case = next(case for case in tree["cases"] if case["name"].startswith("bsp"))
    case["expected"]["iter_end"][0][3] *= 1 + 1e-6
    (tmp_path / "bent.json").write_text(json.dumps({**tree, "cases": [case], "net_cases": []}))
    done = shell("verify", tmp_path / "bent.json")
    assert done.code == 1
    assert "FAILED" in done.out
    assert "iter_end[0][3]" in done.out


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cases": 5}', '{"cases": [{}]}', '{"net_cases": [{"name": 1}]}']
)
def test_a_malformed_oracle_is_bad_input(shell: Shell, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    done = shell("verify", tmp_path / "bad.json")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err

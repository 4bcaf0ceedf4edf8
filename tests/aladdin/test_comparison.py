"""Comparisons: rows for all that can happen to a run, the same figures from any number of processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aladdin
from aladdin import api, cli, pool
from aladdin.comparison import Comparison, _evaluated
from analysis import report
from core.algorithms import ALGORITHMS, make
from core.errors import OptionError
from core.record import Record
from scenarios import Scenario, ScenarioError
from tests.aladdin.conftest import fake_run

QUICK = {"run.steps": 6, "workload.hidden": [8], "cluster.compute.model": "lognormal",
         "cluster.compute.spread": 0.2}  # fmt: skip

FRAGILE = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from core.algorithms.asp import ASP

@dataclass(frozen=True)
class Dies(ASP):
    name = "dies"
    def worker(self, node):
        os.kill(os.getpid(), signal.SIGKILL)
        yield

@dataclass(frozen=True)
class Hangs(ASP):
    name = "hangs"
    def worker(self, node):
        print("an algorithm may print")
        Path(__file__).with_name("pid").write_text(str(os.getpid()))
        while True:
            time.sleep(0.05)
        yield

@dataclass(frozen=True)
class Breaks(ASP):
    name = "breaks"
    def worker(self, node):
        raise ValueError("a slip")
        yield
"""


class Diverged(Exception):
    """As the simulator raises it: with what was recorded."""

    def __init__(self, record: Record) -> None:
        super().__init__("the loss of worker 1 is NaN at step 4")
        self.record = record


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path with algorithms that go wrong."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "fragile.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("fragile", None)
    return folder


def stub(monkeypatch: pytest.MonkeyPatch, run: Callable[[Scenario], Record]) -> None:
    monkeypatch.setattr(api, "_driver", lambda _: lambda scenario, **_: run(scenario))


def test_every_algorithm_runs_on_every_seed(drivers: list[Scenario], tmp_path: Path) -> None:
    found = aladdin.compare("demo", "asp,bsp", seeds=3, overrides={"run.seed": 7}, out=tmp_path / "c", jobs=1)
    assert [(one.algorithm.name, one.run.seed) for one in drivers] == [
        (name, seed) for seed in (7, 8, 9) for name in ("asp", "bsp")
    ]
    assert [(run["algorithm"], run["seed"]) for run in found.runs] == [
        (name, seed) for name in ("asp", "bsp") for seed in (7, 8, 9)
    ]
    assert (tmp_path / "c" / "asp" / "seed-8" / "manifest.json").exists()
    document = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert document["complete"] is True
    assert [one["algorithm"] for one in document["algorithms"]] == ["bsp", "asp"]
    assert document["algorithms"][0]["throughput"]["count"] == 3
    assert {file.name for file in found.pictures} == {"comparison.png", "breakdown.png"}
    assert all(file.exists() for file in found.pictures)


def test_its_directory_can_be_plotted(drivers: list[Scenario], tmp_path: Path) -> None:
    aladdin.compare("demo", "asp,bsp", seeds=[3, 5], out=tmp_path / "c", jobs=1)
    assert [file.name for file in aladdin.plot([tmp_path / "c"], tmp_path / "p")] == ["breakdown.png"]


@pytest.mark.parametrize(("data", "learns"), [("digits", True), ("synthetic", True), ("synthetic", False)])
def test_made_up_images_are_called_so_where_something_is_learned(data: str, learns: bool) -> None:
    overrides = {"workload.data": data, "run.numerics": learns}
    title = Comparison(aladdin.load("demo", overrides=overrides), (0,), None, []).title
    assert ("made-up images" in title) == (data == "synthetic" and learns)


def test_all_is_the_whole_table(drivers: list[Scenario]) -> None:
    found = aladdin.compare("demo", jobs=1)
    assert [one["algorithm"] for one in found.statistics] == list(ALGORITHMS)


def test_options_of_the_scenario_reach_its_family_and_nobody_else(drivers: list[Scenario]) -> None:
    aladdin.compare("paper/vgg16", jobs=1)
    options = {one.algorithm.name: dict(one.algorithm.options) for one in drivers}
    assert [options[name].get("pi") for name in ("aladdin", "aladdin_l1", "aladdin_l2")] == [4, 4, 4]
    assert [name for name in options if options[name]] == ["aladdin", "aladdin_l1", "aladdin_l2"]


def test_an_explicit_option_wins_over_the_scenarios(drivers: list[Scenario]) -> None:
    for path in ("algorithm.pi", "algorithm.options.pi"):
        drivers.clear()
        aladdin.compare("paper/vgg16", "aladdin_l2,aladdin,asp", overrides={path: 2}, jobs=1)
        assert [one.algorithm.options.get("pi") for one in drivers] == [2, 2, None]


def test_options_of_the_same_name_with_another_default_are_others() -> None:
    base = aladdin.load(
        "demo", algorithm="dpsgd", overrides={"algorithm.graph": "star", "algorithm.graph_seed": 3}
    )
    assert dict(aladdin.load(base, algorithm="sgp").algorithm.options) == {"graph_seed": 3}


def test_an_ablation_is_what_it_is_called(drivers: list[Scenario]) -> None:
    """``variant`` is ALADDIN's option alone: it neither reaches the ablations nor turns one into another."""
    listed = {one["name"]: one["options"] for one in aladdin.list_algorithms()}
    assert [name for name in listed if "variant" in listed[name]] == ["aladdin"]
    for name in ("aladdin_l1", "aladdin_l2"):
        assert ALGORITHMS[name]().variant == name.removeprefix("aladdin_")
        with pytest.raises(ScenarioError, match=r"algorithm\.variant"):
            aladdin.load("demo", algorithm=name, overrides={"algorithm.variant": "full"})
        with pytest.raises(OptionError, match="variant"):
            make(name, {"variant": "full"})
    aladdin.compare("demo", "aladdin,aladdin_l1", overrides={"algorithm.variant": "l2"}, jobs=1)
    assert [dict(one.algorithm.options) for one in drivers] == [{"variant": "l2"}, {}]
    assert dict(aladdin.load(drivers[0], algorithm="aladdin_l1").algorithm.options) == {}


def test_numerics_come_with_an_accuracy(drivers: list[Scenario]) -> None:
    aladdin.compare("demo", "asp", accuracy=0.5, jobs=1)
    aladdin.compare("demo", "asp", jobs=1)
    aladdin.compare("demo", "asp", numerics=True, overrides={"run.evaluate_every": 2}, jobs=1)
    aladdin.compare("demo", "asp", numerics=False, overrides={"run.numerics": True}, jobs=1)
    assert [one.run.numerics for one in drivers] == [True, False, True, False]
    assert [one.run.evaluate_every > 0 for one in drivers] == [True, False, True, False]
    assert drivers[2].run.evaluate_every == 2


@pytest.mark.parametrize(
    "budget", [{"run.steps": 40}, {"run.samples": 40 * 4 * 32}, {"run.seconds": 2}], ids=str
)
def test_a_run_is_evaluated_about_forty_times(budget: dict[str, Any]) -> None:
    scenario = _evaluated(aladdin.load("demo", overrides={"run.numerics": True, **budget}))
    epochs = 40 * 4 * 32 / 1437
    assert epochs / scenario.run.evaluate_every == pytest.approx(40, rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy": 0.0}, "accuracy: 0.0 is not valid"),
        ({"accuracy": 95}, "accuracy: 95 is not valid; expected a share above 0 and at most 1"),
        ({"accuracy": float("nan")}, "accuracy: nan"),
        ({"accuracy": 0.9, "numerics": False}, "numerics: 'off' is not valid"),
        ({"seeds": 0}, "seeds: 0 is not valid; expected at least 1"),
        ({"seeds": -2}, "seeds: -2"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": "5"}, "seeds: '5'"),
        ({"seeds": True}, "seeds: True"),
        ({"jobs": 0}, "jobs: 0"),
        ({"names": "asp,aladin"}, "did you mean 'aladdin'"),
        ({"names": " , "}, "names out of"),
        ({"overrides": {"cluster.workers": 0}}, "cluster.workers: 0"),
        ({"overrides": {"algorithm.pi": 0}}, "algorithm.pi: 0"),
        ({"overrides": {"algorithm.pie": 4}}, "no such field"),
        ({"profile": "nowhere.json"}, "nowhere.json"),
        ({"out": "/proc/no/run"}, "cannot be written"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_the_first_run(
    drivers: list[Scenario], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        aladdin.compare("demo", **options)
    assert message in str(error.value)
    assert drivers == []


def test_what_is_there_is_never_overwritten(drivers: list[Scenario], tmp_path: Path) -> None:
    aladdin.compare("demo", "asp", out=tmp_path / "c", jobs=1)
    with pytest.raises(ScenarioError, match="never overwritten"):
        aladdin.compare("demo", "asp", out=tmp_path / "c", jobs=1)
    assert len(drivers) == 1


def lonely(workers: int) -> None:
    from core.errors import OptionError

    if workers < 2:
        raise OptionError("workers", workers, "at least 2 for gossip")


def test_an_algorithm_that_the_scenario_refuses_is_a_row(
    drivers: list[Scenario], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ALGORITHMS["asp"], "check", lambda _, workers: lonely(workers), raising=False)
    found = aladdin.compare("demo", "bsp,asp", overrides={"cluster.workers": 1}, seeds=2, jobs=1)
    by_name = {one["algorithm"]: one for one in found.statistics}
    assert by_name["asp"]["outcomes"] == {"refused": 2}
    assert "at least 2 for gossip" in by_name["asp"]["messages"][0]
    assert by_name["bsp"]["outcomes"] == {"done": 2}
    with pytest.raises(ScenarioError, match="at least 2 for gossip"):
        aladdin.compare("demo", "asp", overrides={"cluster.workers": 1}, jobs=1)
    everything = api.runs("demo", "all", overrides={"cluster.workers": 1})
    assert "asp" not in {result.summary["algorithm"] for result in everything}
    assert cli.main(["simulate", "demo", "-a", "all", "-s", "cluster.workers=1"]) == 0
    (reason,) = [
        line for line in api.refusals("demo", "all", {"cluster.workers": 1}) if line.startswith("asp ")
    ]
    assert "at least 2 for gossip" in reason
    assert f"warning: {reason}" in capsys.readouterr().err


def test_a_diverged_run_is_a_row_and_keeps_its_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(scenario: Scenario) -> Record:
        record = fake_run(scenario)
        if scenario.algorithm.name == "asp" and scenario.run.seed == 1:
            raise Diverged(record)
        return record

    stub(monkeypatch, run)
    found = aladdin.compare("demo", "asp,bsp", seeds=2, out=tmp_path / "c", jobs=1)
    asp = next(one for one in found.statistics if one["algorithm"] == "asp")
    assert asp["outcomes"] == {"done": 1, "diverged": 1}
    assert asp["messages"] == ["the loss of worker 1 is NaN at step 4"]
    assert asp["throughput"]["count"] == 1
    diverged = next(one for one in found.runs if one["outcome"] == "diverged")
    assert diverged["path"] == str(tmp_path / "c" / "asp" / "seed-1")
    assert (tmp_path / "c" / "asp" / "seed-1" / "manifest.json").exists()


def test_a_comparison_is_exit_code_3_only_where_every_run_diverged(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"asp"}

    def run(scenario: Scenario) -> Record:
        if scenario.algorithm.name in lost:
            raise Diverged(fake_run(scenario))
        return fake_run(scenario)

    stub(monkeypatch, run)
    assert cli.main(["compare", "demo", "-a", "asp,bsp", "-j", "1"]) == 0
    lost.add("bsp")
    assert cli.main(["compare", "demo", "-a", "asp,bsp", "-j", "1"]) == 3


def test_ctrl_c_keeps_what_is_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(scenario: Scenario) -> Record:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(scenario.algorithm.name)
        return fake_run(scenario)

    stub(monkeypatch, run)
    argv = ["compare", "demo", "-a", "asp,bsp", "--seeds", "2", "--out", str(tmp_path / "c"), "--jobs", "1"]
    assert cli.main(argv) == 130
    out, err = capsys.readouterr()
    assert "BSP" in out
    assert f"what was finished is in {tmp_path / 'c'}" in err
    document = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert (document["complete"], len(document["runs"])) == (False, 2)


@pytest.mark.parametrize("there", [False, True])
def test_ctrl_c_before_anything_is_finished_leaves_no_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool
) -> None:
    """But for one that was there before."""

    def run(_: Scenario) -> Record:
        raise KeyboardInterrupt

    stub(monkeypatch, run)
    out = tmp_path / "c"
    if there:
        out.mkdir()
    assert cli.main(["compare", "demo", "-a", "asp,bsp", "--out", str(out), "--jobs", "1"]) == 130
    assert capsys.readouterr().err == "stopped: by Ctrl-C\n"
    assert out.exists() == there
    assert [*tmp_path.iterdir()] == [out] * there


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_every_run_refuses_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool, jobs: str
) -> None:
    """Images that are not there are only missed by who reads them."""
    out = tmp_path / "c"
    if there:
        out.mkdir()
    argv = ["compare", "paper/cifar10-resnet50", "-a", "asp,bsp", "--set", "workload.data_dir=/nowhere",
            "--set", "run.steps=2", "--set", "run.numerics=true",
            "--out", str(out), "--jobs", jobs]  # fmt: skip
    assert cli.main(argv) == 2
    assert "error: workload.data_dir: '/nowhere' is not valid; expected a folder" in capsys.readouterr().err
    assert [*tmp_path.rglob("*")] == [out] * there


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    def figures(jobs: int) -> list[dict[str, Any]]:
        found = aladdin.compare("demo", "asp,aladdin", seeds=2, overrides=QUICK, jobs=jobs)
        return [(run["algorithm"], run["seed"], run["summary"]) for run in found.runs]

    assert figures(1) == figures(2)


def test_a_process_that_dies_is_a_row_and_disturbs_nobody(fragile: Path) -> None:
    shares: list[float] = []
    found = aladdin.compare("demo", "fragile:Dies,fragile:Breaks,asp,bsp", overrides=QUICK, jobs=2,
                            on_progress=lambda done, total: shares.append(done / total))  # fmt: skip
    by_name = {one["algorithm"]: one for one in found.statistics}
    assert by_name["fragile:Dies"]["outcomes"] == {"failed": 1}
    assert "SIGKILL" in by_name["fragile:Dies"]["messages"][0]
    assert by_name["fragile:Breaks"]["messages"] == ["ValueError: a slip"]
    assert by_name["asp"]["outcomes"] == by_name["bsp"]["outcomes"] == {"done": 1}
    assert shares[-1] == pytest.approx(1.0)


def test_ctrl_c_ends_the_processes_too(fragile: Path, tmp_path: Path) -> None:
    folders = json.dumps([str(fragile), *sys.path])
    code = f"import sys; sys.path[:] = {folders}; from aladdin.cli import main; sys.exit(main())"
    sets = [f"--set={path}={json.dumps(value)}" for path, value in QUICK.items()]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "compare", "demo", "-a", "asp,fragile:Hangs", "--jobs", "2",
         "--seeds", "1", *sets, "--out", str(tmp_path / "c")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    finished, pid = tmp_path / "c" / "asp" / "seed-0", fragile / "pid"
    for _ in range(600):
        if finished.exists() and pid.exists() and pid.read_text():
            break
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was finished is in" in err
    assert "Traceback" not in err
    assert not Path(f"/proc/{pid.read_text()}").exists()
    assert os.listdir(tmp_path / "c" / "asp") == ["seed-0"]


def test_the_command_prints_a_table(drivers: list[Scenario], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "demo", "-a", "asp,bsp", "--seeds", "2", "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    for piece in ("demo: 4 workers, 2 seeds", "samples/s", "busiest node", "2 / 11 / 11", "ASP", "BSP"):
        assert piece in out
    assert err == ""


def test_json_is_one_document(drivers: list[Scenario], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "demo", "-a", "asp", "--accuracy", "0.9", "--jobs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == 0.9
    assert found["algorithms"][0]["reached"] == 0
    assert found["runs"][0]["summary"]["workers"] == 4


def test_failed_runs_are_told_and_give_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(scenario: Scenario) -> Record:
        if scenario.algorithm.name == "asp":
            raise RuntimeError("stuck")
        return fake_run(scenario)

    stub(monkeypatch, run)
    assert cli.main(["compare", "demo", "-a", "asp,bsp", "--jobs", "1"]) == 3
    out = capsys.readouterr().out
    assert "* ASP: 1 failed of 1: RuntimeError: stuck" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--accuracy", "95"], "accuracy: 95.0 is not valid; expected a share above 0"),
        (["--seeds", "0"], "seeds: 0 is not valid"),
        (["--jobs", "0"], "jobs: 0"),
        (["-a", "aladin"], "did you mean 'aladdin'"),
        (["--accuracy", "0.9", "--numerics", "off"], "numerics: 'off'"),
    ],
)
def test_bad_input_is_one_message(
    drivers: list[Scenario], capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert cli.main(["compare", "demo", *argv]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert "Traceback" not in out + err
    assert drivers == []


def test_the_page_on_comparing_describes_what_is_printed_and_written(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
    found = aladdin.compare(
        "demo", "asp,arsgd", seeds=2, accuracy=0.2, overrides=QUICK, out=tmp_path / "c", jobs=2
    )
    for file in [*found.pictures, tmp_path / "c" / "comparison.json"]:
        assert file.name in page
    (table,) = report.algorithms(found.statistics, accuracy=0.95)
    words = {str(column.header).replace("\n", " ") for column in table.columns} - {"algorithm"}
    for head in words:
        stem = head.removesuffix(" %").removesuffix(" per step").split(" mean")[0]
        assert re.search(rf"^\|.*{re.escape(stem)}.*\|", page, re.MULTILINE), head
    assert found.statistics[0]["accuracy"]["count"] == 2


def test_a_directory_that_a_comparison_is_writing_to_is_refused_to_others(tmp_path: Path) -> None:
    def another(*_: Any) -> None:
        with pytest.raises(ScenarioError, match="is not empty"):
            aladdin.compare("demo", "bsp", overrides=QUICK, out=tmp_path / "c", jobs=1)
        asked.append(True)

    asked: list[bool] = []
    aladdin.compare("demo", "asp", overrides=QUICK, out=tmp_path / "c", jobs=1, on_progress=another)
    assert asked
    assert [file.name for file in (tmp_path / "c").iterdir() if file.is_dir()] == ["asp"]


def test_a_process_that_cannot_be_started_is_a_failed_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(pool.subprocess, "Popen", refuse)
    found = dict(pool.outcomes([{"path": None}, {"path": None}], 2))
    assert [found[index]["outcome"] for index in (0, 1)] == ["failed", "failed"]
    assert "Resource temporarily unavailable" in found[0]["message"]

"""The Python API: scenario in, result and run directory out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import aladdin
import real
from aladdin import api
from core.algorithms import ALGORITHMS
from core.record import Record
from scenarios import Scenario, ScenarioError
from scenarios.profile import Constant, Profile
from tests.aladdin.conftest import fake_run


def test_importing_aladdin_imports_nothing_heavy() -> None:
    heavy = "'numpy', 'scenarios', 'sim', 'torch', 'typer'"
    code = f"import sys, aladdin; print([m for m in ({heavy}) if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in aladdin.__all__:
        assert callable(getattr(aladdin, name)), name
    assert set(aladdin.__all__) == set(aladdin._HOMES)
    with pytest.raises(AttributeError, match="simulat"):
        aladdin.simulat  # noqa: B018


def test_simulate_takes_overrides_and_returns_a_summary(drivers: list[Scenario]) -> None:
    result = aladdin.simulate("demo", algorithm="asp", overrides={"cluster.workers": 3})
    assert drivers[0].algorithm.name == "asp"
    assert result.summary["workers"] == 3
    assert result.summary["throughput"] == pytest.approx(3 * 10 / 0.2)
    assert result.path is None


def test_simulate_writes_a_run_directory_once(drivers: list[Scenario], tmp_path: Path) -> None:
    result = aladdin.simulate("demo", out=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["manifest"]["driver"] == "sim"
    assert result.path == tmp_path / "run"
    with pytest.raises(ScenarioError, match="never overwritten"):
        aladdin.simulate("demo", out=tmp_path / "run")
    assert len(drivers) == 1, "refused only after the run"


def test_runs_of_several_algorithms_have_a_directory_each(drivers: list[Scenario], tmp_path: Path) -> None:
    results = list(aladdin.runs("demo", "asp, bsp,asp", out=tmp_path / "all"))
    assert [result.path for result in results] == [tmp_path / "all" / "asp", tmp_path / "all" / "bsp"]
    assert [one.algorithm.name for one in drivers] == ["asp", "bsp"]


def test_all_means_every_algorithm(drivers: list[Scenario]) -> None:
    assert len(list(aladdin.runs("demo", "all"))) == len(ALGORITHMS) == len(drivers)


def test_runs_check_everything_before_it_starts(drivers: list[Scenario], tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="did you mean 'aladdin'"):
        list(aladdin.runs("demo", ["asp", "aladin"]))
    (tmp_path / "bsp").mkdir()
    (tmp_path / "bsp" / "manifest.json").write_text("{}")
    with pytest.raises(ScenarioError, match="never overwritten"):
        list(aladdin.runs("demo", ["asp", "bsp"], out=tmp_path))
    with pytest.raises(ScenarioError, match="sim or real"):
        list(aladdin.runs("demo", driver="fast"))
    assert drivers == []


def test_train_names_its_directory_after_the_run(drivers: list[Scenario], tmp_path: Path) -> None:
    first = aladdin.train("demo", algorithm="asp", into=tmp_path)
    second = aladdin.train("demo", algorithm="asp", into=tmp_path)
    assert first.path == tmp_path / "demo-asp-20261121T073553"
    assert second.path == tmp_path / "demo-asp-20261121T073553-2"
    assert len(drivers) == 2


def profile(**changes: Any) -> Profile:
    return Profile(
        constants={"tensor_rate.apply": Constant(2e9, "bytes/s", 1e9, 3e9, 10)},
        ranges={"workers": (2, 4)},
        **changes,
    )


def test_a_profile_out_of_its_range_is_flagged(drivers: list[Scenario], tmp_path: Path) -> None:
    profile().write(tmp_path / "profile.json")
    result = aladdin.simulate(
        "demo", profile=tmp_path / "profile.json", overrides={"cluster.workers": 8}, out=tmp_path / "run"
    )
    assert any("out of range: workers is 8" in flag for flag in result.flags)
    assert result.summary["flags"] == result.flags
    assert "out of range" in (tmp_path / "run" / "manifest.json").read_text()


def test_a_profile_in_its_range_is_not(drivers: list[Scenario]) -> None:
    assert aladdin.simulate("demo", profile=profile()).flags == []
    assert drivers[0].cluster.tensor_rates["apply"] == 2e9


def test_a_profile_from_another_machine_is_flagged(
    drivers: list[Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "hardware", lambda: {"cpu": "Z80"})
    flags = aladdin.simulate("demo", profile=profile(hardware={"cpu": "6502"})).flags
    assert len(flags) == 1
    assert "another hardware: cpu is 'Z80'" in flags[0]


class Interrupted(Exception):
    def __init__(self, record: Any) -> None:
        super().__init__("stopped")
        self.record = record


def test_what_an_interrupted_run_has_finished_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(scenario: Scenario, **_: Any) -> None:
        raise Interrupted(fake_run(scenario, "real"))

    monkeypatch.setattr(api, "_driver", lambda _: stopped)
    with pytest.raises(Interrupted) as stop:
        aladdin.train("demo", out=tmp_path / "run")
    assert stop.value.path == tmp_path / "run"  # type: ignore[attr-defined]
    assert "not complete" in (tmp_path / "run" / "manifest.json").read_text()


@pytest.mark.parametrize("finished", [0, 1])
def test_several_stopped_before_their_first_step_leave_nothing_behind(
    finished: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one does; what others had finished is kept, and so is a folder that was there before."""
    ran: list[Scenario] = []

    def stopped(scenario: Scenario, **_: Any) -> Record:
        ran.append(scenario)
        if len(ran) > finished:
            raise KeyboardInterrupt
        return fake_run(scenario, "real")

    monkeypatch.setattr(api, "_driver", lambda _: stopped)
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        ran.clear()
        with pytest.raises(KeyboardInterrupt):
            list(aladdin.runs("demo", ["asp", "bsp"], driver="real", out=tmp_path / name))
    kept = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")}
    assert {"there", *(["new/asp/manifest.json"] * finished)} <= kept
    assert ("new" in kept) == bool(finished)
    assert not any("bsp" in name for name in kept)


def test_training_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real, "_NEEDED", ("json", "no_such_package"))
    with pytest.raises(ScenarioError, match=r"needs no_such_package; .*pip install 'aladdin\[real\]'"):
        aladdin.train("demo")


def test_plot_and_trace_read_run_directories(drivers: list[Scenario], tmp_path: Path) -> None:
    for driver in ("sim", "real"):
        list(
            aladdin.runs("demo", ["asp"], driver=driver, overrides={"run.spans": True}, out=tmp_path / driver)
        )
    runs = [tmp_path / "sim", tmp_path / "real"]
    files = {file.name for file in aladdin.plot(runs, tmp_path / "pictures")}
    assert files == {"breakdown.png", "timeline.png", "predicted-measured.png"}
    events = json.loads(aladdin.trace(runs, tmp_path / "t.json").read_text())["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names[0] == "sim asp: worker 0"
    assert "real asp: server 0" in names


def test_lists_hold_what_can_be_chosen() -> None:
    assert {one["name"] for one in aladdin.list_algorithms()} == set(ALGORITHMS)
    assert next(one for one in aladdin.list_algorithms() if one["name"] == "aladdin")["options"]["pi"] == 1
    assert {"demo", "paper/vgg16"} <= {one["name"] for one in aladdin.list_scenarios()}
    named = {one["name"]: one["model"] for one in aladdin.list_scenarios()}
    assert named["paper/dpsgd-resnet20"] == "272,474 parameters, timing only", "a size in place of a model"
    assert (named["demo"], named["paper/vgg16"]) == ("mlp", "vgg16")
    models = {one["name"]: one["parameters"] for one in aladdin.list_workloads()["models"]}
    assert (models["resnet50"], models["vgg16"]) == (25_557_032, 138_357_544)


def test_an_option_goes_to_the_algorithms_that_have_it(drivers: list[Scenario]) -> None:
    list(aladdin.runs("demo", "asp,aladdin", overrides={"algorithm.pi": 4, "algorithm.lr": 0.2}))
    assert drivers[1].algorithm.options == {"pi": 4}
    assert [one.algorithm.lr for one in drivers] == [0.2, 0.2]
    for names in ("asp", "asp,bsp"):
        with pytest.raises(ScenarioError, match=r"algorithm\.pi"):
            list(aladdin.runs("demo", names, overrides={"algorithm.pi": 4}))


def test_restarts_go_to_the_algorithms_that_have_servers() -> None:
    restarts = {"run.server_restarts": 2, "run.checkpoint_every": "1 s"}
    chosen, refused = api.choices("demo", ["asp", "arsgd", "bsp"], restarts)
    assert [one.run.server_restarts for one in chosen] == [2, 0, 2]
    assert [one.run.checkpoint_every for one in chosen] == [1, 0, 1]
    assert not refused
    with pytest.raises(ScenarioError, match=r"run\.server_restarts: 2 .* 0: arsgd has no servers"):
        api.choices("demo", ["arsgd", "sgp"], restarts)


def test_a_folder_of_runs_stands_for_them(drivers: list[Scenario], tmp_path: Path) -> None:
    list(aladdin.runs("demo", ["asp", "bsp"], overrides={"run.spans": True}, out=tmp_path / "all"))
    events = json.loads(aladdin.trace([tmp_path / "all"], tmp_path / "t.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert {"sim asp: worker 0", "sim bsp: worker 0"} <= names
    assert len(drivers) == 2


@pytest.mark.parametrize(
    ("given", "chosen"),
    [("", []), ((), []), ("asp", ["asp"]), (" asp ,bsp,asp", ["asp", "bsp"]), (["x"], ["x"])],
)
def test_names_of_algorithms(given: Any, chosen: list[str]) -> None:
    assert aladdin.algorithms(given) == chosen


def test_separators_are_no_names() -> None:
    with pytest.raises(ScenarioError, match="names out of bsp, asp"):
        aladdin.algorithms(" , ")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: aladdin.simulate("demo", algorithm=3), "algorithm: 3 is not valid; expected"),  # type: ignore[arg-type]
        (lambda: list(aladdin.runs("demo", ["asp", 3])), "algorithm: ['asp', 3] is not valid"),  # type: ignore[list-item]
        (lambda: aladdin.simulate("demo", overrides=3), "overrides: 3 is not valid; expected a table"),  # type: ignore[arg-type]
        (lambda: aladdin.simulate("demo", overrides={3: 4}), "overrides: 3 is not valid; expected a field"),  # type: ignore[dict-item]
        (lambda: aladdin.compare("demo", overrides=[1]), "overrides: [1] is not valid"),  # type: ignore[arg-type]
        (lambda: aladdin.simulate("demo", profile=3), "profile: 3 is not valid; expected the path"),
        (lambda: aladdin.simulate("demo", out=3), "out: 3 is not valid; expected the path"),  # type: ignore[arg-type]
        (lambda: aladdin.plot([3], "p"), "runs: 3 is not valid; expected the path"),  # type: ignore[list-item]
        (lambda: aladdin.verify(3), "path: 3 is not valid; expected the path"),  # type: ignore[arg-type]
        (lambda: aladdin.calibrate("demo", workers=None), "workers: null is not valid; expected a list"),  # type: ignore[arg-type]
        (lambda: aladdin.calibrate("demo", workers=(0,)), "workers[0]: 0 is not valid; expected a whole"),
        (lambda: aladdin.calibrate("demo", links=("wifi",)), "links[0]: 'wifi' is not valid"),
        (lambda: aladdin.calibrate("demo", links=(3,)), "links[0]: 3 is not valid"),  # type: ignore[arg-type]
        (lambda: aladdin.calibrate("demo", out=3), "out: 3 is not valid; expected the path"),  # type: ignore[arg-type]
        (lambda: aladdin.compare("demo", accuracy="x"), "accuracy: 'x' is not valid; expected a share"),  # type: ignore[arg-type]
        (lambda: aladdin.plot(3, "p"), "runs: 3 is not valid; expected a list"),  # type: ignore[arg-type]
        (lambda: aladdin.plot("run", "p"), "runs: 'run' is not valid; expected a list"),
        (lambda: aladdin.plot([], 3), "out: 3 is not valid; expected the path"),  # type: ignore[arg-type]
        (lambda: aladdin.trace([], 3), "out: 3 is not valid; expected the path"),  # type: ignore[arg-type]
        (lambda: aladdin.trace(["a\0b"], "t"), "runs: 'a\\x00b' is not valid; expected a path without null"),
        (lambda: aladdin.simulate("demo", out="a\0b"), "out: 'a\\x00b' is not valid; expected a path"),
        (lambda: aladdin.simulate("a\0b.yaml"), "scenario: 'a\\x00b.yaml' is neither"),
        (lambda: aladdin.simulate("demo", algorithm=[]), "algorithm: [] is not valid; expected"),  # type: ignore[arg-type]
        (lambda: aladdin.simulate("demo", overrides={"name": "\udcff"}), "name: '\\udcff' is not"),
    ],
)  # fmt: skip
def test_arguments_of_a_wrong_type_are_bad_input(call: Any, message: str) -> None:
    with pytest.raises(aladdin.ScenarioError) as error:
        call()
    assert str(error.value).startswith(message)

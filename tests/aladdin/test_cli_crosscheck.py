"""``aladdin crosscheck`` and ``calibrate`` as commands: options, what they print, what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import scenarios
from aladdin import calibration, validation
from aladdin.calibration import LONGEST, calibrate
from aladdin.cli import crosscheck as command
from aladdin.designs.fraction import Fraction
from analysis.names import label
from core.record import Record
from scenarios import Scenario, ScenarioError
from scenarios.profile import Profile
from sim import simulate
from tests.aladdin.test_cli import Shell


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "p.json"
    calibrate("demo", overrides={"cluster.workers": 2}, out=path, run=simulate, budget=1e-3)
    return path


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch, profile: Path) -> Path:
    """The simulator, on the machine of a profile, in the place of the real driver; no test-bed."""

    def run(scenario: Scenario) -> Record:
        return simulate(Profile.read(profile).apply(scenario))

    monkeypatch.setattr(validation, "run_for_real", run)
    monkeypatch.setattr(command, "_unshaped", lambda: "no root")
    return profile


def test_quick_prints_its_plan_and_a_list_of_cells(shell: Shell, simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "check"
    done = shell("crosscheck", "--quick", "--seconds", 4, "--profile", simulated, "--json", "-o", out)
    assert done.code == 0, done.err
    cells = json.loads(done.out)
    assert len(cells) == len(Fraction(quick=True).cells())
    for cell in cells:
        assert {"algorithm", "n", "predicted", "measured", "throughput_error"} <= set(cell)
        assert cell["throughput_error"] == pytest.approx(cell["predicted"] / cell["measured"] - 1)
        assert cell["links"] == "paced"
    assert "links: paced on loopback: no root" in done.err
    assert f"plan: {len(cells)} cells (quick design, paced links), 4 to 4 s each" in done.err
    again = shell("crosscheck", "--quick", "--seconds", 4, "--profile", simulated, "-o", out, "--resume")
    assert again.code == 0, again.err
    assert "ranking of the algorithms in 3 circumstances" in again.out


def test_warnings_name_the_first_of_their_cells(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, simulated: Path
) -> None:
    run = validation.run_for_real

    def flagged(scenario: Scenario) -> Record:
        record = run(scenario)
        if scenario.cluster.workers == 4:
            record.manifest["flags"] = ["odd"]
        return record

    monkeypatch.setattr(validation, "run_for_real", flagged)
    done = shell("crosscheck", "--quick", "--seconds", 4, "--profile", simulated, "--json")
    cells = [cell for cell in json.loads(done.out) if "odd" in cell["flags"]]
    assert len(cells) > 1
    assert all(cell["n"] == 4 for cell in cells)
    first = label(cells[0]["algorithm"])
    assert f"warning: {first}, n = 4, " in done.err
    assert f" and {len(cells) - 1} other" in done.err
    assert "paced links" in next(line for line in done.err.splitlines() if line.endswith(": odd"))


def test_budgets_that_are_too_long_are_refused_in_the_units_that_are_typed(shell: Shell) -> None:
    assert shell("calibrate", "--budget", LONGEST + 1).code == 2
    assert "should be less than or equal to 604800" in shell("calibrate", "--budget", LONGEST + 1).err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--design", "half"], "--design: 'half' is not valid; expected full or basic or gpu"),
        (["--links", "wires"], "--links: 'wires' is not valid; expected auto or shaped or paced"),
        (["--links", "shaped"], "--links: 'shaped' is not valid; expected paced or auto: no root"),
        (["--design", "basic", "--quick"], "expected full with --quick and --links"),
        (["--design", "gpu", "--quick"], "expected full, without run.device=cuda, with --quick and --links"),
        (["--design", "gpu", "-s", "run.device=cpu"], "run.device: 'cpu' is not valid; expected cuda with"),
        (["--budget", str(LONGEST / 60 + 1)], "should be less than or equal to 10080"),
        (["--resume"], "--resume: True is not valid; expected --out DIR beside it"),
    ],
)
def test_what_is_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str
) -> None:
    monkeypatch.setattr(command, "_unshaped", lambda: "no root")
    done = shell("crosscheck", *options)
    assert (done.code, done.out) == (2, "")
    assert says in done.err


@pytest.mark.parametrize("options", [["--design", "gpu"], ["-s", "run.device=cuda"]])
def test_without_a_device_nothing_is_measured_or_written(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    ran: list[Scenario] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(calibration, "run_for_real", ran.append)
    monkeypatch.setattr(validation, "run_for_real", ran.append)
    done = shell("crosscheck", *options, "-o", tmp_path / "check")
    assert (done.code, done.out) == (2, "")
    assert "run.device: 'cuda' is not valid; expected cpu: torch finds no CUDA device here" in done.err
    assert ran == []
    assert not (tmp_path / "check" / "plan.json").exists()


def test_the_committed_design_is_planned_within_its_budget(
    monkeypatch: pytest.MonkeyPatch, profile: Path, tmp_path: Path
) -> None:
    """At most 60 cells and 75 minutes: four calibrations, first rounds, second ones of native steps."""
    said: list[str] = []

    def stop(text: str) -> None:
        said.append(text)
        raise KeyboardInterrupt

    known = Profile.read(profile)
    monkeypatch.setattr(validation, "calibrate", lambda *_, **__: known)
    with pytest.raises(KeyboardInterrupt):
        validation.crosscheck("demo", design=Fraction(), out=tmp_path / "check", on_plan=stop)
    plan = json.loads((tmp_path / "check" / "plan.json").read_text())
    calibrations = validation.CALIBRATING * len(list((tmp_path / "check").glob("profile-*.json")))
    assert len(plan["cells"]) <= 60
    assert calibrations + plan["first_rounds"] + plan["further_rounds"] <= 75 * 60 == plan["budget"]
    assert said[0].endswith("none begins after 75 min")


def test_a_budget_that_first_rounds_exceed_is_told(
    shell: Shell, simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise ScenarioError("enough")

    monkeypatch.setattr(validation._Check, "_round", stop)
    done = shell("crosscheck", "--quick", "--seconds", 60, "--profile", simulated, "--budget", 1)
    assert "none begins after 1 min, but first rounds, with which it is 10 min, all run" in done.err


def test_pictures_that_cannot_be_written_are_refused_before_any_probe(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probed(*_: Any, **__: Any) -> None:
        raise AssertionError("it was calibrated")

    monkeypatch.setattr(calibration, "calibrate", probed)
    (tmp_path / "file").touch()
    done = shell("calibrate", "demo", "-o", tmp_path / "p.json", "-p", tmp_path / "file" / "pictures")
    assert done.code == 2
    assert "--pictures" in done.err
    assert "cannot be written" in done.err
    assert not (tmp_path / "p.json").exists()


def test_when_this_machine_is_calibrated_is_told(
    shell: Shell, simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Profile.read(simulated)
    monkeypatch.setattr(validation, "calibrate", lambda *_, **__: known)
    monkeypatch.setattr(validation._Check, "_plan", lambda _: "the plan")
    monkeypatch.setattr("aladdin.repeating.Rounds.schedule", lambda *_: iter(()))
    done = shell("crosscheck", "--quick", "--seconds", 4)
    names = [name for name in ("4MB-paced", "4MB-native", "20MB-paced", "20MB-native") if name in done.err]
    lines = [line for line in done.err.splitlines() if line.startswith("calibration: ")]
    assert len(lines) == 2 * len(names) > 2
    for name in names:
        (begun, ended) = (line for line in lines if f" {name} " in line)
        assert begun == f"calibration: {name} begins, about 38 s"
        assert re.fullmatch(rf"calibration: {name} took \d+\.\d s", ended)


def test_links_are_shaped_where_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_unshaped", lambda: "")
    assert command._links("auto") == "shaped"
    assert command._links("paced") == "paced"


def test_a_device_has_a_design_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    design: Any = command._design("full", False, "auto", None, "cuda")
    cells = design.cells()
    assert {cell["message"] for cell in cells} == {"resnet50", "vgg16"}
    assert {cell["n"] for cell in cells} == {1, 2, 4, 8}
    assert len({cell["algorithm"] for cell in cells}) == 16
    base = scenarios.load("demo", {"run.device": "cuda"})
    made = [design.scenario(base, cell) for cell in cells]
    assert {one.workload.model for one in made} == {"resnet50", "vgg16"}
    assert {(one.run.links, one.run.compute, one.run.device) for one in made} == {
        ("native", "native", "cuda")
    }
    with pytest.raises(ScenarioError, match=r"run\.links"):
        Fraction("paced", table="gpu.csv").scenario(base, cells[0])


def test_the_device_that_a_scenario_file_asks_for_counts(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, asked = tmp_path / "mine.yaml", []
    file.write_text(json.dumps(scenarios.load("demo", {"run.device": "cuda"}).to_dict()))

    def stop(scenario: str, *, design: Fraction, **_: Any) -> None:
        asked.append(design.name)
        raise ScenarioError("enough")

    monkeypatch.setattr(validation, "crosscheck", stop)
    assert shell("crosscheck", file).code == 2
    assert asked == ["gpu design, native links"]


def test_calibrating_says_what_it_covers_and_how_well_it_fits(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(calibration, "run_for_real", simulate)
    done = shell(
        "calibrate",
        "-s",
        "cluster.workers=2",
        "-o",
        tmp_path / "p.json",
        "-p",
        tmp_path / "drawn",
        "--budget",
        1,
    )
    assert done.code == 0, done.err
    assert "link.paced, stream: R² 1.0000" in done.out
    assert "workers: 1 to 2" in done.out
    assert "links: native, paced" in done.out
    assert (tmp_path / "drawn" / "link-paced.png").exists()
    assert Profile.read(tmp_path / "p.json").notes["repetitions"]

"""The page on adding an algorithm: its code runs on both drivers, and does what it says."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import aladdin
from aladdin import cli

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line.removeprefix("$ aladdin ") for line in "".join(blocks("console")).splitlines()]
NAME = "my_algorithms:StalenessAware"
TINY = {"workload.hidden": [16], "workload.batch": 16, "run.steps": 12}


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's code as the module that it names, importable; work goes on in an empty folder."""
    (code,) = blocks("python")
    (tmp_path / "my_algorithms.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_algorithms", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_about_twenty_lines_long() -> None:
    (code,) = blocks("python")
    body = re.sub(r'""".*?"""', "", code.partition("@dataclass")[2], flags=re.DOTALL)
    assert sum(bool(line.split("#")[0].strip()) for line in body.splitlines()) <= 30


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(command)) == 0
    assert "StalenessAware" in capsys.readouterr().out


def test_the_scenario_runs(module: Path) -> None:
    (text,) = blocks("yaml")
    (module / "mine.yaml").write_text(text, encoding="utf-8")
    result = aladdin.simulate(module / "mine.yaml", overrides={"run.steps": 5})
    scenario = result.record.manifest["scenario"]["algorithm"]
    assert (scenario["name"], scenario["options"]) == (NAME, {"power": 0.5})
    assert result.summary["steps"] == 20


def test_on_both_drivers_every_gradient_is_applied_once() -> None:
    for run in (aladdin.simulate, aladdin.train):
        result = run("demo", algorithm=NAME, overrides=TINY | {"run.links": "native"})
        assert result.record.gradients["count"].sum() == 12 * 4
        assert result.summary["pending"] == 0


def test_power_zero_is_asp_and_power_one_damps() -> None:
    def losses(algorithm: str, **options: float) -> np.ndarray:
        sets = {f"algorithm.{name}": value for name, value in options.items()}
        numeric = {"run.numerics": True, "run.evaluate_every": 0.1, "run.threads": 1}
        return aladdin.simulate("demo", algorithm=algorithm, overrides=TINY | numeric | sets).record.curves[
            "loss"
        ]

    asp, zero, one = losses("asp"), losses(NAME, power=0.0), losses(NAME, power=1.0)
    assert len(asp) > 3
    assert (asp == zero).all()
    assert asp[-1] < one[-1] < asp[0], "smaller steps learn more slowly, but they learn"


def test_its_options_are_known() -> None:
    with pytest.raises(aladdin.ScenarioError, match="did you mean 'power'"):
        aladdin.load("demo", algorithm=NAME, overrides={"algorithm.powr": 2})


def test_a_comparison_holds_it_beside_others(module: Path) -> None:
    found = aladdin.compare("demo", ["asp", NAME], overrides=TINY, seeds=2, out=module / "c", jobs=2)
    assert [one["outcomes"] for one in found.statistics] == [{"done": 2}] * 2
    assert (module / "c" / "my_algorithms-StalenessAware" / "seed-1" / "manifest.json").exists()
    assert json.loads((module / "c" / "comparison.json").read_text())["complete"]


def test_the_page_names_what_there_is() -> None:
    from core import effects, errors, node, tensors

    for name in ("accumulate", "apply", "mix", "assign", "scale", "snapshot"):
        assert name in tensors.OPERATIONS
    assert {"Left", "Finished"} <= set(node.__all__)
    assert {"Compute", "Receive", "Send"} <= set(effects.__all__)
    assert hasattr(errors, "require")


@pytest.mark.parametrize(
    ("value", "message"),
    [("high", "a number"), (True, "a number"), ([1.0], "a number"), (None, "a number")],
)
def test_an_option_of_another_type_is_refused(value: object, message: str) -> None:
    with pytest.raises(aladdin.ScenarioError, match=rf"algorithm\.power: .* {message}"):
        aladdin.load("demo", algorithm=NAME, overrides={"algorithm.power": value})

"""``aladdin paper`` that is stopped and goes on, and that is given CIFAR-10 in a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aladdin import pool
from aladdin.cli import main
from aladdin.paper import EXPERIMENTS, keeping, paper
from aladdin.paper.cases import Unfinished
from aladdin.paper.learning import EPOCHS, SMALL, cifar10, wanted
from scenarios import ScenarioError

ONLY = "figure2,figure3"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that are begun; a number at the front says at which one Ctrl-C is pressed."""
    begun: list[Any] = [0]
    real = pool.perform

    def perform(job: dict[str, Any], on_progress: Any = None) -> dict[str, Any]:
        begun.append(job)
        if len(begun) - 1 == begun[0]:
            raise KeyboardInterrupt
        return real(job, on_progress)

    monkeypatch.setattr(pool, "perform", perform)
    return begun


def command(out: Path, *more: str) -> list[str]:
    return ["paper", "--only", ONLY, "--seeds", "1", "--jobs", "1", "--out", str(out), *more]


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(
    tmp_path: Path, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in Figure 3's second run; resumed it is the report of a run that nobody stopped."""
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    cases = len({one for name in ONLY.split(",") for one in EXPERIMENTS[name].wanted()})
    calls[0] = cases - 1
    assert main(command(out)) == 130
    said, err = capsys.readouterr()
    assert "Figure 2" in said
    assert "not finished: figure3" in said
    assert err.splitlines()[-1] == f"stopped: by Ctrl-C; what was finished is in {out}"
    text = (out / "report.md").read_text()
    assert "## Figure 2" in text
    assert "## Figure 3" not in text
    assert "**Incomplete**: stopped before these were finished: figure3." in text
    tree = json.loads((out / "report.json").read_text())
    assert (tree["complete"], tree["missing"]) == (False, ["figure3"])

    calls[:] = [0]
    assert main(command(out, "--resume")) == 0
    assert len(calls) - 1 == 2, "the one that was stopped and the one after"
    assert main(command(whole)) == 0
    assert (out / "report.md").read_text() == (whole / "report.md").read_text()
    assert json.loads((out / "report.json").read_text())["complete"]

    (out / "mine.png").write_bytes(b"no picture of the report's")
    less = paper("figure2", out=out, resume=True, seeds=1, jobs=1)
    assert {file.name for file in out.glob("*.png")} == {
        "mine.png",
        *(Path(one).name for one in less.pictures),
    }
    assert (whole / "figure3.png").exists()


def test_stopped_before_anything_is_finished_nothing_is_left(
    tmp_path: Path, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calls[0] = 1
    assert main(command(tmp_path / "out")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped: by Ctrl-C"
    assert not (tmp_path / "out").exists()


def test_stopped_without_a_directory_it_prints_what_is_finished(
    calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calls[0] = 9
    assert main(["paper", "--only", ONLY, "--seeds", "1", "--jobs", "1", "--json"]) == 130
    tree = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in tree["sections"]] == ["figure2"]
    assert tree["missing"] == ["figure3"]


def test_a_run_that_fails_leaves_the_finished_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun = pool.perform, []

    def perform(job: dict[str, Any], on_progress: Any = None) -> dict[str, Any]:
        begun.append(job)
        return real(job) if len(begun) < 3 else {"outcome": "failed", "message": "broken"}

    monkeypatch.setattr(pool, "perform", perform)
    with pytest.raises(Unfinished, match="failed: broken") as caught:
        paper("figure2", out=tmp_path / "out", seeds=1, jobs=1)
    assert caught.value.path == tmp_path / "out"
    assert len(keeping.Kept(tmp_path / "out", resume=True)) == 2


def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path: Path) -> None:
    kept = keeping.Kept(tmp_path, resume=False)
    for seed in range(3):
        kept.put({"run": {"seed": seed}}, {"summary": {"steps": seed}, "curves": None})
    raw = kept.path.read_bytes()
    kept.path.write_bytes(raw[:-7])
    again = keeping.Kept(tmp_path, resume=True)
    assert len(again) == 2
    assert again.get({"run": {"seed": 1}}) == {"summary": {"steps": 1}, "curves": None}
    assert again.get({"run": {"seed": 2}}) is None
    again.put({"run": {"seed": 2}}, {"summary": {"steps": 2}, "curves": None})
    assert kept.path.read_bytes() == raw


def test_runs_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping.Kept(tmp_path, resume=False).put({}, {"summary": {}, "curves": None})
    monkeypatch.setattr(keeping, "code", lambda: "of later")
    with pytest.raises(ScenarioError, match="made by another"):
        keeping.Kept(tmp_path, resume=True)
    (tmp_path / keeping.RUNS).write_text('{"code": "of later"}\n{"run": 3}\n')
    with pytest.raises(ScenarioError, match="damaged"):
        keeping.Kept(tmp_path, resume=True)


def _cifar(folder: Path, images: int = 40) -> Path:
    """A folder as CIFAR-10's: five training batches and a test batch, a colour per class."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = rng.integers(0, 10, (images, 1), dtype=np.uint8)
        pixels = rng.integers(0, 30, (images, 3072), dtype=np.uint8) + 20 * labels
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, pixels]).astype(np.uint8).tobytes())
    return folder


def test_cifar10_in_a_folder_is_what_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = _cifar(tmp_path / "cifar-10-batches-bin", 10), tmp_path / "out"
    argv = ["paper", "--only", "figure1b,figure6,figure8a", "--seeds", "1", "--jobs", "1", "--out", str(out)]
    assert main([*argv, "--data-dir", str(folder)]) == 0
    tree = json.loads((out / "report.json").read_text())
    assert [one["name"] for one in tree["sections"]] == ["figure1b", "figure6", "figure8a"]
    for section in tree["sections"]:
        assert "(CIFAR-10 at 16 pixels, small CNN)" in section["title"]
        assert "CIFAR-10 from a local folder" in section["notes"][0]
        assert f'"data_dir": "{folder}"' in section["commands"][0]
    text = (out / "report.md").read_text()
    assert "digits:" not in text
    assert "made-up" not in text
    (table,) = [table for table in tree["sections"][2]["tables"] if "accuracy" in table["columns"]]
    assert all(0 < row[1]["mean"] <= 1 for row in table["rows"])


def test_cifar10_is_trained_for_its_epochs(tmp_path: Path) -> None:
    """Of what is in the folder; without one it is digits and made-up images, and nothing else."""
    images = cifar10(_cifar(tmp_path / "data", images=50))
    for one in wanted(images):
        scenario = one.load()
        assert scenario.workload.data == "cifar10"
        assert scenario.run.samples == EPOCHS * 250
        assert scenario.run.evaluate_every == pytest.approx(0.5 * 250 / 50_000)
    assert {one.load().workload.data for one in wanted(SMALL)} == {"digits", "synthetic"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "figure4", "--data-dir", "nowhere"], "data_batch_1.bin"),
        (["--only", "figure4", "--data-dir", ""], "data_batch_1.bin"),
        (["--only", "figure2", "--data-dir", "nowhere"], "figure4"),
        (["--only", "figure2", "--resume"], "out"),
        (["--only", "figure2", "--resume", "--out", "nowhere"], "a report was begun in"),
    ],
)
def test_bad_input(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["paper", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())

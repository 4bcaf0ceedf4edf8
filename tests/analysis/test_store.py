"""Run directories: what goes in comes out, nothing is overwritten, every damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis import store
from core.record import Record
from scenarios.errors import ScenarioError
from tests.analysis.fakes import STEP, make


def same(a: Record, b: Record) -> None:
    assert a.manifest == b.manifest
    for name, table in a.tables().items():
        other = b.tables()[name]
        assert list(table) == list(other)
        for column, values in table.items():
            assert values.dtype.kind == other[column].dtype.kind, (name, column)
            np.testing.assert_array_equal(values, other[column])


def test_round_trip(tmp_path: Path) -> None:
    record = make([STEP] * 3, spans=True, curves=True)
    assert store.write(record, tmp_path / "deep" / "run") == tmp_path / "deep" / "run"
    same(record, store.read(tmp_path / "deep" / "run"))


def test_empty_tables_survive(tmp_path: Path) -> None:
    record = make([STEP], steps=0, servers=0)
    same(record, store.read(store.write(record, tmp_path / "run")))


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.write(make([STEP] * 2, spans=True), tmp_path / name)
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert store.MANIFEST in files
    assert "steps.parquet" in files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_nothing_else_is_left_behind(tmp_path: Path) -> None:
    store.write(make([STEP]), tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    store.write(make([STEP] * 2), tmp_path / "run")
    before = (tmp_path / "run" / store.MANIFEST).read_bytes()
    with pytest.raises(ScenarioError, match=r"run.*already holds a run.*another --out"):
        store.write(make([STEP]), tmp_path / "run")
    assert (tmp_path / "run" / store.MANIFEST).read_bytes() == before


def test_an_empty_folder_may_be_used_and_a_full_one_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store.write(make([STEP]), tmp_path / "empty")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(ScenarioError, match="is not empty"):
        store.write(make([STEP]), tmp_path / "full")
    with pytest.raises(ScenarioError, match="a file of that name"):
        store.write(make([STEP]), tmp_path / "full" / "thesis.txt")


def test_an_unwritable_folder_is_said_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match=r"cannot be written.*another --out"):
        store.reserve(tmp_path / "file" / "run")


def test_a_name_that_no_folder_can_have_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cannot be written.*another --out"):
        store.reserve(tmp_path / ("a" * 300))


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_table", full)
    with pytest.raises(ScenarioError, match="No space left on device"):
        store.write(make([STEP]), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_non_finite_values_in_a_manifest_become_null(tmp_path: Path) -> None:
    record = make([STEP], extra={"a": float("inf"), "b": np.float64(2), "c": (1, np.int64(2))})
    text = (store.write(record, tmp_path / "run") / store.MANIFEST).read_text()
    assert json.loads(text)["manifest"]["extra"] == {"a": None, "b": 2.0, "c": [1, 2]}
    assert "Infinity" not in text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return store.write(make([STEP] * 2), tmp_path / "run")


def test_not_a_run_directory(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere: it does not exist"):
        store.read(tmp_path / "nowhere")
    with pytest.raises(ScenarioError, match=r"has no manifest\.json"):
        store.read(tmp_path)
    (tmp_path / store.MANIFEST).write_text("[]")
    with pytest.raises(ScenarioError, match="does not describe a run"):
        store.read(tmp_path)


def test_truncated_table(run: Path) -> None:
    file = run / "steps.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ScenarioError, match=r"steps\.parquet is damaged or truncated"):
        store.read(run)


def test_missing_table(run: Path) -> None:
    (run / "nodes.parquet").unlink()
    with pytest.raises(ScenarioError, match=r"nodes\.parquet is missing"):
        store.read(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, r"newer version of aladdin \(schema 99\)"),
        ({"tables": {"nodes": 3}}, "lists no table 'steps'"),
        ({"tables": {"nodes": 2, "steps": 12}}, "has 3 rows, the manifest says 2"),
        ({"tables": 5}, "lacks its tables"),
        ({"format": "else"}, "does not describe a run"),
    ],
)
def test_bad_manifest(run: Path, change: dict, message: str) -> None:
    file = run / store.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ScenarioError, match=message):
        store.read(run)


def test_truncated_manifest(run: Path) -> None:
    (run / store.MANIFEST).write_text('{"format": "alad')
    with pytest.raises(ScenarioError, match=r"manifest\.json cannot be read"):
        store.read(run)

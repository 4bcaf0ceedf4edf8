"""The Chrome trace: what Perfetto needs, and the spans, unchanged."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis import trace
from core.record import KINDS
from scenarios.errors import ScenarioError
from tests.analysis.fakes import STEP, make


def test_every_span_is_a_complete_event_in_microseconds() -> None:
    record = make([STEP] * 2, spans=True)
    found = [event for event in trace.events({"run": record}) if event["ph"] == "X"]
    assert len(found) == len(record.spans["node"])
    for event, node, kind, start, end in zip(
        found, *(record.spans[c] for c in ("node", "kind", "start", "end")), strict=True
    ):
        assert (event["pid"], event["name"]) == (node, KINDS[kind])
        assert event["ts"] == pytest.approx(1e6 * start, abs=1e-3)
        assert event["dur"] == pytest.approx(1e6 * (end - start), abs=1e-3)


def test_processes_and_threads_are_named() -> None:
    found = list(trace.events({"run": make([STEP] * 2, spans=True)}))
    processes = {e["pid"]: e["args"]["name"] for e in found if e["name"] == "process_name"}
    assert processes == {0: "worker 0", 1: "worker 1", 2: "server 0"}
    threads = {(e["pid"], e["tid"]) for e in found if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in found if e["ph"] == "X"} <= threads


def test_two_runs_stand_side_by_side() -> None:
    runs = {"sim asp": make([STEP] * 2, spans=True), "real asp": make([STEP] * 2, spans=True)}
    names = {e["pid"]: e["args"]["name"] for e in trace.events(runs) if e["name"] == "process_name"}
    assert len(names) == 6
    assert names[0] == "sim asp: worker 0"
    assert names[5] == "real asp: server 0"


def test_the_file_is_json_and_replaces_an_older_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "trace.json"
    for _ in range(2):
        trace.write({"run": make([STEP], spans=True)}, path)
    assert set(json.loads(path.read_text())) == {"displayTimeUnit", "traceEvents"}
    assert [file.name for file in path.parent.iterdir()] == ["trace.json"]


def test_events_are_written_one_by_one_and_unpacked_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are those of the document as a whole, and hardly any event is there at the same time."""
    runs = {name: make([STEP] * 2, spans=True) for name in ("sim asp", "real asp")}
    whole = {"displayTimeUnit": "ms", "traceEvents": list(trace.events(runs))}
    monkeypatch.setattr(trace, "ROWS", 7)
    there, most, spans = 0, 0, trace._spans

    class Event(dict[str, Any]):
        def __init__(self, said: dict[str, Any]) -> None:
            nonlocal there, most
            super().__init__(said)
            there += 1
            most = max(most, there)

        def __del__(self) -> None:
            nonlocal there
            there -= 1

    monkeypatch.setattr(trace, "_spans", lambda *given: map(Event, spans(*given)))
    text = trace.write(runs, tmp_path / "t.json").read_text()
    assert text == json.dumps(whole, separators=(",", ":")) + "\n"
    assert 1 <= most <= 2


def test_a_run_without_spans_says_how_to_get_them() -> None:
    with pytest.raises(ScenarioError, match=r"asp: the run has no spans; record it with --spans"):
        trace.events({"asp": make([STEP])})


def test_an_unwritable_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="cannot be written"):
        trace.write({"run": make([STEP], spans=True)}, tmp_path / "file" / "trace.json")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = trace._spans

    def fill(*given: Any) -> Iterator[dict[str, Any]]:
        yield next(spans(*given))
        raise OSError(errno.ENOSPC, "No space left on device")

    record = make([STEP], spans=True)
    monkeypatch.setattr(trace, "_spans", fill)
    with pytest.raises(ScenarioError, match=r"cannot be written .No space left on device"):
        trace.write({"run": record}, tmp_path / "t.json")
    assert list(tmp_path.iterdir()) == []


def test_a_trace_of_a_part_of_the_run_says_so(tmp_path: Path) -> None:
    record = make([STEP] * 3, spans=True, sampled={"spans": "2 of 3 workers"})
    keep = record.spans["node"] != 1
    record.spans = {name: values[keep] for name, values in record.spans.items()}
    document = json.loads(trace.write({"run": record}, tmp_path / "t.json").read_text())
    assert document["otherData"] == {"run": "part of the run: 2 of 3 workers"}
    names = [event["args"]["name"] for event in document["traceEvents"] if event["name"] == "process_name"]
    assert names == ["part of the run: worker 0", "part of the run: worker 2", "part of the run: server 0"]

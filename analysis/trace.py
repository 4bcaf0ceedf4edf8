"""Chrome trace of runs: opens in https://ui.perfetto.dev and in chrome://tracing.

Rules this module obeys:

* One process per node, named by its role (and by its run, where several are shown); one thread for
  its programs, one for its uplink. Several runs stand side by side in one file.
* Complete events (``ph: X``), times in microseconds since the start of the run.
* Events are made and written one by one: a file's length costs no memory.
* Where the spans are those of a part of the run, the processes' names say so, and ``otherData`` says which.

Format: Trace Event Format (Chromium project), "JSON Object Format", "Complete Events",
"Metadata Events".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from analysis.names import sampled
from core.record import KINDS, Record
from scenarios.errors import ScenarioError

__all__ = ["events", "write"]

PROGRAM, UPLINK = 0, 1
"""Thread ids within a node's process."""


ROWS = 10_000
"""Rows of a table that are unpacked at once."""


def events(runs: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    """Trace events of ``runs`` (label -> record), metadata first, runs one after the other.

    Raises ``ScenarioError`` where a run has no spans, before the first event.
    """
    for name, record in runs.items():
        if not len(record.spans.get("node", ())):
            raise ScenarioError(
                f"trace of {name}: the run has no spans; record it with --spans (run.spans: true)"
            )
    return _events(runs)


def _events(runs: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    first = 0
    for name, record in runs.items():
        part = "part of the run" if sampled(record) else ""
        run = ", ".join(filter(None, (name if len(runs) > 1 else "", part)))
        yield from _metadata(record, run, first)
        yield from _spans(record, first)
        first += int(record.nodes["node"].max()) + 1


def write(runs: Mapping[str, Record], path: str | Path) -> Path:
    """Write the trace of ``runs`` to the JSON file ``path``; an existing file is replaced whole."""
    path = Path(path)
    text = _document(runs)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(text)
        partial.replace(path)
    except OSError as error:
        raise ScenarioError(f"trace {path}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _document(runs: Mapping[str, Record]) -> Iterator[str]:
    """The file, piece by piece."""
    found = events(runs)
    parts = {name: f"part of the run: {sampled(record)}" for name, record in runs.items() if sampled(record)}
    ending = f',"otherData":{_json(parts)}' if parts else ""
    pieces = (f"{',' if i else ''}{_json(event)}" for i, event in enumerate(found))
    return chain(['{"displayTimeUnit":"ms","traceEvents":['], pieces, [f"]{ending}}}\n"])


_json = json.JSONEncoder(separators=(",", ":")).encode


def _metadata(record: Record, run: str, first: int) -> Iterator[dict[str, Any]]:
    """Names and order of the processes and threads of one run."""
    nodes, roles = record.nodes["node"], record.nodes["role"].astype(str)
    servers = nodes[roles != "worker"]
    base = int(servers.min()) if len(servers) else 0
    shown = set(record.spans["node"].tolist()) if sampled(record) else set(nodes.tolist())
    for node, role in zip(nodes.tolist(), roles.tolist(), strict=True):
        if node not in shown:
            continue
        own = f"worker {node}" if role == "worker" else f"{role} {node - base}"
        pid = first + node
        yield _meta("process_name", pid, PROGRAM, name=f"{run}: {own}" if run else own)
        yield _meta("process_sort_index", pid, PROGRAM, sort_index=pid)
        yield _meta("thread_name", pid, PROGRAM, name="program")
        yield _meta("thread_name", pid, UPLINK, name="uplink")


def _meta(what: str, pid: int, tid: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args}


def _spans(record: Record, first: int) -> Iterator[dict[str, Any]]:
    """Complete events of one run, in the order of the table."""
    columns = [record.spans[name] for name in ("node", "kind", "start", "end")]
    rows = (
        zip(*(column[i : i + ROWS].tolist() for column in columns), strict=True)
        for i in range(0, len(columns[0]), ROWS)
    )
    for node, kind, start, end in chain.from_iterable(rows):
        name = KINDS[kind]
        yield {
            "ph": "X", "name": name, "cat": "link" if name == "transfer" else "program",
            "pid": first + node, "tid": UPLINK if name == "transfer" else PROGRAM,
            "ts": round(start * 1e6, 3), "dur": round(max(end - start, 0.0) * 1e6, 3),
        }  # fmt: skip

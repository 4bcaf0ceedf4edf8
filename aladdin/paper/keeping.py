"""Finished runs of a report, kept as they come: what Ctrl-C leaves and ``--resume`` takes over.

Rules this module obeys:

* A run is known by its whole scenario, seed included: it counts for whatever report wants the same one.
* ``runs.jsonl`` begins with a digest of the code that made the runs: two versions never share a report.
* A line that was not written to its end (the machine went down) is dropped; its run is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from scenarios import ScenarioError

__all__ = ["RUNS", "Kept"]

RUNS = "runs.jsonl"

_MADE_BY = ("core/**/*.py", "sim/**/*.py", "scenarios/**/*.py", "scenarios/**/*.yaml", "analysis/*.py",
            "aladdin/paper/blocking.py")  # fmt: skip
"""What figures of a run depend on."""


class Kept:
    """The finished runs in the directory ``folder``; with ``resume`` those that lie there already count.

    Raises ``ScenarioError`` where there are none to resume, or where another version made them.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self.path = folder / RUNS
        self._found: dict[str, Mapping[str, Any]] = {}
        self._version = {"code": code()}
        if resume:
            self._found.update(self._read())

    def __len__(self) -> int:
        return len(self._found)

    def get(self, tree: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The summary and curves of the run of this scenario (its tree), if it is kept."""
        return self._found.get(_name(tree))

    def put(self, tree: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Keep a finished run."""
        name = _name(tree)
        self._found[name] = one = {"summary": outcome["summary"], "curves": outcome["curves"]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            if not file.tell():
                print(json.dumps(self._version), file=file)
            print(json.dumps({"run": name, **one}), file=file)

    def _read(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        try:
            raw = self.path.read_bytes()
        except OSError as error:
            hint = f"a directory that a report was begun in ({error.strerror or error})"
            raise ScenarioError("out", str(self.path.parent), hint) from error
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            os.truncate(self.path, len(whole))
        try:
            lines = [json.loads(line) for line in whole.splitlines()]
            runs = [
                (line["run"], {"summary": line["summary"], "curves": line["curves"]}) for line in lines[1:]
            ]
        except (ValueError, TypeError, KeyError) as error:
            hint = f"a directory with runs that can be read; its {RUNS} is damaged"
            raise ScenarioError("out", str(self.path.parent), hint) from error
        if lines and lines[0] != self._version:
            hint = (
                f"runs of this version of the program; those in its {RUNS} were made by another: begin anew"
            )
            raise ScenarioError("out", str(self.path.parent), hint)
        yield from runs


def code() -> str:
    """A digest of the code and the scenarios that runs are made by."""
    root = Path(__file__).parents[2]
    digest = sha256()
    for file in sorted(file for pattern in _MADE_BY for file in root.glob(pattern)):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _name(tree: Mapping[str, Any]) -> str:
    return sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

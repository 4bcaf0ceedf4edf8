"""What a long or large run records in part, so that its memory stays bounded.

Rules this module obeys:

* Who is recorded is drawn from the seed, without regard to rank: every so-manieth rank would always be
  the same worker of its machine. Fewer ranks are always among more ranks.
* What is left out of a table is left out of nothing else: times and totals are those of the full run,
  to the last bit, because sums are taken in the same order.
* Whatever is held in part says so in the manifest, under ``sampled``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from core.record import GRADIENT_COLUMNS, PARTS, SPAN_COLUMNS, STEP_COLUMNS, StepLog
from scenarios.streams import RUN, stream

if TYPE_CHECKING:
    from scenarios.schema import Run
    from sim.host import Host

__all__ = ["Sampling", "Sums", "ranks"]

FIRST = STEP_COLUMNS.index(PARTS[0])
SOURCE = GRADIENT_COLUMNS.index("source")


def ranks(seed: int, workers: int, many: int) -> range | frozenset[int]:
    """So many of the ranks, at random but always the same; all of them for 0."""
    if not many or many >= workers:
        return range(workers)
    drawn = stream(seed, RUN, "recorded").permutation(workers)[:many]
    return frozenset(drawn.tolist())


class Sums:
    """In place of a step log: a worker's rows are added up, part by part, and forgotten."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts = [0.0] * (len(PARTS) - 1)

    def append(self, row: tuple[float, ...]) -> None:
        """One row of ``STEP_COLUMNS``."""
        parts = self.parts
        for i, seconds in enumerate(row[FIRST : FIRST + len(parts)]):
            parts[i] += seconds


class _Gradients:
    """In place of a ledger's log: keeps the rows whose source is recorded."""

    __slots__ = ("_chosen", "_kept")

    def __init__(self, kept: StepLog, chosen: Collection[int]) -> None:
        self._kept, self._chosen = kept, chosen

    def append(self, row: tuple[float, ...]) -> None:
        """One row of ``GRADIENT_COLUMNS``."""
        if row[SOURCE] in self._chosen:
            self._kept.append(row)


class _Spans(StepLog):
    """A log of the first so many spans; ``missed`` counts the others. 0: as many as there are."""

    __slots__ = ("_room", "missed")

    def __init__(self, most: int) -> None:
        super().__init__(SPAN_COLUMNS)
        self._room: float = most or float("inf")
        self.missed = 0

    def append(self, row: tuple[float, ...]) -> None:
        if self._room > 0:
            self._room -= 1
            super().append(row)
        else:
            self.missed += 1


class Sampling:
    """The logs of one run: ``steps``, ``gradients`` and ``spans`` (None where they are not asked for)."""

    def __init__(self, run: Run, workers: int) -> None:
        self._workers = workers
        self._stepping = ranks(run.seed, workers, run.step_ranks)
        self._spanning = ranks(run.seed, workers, run.span_ranks)
        self._servers = run.span_ranks or None
        self.steps, self.gradients = StepLog(STEP_COLUMNS), StepLog(GRADIENT_COLUMNS)
        self.spans = _Spans(run.most_spans) if run.spans else None
        whole = len(self._stepping) == workers
        self.accounts: Any = self.gradients if whole else _Gradients(self.gradients, self._stepping)

    def steps_of(self, id: int, server: bool) -> Any:
        """What takes the step rows of node ``id``."""
        return self.steps if server or id in self._stepping else Sums()

    def spans_of(self, id: int, server: bool) -> StepLog | None:
        """What takes the spans of node ``id``: of as many servers as workers, the first ones."""
        if server:
            return self.spans if self._servers is None or id - self._workers < self._servers else None
        return self.spans if id in self._spanning else None

    def sums(self, hosts: Iterable[Host]) -> dict[int, np.ndarray]:
        """Seconds by part of the steps that have no rows, by worker."""
        return {host.id: np.array(host.steps.parts) for host in hosts if isinstance(host.steps, Sums)}

    def manifest(self) -> dict[str, Any]:
        """What is held in part: ``{"steps": words, "spans": words}``; empty for a full record."""
        found, n = {}, self._workers
        if len(self._stepping) < n:
            found["steps"] = f"{len(self._stepping):,} of {n:,} workers"
        if self.spans is not None:
            parts = []
            if len(self._spanning) < n:
                parts.append(f"{len(self._spanning):,} of {n:,} workers")
            if self.spans.missed:
                until = self.spans.values[-1] if len(self.spans) else 0.0
                whole = len(self.spans) + self.spans.missed
                parts.append(f"the first {len(self.spans):,} of {whole:,} spans, until {until:.6g} s")
            if parts:
                found["spans"] = ", ".join(parts)
        return {"sampled": found} if found else {}

    def flags(self) -> list[str]:
        """Warnings: what a reader must know about the figures, and what was cut off."""
        found = self.manifest().get("sampled", {})
        flags = []
        if "steps" in found:
            what = "rates, shares of a step and staleness"
            flags.append(f"sampled: {what} are those of {found['steps']} (run.step_ranks)")
        if self.spans is not None and self.spans.missed:
            flags.append(f"sampled: timelines and traces show {found['spans']} (run.most_spans)")
        return flags

"""What a run leaves behind: one schema for both drivers.

Rules this module obeys:

* Tables are columnar: a mapping from column name to a NumPy array, all of one length.
* Times are seconds since the start of the run, sizes bytes.
* The same scenario and seed give the same simulated record byte for byte; whatever depends on the
  machine (versions, hardware, date) is in ``manifest["environment"]`` alone. (With ``run.batched: auto``
  a measurement decides in which order floats are added, so losses and curves are the same up to that.)

=============  ======================================================================================
table          columns
=============  ======================================================================================
``nodes``      node, role, steps, samples, compute, update, send, wait, receive, idle, end,
               messages_out, messages_in, bytes_out, bytes_in, blends, applied, pending, lost, weight
``steps``      node, step, start, end, compute, update, send, wait, receive, blends
``gradients``  server, time, source, count, staleness (mean over the message's gradients)
``spans``      node, kind (index into ``KINDS``), start, end; empty unless asked for
``links``      machine, direction (up, down), capacity, bytes, busy (seconds that the bytes take at full
               rate); with a topology also name, and links beyond the NICs: machine -1, direction up, down
               (a rack's), wan or shared (the backplane)
``observations`` node, kind, bytes, seconds: what probe programs measured
``curves``     time, step, epoch, samples, loss, accuracy, consensus, lemma (see below)
``losses``     time, node, step, loss of the mini-batch; beyond ``LOSS_ROWS`` means of groups
``events``     time, node, event (index into ``EVENTS``), incarnation; empty without faults
=============  ======================================================================================

``weight`` in ``nodes`` is the push-sum weight that a worker holds at the end, 0 for servers and for the dead:
what the column's sum falls short of what all began with was lost on the way (SGP began with n, GoSGD with 1).

``step`` in ``steps`` counts from 0. A row spans from one ``Compute`` to the next (or to the end of
the program), so a worker's rows are back to back; ``idle`` is what follows its last row. The parts
of a row add up to ``end - start``; a node's parts add up to the run's length.

``applied``, ``pending`` and ``lost`` account for the gradients that are sent to servers: for every worker
they add up to its steps. Where gradients are applied by the worker that computed them and never sent
(EASGD, all decentralized algorithms) there is nothing to account for: the three are 0, and ``gradients``
is empty.

A row of ``curves`` is one evaluation of the model: the servers', or the (weighted) mean of the replicas.
``step`` counts the steps of all workers, ``samples`` likewise. ``consensus`` is the replicas' mean
squared distance from their mean, mean_i |x_i - mean x|^2 (ALADDIN's parameter variance); ``lemma`` is
|x~ - mean x|^2, which Lemma 1 has at 0, and NaN where there is no global model.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from struct import pack
from typing import Any

import numpy as np

__all__ = ["EVENTS", "KINDS", "PARTS", "SCHEMA_VERSION", "Ledger", "Record", "StepLog", "Table", "losses"]

SCHEMA_VERSION = 1

PARTS = ("compute", "update", "send", "wait", "receive", "idle")
"""Where a second can go (DESIGN, section 5), in the order of the columns."""

KINDS = (*PARTS, "transfer")
"""Kinds of span: the parts of a node's time, and message transfers on a node's uplink."""

Table = Mapping[str, np.ndarray]

NODE_COLUMNS = (
    "node", "role", "steps", "samples", *PARTS, "end", "messages_out", "messages_in",
    "bytes_out", "bytes_in", "blends", "applied", "pending", "lost", "weight",
)  # fmt: skip
STEP_COLUMNS = ("node", "step", "start", "end", *PARTS[:-1], "blends")
GRADIENT_COLUMNS = ("server", "time", "source", "count", "staleness")
SPAN_COLUMNS = ("node", "kind", "start", "end")
TABLES = ("nodes", "steps", "gradients", "spans", "curves", "links", "observations", "losses", "events")
OBSERVATION_COLUMNS = ("node", "kind", "bytes", "seconds")
CURVE_COLUMNS = ("time", "step", "epoch", "samples", "loss", "accuracy", "consensus", "lemma")
LOSS_COLUMNS = ("time", "node", "step", "loss")
EVENT_COLUMNS = ("time", "node", "event", "incarnation")

EVENTS = ("crash", "leave", "join", "ready", "freeze", "thaw", "cut", "heal")
"""What befell a node: it died, or was taken for dead; said goodbye; is there (again); has the parameters to
go on from; was stopped, went on; was cut off, and could be reached again. (New ones come last.)"""

BLOCK = 512
"""Rows that a log packs at once."""

LOSS_ROWS = 1 << 18
"""Training losses that a record holds one by one; of more it holds the means of so many groups."""


class StepLog:
    """Rows of doubles, appended fast and kept compactly (8 bytes a value).

    Rows are packed ``BLOCK`` at a time: one by one this costs three times as much.
    """

    __slots__ = ("_fresh", "_packed", "columns")

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._packed = array("d")
        self._fresh: list[tuple[float, ...]] = []

    def append(self, row: tuple[float, ...]) -> None:
        """Add one row; the caller keeps to the columns' order."""
        fresh = self._fresh
        fresh.append(row)
        if len(fresh) == BLOCK:
            self._pack()

    def _pack(self) -> None:
        """Rows that another thread appends meanwhile stay for the next time: none is lost."""
        fresh = self._fresh
        rows = fresh[:]
        self._packed.frombytes(pack(f"{len(rows) * len(self.columns)}d", *chain.from_iterable(rows)))
        del fresh[: len(rows)]

    @property
    def values(self) -> array[float]:
        """All rows, one after the other."""
        if self._fresh:
            self._pack()
        return self._packed

    def __len__(self) -> int:
        return len(self._packed) // len(self.columns) + len(self._fresh)

    def table(self, integers: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
        """The rows as columns; those named in ``integers`` as int64."""
        rows = np.array(self.values, dtype=np.float64).reshape(-1, len(self.columns))
        return {
            name: rows[:, i].astype(np.int64) if name in integers else np.ascontiguousarray(rows[:, i])
            for i, name in enumerate(self.columns)
        }


class Ledger:
    """What became of every gradient that reached a server: applied, or still held in an accumulator.

    ``hold`` when a gradient message enters the accumulator, ``settle`` when the accumulator is
    applied. A server that applies at once calls both. ``clock`` gives seconds since the run's start.
    Staleness of a gradient is the server's version at its application less the version that it was
    computed at.
    """

    __slots__ = ("applied", "applied_total", "clock", "held", "log", "node")

    def __init__(
        self, node: int = -1, log: StepLog | None = None, clock: Callable[[], float] = float
    ) -> None:
        self.node = node
        self.log = log
        self.clock = clock
        self.applied: dict[int, int] = {}
        self.applied_total = 0
        self.held: list[tuple[int, int, int]] = []

    def hold(self, source: int, count: int, versions: int) -> None:
        """``count`` gradients of worker ``source`` entered the accumulator."""
        self.held.append((source, count, versions))

    def settle(self, version: int) -> None:
        """Everything held has just been applied to parameters that were at ``version``."""
        applied, log, now = self.applied, self.log, self.clock()
        for source, count, versions in self.held:
            applied[source] = applied.get(source, 0) + count
            self.applied_total += count
            if log is not None:
                log.append((self.node, now, source, count, version - versions / count))
        self.held.clear()

    def pending(self) -> dict[int, int]:
        """Gradients by worker that are still in the accumulator."""
        held: dict[int, int] = {}
        for source, count, _ in self.held:
            held[source] = held.get(source, 0) + count
        return held


def losses(log: StepLog) -> dict[str, np.ndarray]:
    """The ``losses`` table of a log with ``LOSS_COLUMNS``, in order of time, node and step.

    With more than ``LOSS_ROWS`` rows, rows next to each other are averaged and their node and step are -1.
    """
    rows = np.array(log.values, dtype=np.float64).reshape(-1, len(LOSS_COLUMNS))
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    if len(rows) > LOSS_ROWS:
        edges = np.arange(LOSS_ROWS) * len(rows) // LOSS_ROWS
        counts = np.diff(edges, append=len(rows))
        rows = np.add.reduceat(rows, edges) / counts[:, None]
        rows[:, 1:3] = -1
    table = dict(zip(LOSS_COLUMNS, np.ascontiguousarray(rows.T), strict=True))
    return {**table, **{name: table[name].astype(np.int64) for name in ("node", "step")}}


@dataclass
class Record:
    """One run: manifest and tables (see the module's docstring for the columns)."""

    manifest: dict[str, Any]
    nodes: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    spans: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    links: dict[str, np.ndarray] = field(default_factory=dict)
    observations: dict[str, np.ndarray] = field(default_factory=dict)
    losses: dict[str, np.ndarray] = field(default_factory=dict)
    events: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Length of the run, seconds: when its last node ended."""
        return float(self.nodes["end"].max()) if len(self.nodes["end"]) else 0.0

    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """All tables by name."""
        return {name: getattr(self, name) for name in TABLES}

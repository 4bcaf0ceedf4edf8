"""Plays a server's program again after a crash, from its journal and its last checkpoint.

Rules this module obeys:

* A program is a deterministic function of what its effects gave it. So it is run anew and given the same
  again, record by record; nothing is sent meanwhile. At the end of the journal it stands where it stood,
  and goes on live.
* Up to the checkpoint its tensors are hollow: control flow alone, which costs microseconds a message. There
  they get their values; what came in afterwards is read back with its payload.
* What it had sent and nobody confirmed is kept, with its sequence, to be sent again.
* A checkpoint that cannot be used is passed over for the one before it, as long as the payloads since that
  one are there; every such is told (``notes``). Without any that can be used the error names all of them.
* A checkpoint that cannot be written costs a note, and twice as long a wait for the next; the journal goes
  on. What a killed process had written of one is removed.
* The program's thread does all this, between two effects, so its time is booked as the server's update time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from core.effects import Effect, Flush, Now, Poll, Receive, Send, TrySend
from core.node import JOINED, Joined, Left, Message, Node
from real import checkpoint, journal
from real.checkpoint import CheckpointError
from real.journal import Arrived, History, Journal, JournalError, Key
from real.keeping import Registry, name_of
from real.kept import Item, KeptEndpoint

__all__ = ["Keeper"]

Program = Generator[Effect, Any, None]

_LARGEST = 1 << 28
"""Bytes of payload after which a checkpoint is taken at the latest (or after eight times the parameters)."""

_PARTS_EVERY = 0.2


class Keeper:
    """Keeps a server: journals what its program is given, takes checkpoints, plays it again.

    folder    where journal and checkpoints are; this server's alone
    identity  whose they are: run, scenario, node
    every     seconds between checkpoints; 0: whenever so much came in that playing it again would take long
    clock     seconds since the start of the run; during a replay ``now`` is the journal's time instead
    parts     where the server's time went so far
    notes     what went wrong with checkpoints and was got over
    taken     checkpoints; replayed: effects that were answered from the journal
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], registry: Registry, *, every: float,
        clock: Callable[[], float], parts: Callable[[], list[float]] = list,
    ) -> None:  # fmt: skip
        self.folder, self.identity, self.registry = folder, identity, registry
        self.every, self.clock, self.parts = every, clock, parts
        self._pause = every or float("inf")
        self.notes: list[str] = []
        self.taken = self.replayed = 0
        self._seconds = 0.0
        self.history: History | None = None
        self._then: float | None = None
        self._position = 0
        self._largest = _LARGEST
        self._due = self._told = 0.0
        self._boundary = self._told_of = 0
        self._knew: set[int] = set()
        self._items: list[Item] = []
        self._unsent: list[tuple[Key, Message]] = []
        if (folder / "records").exists():
            checkpoint.sweep(folder)
            self.history = journal.read(folder, identity)
        self.journal = Journal(folder, identity, clock, self.history)

    def now(self) -> float:
        """Seconds since the start of the run, as the program lived them."""
        return self.clock() if self._then is None else self._then

    @property
    def spent(self) -> dict[str, float]:
        """Seconds that were spent on payloads, on records and on checkpoints."""
        return {**self.journal.seconds, "checkpoints": self._seconds}

    def keep(self, node: Node, endpoint: KeptEndpoint) -> None:
        """What is kept: ``node``, whose tensors are the registry's, behind ``endpoint``."""
        self.node, self.endpoint = node, endpoint
        self._largest = max(_LARGEST, 8 * node.params.nbytes)
        endpoint.keep(self.journal, self.registry)

    def program(self, inner: Program) -> Program:
        """``inner`` as the driver is to run it; if there is a history it is played again, at once."""
        if self.history is None:
            return self._live(inner, None)
        workers = range(self.node.workers)
        self.node.live.clear()
        self.node.live.update(
            rank for rank, life in self.history.known.items() if life >= 0 and rank in workers
        )
        return self._live(inner, self._again(inner, next(inner), self.history))

    def begin(self) -> None:
        """The endpoint has been introduced to the other nodes; nothing has moved yet."""
        if self.history is None:
            self.journal.start(self.endpoint.lives.known)
            return
        self.node.live.clear()
        self.node.live.update(self._knew)
        workers = self.node.workers
        self.endpoint.recall(self.history, self._items, self._unsent, self._told_of, workers)
        self.history, self._items, self._unsent = None, [], []

    # ---- live ---------------------------------------------------------------------------------

    def _live(self, inner: Program, effect: Effect | None) -> Program:
        self._due = self.clock() + self._pause
        if effect is None:
            effect = next(inner)
        while True:
            try:
                answer = yield effect
            except Exception as error:
                effect = inner.throw(error)
                continue
            self._note(effect, answer)
            self._position += 1
            now = self.clock()
            if now >= self._due or self.journal.written > self._largest:
                self._checkpoint(now)
            if now - self._told > _PARTS_EVERY:
                self._told = now
                self.journal.parts(self.parts())
            try:
                effect = inner.send(answer)
            except StopIteration:
                return

    def _note(self, effect: Effect, answer: Any) -> None:
        """Journal what the program is about to be given; what it sent is there already."""
        if type(answer) is Message:
            self.journal.took(self.endpoint.key_of(answer))
        elif isinstance(answer, Left | Joined):
            self.journal.given(answer.tag, answer.rank)
        elif not (isinstance(effect, Send) or (isinstance(effect, TrySend) and answer)):
            self.journal.value(answer)

    def _checkpoint(self, now: float) -> None:
        """Write one; the older of two that are kept goes, with the payloads that only it needed."""
        began = time.monotonic()
        try:
            with self.endpoint.changed:
                boundary = self.journal.roll()
            arrays = self.registry.arrays()
            state = {"segment": boundary}
            checkpoint.save(self.folder, self._position, self.identity, state, arrays)
        except CheckpointError as error:
            self.notes.append(str(error))
            self._largest *= 2
            self._pause *= 2
        else:
            self.taken += 1
            self._pause = self.every or float("inf")
            for path in checkpoint.stored(self.folder)[2:]:
                path.unlink(missing_ok=True)
            self.journal.drop(self._boundary)
            self._boundary = boundary
        self._seconds += time.monotonic() - began
        self._due = self.clock() + self._pause

    # ---- again --------------------------------------------------------------------------------

    def _again(self, inner: Program, effect: Effect, history: History) -> Effect:
        """Play the journal; where the program then stands."""
        target, saved = self._usable(history)
        self.registry.hollow = target > 0
        news = [one for one in history.arrivals if len(one) == 2]
        unsent: dict[Key, Message] = {}
        consumed: set[Any] = set()
        for record in history.answers:
            self._then = record[1]
            if record[0] == "told":
                rank, life = news[self._told_of]
                (self.node.live.add if life >= 0 else self.node.live.discard)(rank)
                self._told_of += 1
                continue
            answer = self._answer(effect, record, history, saved, unsent)
            if record[0] == "took":
                consumed.add(tuple(record[2:]))
            elif record[0] == "given" and isinstance(effect, Receive | Poll) and record[2] in effect.tag:
                consumed.add(_first(history, consumed, record[2] == JOINED, record[3]))
            self._position += 1
            if self._position == target:
                self._fill(saved)
            effect = inner.send(answer)
        self._then, self.replayed = None, self._position
        self._unsent = list(unsent.items())
        self._knew = set(self.node.live)
        for place, one in enumerate(history.arrivals):
            if len(one) == 3 and one not in consumed:
                self._items.append((self._message(history.arrived[one], saved), one))
            elif len(one) == 2 and place not in consumed:
                self._items.append(((Joined if one[1] >= 0 else Left)(one[0]), one[1]))
        return effect

    def _fill(self, saved: Mapping[str, Any]) -> None:
        """Give the program's tensors the checkpoint's values."""
        try:
            self.registry.fill(saved)
        except KeyError as lacking:
            raise CheckpointError(
                f"{self.folder}: the checkpoint at record {self._position} does not hold {lacking} as it is "
                f"now: the program does not make the same tensors again for the same messages"
            ) from None

    def _usable(self, history: History) -> tuple[int, Mapping[str, Any]]:
        """(position, arrays) of the newest usable checkpoint; (0, {}): all is played from the start."""
        refused: dict[Path, str] = {}
        for path in checkpoint.stored(self.folder):
            try:
                position, state, saved = checkpoint.load(path, self.identity)
            except CheckpointError as error:
                refused[path] = str(error)
                continue
            if position <= sum(record[0] != "told" for record in history.answers):
                self._boundary = state["segment"]
                self._refuse(refused)
                return position, saved
            refused[path] = f"checkpoint {path}: it is of a later moment than the journal"
        needed = {one.segment for one in history.arrived.values() if one.nbytes}
        if all((self.folder / f"payload-{segment}").exists() for segment in needed):
            self._refuse(refused)
            return 0, {}
        raise CheckpointError("\n".join(refused.values()) or f"{self.folder}: its checkpoints are missing")

    def _refuse(self, refused: Mapping[Path, str]) -> None:
        """Go on without these checkpoints."""
        for path, why in refused.items():
            self.notes.append(why)
            path.unlink(missing_ok=True)

    def _answer(
        self, effect: Effect, record: list[Any], history: History, saved: Mapping[str, Any],
        unsent: dict[Key, Message],
    ) -> Any:  # fmt: skip
        """What the record says that the program was given. Raises ``JournalError`` where they differ."""
        kind, _, *fields = record
        if kind == "took" and isinstance(effect, Receive | Poll):
            return self._message(history.arrived[tuple(fields)], saved)
        if kind == "given" and isinstance(effect, Receive | Poll):
            return (Joined if fields[0] == JOINED else Left)(fields[1])
        if kind == "sent" and isinstance(effect, Send | TrySend):
            keys = [tuple(name) for name in fields[0]]
            if [to for to, _, _ in keys] == [to for to, _ in effect.pairs]:
                for key, (_, message) in zip(keys, effect.pairs, strict=True):
                    if key[2] >= history.done.get(key[:2], 0):
                        unsent[key] = message
                return None if isinstance(effect, Send) else True
        if kind == "value" and isinstance(effect, Poll | TrySend | Now | Flush):
            return fields[0]
        raise JournalError(
            f"journal {self.folder / 'records'}: record {self._position} ({kind}) does not answer the "
            f"program's {type(effect).__name__}: it does not do the same again for the same messages"
        )

    def _message(self, one: Arrived, saved: Mapping[str, Any]) -> Message:
        """A message as it came in; hollow before the checkpoint."""
        tensor, buffer = self.registry.room(one.nbytes, one.dtype)
        if one.nbytes and not self.registry.hollow:
            name = name_of(one.key)
            if name in saved:
                buffer[:] = saved[name].data
            else:
                journal.payload(self.folder, one, buffer)
        self.registry.adopt(one.key, tensor)
        return Message(one.tag, tensor, one.step, one.count, one.versions, one.number, one.key[0])


def _first(history: History, consumed: set[Any], joined: bool, rank: int) -> int:
    """The place of the first such news that was not consumed yet."""
    for place, one in enumerate(history.arrivals):
        if len(one) == 2 and one[0] == rank and (one[1] >= 0) == joined and place not in consumed:
            return place
    return -1

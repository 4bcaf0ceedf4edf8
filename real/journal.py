"""What a server writes down before it answers: enough to be played again after it was killed.

Rules this module obeys:

* A record is appended by one ``write`` before what it tells has any effect outside the process: a message
  before it is confirmed (``DONE``), what the program was given or sent before the frames go out. What a
  killed process has handed to the kernel is kept; a machine that fails is another matter (``real.checkpoint``
  syncs, this module does not).
* ``records`` holds records of a few dozen bytes, and keeps them all; payloads lie in ``payload-<k>`` beside
  it. After a checkpoint a new one is begun, and those that no kept checkpoint needs are removed.
* Every record and every payload carries a checksum. A record that was cut short at the end of the file was
  never answered, and is dropped; anything else that does not fit is refused with file and reason.
* Nothing is ever unpickled: records are ``msgspec.msgpack`` lists.
* Appending may be done by any thread; payloads are written by one.

=========  ==========================================================================================
record     says
=========  ==========================================================================================
``run``    whose journal it is (``identity``)
``start``  the run begins: the life of every other node, -1 where it is not there
``in``     a message has come in whole: source, incarnation, sequence, tag, dtype, step, count, versions,
           number, bytes, segment, offset, checksum of the payload
``news``   the node has heard that a rank is there in this life, or has gone (life -1)
``told``   its program knows of the next piece of news
``took``   the program was given the message (source, incarnation, sequence)
``given``  the program was given ``Left(rank)`` or ``Joined(rank)``: its tag and the rank
``value``  the program was given a plain value: None, False, a time
``sent``   its messages were taken: (receiver, incarnation, sequence) each, sequence -1 if dropped
``done``   the receiver has confirmed (receiver, incarnation, sequence), so many bytes
``void``   (receiver, incarnation, sequence) will not be confirmed: its receiver is gone
``parts``  where the time went so far
=========  ==========================================================================================

Every record's second field is the time, in seconds since the start of the run.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from real.errors import TransportError
from real.wire import DTYPES, Header

__all__ = ["ANSWERS", "Arrived", "History", "Journal", "JournalError", "Key", "Place", "payload", "read"]

Key = tuple[int, int, int]
"""(source or receiver, its incarnation, sequence): names a message for good."""

ANSWERS = frozenset(("took", "given", "value", "sent"))
"""Records that answer an effect of the program, one each, in order."""

_FRAME = struct.Struct("<III")
"""Length of a record, the same inverted, checksum."""

_ALL = 0xFFFFFFFF
_FIELDS = {
    "run": 3, "start": 3, "in": 15, "news": 4, "told": 2, "took": 5, "given": 4, "value": 3, "sent": 3,
    "done": 6, "void": 5, "parts": 3,
}  # fmt: skip


class JournalError(TransportError):
    """A journal that cannot be written or used."""


class _Segment:
    """One payload file; closed when nobody holds it any more, so it may be removed before that."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number, self.end = path, number, 0
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


@dataclass(slots=True)
class Place:
    """Where a payload is being written: ``nbytes`` at ``offset`` of a segment; ``crc`` of what is there."""

    segment: _Segment
    offset: int
    nbytes: int
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """An ``in`` record: a message and where its payload lies."""

    key: Key
    tag: str
    dtype: str
    step: int
    count: int
    versions: int
    number: float
    nbytes: int
    segment: int
    offset: int
    crc: int


@dataclass
class History:
    """What a journal tells.

    known    of all other nodes when the run began: life, or -1
    arrived  every message that came in whole, by name
    arrivals names of messages and news (rank, life), in order
    answers  what the program was given, in order: records; ``told`` is among them
    done     of every (receiver, incarnation): last sequence that is done with + 1
    sent     messages and bytes that were confirmed
    parts    the last ``parts`` record's, if any, seconds
    length   bytes that are whole records
    segments the highest number of a payload file that was ever mentioned
    """

    known: dict[int, int] = field(default_factory=dict)
    arrived: dict[Key, Arrived] = field(default_factory=dict)
    arrivals: list[Key | tuple[int, int]] = field(default_factory=list)
    answers: list[list[Any]] = field(default_factory=list)
    done: dict[tuple[int, int], int] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    parts: list[float] = field(default_factory=list)
    length: int = 0
    segments: int = 0


class Journal:
    """Appends to the journal in ``folder``, which is made where it does not exist.

    identity  whose it is: plain values by name, compared when it is read
    clock     seconds since the start of the run
    history   what was read from there, to go on with it; None begins a new one

    ``written`` counts payload bytes since ``roll``, ``total`` all; ``seconds`` what writing took. Raises
    ``JournalError`` where it cannot write; what was half-written is then taken back.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], clock: Callable[[], float] = float,
        history: History | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.clock = folder, clock
        self.written = self.total = 0
        self.seconds = {"payloads": 0.0, "records": 0.0}
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fresh = os.O_TRUNC | os.O_EXCL if history is None else 0
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | fresh
            self._records = os.open(folder / "records", flags, 0o600)
            if history is not None:
                os.ftruncate(self._records, history.length)
            self._end = 0 if history is None else history.length
            there = [_number(path) for path in folder.glob("payload-*")]
            self._segment = self._open(max([-1 if history is None else history.segments, *there]) + 1)
        except OSError as error:
            raise self._failed(error) from error
        if history is None:
            self._append("run", dict(identity))

    def close(self) -> None:
        """Nothing more is appended."""
        with self._lock:
            if self._records >= 0:
                os.close(self._records)
                self._records = -1

    @property
    def segment(self) -> int:
        """Number of the payload file that is written to now."""
        return self._segment.number

    # ---- payloads -----------------------------------------------------------------------------

    def reserve(self, nbytes: int) -> Place:
        """Room for a payload."""
        segment = self._segment
        place = Place(segment, segment.end, nbytes)
        segment.end += nbytes
        return place

    def store(self, place: Place, offset: int, payload: memoryview) -> None:
        """Write one piece; they come in order, without gaps."""
        began, at, done = time.monotonic(), place.offset + offset, 0
        try:
            while done < len(payload):
                done += os.pwrite(place.segment.file, payload[done:], at + done)
        except OSError as error:
            raise self._failed(error, place.segment.path) from error
        place.crc = crc32(payload, place.crc)
        self.written += len(payload)
        self.total += len(payload)
        self.seconds["payloads"] += time.monotonic() - began

    def roll(self) -> int:
        """Begin a new payload file; its number."""
        try:
            self._segment = self._open(self._segment.number + 1)
        except OSError as error:
            raise self._failed(error) from error
        self.written = 0
        return self._segment.number

    def drop(self, before: int) -> None:
        """Remove payload files with smaller numbers."""
        for path in self.folder.glob("payload-*"):
            if _number(path) < before:
                path.unlink(missing_ok=True)

    def _open(self, number: int) -> _Segment:
        return _Segment(self.folder / f"payload-{number}", number)

    # ---- records ------------------------------------------------------------------------------

    def arrived(self, head: Header, place: Place, payload: memoryview) -> None:
        """A message has come in whole; ``payload`` is all of it, in case its file is no longer current."""
        if place.segment is not self._segment and head.total:
            place = self.reserve(head.total)
            self.store(place, 0, payload)
        self._append(
            "in", head.source, head.incarnation, head.sequence, head.tag, head.dtype, head.step, head.count,
            head.versions, head.number, head.total, place.segment.number, place.offset, place.crc,
        )  # fmt: skip

    def took(self, key: Key) -> None:
        """The program was given this message."""
        self._append("took", *key)

    def start(self, known: Mapping[int, int]) -> None:
        """The run begins with these nodes in these lives."""
        self._append("start", [[node, life] for node, life in known.items()])

    def news(self, rank: int, life: int) -> None:
        """``rank`` is there, or has gone."""
        self._append("news", rank, life)

    def told(self) -> None:
        """The program knows of the next piece of news."""
        self._append("told")

    def given(self, tag: str, rank: int) -> None:
        """The program was given news."""
        self._append("given", tag, rank)

    def value(self, value: float | bool | None) -> None:
        """The program was given this value."""
        self._append("value", value)

    def sent(self, keys: Sequence[Key]) -> None:
        """The program's messages were taken under these names."""
        self._append("sent", keys)

    def done(self, key: Key, nbytes: int) -> None:
        """One of them is confirmed."""
        self._append("done", *key, nbytes)

    def void(self, key: Key) -> None:
        """One of them will not be."""
        self._append("void", *key)

    def parts(self, parts: Sequence[float]) -> None:
        """Where the time went so far."""
        self._append("parts", list(parts))

    def _append(self, kind: str, *fields: Any) -> None:
        began = time.monotonic()
        body = msgspec.msgpack.encode([kind, self.clock(), *fields])
        record = _FRAME.pack(len(body), len(body) ^ _ALL, crc32(body)) + body
        with self._lock:
            if self._records < 0:
                return
            try:
                if os.write(self._records, record) != len(record):
                    raise OSError("the file system took only a part of a record")
            except OSError as error:
                os.ftruncate(self._records, self._end)
                raise self._failed(error) from error
            self._end += len(record)
        self.seconds["records"] += time.monotonic() - began

    def _failed(self, error: OSError, path: Path | None = None) -> JournalError:
        return JournalError(
            f"journal {path or self.folder / 'records'}: cannot be written ({error.strerror or error}); "
            f"without it a server could not come back with all that it confirmed. Make room there, point "
            f"TMPDIR elsewhere, or run without server crashes"
        )


def read(folder: Path, identity: Mapping[str, Any]) -> History:
    """What the journal in ``folder`` tells. Raises ``JournalError`` where it is not whole, or not ours."""
    path = folder / "records"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"journal {path}: cannot be read ({error.strerror})") from error
    history, at = History(), 0
    while at + _FRAME.size <= len(data):
        length, inverted, crc = _FRAME.unpack_from(data, at)
        end = at + _FRAME.size + length
        if length != inverted ^ _ALL:
            raise _damaged(path, at)
        if end > len(data):
            break
        body = data[at + _FRAME.size : end]
        record = _parse(body) if crc32(body) == crc else None
        if record is None:
            raise _damaged(path, at)
        if at == 0:
            _check(path, record, identity)
        else:
            _note(history, record)
        at = history.length = end
    if at == 0:
        raise JournalError(f"journal {path}: it is truncated: not even its first record is whole")
    return history


def payload(folder: Path, one: Arrived, into: memoryview) -> None:
    """Read a message's payload. Raises ``JournalError`` where it is missing or not what was written."""
    path = folder / f"payload-{one.segment}"
    try:
        with path.open("rb") as file:
            file.seek(one.offset)
            got = file.readinto(into)
    except OSError as error:
        raise JournalError(f"journal {path}: cannot be read ({error.strerror})") from error
    if got != one.nbytes or crc32(into) != one.crc:
        raise JournalError(f"journal {path}: the message at byte {one.offset} is not what was written")


def _number(path: Path) -> int:
    return int(path.name.partition("-")[2])


def _parse(body: bytes) -> list[Any] | None:
    try:
        record = msgspec.msgpack.decode(body)
    except msgspec.DecodeError:
        return None
    known = isinstance(record, list) and len(record) > 1 and isinstance(record[0], str)
    return record if known and _FIELDS.get(record[0]) == len(record) else None


def _check(path: Path, record: list[Any], identity: Mapping[str, Any]) -> None:
    if record[0] != "run":
        raise _damaged(path, 0)
    differs = [
        f"{k} is {record[2].get(k)!r}, not {v!r}" for k, v in identity.items() if record[2].get(k) != v
    ]
    if differs:
        raise JournalError(f"journal {path}: it is of another run: {'; '.join(differs)}")


def _note(history: History, record: list[Any]) -> None:
    kind, _, *fields = record
    if kind == "in":
        one = Arrived(tuple(fields[:3]), *fields[3:])
        if one.dtype in DTYPES:
            history.arrived[one.key] = one
            history.arrivals.append(one.key)
        history.segments = max(history.segments, one.segment)
    elif kind == "start":
        history.known = dict(fields[0])
    elif kind == "news":
        history.arrivals.append((fields[0], fields[1]))
    elif kind in ANSWERS or kind == "told":
        history.answers.append(record)
    elif kind in ("done", "void"):
        node, incarnation, sequence = fields[:3]
        history.done[node, incarnation] = max(history.done.get((node, incarnation), 0), sequence + 1)
        history.sent["messages"] += kind == "done"
        history.sent["bytes"] += fields[3] if kind == "done" else 0
    elif kind == "parts":
        history.parts = fields[0]


def _damaged(path: Path, at: int) -> JournalError:
    return JournalError(f"journal {path}: it is damaged at byte {at}: what is there is no record of a server")

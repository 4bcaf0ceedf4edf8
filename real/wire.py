"""The frames that nodes exchange: a fixed header, and for ``DATA`` one piece of payload.

Rules this module obeys:

* No I/O and no state: bytes in, values out. Whatever is wrong raises ``WireError``, nothing else.
* Every field is checked before it is used: magic and version, kind, run token, tag, dtype, and
  sizes against ``Agreed`` (what this run can legitimately send). Nothing is allocated here.
* Nothing is ever unpickled.

Life of a message: the sender asks (``REQ``), the receiver answers ``GRANT`` now or later, or
``HOLD`` while its inbox is full and ``RESUME`` once it is not; the payload follows in ``DATA``
frames and the receiver confirms the last byte (``DONE``). ``BYE`` says that a node's program has
ended. ``PING`` and ``PONG`` open connections before the clock starts; with
``step`` 1 they are signs of life (``real.pulse``). ``HELLO`` says to a server that is
back, or by it, which message is expected next (``real.reunion``).

``incarnation`` says which life of its sender a frame is of: 0, and one more whenever the node comes back.
Who receives it (``real.endpoint``) takes frames of the life that it was told of and drops all others.

Header, little-endian, 120 bytes: magic 4, token 8, kind u8, dtype u8, two of padding, source u32,
incarnation u32, sequence u64, step i64, count i64, versions i64, number f64, total u64 (bytes),
offset u64 (bytes), time f64 (monotonic seconds), tag 32 (ASCII, padded with zeros).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from real.errors import WireError

__all__ = [
    "ANSWERS", "BYE", "CHUNK", "DATA", "DONE", "DTYPES", "GRANT", "HEADER_BYTES", "HELLO", "HOLD", "KIND_AT",
    "MOVING", "PING", "PONG", "REQ", "RESUME", "Agreed", "Header", "pack", "token_of", "unpack",
]  # fmt: skip

REQ, GRANT, HOLD, RESUME, DATA, DONE, BYE, PING, PONG, HELLO = range(1, 11)

ANSWERS = frozenset((GRANT, HOLD, RESUME, DONE, PONG))
"""Kinds that a receiver sends back on the connection that it was asked on."""

MOVING = frozenset((REQ, GRANT, HOLD, RESUME, DATA, DONE))
"""Kinds that move messages."""

CHUNK = 4_000_000
"""Largest payload of one frame, bytes (large enough that a frame's own cost vanishes)."""

DTYPES: dict[str, tuple[int, int]] = {
    "none": (0, 1),
    "float32": (1, 4),
    "float64": (2, 8),
    "float16": (3, 2),
    "bfloat16": (4, 2),
    "int64": (5, 8),
}
"""Name -> (code, bytes per element)."""

_NAMES = {code: (name, size) for name, (code, size) in DTYPES.items()}
_MAGIC = b"ALD\x01"
_FORMAT = struct.Struct("<4s8sBB2xIIQqqqdQQd32s")
HEADER_BYTES = _FORMAT.size
KIND_AT = 12
"""Offset of the kind in a packed header."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What all nodes of one run know beforehand and hold every frame against.

    token      8 random bytes of this run
    nodes      number of nodes; ids are 0 .. nodes-1
    max_bytes  largest message, bytes
    """

    token: bytes
    nodes: int
    max_bytes: int


@dataclass(slots=True)
class Header:
    """One frame's header (see the module's docstring); ``time`` is on the host's monotonic clock."""

    kind: int
    source: int
    sequence: int = 0
    tag: str = ""
    dtype: str = "none"
    incarnation: int = 0
    step: int = 0
    count: int = 1
    versions: int = 0
    number: float = 0.0
    total: int = 0
    offset: int = 0
    time: float = 0.0


def pack(header: Header, token: bytes) -> bytes:
    """The header as bytes. Raises ``WireError`` where it cannot be expressed (tag, dtype, ranges)."""
    try:
        tag = header.tag.encode("ascii")
        if len(tag) > 32:
            raise WireError(f"tag {header.tag!r} is longer than 32 characters")
        return _FORMAT.pack(
            _MAGIC, token, header.kind, DTYPES[header.dtype][0], header.source,
            header.incarnation, header.sequence, header.step, header.count, header.versions,
            header.number, header.total, header.offset, header.time, tag,
        )  # fmt: skip
    except (struct.error, UnicodeEncodeError, KeyError) as error:
        raise WireError(f"cannot be sent: {error}") from error


def token_of(frame: bytes | memoryview) -> bytes:
    """The run token in what may be a frame's header, however wrong the rest is; may be shorter."""
    return bytes(frame[len(_MAGIC) : KIND_AT])


def unpack(frame: bytes | memoryview, agreed: Agreed, payload_bytes: int) -> Header:
    """Parse and check one header; ``payload_bytes`` is the length of the frame that follows it.

    Raises ``WireError`` for anything that no node of this run would send.
    """
    if len(frame) != HEADER_BYTES:
        raise WireError(f"header of {len(frame)} bytes; expected {HEADER_BYTES}")
    (magic, token, kind, code, source, incarnation, sequence, step, count, versions,
     number, total, offset, time, raw_tag) = _FORMAT.unpack(frame)  # fmt: skip
    if magic != _MAGIC:
        raise WireError("not a frame of this protocol")
    if token != agreed.token:
        raise WireError("a frame of another run")
    if not REQ <= kind <= HELLO:
        raise WireError(f"unknown kind {kind}")
    if source >= agreed.nodes:
        raise WireError(f"unknown node {source}")
    if code not in _NAMES:
        raise WireError(f"unknown dtype {code}")
    dtype, itemsize = _NAMES[code]
    if total > agreed.max_bytes or total % itemsize or (dtype == "none" and total):
        raise WireError(f"{total} bytes of {dtype}; agreed were at most {agreed.max_bytes}")
    if kind == DATA:
        if payload_bytes > CHUNK or offset + payload_bytes > total or (total and not payload_bytes):
            raise WireError(f"{payload_bytes} bytes at {offset} of {total}")
    elif payload_bytes:
        raise WireError(f"a payload of {payload_bytes} bytes where none belongs")
    if not math.isfinite(time):
        raise WireError("time is not finite")
    tag = raw_tag.rstrip(b"\0")
    if not all(32 < byte < 127 for byte in tag):
        raise WireError("tag is not printable")
    return Header(
        kind, source, sequence, tag.decode("ascii"), dtype, incarnation, step, count, versions,
        number, total, offset, time,
    )  # fmt: skip

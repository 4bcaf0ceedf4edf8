"""Messages without an end: connections on which bytes keep coming and no message is ever complete.

Rules this module obeys:

* libzmq keeps the parts of a message until the last one is there, and has no bound for them. So what it
  has read of a connection since its last complete message is counted here: the kernel's count of what
  came, less what still lies there. Beyond ``most`` bytes the connection is shut down.
* The count errs on the side of the peer: by what the kernel holds back, and by what comes between two looks.
* A look takes two moments: bytes are counted, and judged once all that was complete by then has been taken.
* Descriptors belong to libzmq, which may close them at any time: each is duplicated for a moment, and left
  alone if it is no connection of this node's port any more.
"""

from __future__ import annotations

import os
import socket
import struct
from array import array
from collections.abc import Callable
from fcntl import ioctl
from math import inf
from termios import FIONREAD

__all__ = ["Unfinished"]

EVERY = 0.1
"""Seconds between two looks."""

_SLACK = 1 << 18
_AT_ONCE = struct.pack("ii", 1, 0)  # what libzmq closes then is reset: the peer is told
_RECEIVED = struct.Struct("=Q")
_RECEIVED_AT = 128
"""Where ``struct tcp_info`` has the bytes received (Linux 4.1 and later)."""


class Unfinished:
    """What has come in on the connections of ``port`` without making a message.

    largest  bytes of the largest frame; a message has one of them, and a header
    turns    messages after which, taken in turn from all connections, none that waited is left
    dropped  called with the reason for every connection that is shut down
    due      when to look next
    """

    def __init__(self, port: int, largest: int, turns: int, dropped: Callable[[str], None]) -> None:
        self.most, self.due = largest + _SLACK, inf
        self._port, self._turns, self._dropped = port, turns, dropped
        self._base: dict[int, int] = {}
        self._counts: dict[int, tuple[int, int]] | None = None
        self._heard: set[int] = set()
        self._before: set[int] = set()
        self._taken = 0

    def opened(self, descriptor: int) -> None:
        """A connection was accepted."""
        self._base[descriptor] = 0
        self._heard.discard(descriptor)
        self.due = min(self.due, 0.0)

    def closed(self, descriptor: int) -> None:
        """A connection is gone."""
        self._base.pop(descriptor, None)
        if not self._base:
            self.due = inf

    def heard(self, descriptor: int) -> None:
        """A whole message of a connection was taken; where it is not known of which (-1) none is judged."""
        if descriptor < 0:
            self._counts = None
        self._heard.add(descriptor)
        self._taken += 1
        if self._taken >= self._turns:
            self.drained()

    def measure(self, now: float) -> None:
        """Count, if that is due; ``drained`` judges."""
        if now >= self.due and self._counts is None:
            self.due, self._taken = now + EVERY, 0
            self._before, self._heard = self._heard, set()
            counts = ((one, _count(one, self._port)) for one in self._base)
            self._counts = {one: count for one, count in counts if count is not None}

    def drained(self) -> None:
        """All messages that were complete when bytes were counted have been taken."""
        counts, self._counts = self._counts, None
        for descriptor, (came, read) in (counts or {}).items():
            if descriptor in self._before or descriptor in self._heard:
                self._base[descriptor] = came
            elif read - self._base.get(descriptor, read) > self.most:
                self.closed(descriptor)  # once is enough, though libzmq may yet read what the kernel has
                self._shut(descriptor)

    def _shut(self, descriptor: int) -> None:
        own = _of_port(descriptor, self._port)
        if own is not None:
            with own:
                self._dropped("a connection whose message does not end")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                own.shutdown(socket.SHUT_RDWR)


def _of_port(descriptor: int, port: int) -> socket.socket | None:
    """A duplicate of a connection that was accepted at ``port``; None if it is none any more."""
    try:
        own = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None
    try:
        if own.getsockname()[1] == port and own.getpeername():
            return own
    except (OSError, IndexError):
        pass
    own.close()
    return None


def _count(descriptor: int, port: int) -> tuple[int, int] | None:
    """Bytes that came in on a connection, and how many of them, at least, libzmq has read."""
    own = _of_port(descriptor, port)
    if own is None:
        return None
    with own:
        info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + _RECEIVED.size)
        waiting = array("i", [0])
        ioctl(own, FIONREAD, waiting)
    if len(info) < _RECEIVED_AT + _RECEIVED.size:
        return None
    (came,) = _RECEIVED.unpack_from(info, _RECEIVED_AT)
    return came, came - waiting[0]

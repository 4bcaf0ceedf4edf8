"""The pipe between the launcher and a node's process: whole messages over a pair of sockets.

Rules this module obeys:

* A message is its length (8 bytes, little-endian) and so many bytes; what they mean is the users'
  business. Both ends are on this machine and of one run, so lengths are believed.
* The launcher never blocks in a pipe: it reads with ``read``, which takes what is there and keeps
  what is unfinished, and its sends give up after ``seconds``. A process may block in its own end.
* One thread reads an end at a time; senders agree among themselves.
"""

from __future__ import annotations

import socket
import struct
from multiprocessing.connection import wait

__all__ = ["End", "pair"]

_LENGTH = struct.Struct("<Q")
_MOST = 1 << 24
"""Bytes that one ``read`` takes at most, about, so that other pipes get their turn."""


class End:
    """One end. ``EOFError`` or ``OSError`` wherever the other one is closed."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray(_LENGTH.size)
        self._filled = 0
        self._in_body = False

    def fileno(self) -> int:
        """For ``select`` and its like."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; the other one is told."""
        self._socket.close()

    def give_up_after(self, seconds: float) -> None:
        """Let ``send_bytes`` raise ``OSError`` once the other end has taken nothing for so long."""
        whole = int(seconds)
        timeout = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)

    def send_bytes(self, data: bytes | memoryview) -> None:
        """Send one message, given as bytes or a view of them; blocks while the other end does not read."""
        self._socket.sendall(_LENGTH.pack(len(data)))
        self._socket.sendall(data)

    def poll(self, seconds: float) -> bool:
        """Wait so long for something to read."""
        return bool(wait([self._socket], seconds))

    def recv_bytes(self) -> bytearray:
        """The next message; blocks until it is whole."""
        while True:
            message = self._take(0)
            if message is not None:
                return message

    def read(self) -> list[bytearray]:
        """The messages that are whole by now, possibly none; never blocks. ``EOFError`` at the very end."""
        messages: list[bytearray] = []
        taken = 0
        while taken < _MOST:
            before = self._filled
            try:
                message = self._take(socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except (EOFError, OSError):
                if messages:
                    break
                raise
            taken += len(message) if message is not None else max(self._filled - before, 0)
            if message is not None:
                messages.append(message)
        return messages

    def _take(self, flags: int) -> bytearray | None:
        """Receive once; the message that this completes, if any."""
        if self._filled < len(self._buffer):
            count = self._socket.recv_into(memoryview(self._buffer)[self._filled :], 0, flags)
            if not count:
                raise EOFError("the other end of the pipe is closed")
            self._filled += count
        if self._filled < len(self._buffer):
            return None
        done, self._filled = self._buffer, 0
        self._in_body = not self._in_body
        self._buffer = bytearray(_LENGTH.unpack(done)[0] if self._in_body else _LENGTH.size)
        return done if not self._in_body else None


def pair() -> tuple[socket.socket, socket.socket]:
    """The sockets of two connected ends, to be wrapped in ``End`` on either side."""
    return socket.socketpair()

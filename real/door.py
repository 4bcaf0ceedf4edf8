"""The door of a node: the port that it listens on, who may come in, and how many.

Rules this module obeys:

* The port is bound once and kept until the end, so nobody else can take a node's place at it.
* With keys, nobody gets further than CURVE's handshake who does not hold ``client.secret``: the one key
  that is let in is looked up here, in this process; no thread, no file, no DNS.
* Handshakes end within ``HANDSHAKE`` seconds and at most ``BACKLOG`` connections wait to be accepted. Once
  ``most`` are open the kernel drops what knocks (a filter on the listening socket): who waited by then still
  comes in, whoever is inside notices nothing, and an honest latecomer's connection is made when there is
  room.
* Everything here is done by the thread that moves frames, a bounded number of things at a time.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from real.errors import TransportError
from real.keys import Keys
from real.unfinished import Unfinished

__all__ = ["BACKLOG", "HANDSHAKE", "Door"]

HANDSHAKE = 10.0
BACKLOG = 128

_AT_A_TIME = 64
_ATTACH_FILTER, _DETACH_FILTER = 26, 27
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | _FAILED
_ZAP = "inproc://zeromq.zap.01"


class Door:
    """Where ``router`` listens: an ephemeral port of ``host``, an IPv4 address.

    most     connections at which no more are taken
    dropped  called with the reason for every connection that is refused
    open     connections that are open; shut: whether newcomers have to wait
    unfinished  what comes in on them without making a message; frames have at most ``largest`` bytes

    Raises ``TransportError`` where it cannot listen.
    """

    def __init__(
        self, context: Any, router: Any, host: str, most: int, largest: int, keys: Keys | None,
        dropped: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.most, self._dropped = most, dropped
        self.open, self.shut = 0, False
        self._admitted = z85.decode(keys.client_public) if keys is not None else b""
        self._guard: Any = None
        if keys is not None:
            self._guard = context.socket(zmq.ROUTER)
            self._guard.setsockopt(zmq.LINGER, 0)
            self._guard.bind(_ZAP)
            keys.listen(router)
        try:
            self._listening = socket.create_server((host, 0), backlog=BACKLOG)
        except OSError as error:
            raise TransportError(f"cannot listen at {host}: {error.strerror or error}") from error
        port = self._listening.getsockname()[1]
        self.address = f"tcp://{host}:{port}"
        self.unfinished = Unfinished(port, largest, 2 * (most + BACKLOG), dropped)
        router.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE * 1e3))
        router.setsockopt(zmq.BACKLOG, BACKLOG)
        router.setsockopt(zmq.USE_FD, os.dup(self._listening.fileno()))
        self._router, self._events = router, router.get_monitor_socket(_EVENTS)
        router.bind(self.address)

    @property
    def descriptors(self) -> list[Any]:
        """What becomes readable when there is something to do here."""
        return [self._events.FD, *([self._guard.FD] if self._guard is not None else [])]

    def look(self) -> bool:
        """Answer who knocks, count who came and went; True if there was anything."""
        return self._admit() | self._count()

    def close(self) -> None:
        """Stop listening; the router itself is closed by its owner."""
        self._router.disable_monitor()
        self._events.close(linger=0)
        if self._guard is not None:
            self._guard.close(linger=0)
        self._listening.close()

    def _admit(self) -> bool:
        """Answer requests of ZAP (ZeroMQ RFC 27): in comes the one client key, by CURVE."""
        if self._guard is None:
            return False
        for taken in range(_AT_A_TIME):
            try:
                parts = self._guard.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                return taken > 0
            requester, _, version, number, _, _, _, mechanism, *credentials = parts
            welcome = mechanism == b"CURVE" and credentials == [self._admitted]
            if not welcome:
                self._dropped("a connection with an unknown key")
            status = [b"200", b"OK"] if welcome else [b"400", b"unknown key"]
            self._guard.send_multipart([requester, b"", version, number, *status, b"", b""])
        return True

    def _count(self) -> bool:
        for taken in range(_AT_A_TIME):
            try:
                parts = self._events.recv_multipart(flags=zmq.NOBLOCK)
            except zmq.Again:
                return taken > 0
            told = parse_monitor_message(parts)
            event, descriptor = told["event"], int(told["value"])
            if event & _FAILED:
                self._dropped("a connection without a handshake: another protocol, or no key")
                continue
            if event == zmq.EVENT_ACCEPTED:
                self.open += 1
                self.unfinished.opened(descriptor)
            else:
                self.open -= 1
                self.unfinished.closed(descriptor)
            if self.shut != (self.open >= self.most):
                self._turn_key(shut=not self.shut)
        return True

    def _turn_key(self, *, shut: bool) -> None:
        """Let the kernel drop, or take again, whatever comes for the listening socket itself."""
        self.shut = shut
        if not shut:
            self._listening.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
            return
        self._dropped("connections beyond those that there may be")
        nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0))  # BPF: return 0 bytes
        program = struct.pack("@HP", 1, ctypes.addressof(nothing))
        self._listening.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)

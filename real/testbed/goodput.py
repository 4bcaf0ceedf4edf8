"""What a shaped link really carries: TCP between two places, measured.

Rules this module obeys: only bytes that have arrived count, and only those after the first
half second, when the burst of an idle link is spent.
"""

from __future__ import annotations

import socket
import threading
import time

from real.testbed.places import Place, verify, within

__all__ = ["goodput"]

_SETTLING = 0.5
_BLOCK = 1 << 20
_PATIENCE = 30.0


def goodput(source: Place, to: Place, seconds: float = 2.0) -> float:
    """Bytes per second of one TCP connection from ``source`` to ``to``, over ``seconds``.

    Raises ``OSError`` where they do not reach each other, ``TransportError`` where a place is none.
    """

    def listen() -> socket.socket:
        verify(to)
        return socket.create_server((to.address, 0))

    def dial() -> socket.socket:
        verify(source)
        return socket.create_connection((to.address, port), timeout=_PATIENCE)

    with within(to.path, listen) as server:
        server.settimeout(_PATIENCE)
        port = server.getsockname()[1]
        with within(source.path, dial) as out, server.accept()[0] as into:
            out.settimeout(_PATIENCE)
            into.settimeout(_PATIENCE)
            over = threading.Event()
            sender = threading.Thread(target=_send, args=(out, over), name="goodput", daemon=True)
            sender.start()
            try:
                return _count(into, seconds)
            finally:
                over.set()
                into.close()
                sender.join(_PATIENCE)


def _send(out: socket.socket, over: threading.Event) -> None:
    block = bytes(_BLOCK)
    try:
        while not over.is_set():
            out.sendall(block)
    except OSError:
        return  # the receiver has enough


def _count(into: socket.socket, seconds: float) -> float:
    """Bytes/s between the first arrival after settling and the last one counted."""
    buffer = bytearray(_BLOCK)
    settled = time.monotonic() + _SETTLING
    while time.monotonic() < settled:
        into.recv_into(buffer)
    begin = now = time.monotonic()
    total = 0
    while now < begin + seconds:
        total += into.recv_into(buffer)
        now = time.monotonic()
    return total / (now - begin)

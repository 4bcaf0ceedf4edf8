"""What shaped links really carry: TCP between places, measured.

Rules this module obeys: only bytes that have arrived count. Every connection is made anew, by threads
that have verified that they are in their places.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from real.testbed.places import Place, verify, within

__all__ = ["connected", "goodput", "timed"]

_SETTLING = 0.5
_BLOCK = 1 << 20
_PATIENCE = 60.0


@contextmanager
def connected(source: Place, to: Place) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection from ``source`` to ``to``; their waits are bounded.

    Raises ``OSError`` where they do not reach each other, ``TransportError`` where a place is none.
    """

    def listen() -> socket.socket:
        verify(to)
        return socket.create_server((to.address, 0))

    def dial() -> socket.socket:
        verify(source)
        return socket.create_connection(address, timeout=_PATIENCE)

    with within(to.path, listen) as server:
        server.settimeout(_PATIENCE)
        address = server.getsockname()
        with within(source.path, dial) as out, server.accept()[0] as into:
            into.settimeout(_PATIENCE)
            yield out, into


def goodput(source: Place, to: Place, seconds: float = 2.0) -> float:
    """Bytes per second of one TCP connection over ``seconds``, after half a second in which it settles.

    By then the burst of an idle link is spent. Raises as ``connected`` does.
    """
    with connected(source, to) as (out, into):
        over = threading.Event()
        sender = threading.Thread(target=_send, args=(out, over), name="goodput", daemon=True)
        sender.start()
        try:
            return _count(into, seconds)
        finally:
            over.set()
            into.close()
            sender.join(_PATIENCE)


def timed(flows: Sequence[tuple[Place, Place, int]]) -> list[float]:
    """Seconds after which the last byte of each flow (from, to, bytes) has come; all start at once.

    Raises as ``connected`` does, and where a flow stands still.
    """
    ends = [0.0] * len(flows)
    failures: list[BaseException] = []
    start = threading.Barrier(2 * len(flows) + 1)

    def run(end: socket.socket, index: int, nbytes: int, sends: bool) -> None:
        try:
            block = memoryview(bytearray(min(nbytes, _BLOCK)))
            start.wait()
            while nbytes:
                piece = block[: min(nbytes, _BLOCK)]
                if sends:
                    end.sendall(piece)
                nbytes -= len(piece) if sends else end.recv_into(piece)
            if not sends:
                ends[index] = time.monotonic()
        except BaseException as error:
            failures.append(error)

    with ExitStack() as stack:
        threads = []
        for i, (source, to, nbytes) in enumerate(flows):
            out, into = stack.enter_context(connected(source, to))
            for end, sends in ((out, True), (into, False)):
                threads.append(threading.Thread(target=partial(run, end, i, nbytes, sends), daemon=True))
        for thread in threads:
            thread.start()
        start.wait()
        begun = time.monotonic()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return [end - begun for end in ends]


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

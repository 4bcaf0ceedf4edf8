"""Live transports for tests: some nodes in threads of this process, and strangers that dial them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from core.node import Message
from real.buffers import allocate, expose
from real.endpoint import Endpoint
from real.keys import Keys
from real.pacing import Links
from real.transport import ZmqTransport
from real.wire import Agreed

__all__ = ["PATIENCE", "Nodes", "exchange", "nodes", "stranger", "until"]

PATIENCE = 60.0


class Nodes:
    """``count`` nodes of an agreed run of ``agreed.nodes``, connected; what their threads failed with."""

    def __init__(self, agreed: Agreed, count: int, keys: Keys | None, links: Links | None) -> None:
        self.agreed, self.failures = agreed, list[BaseException]()
        self.endpoints = [
            Endpoint(
                node, agreed, links or Links(False), allocate=allocate, expose=expose, clock=time.monotonic
            )
            for node in range(count)
        ]
        self.transports = [ZmqTransport(e, self.failures.append, keys=keys) for e in self.endpoints]
        addresses = {node: transport.address for node, transport in enumerate(self.transports)}
        for transport in self.transports:
            transport.start(addresses)

    def close(self) -> None:
        """Stop all threads."""
        for transport in self.transports:
            transport.close()


@contextmanager
def nodes(
    agreed: Agreed, count: int = 2, keys: Keys | None = None, links: Links | None = None
) -> Iterator[Nodes]:
    """So many connected nodes, closed at the end, none of which may have failed."""
    made = Nodes(agreed, count, keys, links)
    try:
        yield made
    finally:
        made.close()
    assert not made.failures


@contextmanager
def stranger(
    address: str, identity: bytes | None = None, keys: Keys | None = None, linger: int = 0
) -> Iterator[Any]:
    """A DEALER of its own context that dials ``address``."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, linger)
        socket.setsockopt(zmq.SNDHWM, 0)
        if identity is not None:
            socket.setsockopt(zmq.IDENTITY, identity)
        if keys is not None:
            keys.dial(socket)
        socket.connect(address)
        yield socket


def until(true: Callable[[], bool], what: str = "nothing happened") -> None:
    """Wait for something to become true, at most ``PATIENCE`` seconds."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def exchange(made: Nodes, size: int = 1000, source: int = 0, to: int = 1) -> None:
    """A message crosses intact: whatever else goes on, honest nodes are unharmed."""
    import torch

    sender, receiver = made.endpoints[source], made.endpoints[to]
    sent = torch.arange(size, dtype=torch.float32)
    assert sender.submit([(to, Message("model", sent))])
    until(lambda: sender.delivered([to]), "the message was not delivered")
    got, _ = receiver.take(("model",), source, None)
    assert isinstance(got, Message)
    assert torch.equal(got.tensor, sent)

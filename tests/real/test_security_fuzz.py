"""Any sequence of frames: nothing but the wire's own error, nothing allocated beyond what was agreed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.node import Message
from real import memory, wire
from real.endpoint import Endpoint
from real.errors import WireError
from real.memory import MemoryNetwork
from real.pacing import Links
from real.wire import Agreed, Header

NODES, MOST = 4, 4096
AGREED = Agreed(b"01234567", NODES, MOST)
HOSTILE = 3

kinds = st.sampled_from([wire.REQ, wire.GRANT, wire.HOLD, wire.RESUME, wire.DATA, wire.DONE, wire.BYE,
                         wire.PING, wire.PONG, wire.HELLO, 0, 11, 255])  # fmt: skip
small = st.integers(0, 3)
words = st.one_of(small, st.integers(0, 2**64 - 1))
signed = st.one_of(small, st.integers(-(2**63), 2**63 - 1))
sizes = st.one_of(st.sampled_from([0, 4, 8, 16, MOST, MOST + 4, 2**40, 2**64 - 4]), st.integers(0, 2**64 - 1))
times = st.one_of(
    st.floats(90.0, 110.0), st.floats(), st.sampled_from([0.0, -math.inf, math.inf, 1e308, -1e308])
)


@st.composite
def frames(draw: st.DrawFn, source: int = HOSTILE) -> tuple[bytes, bytes]:
    """A header, mostly one that gets far, and what follows it."""
    header = Header(
        draw(kinds), source, draw(words), draw(st.sampled_from(["m", "gradient", "", "x" * 32])),
        draw(st.sampled_from([*wire.DTYPES])), draw(st.sampled_from([0, 0, 0, 1, 2**32 - 1])), draw(signed),
        draw(signed), draw(signed), draw(st.floats()), draw(sizes), draw(sizes), draw(times),
    )  # fmt: skip
    packed = bytearray(wire.pack(header, AGREED.token))
    for _ in range(draw(st.integers(0, 2)) if draw(st.integers(0, 4)) == 0 else 0):
        packed[draw(st.integers(0, len(packed) - 1))] ^= draw(st.integers(1, 255))
    size = draw(st.sampled_from([0, 0, 4, 8, 16, MOST, MOST + 1]))
    return bytes(packed), bytes(size if header.kind == wire.DATA or draw(small) == 0 else 0)


def feed(endpoint: Endpoint, packed: bytes, payload: bytes, source: int = HOSTILE) -> bool:
    """What a transport does with a frame on ``source``'s connection; whether it was taken."""
    try:
        header = wire.unpack(packed, AGREED, len(payload))
        if header.source != source:
            raise WireError("from another connection")
        endpoint.on_frame(header, memoryview(payload) if payload else None)
    except WireError:
        return False
    return True


class Books:
    """An allocator that keeps books; the largest sum that was alive is not its business, sizes are."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, nbytes: int, dtype: str) -> tuple[Any, memoryview]:
        self.sizes.append(nbytes)
        return memory.allocate(nbytes, dtype if dtype != "bfloat16" else "float16")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(frames(), st.booleans()), max_size=25),
    st.booleans(),
    st.sampled_from([1, 2]),
)
def test_no_sequence_of_frames_harms_the_others(
    sequence: list[tuple[tuple[bytes, bytes], bool]], paced: bool, slots: int
) -> None:
    """Node 3 sends whatever it likes to nodes 0 and 1, while those exchange messages."""
    links = Links(paced, (1e6,) * NODES, (1e6,) * NODES, (1e-3,) * NODES)
    network = MemoryNetwork(NODES, links, slots=1 if paced else slots, window=4, inbox=4, max_bytes=MOST)
    books = Books()
    for endpoint in network.endpoints:
        endpoint._allocate = books
    victim, friend = network.endpoints[:2]
    honest = 0
    cut = False
    for (packed, payload), talk in sequence:
        cut = cut or not feed(victim, packed, payload)
        if cut:  # from here on a transport looks at nothing of it, and the launcher ends it
            victim.depart(HOSTILE)
        if talk and honest < 4:
            friend.submit([(0, Message("m", np.full(8, honest, np.float32), honest))])
            honest += 1
            if not cut:  # what it answers to this has an effect
                victim.submit([(HOSTILE, Message("bait", np.ones(8, np.float32)))])
        settle(network)
    victim.depart(HOSTILE)
    settle(network, forever=True)
    assert friend.delivered([0])
    got = [victim.take(("m",), 1, None)[0] for _ in range(honest)]
    assert [(m.step, float(m.tensor[0])) for m in got if isinstance(m, Message)] == [
        (number, number) for number in range(honest)
    ]
    assert all(size <= MOST for size in books.sizes)
    assert len(books.sizes) <= len(sequence) + honest
    assert HOSTILE not in victim._requests.keys() | victim._incoming.keys() | victim._held.keys()
    assert victim.submit([(1, Message("back", np.ones(4, np.float32)))])
    settle(network, forever=True)
    assert victim.delivered([1])


def settle(network: MemoryNetwork, forever: bool = False) -> None:
    """Let frames travel between the honest; the hostile one's come from the test alone."""
    for _ in range(10_000):
        moved = False
        for endpoint in network.endpoints[:HOSTILE]:
            for to, packed, payload in endpoint.tick():
                moved = True
                if to != HOSTILE:
                    header = wire.unpack(packed, AGREED, len(payload) if payload is not None else 0)
                    network.endpoints[to].on_frame(header, payload)
        if moved:
            continue
        due = min(endpoint.deadline() for endpoint in network.endpoints[:HOSTILE])
        if not forever or due == math.inf:
            return
        network.now = max(network.now, due)
    raise AssertionError("it never comes to rest")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10_000_000))
def test_no_bytes_do_more_than_raise(noise: bytes, payload: int) -> None:
    with pytest.raises(WireError):
        wire.unpack(noise, AGREED, payload)


@settings(max_examples=300, deadline=None)
@given(frames())
def test_what_passes_the_parser_is_what_was_agreed(frame: tuple[bytes, bytes]) -> None:
    packed, payload = frame
    try:
        header = wire.unpack(packed, AGREED, len(payload))
    except WireError:
        return
    assert header.source < NODES
    assert header.total <= MOST
    assert header.total % wire.DTYPES[header.dtype][1] == 0
    assert math.isfinite(header.time)
    assert len(payload) <= wire.CHUNK
    assert header.kind == wire.DATA or not payload
    assert header.kind != wire.DATA or header.offset + len(payload) <= header.total


@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("kind", [wire.REQ, wire.GRANT, wire.DONE, wire.DATA])
def test_a_time_far_ahead_is_a_lie(kind: int, paced: bool) -> None:
    """A grant from the year 3000 would keep every later message waiting."""
    network = MemoryNetwork(2, Links(paced, (1e6,) * 2, (1e6,) * 2, (0.0,) * 2), max_bytes=MOST)
    network.endpoints[0].submit([(1, Message("m", np.ones(4, np.float32)))])
    network.endpoints[0].tick()
    header = Header(kind, 1, 0, "m", "float32", total=16, time=1e12)
    with pytest.raises(WireError, match=r"ahead|without a grant"):
        network.endpoints[0].on_frame(header, memoryview(bytes(16)) if kind == wire.DATA else None)

"""The launcher's pipes: whole messages, and never a wait for the rest of one."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real.pipe import End, pair

Ends = tuple[End, End]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = map(End, pair())
    yield one, other
    one.close()
    other.close()


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_messages_come_whole_however_their_bytes_come(messages: list[bytes], portion: int) -> None:
    raw, end = pair()
    reader, stream = End(end), b"".join(struct.pack("<Q", len(m)) + m for m in messages)
    got: list[bytearray] = []
    for start in range(0, len(stream), portion):
        raw.sendall(stream[start : start + portion])
        got += reader.read()
    assert got == messages
    assert reader.read() == []
    raw.close()
    with pytest.raises(EOFError):
        reader.read()
    reader.close()


def test_what_was_sent_before_the_end_is_read_before_the_end(ends: Ends) -> None:
    ends[0].send_bytes(b"last words")
    ends[0].close()
    assert ends[1].read() == [b"last words"]
    with pytest.raises(EOFError):
        ends[1].read()


def test_a_message_that_stops_in_the_middle_blocks_nobody(ends: Ends) -> None:
    os.write(ends[0].fileno(), struct.pack("<Q", 1000) + b"x" * 10)
    assert ends[1].poll(0)
    assert ends[1].read() == []
    assert not ends[1].poll(0)
    os.write(ends[0].fileno(), b"x" * 990)
    assert ends[1].read() == [b"x" * 1000]


def test_large_messages_cross_in_turns(ends: Ends) -> None:
    """More than one look takes, and than the sockets hold: the sender waits, the reader never does."""
    large = os.urandom(1 << 20) * 40
    sender = threading.Thread(target=ends[0].send_bytes, args=(memoryview(large),))
    sender.start()
    got: list[bytearray] = []
    looks = 0
    while not got:
        assert ends[1].poll(20)
        got += ends[1].read()
        looks += 1
    sender.join()
    assert looks > 1
    assert got == [large]


def test_one_who_waits_gets_the_next_message(ends: Ends) -> None:
    threading.Timer(0.05, ends[0].send_bytes, (b"order",)).start()
    assert ends[1].recv_bytes() == b"order"


def test_sending_to_one_who_does_not_read_ends(ends: Ends) -> None:
    ends[0].give_up_after(0.05)
    with pytest.raises(OSError, match="temporarily unavailable"):
        ends[0].send_bytes(bytes(1 << 24))

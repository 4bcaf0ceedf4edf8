"""Booking: every second of a program goes to exactly one part."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.record import KINDS, PARTS
from real.booking import Booker
from real.mailbox import Motion, Traffic

UPDATE, SEND, WAIT, RECEIVE, IDLE = (PARTS.index(part) for part in PARTS[1:])


def traffic(*intervals: tuple[float, float], tag: str = "m") -> Traffic:
    """Transfers of ``tag`` during these intervals."""
    made = Traffic()
    for start, end in intervals:
        made.add(Motion(9, tag, 0, start, end))
    return made


def booked(coming: Traffic, going: Traffic, *, server: bool = False, until: float = 10.0) -> list[float]:
    """The parts of a program that was blocked from 0 to ``until``, awaiting all that comes."""
    booker = Booker(0, server=server, spans=True)
    booker.begin(0.0)
    booker.blocked(until, coming, going, list(coming.motions))
    return booker.parts


def test_receiving_comes_before_sending_and_sending_before_waiting() -> None:
    parts = booked(traffic((2, 5)), traffic((1, 3), (4, 7)))
    assert parts[RECEIVE] == pytest.approx(3)
    assert parts[SEND] == pytest.approx(1 + 2)
    assert parts[WAIT] == pytest.approx(1 + 3)


def test_a_server_that_waits_is_idle() -> None:
    parts = booked(traffic((2, 5)), traffic(), server=True)
    assert parts[IDLE] == pytest.approx(7)
    assert parts[WAIT] == 0


def test_a_transfer_that_still_moves_counts_up_to_now() -> None:
    assert booked(traffic((4, float("inf"))), traffic())[RECEIVE] == pytest.approx(6)


intervals = st.lists(
    st.tuples(st.floats(-2, 12), st.floats(0, 6)).map(lambda p: (p[0], p[0] + p[1])), max_size=6
)


@given(intervals, intervals, st.floats(0.1, 10))
def test_the_parts_add_up_and_no_span_overlaps(
    coming: list[tuple[float, float]], going: list[tuple[float, float]], until: float
) -> None:
    booker = Booker(3, server=False, spans=True)
    booker.begin(0.0)
    booker.blocked(until, traffic(*coming), traffic(*going), traffic(*coming).motions)
    booker.active(until + 1)
    assert sum(booker.parts) == pytest.approx(until + 1)
    assert booker.spans is not None
    table = booker.spans.table()
    edges = sorted(zip(table["start"], table["end"], strict=True))
    assert all(a[1] <= b[0] + 1e-12 for a, b in pairwise(edges))


def test_rows_are_back_to_back_and_hold_their_parts() -> None:
    booker = Booker(1, server=False, spans=False)
    booker.zero = 100.0
    booker.begin(100.0)
    booker.row(0, 100.0, 0)
    booker.compute(101.0)
    booker.active(101.5)
    booker.row(1, 101.5, 2)
    booker.compute(103.0)
    booker.blocked(104.0, traffic(), traffic(), [])
    booker.finish(104.25, 2)
    rows = booker.rows.table()
    assert rows["start"].tolist() == [0.0, 1.5]
    assert rows["end"].tolist() == [1.5, 4.25]
    assert rows["compute"].tolist() == [1.0, 1.5]
    assert rows["update"].tolist() == [0.5, 0.25]
    assert rows["wait"].tolist() == [0.0, 1.0]
    assert rows["blends"].tolist() == [2, 0]
    assert booker.end == 104.25


def test_only_what_is_awaited_is_received() -> None:
    motion = Motion(2, "model", 7, 0.0)
    assert motion.matches(("model", "left"), None, None)
    assert motion.matches(("model",), 2, 7)
    assert not motion.matches(("gradient",), None, None)
    assert not motion.matches(("model",), 1, None)
    assert not motion.matches(("model",), 2, 8)


def test_old_transfers_are_forgotten() -> None:
    made = traffic((0, 1), (0, 5), (2, float("inf")))
    made.forget(5)
    assert [motion.start for motion in made.motions] == [2]
    assert KINDS[: len(PARTS)] == PARTS

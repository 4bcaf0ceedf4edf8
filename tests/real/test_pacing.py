"""When pieces of a message leave: all of it, in order, never more than the line could have carried."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real.pacing import LEAD, Links
from real.wire import CHUNK


def links(rate: float, overhead: float = 0.0) -> Links:
    """Two NICs of ``rate`` bytes/s."""
    return Links(True, (rate, rate), (rate, rate), (0.0, 0.0), overhead)


@given(st.integers(0, 40_000_000), st.floats(1e5, 1e10), st.floats(0, 1e-2))
def test_pieces_cover_the_message_in_order_and_the_last_leaves_just_before_its_end(
    nbytes: int, rate: float, overhead: float
) -> None:
    pieces = links(rate, overhead).pieces(0, 1, nbytes, 50.0)
    at = 0
    for _, offset, length in pieces:
        assert offset == at
        assert length <= CHUNK
        at += length
    assert at == nbytes
    releases = [release for release, _, _ in pieces]
    end = 50.0 + overhead + nbytes / rate
    assert releases[-1] == pytest.approx(end - LEAD, abs=1e-9)
    assert all(release <= end for release in releases)
    assert all(release >= 50.0 + offset / rate - 1e-9 for release, offset, _ in pieces[:-1])


def test_native_links_release_everything_at_once() -> None:
    native = Links(paced=False)
    pieces = native.pieces(0, 1, 9_000_000, 3.0)
    assert [length for _, _, length in pieces] == [4_000_000, 4_000_000, 1_000_000]
    assert {release for release, _, _ in pieces} == {3.0}
    assert native.rate(0, 1) == math.inf
    assert native.path_latency(0, 1) == 0


def test_the_slower_nic_and_both_latencies_count() -> None:
    uneven = Links(True, (1e6, 3e6), (2e6, 5e5), (1e-3, 2e-3), 1e-4)
    assert uneven.rate(0, 1) == 5e5
    assert uneven.rate(1, 0) == 2e6
    assert uneven.path_latency(0, 1) == pytest.approx(3e-3)
    assert uneven.duration(0, 1, 500) == pytest.approx(1.1e-3)


@pytest.mark.parametrize("nbytes", [0, 1, 9_000_000])
def test_paced_links_without_a_rate_delay_nothing(nbytes: int) -> None:
    """``cluster.bandwidth: unlimited``."""
    pieces = links(math.inf).pieces(0, 1, nbytes, 3.0)
    assert sum(length for _, _, length in pieces) == nbytes
    assert all(length <= CHUNK for _, _, length in pieces)
    assert all(release <= 3.0 for release, _, _ in pieces)

"""The frame parser: what was packed comes back, and nothing that arrives can do more than raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real import wire
from real.errors import WireError
from real.wire import Agreed, Header

AGREED = Agreed(b"01234567", nodes=5, max_bytes=4096)

numbers = st.integers(-(2**63), 2**63 - 1)
headers = st.builds(
    Header,
    kind=st.integers(wire.REQ, wire.HELLO).filter(lambda kind: kind != wire.DATA),
    source=st.integers(0, 4),
    sequence=st.integers(0, 2**64 - 1),
    tag=st.text("abc.ABC_019", max_size=32),
    dtype=st.just("float32"),
    incarnation=st.integers(0, 2**32 - 1),
    step=numbers,
    count=numbers,
    versions=numbers,
    number=st.floats(allow_nan=False),
    total=st.integers(0, 1024).map(lambda n: 4 * n),
    offset=st.integers(0, 2**64 - 1),
    time=st.floats(0, 1e9),
)


@given(headers)
def test_what_was_packed_comes_back(header: Header) -> None:
    frame = wire.pack(header, AGREED.token)
    assert len(frame) == wire.HEADER_BYTES
    assert frame[wire.KIND_AT] == header.kind
    assert wire.unpack(frame, AGREED, 0) == header


@given(st.binary(max_size=300), st.integers(0, 10_000_000))
def test_noise_raises_nothing_but_the_wires_own_error(noise: bytes, payload: int) -> None:
    with pytest.raises(WireError):
        wire.unpack(noise, AGREED, payload)


@given(headers, st.data())
def test_a_damaged_frame_is_refused_or_stays_within_what_was_agreed(
    header: Header, data: st.DataObject
) -> None:
    frame = bytearray(wire.pack(header, AGREED.token))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    payload = data.draw(st.integers(0, 8192))
    try:
        parsed = wire.unpack(bytes(frame), AGREED, payload)
    except WireError:
        return
    assert parsed.total <= AGREED.max_bytes
    assert parsed.source < AGREED.nodes
    assert parsed.dtype in wire.DTYPES
    if parsed.kind == wire.DATA:
        assert parsed.offset + payload <= parsed.total


@given(headers, st.integers(0, wire.HEADER_BYTES - 1))
def test_a_truncated_frame_is_refused(header: Header, length: int) -> None:
    with pytest.raises(WireError, match="header of"):
        wire.unpack(wire.pack(header, AGREED.token)[:length], AGREED, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"total": 4100}, "at most 4096"),
        ({"total": 2}, "bytes of float32"),
        ({"source": 5}, "unknown node 5"),
        ({"kind": 0}, "unknown kind"),
        ({"kind": 99}, "unknown kind"),
        ({"time": float("nan")}, "not finite"),
        ({"tag": "a b"}, "not printable"),
        ({"dtype": "none", "total": 4}, "bytes of none"),
    ],
)
def test_what_was_not_agreed_is_named(change: dict[str, object], says: str) -> None:
    fields = {"kind": wire.REQ, "source": 1, "tag": "gradient", "dtype": "float32", "total": 16} | change
    frame = wire.pack(Header(**fields), AGREED.token)  # type: ignore[arg-type]
    with pytest.raises(WireError, match=says):
        wire.unpack(frame, AGREED, 0)


def test_a_frame_of_another_run_is_refused() -> None:
    frame = wire.pack(Header(wire.REQ, 1), b"another!")
    with pytest.raises(WireError, match="another run"):
        wire.unpack(frame, AGREED, 0)


@pytest.mark.parametrize(
    ("offset", "payload"), [(0, 0), (4090, 8), (4096, 1), (0, wire.CHUNK + 1), (2**63, 16)]
)
def test_data_beyond_its_message_is_refused(offset: int, payload: int) -> None:
    header = Header(wire.DATA, 1, dtype="float32", total=4096, offset=offset)
    with pytest.raises(WireError):
        wire.unpack(wire.pack(header, AGREED.token), AGREED, payload)


def test_what_cannot_be_expressed_is_not_sent() -> None:
    for header in (
        Header(wire.REQ, 1, tag="x" * 33),
        Header(wire.REQ, 1, tag="ä"),
        Header(wire.REQ, 1, step=2**64),
    ):
        with pytest.raises(WireError):
            wire.pack(header, AGREED.token)
    with pytest.raises(WireError):
        wire.pack(Header(wire.REQ, 1, dtype="complex64"), AGREED.token)


def test_the_header_is_as_long_as_documented() -> None:
    assert wire.HEADER_BYTES == 120
    assert len(wire.pack(Header(wire.REQ, 1, tag="m" * 32), AGREED.token)) == 120

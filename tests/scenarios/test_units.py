"""Quantities with units, read exactly and refused clearly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.errors import ScenarioError
from scenarios.units import DIMENSIONS, quantity


@pytest.mark.parametrize(
    ("dimension", "text", "value"),
    [
        ("bytes/s", "10 Gbit/s", 1.25e9),
        ("bytes/s", "1.25 GB/s", 1.25e9),
        ("bytes/s", "100Mbps", 12.5e6),
        ("bytes/s", "1e9", 1e9),
        ("bytes/s", 5, 5.0),
        ("bytes", "553 MB", 553e6),
        ("bytes", "4 MiB", 4 * 2.0**20),
        ("bytes", "8 bit", 1.0),
        ("seconds", "50 us", 50e-6),
        ("seconds", "50 µs", 5e-5),
        ("seconds", "50ms", 0.05),
        ("seconds", "2 min", 120.0),
        ("seconds", " 1.5 s ", 1.5),
        ("seconds", "1_000 ms", 1.0),
    ],
)
def test_read(dimension, text, value) -> None:
    assert quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "says"),
    [
        ("10 Gbits/s", "bytes/s", "did you mean 'Gbit/s'?"),
        ("10 MB", "bytes/s", "not bytes"),
        ("10 MB/s", "bytes", "not bytes/s"),
        ("3 parsecs", "seconds", "unknown unit"),
        ("fast", "bytes/s", "10 Gbit/s"),
        ("", "seconds", "50 ms"),
        (True, "seconds", "50 ms"),
        (None, "bytes", "553 MB"),
        ([1], "bytes", "553 MB"),
        ("1 Gb/s", "bytes/s", "did you mean"),
        ("1e999999 GB/s", "bytes/s", "10 Gbit/s"),
        ("1e99999999999999999999", "seconds", "50 ms"),
    ],
)
def test_refused(text, dimension, says) -> None:
    with pytest.raises(ScenarioError) as error:
        quantity(text, dimension, "cluster.x")
    assert str(error.value).startswith(f"cluster.x: {'null' if text is None else repr(text)}")
    assert says in str(error.value)


@given(st.floats(1e-6, 1e9), st.sampled_from([(d, u) for d, units in DIMENSIONS.items() for u in units]))
def test_a_unit_is_a_factor(number, unit) -> None:
    dimension, name = unit
    assert quantity(f"{number!r} {name}", dimension) == pytest.approx(
        number * float(DIMENSIONS[dimension][name]), rel=1e-12
    )

"""Quantities with units, read exactly and refused clearly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.errors import ScenarioError
from scenarios.units import DIMENSIONS, duration, quantity, rate, size


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (rate, "10 Gbit/s", 1.25e9),
        (rate, "1.25 GB/s", 1.25e9),
        (rate, "100Mbps", 12.5e6),
        (rate, "1e9", 1e9),
        (rate, 5, 5.0),
        (size, "553 MB", 553e6),
        (size, "4 MiB", 4 * 2.0**20),
        (size, "8 bit", 1.0),
        (duration, "50 us", 50e-6),
        (duration, "50 µs", 5e-5),
        (duration, "50ms", 0.05),
        (duration, "2 min", 120.0),
        (duration, " 1.5 s ", 1.5),
        (duration, "1_000 ms", 1.0),
    ],
)
def test_read(read, text, value) -> None:
    assert read(text) == value


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
    ],
)
def test_refused(text, dimension, says) -> None:
    with pytest.raises(ScenarioError) as error:
        quantity(text, dimension, "cluster.x")
    assert str(error.value).startswith(f"cluster.x: {text!r}")
    assert says in str(error.value)


@given(st.floats(1e-6, 1e9), st.sampled_from([(d, u) for d, units in DIMENSIONS.items() for u in units]))
def test_a_unit_is_a_factor(number, unit) -> None:
    dimension, name = unit
    assert quantity(f"{number!r} {name}", dimension) == pytest.approx(
        number * float(DIMENSIONS[dimension][name]), rel=1e-12
    )

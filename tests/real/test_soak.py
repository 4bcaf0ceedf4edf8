"""Half an hour of real runs under random faults; for any other time: ``python -m tests.real.soak``."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

from tests.real.soak import NAMES, drawn, soak

SECONDS = 1800.0


@pytest.mark.slow
def test_half_an_hour_of_random_faults_leaves_no_gradient_unaccounted_for() -> None:
    counts = soak(SECONDS)
    assert set(counts) == set(NAMES)
    assert sum(found["crash"] for found in counts.values()) > len(NAMES)


def test_every_run_of_the_soak_can_be_drawn_again() -> None:
    for number in range(3 * len(NAMES)):
        assert drawn(number).to_dict() == drawn(number).to_dict()
        assert drawn(number).faults

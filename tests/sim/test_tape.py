"""The benchmark's tape does what the recorded run did: the same numbers, no tensor kept too long."""

from __future__ import annotations

from typing import Any

import pytest

from scenarios.plan import plan
from sim.driver import Driver
from sim.numerics import evaluator
from tests.sim.test_numerics import scenario

torch = pytest.importorskip("torch")
tape_module = pytest.importorskip("benchmarks.tape")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("batched", ["never", "always"])
@pytest.mark.parametrize("algorithm", ["asp", "aladdin", "arsgd", "dpsgd"])
def test_a_tape_ends_at_the_parameters_of_the_run(algorithm: str, batched: str) -> None:
    made = plan(scenario(algorithm, **{"run.batched": batched}))
    tape = tape_module.Tape(evaluator(made))
    ends: list[Any] = []

    def run() -> None:
        driver = Driver(made, gradients=tape, tensors=lambda _: tape.tensors())
        driver.run()
        ends.extend(node.params.clone() for node in driver.nodes)

    tape.record(run)
    tape.play()
    held = [x for x in tape._held if x is not None]
    assert all(any(torch.equal(end, x) for x in held if x.shape == end.shape) for end in ends)
    assert len(held) < made.workers * 6, "gradients and snapshots are dropped"

"""Real gradients in virtual time: same timing, same numbers batched or not, curves, divergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from core.algorithms import ALGORITHMS
from core.record import LOSS_COLUMNS, LOSS_ROWS, Record, StepLog, losses
from scenarios import ScenarioError
from scenarios.plan import plan
from scenarios.schema import Scenario
from sim.driver import Driver
from sim.errors import Diverged
from sim.numerics import evaluator

torch = pytest.importorskip("torch")

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
"""Batched against one by one: float32 sums in another order, relative to gradients of about 0.1."""


pytestmark = pytest.mark.usefixtures("one_thread")


def scenario(algorithm: str = "asp", workers: int = 4, steps: int = 6, **changes: Any) -> Scenario:
    """The digits MLP, small, over a slow network with unequal steps."""
    base = Scenario.from_dict(
        {
            "name": "numbers",
            "cluster": {
                "workers": workers,
                "bandwidth": "100 Mbit/s",
                "latency": "100 us",
                "compute": {"mean": "10 ms", "model": "lognormal", "spread": 0.3},
                "tensor_seconds": {"accumulate": 1e-4, "apply": 1e-4, "mix": 1e-4},
            },
            "workload": {"model": "mlp", "data": "digits", "hidden": [16], "batch": 8},
            "algorithm": {"name": algorithm, "lr": 0.01, "momentum": 0.9},
            "run": {"steps": steps, "numerics": True, "threads": 1, "batched": "never"},
        }
    )
    return base.override(changes)


def same(a: Record, b: Record, *names: str) -> None:
    """The named tables (default: all) are equal byte for byte, and so are the manifests but for one part."""
    for name in names or a.tables():
        one, other = a.tables()[name], b.tables()[name]
        assert list(one) == list(other), name
        for column in one:
            assert one[column].tobytes() == other[column].tobytes(), f"{name}.{column}"
    if not names:
        first, second = ({**r.manifest, "environment": None} for r in (a, b))
        assert first == second


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_timing_is_the_same_with_numbers_and_without(name: str) -> None:
    chosen = scenario(name)
    numbers, sizes = sim.simulate(chosen), sim.simulate(chosen.override({"run.numerics": False}))
    same(numbers, sizes, "nodes", "steps", "gradients", "links")
    assert len(numbers.curves["loss"]) == 1
    assert len(numbers.losses["loss"]) == numbers.nodes["steps"].sum()
    assert not sizes.losses


def test_off_needs_no_torch_and_gives_empty_curves() -> None:
    record = sim.simulate(scenario().override({"run.numerics": False}))
    assert record.curves["loss"].tolist() == []


@pytest.mark.parametrize(
    "workload",
    [
        {"hidden": [16]},
        {"hidden": [24, 12], "batch": 5, "weight_decay": 0.01},
        {"model": "cnn", "hidden": [], "batch": 3},
    ],
)
def test_a_batched_gradient_is_the_gradient(workload: dict[str, Any]) -> None:
    chosen = scenario().override({f"workload.{name}": value for name, value in workload.items()})
    together = evaluator(plan(chosen.override({"run.batched": "always"})))
    singly = evaluator(plan(chosen))
    assert together.chunk == 4
    points = [singly.initial * (1 + 0.1 * i) for i in range(3)]
    keys = [(0, 3), (2, 0), (3, 7)]
    for found, wanted in zip(
        zip(*together.several(points, keys), strict=True), zip(*singly.several(points, keys), strict=True),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(found[0].numpy(), wanted[0].numpy(), **TOLERANCE)
        assert found[1] == pytest.approx(wanted[1], rel=1e-5)


@pytest.mark.parametrize("name", ["asp", "aladdin", "arsgd"])
def test_a_run_is_the_same_batched_and_one_by_one(name: str) -> None:
    """A dozen steps are few enough for rounding errors to stay small: 1e-3 relative on losses."""
    chosen = scenario(name, 5, 12)
    singly, together = sim.simulate(chosen), sim.simulate(chosen.override({"run.batched": "always"}))
    same(singly, together, "nodes", "steps", "gradients", "links")
    np.testing.assert_allclose(singly.losses["loss"], together.losses["loss"], rtol=1e-3)
    np.testing.assert_allclose(singly.curves["loss"], together.curves["loss"], rtol=1e-3)
    assert together.manifest["environment"]["numerics"]["batched"]


def test_gradients_in_flight_are_evaluated_together_and_in_bounds() -> None:
    class Counting:
        """Counts how many gradients are asked for at once."""

        initial = np.zeros(4, dtype=np.float32)
        chunk = 3

        def __init__(self) -> None:
            self.calls: list[int] = []

        def several(self, params: Sequence[Any], keys: Sequence[Any]) -> tuple[list[Any], list[float]]:
            self.calls.append(len(keys))
            return [x - 1.0 for x in params], [1.0] * len(keys)

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            raise AssertionError("several is there")

    counting = Counting()
    sim.simulate(scenario("bsp", 6, 5, **{"workload.parameters": 4}), gradients=counting)
    assert sum(counting.calls) == 30
    assert counting.calls == [3, 3] * 5


def test_a_gradient_is_that_at_the_start_of_its_step_even_if_a_companion_changes_the_parameters() -> None:
    from core.effects import Compute, Receive, Send
    from core.node import Finished, Message, Node, Program

    found: dict[int, list[float]] = {0: [], 1: []}

    class Meddling:
        """Worker 0 tells worker 1's companion to move the parameters while worker 1 computes."""

        name, title, centralized, collective = "meddling", "", False, False

        def worker(self, node: Node) -> Program:
            try:
                if node.id == 0:
                    yield Send((1, Message("move")))
                while True:
                    found[node.id].append(float((yield Compute())[0]))
            except Finished:
                return

        def server(self, node: Node) -> Program:
            raise NotImplementedError

        def companions(self, node: Node) -> Any:
            def passive() -> Program:
                yield Receive("move")
                node.params += 100.0

            return (passive(),) if node.id == 1 else ()

    class Identity:
        """The gradient is the parameters themselves."""

        initial = np.ones(4, dtype=np.float32)

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            return params.copy()

    import dataclasses

    made = plan(scenario("arsgd", 2, 2, **{"workload.parameters": 4}))
    Driver(dataclasses.replace(made, algorithm=Meddling()), gradients=Identity()).run()
    assert found == {0: [1.0, 1.0], 1: [1.0, 101.0]}


# Curves


def test_the_model_is_evaluated_every_so_many_epochs_outside_the_clock() -> None:
    chosen = scenario("aladdin", 4, 90)
    plain = sim.simulate(chosen)
    record = sim.simulate(chosen.override({"run.evaluate_every": 0.5}))
    same(plain, record, "steps", "losses")
    curves, half = record.curves, 1437 / 2
    assert len(curves["time"]) == 1 + int(4 * 90 * 8 / half)
    marks = np.arange(1, len(curves["time"])) * half
    assert (curves["samples"][:-1] >= marks).all()
    assert (curves["samples"][:-1] < marks + 8).all()
    assert curves["epoch"] == pytest.approx(curves["samples"] / 1437)
    assert (curves["samples"] == 8 * curves["step"]).all()
    assert curves["time"][-1] == record.duration
    assert (np.diff(curves["time"]) > 0).all()
    assert curves["accuracy"][-1] > curves["accuracy"][0]
    assert (curves["consensus"] > 0).all()
    assert (curves["lemma"] > 0).all()
    assert {c: v[-1] for c, v in curves.items()} == {c: v[-1] for c, v in plain.curves.items()}


def test_distances_are_what_they_are_said_to_be() -> None:
    made = plan(scenario("aladdin", 3, 4))
    driver = Driver(made, gradients=evaluator(made))
    curves = driver.run().curves
    replicas = np.stack([node.params.numpy() for node in driver.nodes[:3]]).astype(np.float64)
    mean = replicas.mean(0)
    assert curves["consensus"][-1] == pytest.approx(((replicas - mean) ** 2).sum(1).mean(), rel=1e-4)
    model = driver.nodes[3].params.numpy()
    assert curves["lemma"][-1] == pytest.approx(((model - mean) ** 2).sum(), rel=1e-4)
    assert np.isnan(sim.simulate(scenario("arsgd", 2, 2)).curves["lemma"]).all()


def test_losses_beyond_the_bound_are_averaged() -> None:
    log = StepLog(LOSS_COLUMNS)
    for i in range(2 * LOSS_ROWS):
        log.append((i, 0, i, i % 2))
    table = losses(log)
    assert len(table["loss"]) == LOSS_ROWS
    assert set(table["loss"]) == {0.5}
    assert set(table["node"]) == {-1}


# Divergence


def test_a_diverged_run_stops_and_keeps_what_was_recorded() -> None:
    chosen = scenario("asp", 3, 400, **{"algorithm.lr": 1e4, "run.evaluate_every": 0.01})
    with pytest.raises(Diverged, match=r"training diverged.*is (nan|inf)") as caught:
        sim.simulate(chosen)
    stop = caught.value
    record = stop.record
    assert record is not None
    assert 0 < record.nodes["steps"].sum() < 1200
    assert record.duration == pytest.approx(stop.now)
    assert len(record.curves["loss"])
    assert record.manifest["flags"]
    parts = ("compute", "update", "send", "wait", "receive", "idle")
    assert sum(record.nodes[p] for p in parts) == pytest.approx(np.full(4, record.duration))


def test_a_diverged_run_says_which_worker_and_step() -> None:
    class Bursting:
        """The third step of worker 1 gives no number."""

        initial = np.zeros(4, dtype=np.float32)
        chunk = 1

        def several(self, params: Sequence[Any], keys: Sequence[Any]) -> tuple[list[Any], list[float]]:
            return [x.copy() for x in params], [float("nan") if keys[0] == (1, 2) else 1.0]

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            raise AssertionError("several is there")

    with pytest.raises(Diverged, match="the loss of worker 1 at its step 2, ") as caught:
        sim.simulate(scenario("bsp", 3, 5, **{"workload.parameters": 4}), gradients=Bursting())
    assert (caught.value.worker, caught.value.step) == (1, 2)
    record = caught.value.record
    assert record is not None
    assert np.isnan(record.losses["loss"]).sum() == 1


def test_a_model_that_is_no_good_is_told_with_the_last_step_before_it_was_looked_at() -> None:
    class Worthless:
        """Gradients and losses as they should be; but the model's test loss is infinite."""

        initial = np.zeros(4, dtype=np.float32)
        chunk = 1

        def several(
            self, params: Sequence[Any], keys: Sequence[tuple[int, int]]
        ) -> tuple[list[Any], list[float]]:
            return [x.copy() for x in params], [1.0]

        def evaluate(self, params: Any) -> tuple[float, float]:
            return float("inf"), 0.1

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            raise AssertionError("several is there")

    with pytest.raises(Diverged, match="test loss after 15 steps of all workers") as caught:
        sim.simulate(scenario("bsp", 3, 5, **{"workload.parameters": 4}), gradients=Worthless())
    stop = caught.value
    assert stop.worker is None
    assert stop.last is not None
    worker, step = stop.last
    ended = stop.record.losses
    assert (worker, step) == (ended["node"][ended["time"].argmax()], 4)
    assert f"(the last: worker {worker}'s step 4)" in str(stop)


# How gradients are evaluated


def test_measurement_chooses_the_faster_way_and_reports_it() -> None:
    ticks = iter(range(10**6))

    def timer() -> float:
        return float(next(ticks))

    found = evaluator(plan(scenario("asp", 8, **{"run.batched": "auto"})), timer)
    assert found.describe() == {
        "batched": True, "chunk": 8, "threads": 1, "ratio": 2.0, "torch": torch.__version__
    }  # fmt: skip


def test_nothing_is_measured_where_there_is_no_choice() -> None:
    def timer() -> float:
        raise AssertionError("nothing to measure")

    for changes in ({"run.batched": "never"}, {"run.batched": "always"}, {"cluster.workers": 1}):
        evaluator(plan(scenario("asp", 8, **{"run.batched": "auto", **changes})), timer)


def test_batch_norm_cannot_be_batched() -> None:
    chosen = scenario(**{"run.batched": "always"}).override(
        {"workload.hidden": [], "workload.model": "resnet50", "workload.image_size": 32, "workload.batch": 2}
    )
    with pytest.raises(ScenarioError, match=r"run\.batched.*auto or never: resnet50 has BatchNorm"):
        evaluator(plan(chosen))


def test_threads_are_asked_for_and_given_back(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    with evaluator(plan(scenario())):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [({}, r"run\.device: 'cuda'.*no CUDA device"), ({"run.batched": "always"}, r"run\.batched: 'always'")],
)
def test_a_device_that_is_not_there_is_refused(
    changes: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScenarioError, match=named):
        sim.simulate(scenario(**{"run.device": "cuda", **changes}))


@pytest.mark.gpu
def test_gradients_on_a_gpu_make_the_same_run() -> None:
    here, there = (sim.simulate(scenario(**{"run.device": device})) for device in ("cpu", "cuda"))
    same(here, there, "steps", "messages")
    assert np.allclose(here.curves["loss"], there.curves["loss"], rtol=1e-2)

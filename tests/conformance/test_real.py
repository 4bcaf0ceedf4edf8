"""Every algorithm on real processes, sockets and gradients: the same invariants as on the other drivers.

A record does not hold every message, so what can be asked is what shows in its tables and in the final
parameters; each algorithm trains once (tests/conformance/trained.py), some once more with a worker killed.
"""

from __future__ import annotations

import numpy as np
import pytest

from core.algorithms import ALGORITHMS
from core.record import PARTS, Record
from tests.conformance import trained
from tests.conformance.trained import NATIVE, STEPS, WORKERS, observed, really, scenario

pytest.importorskip("torch")
pytest.importorskip("zmq")

RUNS = [*ALGORITHMS, NATIVE]
AGREEING = ["arsgd", "local_sgd", "post_local_sgd", "diloco", NATIVE]
BOUNDS = {"ssp": 2, "dssp": 3}
"""Completed steps that workers may be apart: s + 1, s_U + 1."""
FAMILIES = ["ssp", "easgd", "sgp"]
"""A representative each of those that tests/real/test_faults.py does not kill a worker of."""


@pytest.mark.parametrize("name", RUNS)
def test_every_second_and_every_gradient_is_accounted_for(name: str) -> None:
    record, _ = really(name)
    workers = record.nodes["role"] == "worker"
    assert (record.nodes["steps"][workers] == STEPS).all()
    check_times(record)
    sent = STEPS * WORKERS if getattr(ALGORITHMS.get(name), "sends_gradients", True) else 0
    for server in np.flatnonzero(~workers):
        assert record.nodes["applied"][server] + record.nodes["pending"][server] == sent
    assert (record.nodes["lost"] == 0).all()


def check_times(record: Record) -> None:
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-6, atol=1e-6)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["bsp", "arsgd", NATIVE])
def test_synchronous_equals_large_batch_sgd(name: str) -> None:
    """The model that is evaluated at the end is that of SGD on the union of the workers' batches."""
    import torch

    from scenarios.workloads import load

    made = scenario("bsp")
    task = load(made.workload, made.run.seed)
    x = task.initial().clone()
    velocity = torch.zeros_like(x)
    for step in range(STEPS):
        gradients = [task.gradient(x, rank, step)[0] for rank in range(WORKERS)]
        velocity = 0.9 * velocity + torch.stack(gradients).mean(0)
        x = x - 0.05 * WORKERS * velocity
    record, params = really(name)
    for rank in range(WORKERS):
        np.testing.assert_allclose(params[rank], x.numpy(), rtol=1e-4, atol=1e-5)
    assert record.curves["loss"][-1] == pytest.approx(task.evaluate(x)[0], rel=1e-4)


@pytest.mark.parametrize("name", ["bsp", *AGREEING])
def test_replicas_that_must_agree_are_bit_identical(name: str) -> None:
    record, params = really(name)
    for rank in range(1, WORKERS):
        np.testing.assert_array_equal(params[rank], params[0])
    assert record.curves["consensus"][-1] <= 1e-10


@pytest.mark.parametrize("name", BOUNDS)
def test_staleness_is_bounded(name: str) -> None:
    """Worker 0 is four times slower; all processes read one clock."""
    assert furthest(really(name)[0]) <= BOUNDS[name]


def test_without_a_bound_others_do_run_ahead() -> None:
    """The previous test can fail: ASP on that same cluster (simulated, so always) would."""
    record, _ = trained.simulated(scenario("asp", **trained.SLOW))
    assert furthest(record) > max(BOUNDS.values())


def furthest(record: Record) -> int:
    """By how many completed steps, at most, two workers were apart whenever anybody began one."""
    rows, apart = record.steps, 0
    done = rows["start"] + rows["compute"]
    for start in rows["start"]:
        completed = [(done[rows["node"] == rank] <= start).sum() for rank in range(WORKERS)]
        apart = max(apart, max(completed) - min(completed))
    return int(apart)


def test_push_sum_weights_add_up() -> None:
    """SGP without overlap leaves nothing under way; GoSGD may lose what comes after a worker's end."""
    assert really("sgp")[0].nodes["weight"].sum() == pytest.approx(WORKERS)
    weights = really("gosgd")[0].nodes["weight"][:WORKERS]
    assert weights.min() > 0
    assert weights.sum() <= 1 + 1e-9


@pytest.mark.parametrize("name", ["aladdin", "aladdin_l1", "aladdin_l2"])
def test_aladdin_worker_never_waits_under_coalesce(name: str) -> None:
    steps = really(name)[0].steps
    early = steps["step"] < STEPS - 1
    for part in ("send", "wait", "receive"):
        assert (steps[part][early] == 0).all()


def survive(name: str, victim: int) -> None:
    """Worker ``victim`` is killed at the start of its fourth step; the rest finish, and lose nothing."""
    record, params = observed(scenario(name), kill={victim: 3})
    survivors = [rank for rank in range(WORKERS) if rank != victim]
    assert record.nodes["steps"][survivors].tolist() == [STEPS] * len(survivors)
    assert record.nodes["steps"][victim] <= 3
    assert record.nodes["lost"][survivors].tolist() == [0] * len(survivors)
    check_times(record)
    assert all(np.isfinite(params[rank]).all() for rank in survivors)
    if name in BOUNDS:
        assert (record.nodes["applied"] + record.nodes["pending"])[survivors].tolist() == [STEPS] * 2
    if name in ("sgp", "gosgd"):
        assert 0 < record.nodes["weight"].sum() <= (WORKERS if name == "sgp" else 1) + 1e-9
    if name in AGREEING:
        np.testing.assert_array_equal(params[survivors[0]], params[survivors[1]])


@pytest.mark.parametrize("name", FAMILIES)
def test_survivors_finish_when_a_worker_is_killed(name: str) -> None:
    survive(name, 1)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in FAMILIES])
def test_survivors_of_any_other_algorithm_finish(name: str, victim: int) -> None:
    survive(name, victim)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_uneven_ends_do_not_block_the_rest(name: str) -> None:
    """Ten batches for three workers, one of them slow: somebody ends before the others."""
    made = scenario(name, **trained.SLOW, **{"run.steps": 0, "run.samples": 10 * 32})
    record, _ = observed(made)
    assert record.nodes["steps"].sum() == 10
    assert (record.nodes["lost"] == 0).all()
    check_times(record)


def test_the_schema_is_the_simulators() -> None:
    from sim import simulate

    simulated, (measured, _) = simulate(scenario("asp")), really("asp")
    for name, table in simulated.tables().items():
        if table and name != "links":
            assert list(measured.tables()[name]) == list(table), name
            for column, values in table.items():
                assert measured.tables()[name][column].dtype.kind == values.dtype.kind, f"{name}.{column}"

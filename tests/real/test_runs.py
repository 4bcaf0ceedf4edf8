"""Whole runs on processes and sockets: what every record must satisfy, and what the numbers must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zmq")

import real  # noqa: E402
from core.record import KINDS, PARTS, Record  # noqa: E402
from real.launch import check  # noqa: E402
from scenarios.errors import ScenarioError  # noqa: E402
from scenarios.hardware import processor_time  # noqa: E402
from scenarios.plan import plan  # noqa: E402
from scenarios.schema import Scenario  # noqa: E402
from scenarios.workloads import load  # noqa: E402
from tests.real.runs import tiny  # noqa: E402


def large_batch(scenario: Scenario) -> float:
    """Final test loss of SGD with momentum on the union of the workers' batches."""
    task, made = load(scenario.workload, scenario.run.seed), plan(scenario)
    x = task.initial()
    velocity = torch.zeros_like(x)
    for step in range(scenario.run.steps):
        gradients = [task.gradient(x, rank, step)[0] for rank in range(made.workers)]
        velocity.mul_(scenario.algorithm.momentum).add_(sum(gradients) / made.workers)
        x.add_(velocity, alpha=-made.schedule.at(0))
    return task.evaluate(x)[0]


def must_hold(record: Record, scenario: Scenario) -> None:
    """What any complete record satisfies."""
    nodes, steps, n = record.nodes, record.steps, scenario.cluster.workers
    total = sum(nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-6, atol=2e-3)
    rows = sum(steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, steps["end"] - steps["start"], rtol=1e-9, atol=1e-6)
    for rank in range(n):
        mine = steps["node"] == rank
        assert steps["step"][mine].tolist() == list(range(nodes["steps"][rank]))
        np.testing.assert_allclose(steps["start"][mine][1:], steps["end"][mine][:-1])
    assert nodes["messages_out"].sum() == nodes["messages_in"].sum()
    assert nodes["bytes_out"].sum() == nodes["bytes_in"].sum()
    assert record.manifest["driver"] == "real"
    assert record.manifest["complete"]
    assert record.manifest["scenario"] == scenario.to_dict()
    assert not record.manifest["frames_dropped"]
    stolen = record.manifest["environment"]["stolen"]
    assert stolen is None or 0.0 <= stolen <= 1.0
    assert (stolen is not None) == (processor_time() is not None)


@pytest.mark.parametrize("algorithm", ["bsp", "arsgd"])
@pytest.mark.parametrize("collective", ["messages", "native"])
def test_synchronous_algorithms_equal_large_batch_sgd(algorithm: str, collective: str) -> None:
    if (algorithm, collective) == ("bsp", "native"):
        pytest.skip("BSP has no all-reduce")
    scenario = tiny(algorithm, workers=3, cluster={"network": {"collective": collective}})
    record = real.train(scenario)
    must_hold(record, scenario)
    assert record.curves["loss"][0] == pytest.approx(large_batch(scenario), rel=1e-4)
    assert record.curves["consensus"][0] == pytest.approx(0.0, abs=1e-10)
    assert record.curves["step"][0] == 3 * 8


def test_paced_steps_that_cannot_keep_pace_are_told() -> None:
    record = real.train(tiny("asp", cluster={"compute": {"mean": "1 us"}}))
    assert record.manifest["overruns"] == 16
    told = "16 of 16 paced steps took longer than they were to: their gradients alone did"
    assert record.manifest["flags"] == [told]


def test_asp_applies_every_gradient_once_on_every_shard() -> None:
    scenario = tiny("asp", cluster={"servers": {"count": 2}}, run={"links": "paced", "spans": True})
    record = real.train(scenario)
    must_hold(record, scenario)
    assert record.nodes["applied"].tolist() == [8, 8, 16, 16]
    assert record.nodes["pending"].sum() == record.nodes["lost"].sum() == 0
    assert len(record.gradients["server"]) == 32
    assert (record.gradients["staleness"] >= 0).all()
    transfers = record.spans["kind"] == KINDS.index("transfer")
    assert np.bincount(record.spans["node"][transfers]).tolist() == record.nodes["messages_out"].tolist()
    main = ~transfers & (record.spans["node"] == 0)
    spent = (record.spans["end"] - record.spans["start"])[main].sum()
    assert spent == pytest.approx(record.nodes["end"][0], abs=5e-3)
    assert record.manifest["training_loss"]["loss"][0] == pytest.approx(np.log(10), rel=0.2)
    assert (record.spans["end"] > record.spans["start"]).all()
    carried = record.links["bytes"][record.links["direction"] == "up"]
    assert carried.sum() == record.nodes["bytes_out"].sum()


def test_aladdins_worker_never_waits_and_no_gradient_is_lost() -> None:
    scenario = tiny({"name": "aladdin", "pi": 2}, run={"links": "paced", "steps": 12})
    record = real.train(scenario)
    must_hold(record, scenario)
    nodes = record.nodes
    assert nodes["applied"][:2].tolist() == (12 - nodes["pending"][:2]).tolist()
    assert nodes["lost"].sum() == 0
    inner = record.steps["step"] < 11  # the last row holds the final flush
    assert (record.steps["wait"] + record.steps["send"] + record.steps["receive"])[inner].max() == 0


def test_companions_answer_while_their_main_program_computes_and_after_it_ended() -> None:
    slow = [{"kind": "fixed", "ranks": [1], "factor": 5}]
    scenario = tiny("tests.real.echo:Echo", cluster={"slowdowns": slow}, run={"steps": 6})
    record = real.train(scenario)
    must_hold(record, scenario)
    assert record.nodes["blends"].tolist() == [21, 21]
    assert record.nodes["end"][0] < 0.8 * record.nodes["end"][1]


def test_one_worker_alone() -> None:
    for algorithm in ("arsgd", "aladdin"):
        scenario = tiny(algorithm, workers=1)
        must_hold(real.train(scenario), scenario)


@pytest.mark.parametrize(("budget", "total"), [({"samples": 16 * 11}, 11), ({"seconds": 0.3}, None)])
def test_budgets_of_samples_and_seconds(budget: dict[str, Any], total: int | None) -> None:
    scenario = tiny("asp", run=budget)
    heard: list[tuple[int, int]] = []
    record = real.train(scenario, on_progress=lambda done, of: heard.append((done, of)))
    must_hold(record, scenario)
    if total is not None:
        assert record.nodes["steps"].sum() == total
        assert all(of == total for _, of in heard)
    else:
        assert (record.steps["start"] < 0.3).all()
        assert record.nodes["steps"][:2].min() > 0


def test_a_slow_worker_computes_longer_by_its_factor() -> None:
    slow = [{"kind": "fixed", "ranks": [1], "factor": 3}]
    for compute in ("paced", "native"):
        scenario = tiny("aladdin", cluster={"slowdowns": slow}, run={"compute": compute})
        record = real.train(scenario)
        must_hold(record, scenario)
        if compute == "paced":
            seconds = [record.steps["compute"][record.steps["node"] == rank].min() for rank in (0, 1)]
            assert seconds[0] >= 0.004
            assert seconds[1] >= 0.024
        else:
            slowed = record.steps["compute"][record.steps["node"] == 1].sum()
            assert slowed >= 3 * 8 * record.manifest["gradient_seconds"]["1"]


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"cluster": {"network": {"admission": "fair"}}}, "cluster.network.admission", "fifo or a number"),
        (
            {"cluster": {"network": {"admission": 2}}, "run": {"links": "paced"}},
            "cluster.network.admission",
            "fifo",
        ),
        (
            {"cluster": {"machines": 1, "workers_per_machine": 2}, "run": {"links": "paced"}},
            "run.links",
            "nodes 0 and 1 share machine",
        ),
    ],
)
def test_what_this_driver_cannot_do_is_refused(changes: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as caught:
        real.train(tiny("asp", **changes))
    assert caught.value.path == path


def test_more_processes_than_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 50_000}.__getitem__)  # 205 MB
    check(plan(tiny("asp", workers=12)))
    with pytest.raises(
        ScenarioError, match=r"200 is not valid; expected fewer, .*: 201 .* 3\.0 GB"
    ) as caught:
        real.train(tiny("asp", workers=200))
    assert caught.value.path == "cluster.workers"


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScenarioError, match=r"run\.device: 'cuda'"):
        check(plan(tiny("asp", run={"device": "cuda"})))


def test_faults_must_name_nodes_that_exist() -> None:
    with pytest.raises(ScenarioError, match=r"faults\.kill: 7"):
        real.train(tiny("asp"), kill={7: 1})


@pytest.mark.parametrize("allreduce", ["tree", "halving_doubling", "hierarchical"])
def test_native_all_reduces_are_the_librarys_own(allreduce: str) -> None:
    network = {"collective": "native", "allreduce": allreduce}
    with pytest.raises(ScenarioError, match="collective: messages") as caught:
        real.train(tiny("arsgd", cluster={"network": network}))
    assert caught.value.path == "cluster.network.allreduce"


@pytest.mark.parametrize("allreduce", ["tree", "halving_doubling", "hierarchical"])
def test_every_all_reduce_by_messages(allreduce: str) -> None:
    """Three workers on two machines: replicas stay equal."""
    cluster = {"machines": 2, "workers_per_machine": 2, "network": {"allreduce": allreduce}}
    scenario = tiny("arsgd", 3, cluster=cluster)
    must_hold(real.train(scenario), scenario)


def test_native_steps_hand_out_no_buckets() -> None:
    chosen = {"name": "arsgd", "options": {"overlap": "backward"}}
    with pytest.raises(ScenarioError, match=r"run\.compute: paced") as caught:
        real.train(tiny(chosen, run={"compute": "native"}))
    assert caught.value.path == "algorithm.overlap"


@pytest.mark.parametrize("collective", ["messages", "native"])
def test_buckets_are_reduced_during_the_backward_pass(collective: str) -> None:
    """A paced step is compute from its beginning to its end, however its buckets travel meanwhile."""
    chosen = {"name": "arsgd", "options": {"overlap": "backward", "buckets": 3}}
    network = {"collective": collective}
    scenario = tiny(chosen, 2, cluster={"compute": {"mean": "60 ms"}, "network": network})
    record = real.train(scenario)
    must_hold(record, scenario)
    assert record.steps["compute"].min() >= 0.06 - 5e-3  # lateness of the host that is made up for


def test_buckets_train_to_the_same_model() -> None:
    """Halving-doubling adds every element's gradients in the same order, wherever the element stands."""
    cluster = {"network": {"allreduce": "halving_doubling"}}
    options = ({}, {"overlap": "backward", "buckets": 3})
    plain, overlapped = (
        real.train(tiny({"name": "arsgd", "options": chosen}, 3, cluster=cluster)) for chosen in options
    )
    assert overlapped.curves["loss"][-1] == plain.curves["loss"][-1]
    assert overlapped.curves["consensus"][-1] < 1e-9

"""AR-SGD in buckets: what is a bucket, the same numbers, and whose time the communication costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from core.algorithms import make
from core.collectives import ALGORITHMS, CHOICE
from core.effects import Compute, Produced
from core.errors import OptionError
from core.node import Finished, Node, Program
from core.overlap import Bucket, by_layers, evenly, in_two
from core.record import PARTS, Record
from scenarios.errors import ScenarioError
from scenarios.plan import plan
from scenarios.schema import Scenario
from scenarios.workloads.layers import layer_sizes
from sim.driver import Driver
from tests.conformance import problem
from tests.conformance.scripted import Scripted
from tests.core.test_collectives import choice
from tests.sim.programs import Programs, driver


def test_buckets_are_whole_layers_from_the_last_on() -> None:
    assert by_layers((10, 20, 30, 40), 4 * 50, 0.6) == (
        Bucket(30, 100, pytest.approx(0.7)),
        Bucket(0, 30, 1.0),
    )
    assert by_layers((10, 20), 1, 0.5) == (Bucket(10, 30, 0.75), Bucket(0, 10, 1.0))
    assert by_layers((10,), 1e9, 0.5) == (Bucket(0, 10, 1.0),)


def test_equal_and_fitted_buckets() -> None:
    assert evenly(10, 2, 0.5) == (Bucket(5, 10, 0.75), Bucket(0, 5, 1.0))
    assert in_two(100, 0.35, 0.5) == (Bucket(65, 100, 0.5), Bucket(0, 65, 1.0))


@given(
    layers=st.lists(st.integers(1, 1000), min_size=1, max_size=30),
    nbytes=st.floats(1, 1e4),
    share=st.floats(0.01, 0.99),
)
def test_buckets_cover_the_gradient_once(layers: list[int], nbytes: float, share: float) -> None:
    found = by_layers(layers, nbytes, share)
    assert found[0].stop == sum(layers)
    assert found[-1].start == 0
    assert found[-1].ready == 1.0
    assert all(one.start == other.stop for one, other in pairwise(found))
    assert all((b.stop - b.start) * 4 >= nbytes for b in found[:-1])
    Compute(tuple(bucket.ready for bucket in found))


def test_shares_of_a_step_rise_to_one() -> None:
    for ready in ((0.5,), (0.7, 0.6, 1.0), (-0.1, 1.0), (0.5, 1.5)):
        with pytest.raises(ValueError, match="must rise, the last be 1"):
            Compute(ready)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"overlap": "forward"}, "overlap"),
        ({"bucket_bytes": 0}, "bucket_bytes"),
        ({"buckets": -1}, "buckets"),
        ({"buckets": 1.5}, "buckets"),
        ({"hidden": 1}, "hidden"),
        ({"hidden": 0.3, "buckets": 2}, "hidden"),
        ({"backward": 1.0}, "backward"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        make("arsgd", options)
    assert caught.value.field == field
    with pytest.raises(ScenarioError, match=rf"algorithm\.{field}"):
        Scenario.from_dict({"algorithm": {"name": "arsgd", "options": options}, "run": {"steps": 1}})


OVERLAPS = [
    {"overlap": "backward", "buckets": 3},
    {"overlap": "backward", "hidden": 0.35},
    {"overlap": "backward", "bucket_bytes": 16},
]


def scripted(
    algorithm: str, options: dict[str, Any], seed: int, workers: int, steps: int,
    crashes: dict[int, int] | None = None,
) -> tuple[list[Node], Scripted]:  # fmt: skip
    nodes = problem.build(workers, 0)
    for node in nodes:
        node.memory[CHOICE] = choice(algorithm, workers)
        node.layers = (3, 1, 6, 2)
    rng = np.random.default_rng(seed)
    made = make("arsgd", options)
    run = Scripted(made, nodes, problem.gradient, steps, lambda count: int(rng.integers(count)))
    run.run(crashes)
    return nodes, run


@pytest.mark.parametrize("options", OVERLAPS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(seed=st.integers(0, 2**32 - 1), workers=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_the_same_numbers_as_without_overlap(
    algorithm: str, options: dict[str, Any], seed: int, workers: int
) -> None:
    """Bit for bit where each element's sum does not depend on where it stands; else up to rounding."""
    found = scripted(algorithm, options, seed, workers, 4)[0]
    plain = scripted(algorithm, {}, seed, workers, 4)[0]
    for node in found:
        assert node.step == 4
        np.testing.assert_array_equal(node.params, found[0].params)
        np.testing.assert_allclose(node.params, plain[0].params, rtol=1e-12, atol=1e-12)
        if algorithm == "halving_doubling":
            np.testing.assert_array_equal(node.params, plain[0].params)


@pytest.mark.parametrize("options", OVERLAPS)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=40, deadline=None)
def test_replicas_agree_after_a_crash_between_buckets(
    options: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    workers = data.draw(st.integers(3, 5))
    victim, turn = data.draw(st.integers(0, workers - 1)), data.draw(st.integers(0, 150))
    nodes, run = scripted(algorithm, options, seed, workers, 8, {turn: victim})
    assert run.crashed == {victim}
    survivors = [node for node in nodes if node.id != victim]
    for node in survivors:
        assert node.step == 8
        np.testing.assert_array_equal(node.params, survivors[0].params)


# In virtual time


def scenario(options: dict[str, Any], collective: str = "native", steps: int = 2, **cluster: Any) -> Scenario:
    """Two workers, steps of 3 s of which 2 backward, an all-reduce of 2 s: 0.5 s for a quarter."""
    network = {"collective": collective, "inbox": 2, **cluster.pop("network", {})}
    return Scenario.from_dict({
        "cluster": {
            "workers": 2, "bandwidth": 1e8, "network": network,
            "compute": {"model": "constant", "mean": 3.0}, **cluster,
        },
        "workload": {"parameters": 50_000_000, "batch": 1, "data": "synthetic", "samples": 1},
        "algorithm": {"name": "arsgd", "options": options}, "run": {"steps": steps},
    })  # fmt: skip


def parts(record: Record, node: int = 0) -> dict[str, float]:
    return {part: float(record.nodes[part][node]) for part in PARTS if record.nodes[part][node] > 1e-9}


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_what_is_reduced_during_the_backward_pass_costs_no_time(collective: str) -> None:
    """Four buckets are there at 1.5, 2, 2.5 and 3 s and take 0.5 s each: only the last one is seen."""
    record = sim.simulate(scenario({"overlap": "backward", "buckets": 4}, collective))
    assert parts(record) == pytest.approx({"compute": 6.0, "receive": 1.0}, rel=1e-6)
    assert record.duration == pytest.approx(7.0)
    plain = sim.simulate(scenario({}, collective))
    assert parts(plain) == pytest.approx({"compute": 6.0, "receive": 4.0}, rel=1e-6)


def test_a_fitted_share_is_hidden() -> None:
    record = sim.simulate(scenario({"overlap": "backward", "hidden": 0.35}))
    assert parts(record) == pytest.approx({"compute": 6.0, "receive": 2 * 2 * 0.65}, rel=1e-6)


def test_communication_that_takes_longer_than_the_backward_pass_is_seen_after_it() -> None:
    """Buckets of 2 s each, there at 2 and 3 s: reduced until 4 and 6."""
    record = sim.simulate(scenario({"overlap": "backward", "buckets": 2}, bandwidth=5e7))
    assert parts(record) == pytest.approx({"compute": 6.0, "receive": 6.0})


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_waiting_for_a_slower_one_counts_from_the_end_of_the_own_backward_pass(collective: str) -> None:
    """The other one takes 6 s; its buckets are there at 4 and 6 s and take 1 s each."""
    slow = [{"ranks": [1], "factor": 2}]
    record = sim.simulate(scenario({"overlap": "backward", "buckets": 2}, collective, 1, slowdowns=slow))
    assert record.duration == pytest.approx(7.0)
    found = parts(record)
    assert found["compute"] == 3.0
    assert found["receive"] >= 2.0 - 1e-6
    assert sum(found.values()) == pytest.approx(7.0)
    assert parts(record, 1)["compute"] == pytest.approx(6.0)
    if collective == "native":
        assert parts(record, 1) == pytest.approx({"compute": 6.0, "receive": 1.0})


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_tensor_work_beside_the_backward_pass_costs_no_time(collective: str) -> None:
    """Snapshots take 0.1 s each; the last bucket's comes after the backward pass."""
    record = sim.simulate(
        scenario(
            {"overlap": "backward", "buckets": 2}, collective, 1, bandwidth=1e12,
            tensor_seconds={"snapshot": 0.1},
        )
    )  # fmt: skip
    assert record.nodes["compute"][0] == pytest.approx(3.0)
    assert record.nodes["update"][0] == pytest.approx(0.1 if collective == "messages" else 0.0)
    assert record.duration == pytest.approx(3.1 if collective == "messages" else 3.0, abs=0.01)


@pytest.mark.parametrize("options", OVERLAPS)
@pytest.mark.parametrize("collective", ["native", "messages"])
@pytest.mark.parametrize("sharing", [{}, {"workers_per_device": 2}, {"compute": {"model": "lognormal"}}])
def test_every_second_is_booked_once(options: dict[str, Any], collective: str, sharing: Any) -> None:
    found = scenario(
        options, collective, 5, workers=4, tensor_seconds={"apply": 0.01, "scale": 0.02}, **sharing
    )
    tree = found.to_dict()
    tree["workload"] = {"model": "resnet50", "data": "cifar10", "batch": 1}
    tree["run"]["spans"] = True
    record = sim.simulate(Scenario.from_dict(tree))
    total = sum(record.nodes[part] for part in PARTS)
    np.testing.assert_allclose(total, record.duration, rtol=1e-9)
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-9)
    for kind, part in enumerate(PARTS[:-1]):
        mask = record.spans["kind"] == kind
        spanned = (record.spans["end"] - record.spans["start"])[mask].sum()
        assert spanned == pytest.approx(record.nodes[part].sum(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("collective", ["native", "messages"])
@pytest.mark.parametrize("at", [0.5, 2.2, 3.4, 4.1, 7.3])
def test_a_crash_amid_buckets(collective: str, at: float) -> None:
    made = Driver(plan(scenario({"overlap": "backward", "buckets": 4}, collective, 4, workers=4)))
    made.crash(1, at)
    record = made.run()
    assert record.nodes["steps"][[0, 2, 3]].tolist() == [4, 4, 4]
    np.testing.assert_allclose(sum(record.nodes[part] for part in PARTS), record.duration, rtol=1e-9)


def test_a_run_with_numbers_ends_in_the_same_replicas() -> None:
    class Quadratic:
        initial = np.zeros(40, dtype=np.float64)

        def __call__(self, params: Any, rank: int, step: int) -> Any:
            return params - np.arange(40.0) * (rank + 1)

    ends = []
    for options in ({}, OVERLAPS[0]):
        tree = scenario(options, "native", 6, workers=3).to_dict()
        tree["workload"]["parameters"] = 40
        made = Driver(plan(Scenario.from_dict(tree)), gradients=Quadratic())
        made.run()
        ends.append([node.params for node in made.nodes])
    for params in ends[0] + ends[1]:
        np.testing.assert_array_equal(params, ends[0][0])


def test_vgg_hides_most_of_its_communication_and_no_bucket_is_smaller_than_asked_for() -> None:
    """Its last three layers hold nine tenths of it, and are there first."""
    made = scenario({}).to_dict()
    made["workload"] = {"model": "vgg16", "data": "cifar10", "batch": 1}
    layers = layer_sizes(Scenario.from_dict(made).workload)
    found = by_layers(layers, 25e6, 2 / 3)
    assert len(found) >= 3
    assert found[0].ready < 0.5


def misused(worker: Any) -> Any:
    return driver(scenario({}), Programs(worker)).run()


def test_pieces_that_are_not_to_come_and_pieces_left_out_are_errors() -> None:
    def too_many(node: Node) -> Program:
        yield Compute((0.5, 1.0))
        yield Produced()
        yield Produced()

    def too_few(node: Node) -> Program:
        try:
            while True:
                yield Compute((0.5, 1.0))
        except Finished:
            return

    with pytest.raises(TypeError, match="no piece of a gradient is to come"):
        misused(too_many)
    with pytest.raises(TypeError, match=r"1 pieces not asked for \(Produced\)"):
        misused(too_few)


@pytest.mark.parametrize("at", [0.4, 2.2, 2.9, 3.6, 5.5])
@pytest.mark.parametrize("back", [0.05, 1.0, 4.0])
def test_a_worker_that_comes_back_takes_part_in_buckets_again(at: float, back: float) -> None:
    """Its former life's backward pass, whose end is still to come, concerns nobody."""
    tree = scenario({"overlap": "backward", "buckets": 4}, "native", 8, workers=3).to_dict()
    tree["faults"] = [{"kind": "crash", "ranks": [1], "at": at, "back": back}]
    tree["workload"]["parameters"] = 40
    record = sim.simulate(Scenario.from_dict(tree))
    assert record.nodes["steps"][[0, 2]].tolist() == [8, 8]
    assert record.nodes["steps"][1] >= 4
    rows = sum(record.steps[part] for part in PARTS[:-1])
    np.testing.assert_allclose(rows, record.steps["end"] - record.steps["start"], rtol=1e-9)
    assert record.steps["compute"].max() == pytest.approx(3.0)

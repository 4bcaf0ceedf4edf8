"""What is recorded in part: the run is the same to the last bit, memory is bounded, the record says it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from analysis import metrics
from core.record import KINDS, Record
from scenarios import Scenario
from sim.sampling import ranks

BASE = {
    "cluster": {"workers": 24, "workers_per_machine": 4, "bandwidth": "1 Gbit/s", "latency": "50 us",
                "servers": {"count": 3}, "compute": {"model": "gamma", "mean": 0.1, "spread": 0.2},
                "tensor_rates": {"apply": 1e9, "accumulate": 1e9}},
    "workload": {"parameters": 500_000, "batch": 8},
    "run": {"steps": 12, "warmup_steps": 2},
}  # fmt: skip


def run(algorithm: str = "asp", **fields: Any) -> Record:
    overrides = {f"run.{name}": value for name, value in fields.items()}
    return sim.simulate(Scenario.from_dict({**BASE, "algorithm": algorithm}).override(overrides))


def rows(table: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, bytes]:
    return {name: values[chosen].tobytes() for name, values in table.items()}


@pytest.mark.parametrize("algorithm", ["asp", "bsp", "aladdin", "arsgd", "adpsgd"])
def test_totals_are_those_of_the_full_run_to_the_last_bit(algorithm: str) -> None:
    whole, part = run(algorithm), run(algorithm, step_ranks=5)
    everything = np.ones(len(whole.nodes["node"]), dtype=bool)
    assert rows(part.nodes, everything) == rows(whole.nodes, everything)
    assert rows(part.links, np.ones(len(whole.links["busy"]), bool)) == rows(
        whole.links, np.ones(len(whole.links["busy"]), bool)
    )
    chosen = np.unique(part.steps["node"])
    assert len(chosen) == 5
    every = np.ones(len(part.steps["node"]), dtype=bool)
    assert rows(part.steps, every) == rows(whole.steps, np.isin(whole.steps["node"], chosen))
    if len(whole.gradients["source"]):
        every = np.ones(len(part.gradients["source"]), dtype=bool)
        own = np.isin(whole.gradients["source"], chosen)
        assert rows(part.gradients, every) == rows(whole.gradients, own)
    assert part.manifest["sampled"] == {"steps": "5 of 24 workers"}
    assert part.manifest["flags"] == [
        "sampled: rates, shares of a step and staleness are those of 5 of 24 workers (run.step_ranks)"
    ]
    assert "sampled" not in whole.manifest
    assert whole.manifest["flags"] == []


def test_throughput_is_scaled_up_to_all_workers() -> None:
    """Under BSP all workers make the same steps, so a sample says the same as all."""
    whole, part = metrics.summary(run("bsp")), metrics.summary(run("bsp", step_ranks=6))
    assert part["throughput"] == pytest.approx(whole["throughput"], rel=0.03)
    assert part["steps"] == whole["steps"] == 24 * 12
    assert len(part["throughput_by_worker"]) == 6
    assert part["breakdown"]["all"]["step"] == pytest.approx(whole["breakdown"]["all"]["step"], rel=0.03)


def test_spans_of_some_ranks_are_those_of_the_full_run() -> None:
    whole, part = run(spans=True), run(spans=True, span_ranks=2)
    shown = np.unique(part.spans["node"])
    workers, servers = shown[shown < 24], shown[shown >= 24]
    assert (len(workers), servers.tolist()) == (2, [24, 25])
    every = np.ones(len(part.spans["node"]), dtype=bool)
    assert rows(part.spans, every) == rows(whole.spans, np.isin(whole.spans["node"], shown))
    assert KINDS.index("transfer") in part.spans["kind"]
    assert part.manifest["sampled"] == {"spans": "2 of 24 workers"}
    assert part.manifest["flags"] == []
    assert rows(part.steps, np.ones(len(part.steps["node"]), bool)) == rows(
        whole.steps, np.ones(len(whole.steps["node"]), bool)
    )


def test_most_spans_keeps_the_first_ones_and_says_until_when() -> None:
    whole, part = run(spans=True), run(spans=True, most_spans=100)
    assert len(part.spans["node"]) == 100
    first = np.arange(len(whole.spans["node"])) < 100
    assert rows(part.spans, np.ones(100, bool)) == rows(whole.spans, first)
    until = part.spans["end"][-1]
    words = f"the first 100 of {len(whole.spans['node']):,} spans, until {until:.6g} s"
    assert part.manifest["sampled"]["spans"] == words
    assert part.manifest["flags"] == [f"sampled: timelines and traces show {words} (run.most_spans)"]
    assert "sampled" not in run(spans=True, most_spans=len(whole.spans["node"])).manifest
    assert len(run(spans=True, most_spans=0).spans["node"]) == len(whole.spans["node"])


def test_more_ranks_than_workers_are_all_of_them() -> None:
    whole, part = run(), run(step_ranks=24, span_ranks=1000)
    assert "sampled" not in part.manifest
    assert len(part.steps["node"]) == len(whole.steps["node"])


def test_fewer_ranks_are_among_more_and_the_seed_draws_them() -> None:
    few, many = ranks(7, 1000, 10), ranks(7, 1000, 100)
    assert isinstance(few, frozenset)
    assert isinstance(many, frozenset)
    assert (len(few), len(many)) == (10, 100)
    assert few < many
    assert ranks(8, 1000, 10) != few
    assert ranks(7, 1000, 0) == range(1000)


def test_ranks_do_not_follow_the_machines() -> None:
    """Drawn at random, 64 of 4096 workers are not all the same worker of their machine of 8."""
    assert len({rank % 8 for rank in ranks(0, 4096, 64)}) == 8


def test_the_logs_of_a_sampled_run_do_not_grow_with_its_workers() -> None:
    """Rows are 80 bytes: what a run of n workers keeps is bounded by ``step_ranks``."""
    for n in (24, 96):
        one = Scenario.from_dict({**BASE, "algorithm": "asp"})
        part = sim.simulate(one.override({"cluster.workers": n, "run.step_ranks": 4, "run.steps": 3}))
        assert len(part.steps["node"]) == 4 * 3
        assert len(part.gradients["source"]) == 4 * 3 * 3
        assert part.nodes["applied"][:n].sum() == 3 * n


@pytest.mark.parametrize("name", ["span_ranks", "most_spans", "step_ranks"])
@pytest.mark.parametrize("value", [-1, 1.5, "many"])
def test_bad_bounds_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"run\.{name}: .* expected a whole number of at least 0"):
        run(**{name: value})

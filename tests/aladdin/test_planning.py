"""Plans of parameter servers: rows for all that can happen, true figures, a recommendation, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import aladdin
from aladdin import cli, pool
from scenarios import ScenarioError

QUICK = {"run.steps": 8, "run.warmup_steps": 2}


def plan(scenario: str = "paper/vgg16", **options: Any) -> Any:
    overrides = {**QUICK, **options.pop("overrides", {})}
    return aladdin.plan_servers(scenario, **{"jobs": 1, "overrides": overrides, **options})


def test_rows_are_what_simulate_says(tmp_path: Path) -> None:
    found = plan(algorithm="asp", counts=[2, 4], placements="beside", shardings="memory", out=tmp_path / "p")
    assert [(one["servers"], one["placement"], one["sharding"]) for one in found.rows] == [
        (2, "beside", "memory"), (4, "beside", "memory"),
    ]  # fmt: skip
    overrides = {**QUICK, "cluster.servers": {"count": 2, "placement": "beside", "sharding": "memory"}}
    alone = aladdin.simulate("paper/vgg16", algorithm="asp", overrides=overrides)
    assert found.rows[0]["throughput"] == alone.summary["throughput"]
    links = alone.record.links
    assert found.rows[0]["link"]["use"] == (links["busy"] / alone.record.duration).max()
    assert found.rows[0]["link"]["name"] == "machine0"
    assert found.rows[0]["largest_shard"] == {"bytes": 4 * 138_357_544 / 2, "share": 0.5}
    document = json.loads((tmp_path / "p" / "servers.json").read_text())
    assert document["recommended"] == document["rows"][found.chosen]
    assert document["reasons"] == found.reasons
    assert (tmp_path / "p" / "servers.png").stat().st_size > 10_000
    assert aladdin.plot([tmp_path / "p"], tmp_path / "pictures")


def test_the_server_of_the_largest_layer_is_the_bottleneck_of_vgg16() -> None:
    """Layer-wise one server holds fc6, 74.3 % of the model, whatever their number; memory-wise none does."""
    found = plan(algorithm="asp", counts="1,4,8", placements="dedicated", overrides={"run.steps": 20})
    rate = {(one["sharding"], one["servers"]): one["throughput"] for one in found.rows}
    row = {(one["sharding"], one["servers"]): one for one in found.rows}
    assert row["layer", 8]["largest_shard"]["share"] == pytest.approx(102_764_544 / 138_357_544)
    assert row["layer", 8]["link"]["name"].startswith("server")
    assert row["layer", 8]["link"]["use"] > 0.95
    assert row["memory", 8]["link"]["use"] < 0.7
    assert rate["layer", 8] == pytest.approx(rate["layer", 4], rel=0.01)
    assert rate["memory", 4] > 1.7 * rate["layer", 4]
    assert rate["memory", 1] == rate["layer", 1]
    assert found.recommended["sharding"] == "memory"


def test_what_is_refused_is_a_row_with_its_reason() -> None:
    found = plan(algorithm="bsp", counts="1,17", placements="dedicated")
    outcomes = {(one["sharding"], one["servers"]): one["outcome"] for one in found.rows}
    assert outcomes == {
        ("memory", 1): "done", ("memory", 17): "done", ("layer", 1): "done", ("layer", 17): "refused",
    }  # fmt: skip
    refused = found.rows[3]
    assert "cluster.servers.count: 17" in refused["message"]
    assert "16, the number of layers" in refused["message"]
    assert refused["throughput"] is None


def test_machines_given_one_by_one_may_have_no_room_for_servers() -> None:
    machines = [{"name": name, "workers": 2} for name in "ab"] + [{"name": "c"}]
    found = plan(counts="1,2", shardings="memory", algorithm="bsp",
                 overrides={"cluster": {"workers": 4, "machines": machines,
                                        "servers": {"count": 1, "placement": "dedicated"}}})  # fmt: skip
    assert [one["outcome"] for one in found.rows] == ["done", "refused", "done", "done"]
    assert found.rows[0]["link"]["name"] in "abc"


def test_it_does_not_matter_how_many_processes_there_are() -> None:
    options: dict[str, Any] = {"algorithm": "bsp", "counts": "1,2", "shardings": "memory"}
    assert plan(**options, jobs=2).rows == plan(**options, jobs=1).rows


def test_racks_and_sites_are_a_reason_to_spread_servers() -> None:
    overrides = {"run.steps": 4}
    found = plan("datacenter", algorithm="bsp", counts="8", shardings="memory", overrides=overrides)
    assert [one["placement"] for one in found.rows] == ["dedicated", "beside", "spread"]
    beside, spread = found.rows[1:]
    assert beside["link"]["name"].startswith("rack")
    assert spread["link"]["use"] < beside["link"]["use"]
    assert spread["throughput"] > 1.9 * beside["throughput"]
    flat = plan(algorithm="bsp", counts="2", shardings="memory")
    assert [one["placement"] for one in flat.rows] == ["dedicated", "beside"]


def test_counts_double_up_to_the_workers() -> None:
    options: dict[str, Any] = {"algorithm": "bsp", "placements": "beside", "shardings": "memory"}
    assert [one["servers"] for one in plan("demo", **options).rows] == [1, 2, 4]
    overrides = {"cluster.workers": 40, "cluster.machines": 2, "run.steps": 3}
    assert [one["servers"] for one in plan("demo", **options, overrides=overrides).rows] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"algorithm": "dpsgd"}, "algorithm.name: 'dpsgd' is not valid; expected an algorithm with param"),
        ({"algorithm": "asp", "counts": "1,x"}, "counts: '1,x' is not valid; expected whole numbers"),
        ({"algorithm": "asp", "counts": [0]}, "counts"),
        ({"algorithm": "asp", "counts": [1.5]}, "counts"),
        ({"algorithm": "asp", "counts": []}, "counts"),
        ({"algorithm": "asp", "counts": [float("inf")]}, "counts"),
        ({"algorithm": "asp", "placements": [1]}, "placements"),
        ({"algorithm": "asp", "placements": 5}, "placements"),
        ({"algorithm": "asp", "counts": 4}, "counts"),
        (
            {"algorithm": "asp", "placements": "besides"},
            "placements: 'besides' is not valid; expected some of ded",
        ),
        ({"algorithm": "asp", "shardings": ["rows"]}, "shardings"),
        ({"algorithm": "asp", "tolerance": 1.0}, "tolerance: 1.0 is not valid; expected a share"),
        ({"algorithm": "asp", "jobs": 0}, "jobs"),
        ({"algorithm": "asp", "counts": [17], "shardings": "layer"}, "the number of layers"),
        ({"algorithm": "asp", "overrides": {"run.stepz": 1}}, "run.stepz"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        plan(**options)
    assert says in str(caught.value)


@pytest.mark.parametrize("algorithm", ["dpsgd", "arsgd"])
def test_an_algorithm_without_servers_is_exit_code_2(
    algorithm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan-servers", "demo", "-a", algorithm]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "parameter servers: bsp, asp" in err


def test_the_command_prints_table_and_reasons(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["plan-servers", "paper/vgg16", "-a", "asp", "--counts", "1,4", "--placement", "dedicated",
            "--set", "run.steps=8", "--jobs", "1"]  # fmt: skip
    assert cli.main([*argv, "--out", str(tmp_path / "p")]) == 0
    out = capsys.readouterr().out
    assert "paper/vgg16: ASP, 8 workers" in out
    assert "recommended: 4 dedicated servers, memory-wise" in out
    assert "its largest shard is 74.3% of the model" in out
    assert "servers.png" in out
    assert cli.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recommended"]["servers"] == 4


def test_stopped_it_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, done = pool.perform, []

    def perform(job: dict[str, Any], on_progress: Any = None) -> dict[str, Any]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return real(job, on_progress)

    monkeypatch.setattr(pool, "perform", perform)
    argv = ["plan-servers", "demo", "-a", "bsp", "--placement", "beside", "--sharding", "memory",
            "--counts", "1,2,3", "--set", "run.steps=5", "--jobs", "1"]  # fmt: skip
    assert cli.main([*argv, "--out", str(tmp_path / "p")]) == 130
    out, err = capsys.readouterr()
    assert "recommended (of what was finished)" in out
    assert str(tmp_path / "p") in err
    document = json.loads((tmp_path / "p" / "servers.json").read_text())
    assert document["complete"] is False
    assert [one["outcome"] for one in document["rows"]] == ["done", "done", "stopped"]


def test_a_run_that_fails_is_a_row_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = pool.perform

    def perform(job: dict[str, Any], on_progress: Any = None) -> dict[str, Any]:
        if job["scenario"]["cluster"]["servers"]["count"] == 2:
            return {"outcome": "failed", "message": "deadlock", "summary": None, "curves": None, "path": None}
        return real(job, on_progress)

    monkeypatch.setattr(pool, "perform", perform)
    argv = ["plan-servers", "demo", "-a", "bsp", "--placement", "beside", "--sharding", "memory",
            "--counts", "1,2", "--set", "run.steps=5", "--jobs", "1"]  # fmt: skip
    assert cli.main(argv) == 3
    out = capsys.readouterr().out
    assert "2, beside, memory: deadlock" in out
    assert "recommended: 1 server beside the workers" in out

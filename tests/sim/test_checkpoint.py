"""Checkpoints: a resumed run is the uninterrupted one byte for byte; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from core.algorithms import ALGORITHMS
from core.record import Record
from scenarios import ScenarioError
from scenarios.plan import plan
from scenarios.schema import Scenario
from sim.checkpoint import CheckpointError, Checkpoints, Registry
from sim.driver import Driver
from sim.numerics import evaluator
from tests.sim.test_numerics import same, scenario

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")


pytestmark = pytest.mark.usefixtures("one_thread")


def after(steps: int) -> Callable[[], bool]:
    """True when it is asked for the ``steps``-th time."""
    asked = iter(range(1, 10**9))
    return lambda: next(asked) == steps


def stopped(chosen: Scenario, path: Path, steps: int) -> None:
    """Run until the beginning of step ``steps`` of all, and save there."""
    with pytest.raises(KeyboardInterrupt) as caught:
        sim.simulate(chosen, checkpoints=Checkpoints(path, stop=after(steps)))
    assert caught.value.path == path  # type: ignore[attr-defined]
    assert path.is_file()


def resumed(chosen: Scenario, path: Path) -> Record:
    record = sim.simulate(chosen, checkpoints=Checkpoints(path))
    assert not path.exists(), "a complete run needs no checkpoint"
    return record


@pytest.mark.parametrize("batched", ["always", "never"])
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_resumed_run_is_the_uninterrupted_one(name: str, batched: str, tmp_path: Path) -> None:
    chosen = scenario(name, 4, 12, **{"run.batched": batched, "run.evaluate_every": 0.05})
    whole = sim.simulate(chosen)
    assert len(whole.curves["loss"]) > 3
    assert np.isfinite(whole.losses["loss"]).all()
    path = tmp_path / "run.checkpoint"
    stopped(chosen, path, 31)
    same(whole, resumed(chosen, path))


@pytest.mark.parametrize("collective", ["native", "messages"])
def test_a_run_stopped_amid_backward_passes_resumes_exactly(collective: str, tmp_path: Path) -> None:
    overlap = {"overlap": "backward", "buckets": 3}
    network = {"cluster.network.collective": collective, "cluster.network.allreduce": "halving_doubling"}
    chosen = scenario("arsgd", 4, 12, **{"run.batched": "never"}).override(
        {**network, **{f"algorithm.{name}": value for name, value in overlap.items()}}
    )
    whole = sim.simulate(chosen)
    path = tmp_path / "run.checkpoint"
    stopped(chosen, path, 30)
    same(whole, resumed(chosen, path))


@pytest.mark.parametrize("network", [{"collective": "messages"}, {"admission": "fair", "window": 3}])
@pytest.mark.parametrize("name", ["aladdin", "arsgd"])
def test_it_is_so_on_other_networks_and_with_several_servers(
    name: str, network: dict[str, Any], tmp_path: Path
) -> None:
    changes = {f"cluster.network.{key}": value for key, value in network.items()}
    chosen = scenario(name, 3, 9, **{**changes, "cluster.servers.count": 2, "run.batched": "always"})
    whole, path = sim.simulate(chosen), tmp_path / "c"
    for steps in (1, 2, 14, 27):
        stopped(chosen, path, steps)
        same(whole, resumed(chosen, path))


def test_a_run_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    chosen, path = scenario("aladdin", 3, 10, **{"run.batched": "always"}), tmp_path / "c"
    whole = sim.simulate(chosen)
    for steps in (5, 3, 1, 7):
        stopped(chosen, path, steps)
    same(whole, resumed(chosen, path))


def test_taking_checkpoints_changes_nothing(tmp_path: Path) -> None:
    chosen = scenario("asp", 3, 8)
    checkpoints = Checkpoints(tmp_path / "c", due=lambda: True)
    same(sim.simulate(chosen), sim.simulate(chosen, checkpoints=checkpoints))
    assert checkpoints.taken == 24


def test_catching_up_evaluates_nothing(tmp_path: Path) -> None:
    chosen, path = scenario("asp", 3, 10), tmp_path / "c"
    stopped(chosen, path, 25)
    made = plan(chosen)
    gradients = evaluator(made)
    asked: list[Any] = []
    several = gradients.several
    gradients.several = lambda params, keys: asked.extend(keys) or several(params, keys)
    Driver(made, gradients=gradients, checkpoints=Checkpoints(path)).run()
    assert 5 <= len(asked) <= 8


def test_a_crash_before_the_checkpoint_is_played_again(tmp_path: Path) -> None:
    made, path = plan(scenario("bsp", 4, 8)), tmp_path / "c"

    def run(checkpoints: Checkpoints | None) -> Record:
        driver = Driver(made, gradients=evaluator(made), checkpoints=checkpoints)
        driver.crash(2, 0.05)
        return driver.run()

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoints(path, stop=after(20)))
    same(whole, run(Checkpoints(path)))


# What is refused


def test_a_checkpoint_of_another_scenario_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    stopped(scenario("asp", 3, 8), path, 10)
    with pytest.raises(CheckpointError, match=r"scenario\.algorithm\.lr is 0\.01 there and 0\.02 here"):
        sim.simulate(scenario("asp", 3, 8, **{"algorithm.lr": 0.02}), checkpoints=Checkpoints(path))
    with pytest.raises(CheckpointError, match=r"scenario\.run\.seed is 0 there and 1 here"):
        sim.simulate(scenario("asp", 3, 8, **{"run.seed": 1}), checkpoints=Checkpoints(path))


def test_a_checkpoint_of_other_versions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, chosen = tmp_path / "c", scenario("asp", 3, 8)
    stopped(chosen, path, 10)
    monkeypatch.setattr("sim.checkpoint.version", lambda _: "0.0.1")
    with pytest.raises(CheckpointError, match=r"versions\.numpy is .* there and '0\.0\.1' here"):
        sim.simulate(chosen, checkpoints=Checkpoints(path))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "header", "empty", "text"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    path, chosen = tmp_path / "c", scenario("asp", 3, 8)
    stopped(chosen, path, 10)
    whole = path.read_bytes()
    path.unlink()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    header = whole.replace(b"steps", b"stepz", 1)
    other = {
        "header": header,
        "truncated": whole[:-50],
        "flipped": bytes(flipped),
        "empty": b"",
        "text": b"checkpoint",
    }
    path.write_bytes(other[damage])
    with pytest.raises(CheckpointError, match=r"checkpoint .*c: it is damaged.*remove it to start afresh"):
        sim.simulate(chosen, checkpoints=Checkpoints(path))


def test_a_checkpoint_that_the_run_never_comes_to_is_refused(tmp_path: Path) -> None:
    """As after a change of the algorithm's own code, which no scenario tells."""
    path, made = tmp_path / "c", plan(scenario("asp", 3, 8))
    stopped(scenario("asp", 3, 8), path, 20)
    driver = Driver(made, gradients=evaluator(made), checkpoints=Checkpoints(path))
    driver.crash(1, 0.01)
    with pytest.raises(CheckpointError, match=r"checkpoint .*c: it (was taken at|lacks tensor)"):
        driver.run()


def test_a_place_that_cannot_be_written_to_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "c", tmp_path / "file" / "folder" / "c"):
        with pytest.raises(CheckpointError, match="cannot be written") as caught:
            sim.simulate(scenario(), checkpoints=Checkpoints(place))
        assert str(place) in str(caught.value)
    with pytest.raises(CheckpointError, match="it is a folder; give a file"):
        sim.simulate(scenario(), checkpoints=Checkpoints(tmp_path))


def test_a_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    stopped(scenario("asp", 3, 8), tmp_path / "runs" / "today" / "c", 10)


def test_runs_without_numerics_have_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"run\.numerics.*true where checkpoints are taken"):
        sim.simulate(scenario().override({"run.numerics": False}), checkpoints=Checkpoints(tmp_path / "c"))


# The registry


def test_tensors_are_aligned_counted_and_forgotten() -> None:
    registry = Registry(torch.from_numpy)
    first, second = registry.copy(torch.arange(5.0)), registry.zeros(torch.ones(3))
    assert first.data_ptr() % 64 == second.data_ptr() % 64 == 0
    assert first.tolist() == [0, 1, 2, 3, 4]
    assert second.tolist() == [0, 0, 0]
    view = first[2:4]
    del first
    assert list(registry.arrays()) == ["1", "2"], "a view keeps its tensor alive"
    registry.arrays()["1"].view(np.float32)[:] = 7.0
    assert view.tolist() == [7.0, 7.0]
    del view
    assert list(registry.arrays()) == ["2"]

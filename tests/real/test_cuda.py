"""The real driver with models on GPUs: whole runs, and when the clock stops. Needs a CUDA device.

On one device all workers share it; NCCL needs a device for each worker.
"""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zmq")

import real  # noqa: E402
from core.effects import Send, TrySend  # noqa: E402
from core.node import Message  # noqa: E402
from core.record import Record  # noqa: E402
from real.buffers import expose  # noqa: E402
from real.compute import Computer  # noqa: E402
from real.driver import _on_host  # noqa: E402
from real.tensors import TimedTensors  # noqa: E402
from tests.real.runs import tiny  # noqa: E402
from tests.real.test_runs import large_batch, must_hold  # noqa: E402

pytestmark = pytest.mark.gpu

DEVICE = "cuda"


def trained(algorithm: Any, workers: int, **changes: Any) -> tuple[Record, float]:
    """Record of a run on the device, held to what every record satisfies; and its large-batch loss."""
    changes["run"] = {"device": DEVICE, "compute": "native", "steps": 4, **changes.get("run", {})}
    scenario = tiny(algorithm, workers, **changes)
    record = real.train(scenario)
    must_hold(record, scenario)
    assert record.nodes["steps"][:workers].tolist() == [scenario.run.steps] * workers
    assert (record.nodes["compute"][:workers] > 0).all()
    assert min(record.manifest["gradient_seconds"].values()) > 0
    for column in ("loss", "accuracy", "consensus"):
        assert np.isfinite(record.curves[column]).all()
    return record, large_batch(scenario) if scenario.workload.model == "mlp" else float("nan")


def busy(size: int = 4096, rounds: int = 50) -> Any:
    """Give the device work for tens of milliseconds; returns an event that happens when it is done."""
    matrix = torch.rand(size, size, device=DEVICE)
    for _ in range(rounds):
        matrix = matrix @ matrix
    event = torch.cuda.Event()
    event.record()
    return event


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ["asp", "aladdin"])
def test_asynchronous_algorithms_train(algorithm: str, workers: int) -> None:
    record, _ = trained(algorithm, workers)
    fate = sum(record.nodes[name][:workers] for name in ("applied", "pending", "lost"))
    assert fate.tolist() == [4] * workers


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ["bsp", "arsgd"])
def test_synchronous_algorithms_equal_large_batch_sgd(algorithm: str, workers: int) -> None:
    record, expected = trained(algorithm, workers)
    assert record.curves["loss"][0] == pytest.approx(expected, rel=1e-3)
    assert record.curves["consensus"][0] == pytest.approx(0.0, abs=1e-8)


def test_a_native_all_reduce_between_workers_that_share_devices() -> None:
    """More workers than devices: gloo, by way of the host."""
    workers = torch.cuda.device_count() + 1
    record, expected = trained("arsgd", workers, cluster={"network": {"collective": "native"}})
    assert record.curves["loss"][0] == pytest.approx(expected, rel=1e-3)


def test_a_native_all_reduce_between_workers_with_devices_of_their_own() -> None:
    workers = torch.cuda.device_count()
    if workers < 2:
        pytest.skip("NCCL between workers needs two CUDA devices")
    record, expected = trained("arsgd", workers, cluster={"network": {"collective": "native"}})
    assert record.curves["loss"][0] == pytest.approx(expected, rel=1e-3)


def test_a_residual_network_trains_and_its_large_messages_arrive() -> None:
    workload = {"model": "resnet50", "data": "synthetic", "image_size": 32, "hidden": [], "samples": 256}
    record, _ = trained("asp", 2, workload={**workload, "batch": 4}, run={"steps": 2})
    assert record.nodes["bytes_out"][0] >= 2 * 4 * record.manifest["parameters"]


def test_a_native_step_is_timed_until_the_device_has_finished() -> None:
    done, finished = threading.Event(), []

    def gradient(params: Any, *_: Any) -> tuple[Any, float]:
        task.event = busy()
        task.returned_early = not task.event.query()
        return params, 0.0

    def told() -> None:
        finished.append(task.event.query())
        done.set()

    task = SimpleNamespace(gradient=gradient, event=None, returned_early=False)
    times = SimpleNamespace(draw=lambda *_: (0.0, 1.0))
    computer = Computer(task, 0, times, paced=False, device=DEVICE, done=told)  # type: ignore[arg-type]
    params = torch.zeros(1, device=DEVICE)
    computer.warm(params)
    job = computer.start(params, 0, 0.0, 0.0)
    assert done.wait(60)
    assert job.error is None
    assert task.returned_early
    assert finished == [True]


def test_a_tensor_operation_is_timed_until_the_device_has_finished() -> None:
    tensors = TimedTensors(DEVICE)
    x = torch.zeros(1000, device=DEVICE)
    tensors.accumulate(x, torch.ones_like(x))
    busy()
    event = busy()
    assert not event.query()
    tensors.scale(x, 3.0)
    assert event.query()
    assert x.tolist() == [3.0] * 1000
    assert tensors.totals["scale"][:2] == [1, 4000.0]


@pytest.mark.parametrize("effect", [Send, TrySend])
def test_what_is_sent_is_copied_to_the_host_as_it_was(effect: Any) -> None:
    """Also a view, also one tensor to several; and the program may go on with its own."""
    x = torch.arange(10, dtype=torch.float32, device=DEVICE)
    pairs = [(1, Message("a", x)), (2, Message("a", x, step=3)), (1, Message("b", x[2:5])), (2, Message("c"))]
    sent = _on_host(effect(*pairs)).pairs
    x.zero_()
    assert [to for to, _ in sent] == [1, 2, 1, 2]
    assert sent[0][1].tensor is sent[1][1].tensor
    assert sent[1][1].step == 3
    assert sent[0][1].tensor.tolist() == list(range(10))
    assert bytes(expose(sent[2][1].tensor)[1]) == np.arange(2, 5, dtype=np.float32).tobytes()
    assert sent[3][1].tensor is None

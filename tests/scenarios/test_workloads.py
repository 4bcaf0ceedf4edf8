"""Models have the published size, data is what it says, gradients are right and repeatable."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from scenarios.errors import ScenarioError
from scenarios.schema import Workload
from scenarios.workloads import layer_sizes, load

torch = pytest.importorskip("torch")


pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = {"image_size": 32, "batch": 2}
WORKLOADS = {
    "mlp": Workload(hidden=(32, 16)),
    "cnn": Workload(model="cnn"),
    "cnn-upsampled": Workload(model="cnn", image_size=12),
    "cnn-synthetic": Workload(model="cnn", data="synthetic", image_size=16, batch=8),
    "resnet50": Workload(model="resnet50", data="synthetic", **SMALL),
}


@pytest.mark.parametrize(
    ("workload", "published"),
    [
        (Workload(model="resnet50", data="synthetic", image_size=224, classes=1000), 25_557_032),
        (Workload(model="resnet50", data="cifar10", image_size=224, classes=10), 23_528_522),
        (Workload(model="vgg16", data="synthetic", image_size=224, classes=1000), 138_357_544),
        (Workload(hidden=(1024, 1024)), 1_126_410),
    ],
)
def test_parameter_counts(workload, published) -> None:
    assert sum(layer_sizes(workload)) == published


@pytest.mark.parametrize(
    "workload",
    [*WORKLOADS.values(), Workload(model="vgg16", data="synthetic", classes=10, **SMALL)],
    ids=lambda w: w.model,
)
def test_layer_sizes_are_those_of_the_model(workload) -> None:
    from scenarios.workloads.models import make

    modules = [[p.numel() for p in m.parameters(recurse=False)] for m in make(workload, 0).modules()]
    assert tuple(sum(sizes) for sizes in modules if sizes) == layer_sizes(workload)


@pytest.mark.parametrize("name", WORKLOADS)
def test_gradients_are_repeatable_fresh_and_leave_the_parameters_alone(name) -> None:
    task, again = load(WORKLOADS[name], 3), load(WORKLOADS[name], 3)
    x = task.initial()
    assert x.dtype == torch.float32
    assert x.shape == (task.parameters,)
    assert task.parameters == sum(task.layers)
    assert torch.equal(x, again.initial())
    g, loss = task.gradient(x, 0, 0)
    task.gradient(again.initial() + 0.01, 1, 1)
    task.evaluate(x + 0.02) if name != "resnet50" else None
    repeated, same = again.gradient(x, 0, 0)
    assert loss == same
    assert torch.equal(g, repeated)
    assert torch.equal(task.gradient(x, 0, 0)[0], g)
    assert torch.equal(x, again.initial())
    assert g.data_ptr() not in (x.data_ptr(), repeated.data_ptr())
    assert not torch.equal(task.gradient(x, 1, 0)[0], g)
    assert not torch.equal(task.gradient(x, 0, 1)[0], g)


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_gradient_is_the_slope_of_the_loss_plus_weight_decay(name) -> None:
    task = load(WORKLOADS[name], 0)
    x = task.initial()
    g, _ = task.gradient(x, 0, 0)
    g = g - task.workload.weight_decay * x
    direction = g / g.norm()
    step = 1e-2
    rise = (task.gradient(x + step * direction, 0, 0)[1] - task.gradient(x - step * direction, 0, 0)[1]) / (
        2 * step
    )
    assert rise == pytest.approx(float(g.norm()), rel=0.02)


def test_updates_in_place_are_seen() -> None:
    task = load(WORKLOADS["mlp"], 0)
    x = task.initial()
    before, _ = task.gradient(x, 0, 0)
    x.add_(before, alpha=-0.5)
    assert not torch.equal(task.gradient(x, 0, 0)[0], before)
    assert torch.equal(task.gradient(x, 0, 0)[0], task.gradient(x.clone(), 0, 0)[0])


def test_the_digits_are_learned() -> None:
    task = load(Workload(hidden=(64,)), 0)
    x = task.initial()
    loss, accuracy = task.evaluate(x)
    assert accuracy < 0.3
    for step in range(80):
        x.add_(task.gradient(x, 0, step)[0], alpha=-0.2)
    trained, right = task.evaluate(x)
    assert trained < 0.5 * loss
    assert right > 0.85


def test_evaluation_re_estimates_batch_statistics() -> None:
    task = load(Workload(model="resnet50", data="synthetic", image_size=32, batch=8, samples=10), 0)
    task.data.tests = 64
    x = task.initial()
    first = task.evaluate(x)
    task.gradient(x * 1.5, 0, 0)
    assert task.evaluate(x) == first


def test_the_callers_random_generator_is_left_alone() -> None:
    state = torch.random.get_rng_state()
    task = load(WORKLOADS["cnn-synthetic"], 7)
    task.gradient(task.initial(), 0, 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(load(WORKLOADS["mlp"], 1).initial(), load(WORKLOADS["mlp"], 2).initial())


def test_batches_are_samples_without_replacement() -> None:
    data = load(Workload(batch=1437), 0).data
    images, labels = data.batch(0, 0, 1437)
    assert images.shape == (1437, 1, 8, 8)
    assert len(torch.unique(images.flatten(1), dim=0)) > 1430
    assert torch.bincount(labels).min() > 100
    train, test = (
        {row.numpy().tobytes() for row in images},
        {row.numpy().tobytes() for row in data.test(0, 360)[0]},
    )
    assert len(test) == 360
    assert not train & test
    assert abs(float(images.mean())) < 0.05
    assert float(images.std()) == pytest.approx(1, abs=0.05)


def test_synthetic_data_says_so() -> None:
    assert "made up, no real data" in load(WORKLOADS["cnn-synthetic"], 0).describe()
    assert "real data" in load(WORKLOADS["mlp"], 0).describe()


@pytest.mark.parametrize(
    ("workload", "device", "says"),
    [
        (Workload(parameters=100), "cpu", r"workload\.parameters: 100"),
        (Workload(model="resnet50", data="synthetic", batch=1), "cpu", "at least 2, for batch normalisation"),
        (Workload(model="cnn", data="cifar10"), "cpu", r"workload\.data_dir: ''"),
        (Workload(model="cnn", data="cifar10", data_dir="nowhere"), "cpu", r"data_batch_1\.bin"),
    ],
)
def test_what_cannot_be_trained(workload, device, says) -> None:
    with pytest.raises(ScenarioError, match=says):
        load(workload, 0, device)


def test_cuda_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ScenarioError, match=r"run\.device: 'cuda'"):
        load(Workload(), 0, "cuda")


def images(count: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(first)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, 10, count)


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {f"data_batch_{i}": images(4, i) for i in range(1, 6)} | {"test_batch": images(3, 9)}


def write_binary(folder) -> None:
    for name, (pixels, labels) in batches().items():
        rows = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def write_python(folder, protocol=2) -> None:
    for name, (pixels, labels) in batches().items():
        tree = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"x", b"filenames": [b"a"]}
        (folder / name).write_bytes(pickle.dumps(tree, protocol=protocol))


@pytest.mark.parametrize("write", [write_binary, write_python, lambda f: write_python(f, 4)])
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_cifar10_in_both_forms(tmp_path, write, inside) -> None:
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    write(folder)
    task = load(Workload(model="cnn", data="cifar10", data_dir=str(tmp_path), batch=4), 0)
    assert (task.data.samples, task.data.tests) == (20, 3)
    pixels, labels = batches()["test_batch"]
    got, answers = task.data.test(0, 3)
    assert answers.tolist() == labels.tolist()
    mean, std = torch.tensor((0.4914, 0.4822, 0.4465)), torch.tensor((0.2470, 0.2435, 0.2616))
    raw = (got * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1)) * 255
    assert torch.allclose(raw.flatten(1), torch.from_numpy(pixels.astype(np.float32)), atol=0.01)


class Hostile:
    def __reduce__(self):
        return print, ("owned",)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data_batch_2.bin", b"x" * 100, "truncated"),
        ("data_batch_2.bin", bytes([11]) + bytes(3072), "a label from 0 to 9"),
        ("data_batch_2.bin", None, "cannot be read"),
        ("data_batch_2", b"x", "no CIFAR-10 file in Python form"),
        ("data_batch_2", pickle.dumps({b"data": Hostile()}), r"builtins\.print has no place"),
        ("data_batch_2", pickle.dumps({b"data": np.zeros((2, 3)), b"labels": [1, 2]}), r"shape \(2, 3\)"),
        ("data_batch_2", pickle.dumps([1]), "no CIFAR-10 file in Python form"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, capsys, name, content, says) -> None:
    (write_binary if name.endswith(".bin") else write_python)(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(ScenarioError, match=says):
        load(Workload(model="cnn", data="cifar10", data_dir=str(tmp_path)), 0)
    assert "owned" not in capsys.readouterr().out


def offloaded_is_the_task(device) -> None:
    from scenarios.workloads.offloaded import Offloaded

    here, there = load(WORKLOADS["cnn"], 1), Offloaded(WORKLOADS["cnn"], 1, device)
    start = there.initial()
    assert torch.equal(start, here.initial())
    (g, loss), (same, other) = here.gradient(here.initial(), 2, 3), there.gradient(start, 2, 3)
    assert {start.device.type, same.device.type} == {"cpu"}
    assert other == pytest.approx(loss, rel=1e-3)
    assert torch.allclose(same, g, rtol=1e-2, atol=1e-4)
    start -= 0.1 * same
    assert there.gradient(start, 2, 3)[1] < other, "what changed in host memory is seen"
    assert there.evaluate(start)[1] == pytest.approx(here.evaluate(start.clone())[1], abs=0.01)


def test_an_offloaded_task_is_the_task() -> None:
    offloaded_is_the_task("cpu")


@pytest.mark.gpu
def test_a_task_that_is_offloaded_to_a_gpu_is_the_task() -> None:
    offloaded_is_the_task("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_gradient_on_a_gpu_is_that_of_the_cpu(name) -> None:
    here, there = load(WORKLOADS[name], 1), load(WORKLOADS[name], 1, "cuda")
    assert torch.equal(there.initial().cpu(), here.initial())
    g, loss = here.gradient(here.initial(), 0, 0)
    on_gpu, same = there.gradient(there.initial(), 0, 0)
    assert on_gpu.device.type == "cuda"
    assert same == pytest.approx(loss, rel=1e-3)
    assert torch.allclose(on_gpu.cpu(), g, rtol=1e-2, atol=1e-4)
    assert there.evaluate(there.initial())[1] == pytest.approx(here.evaluate(here.initial())[1], abs=0.01)

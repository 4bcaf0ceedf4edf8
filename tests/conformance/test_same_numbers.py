"""Same core, same numbers: simulated and real training agree, given the same scenario and seed.

With one worker, or under a synchronous algorithm, what is computed does not depend on when messages
come. Then parameters and training losses agree bit for bit on the CPU, with these exceptions:

* BSP: the server adds gradients up in the order in which they come; float32 addition is not
  associative, so six steps of three workers agree to about 1e-6 relative.
* AR-SGD over gloo adds up in an order of gloo's own: likewise.
* ALADDIN with one worker: how many gradients a message sums up depends on the link, so the server's
  copy agrees to rounding; the worker's own is bit-equal, its weight alpha being zero with n = pi = 1.

Asynchronous algorithms with several workers agree statistically: see the slow test.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance import trained

pytest.importorskip("torch")
pytest.importorskip("zmq")

SYNCHRONOUS = ["arsgd", "local_sgd", "post_local_sgd", "diloco", "dpsgd", "sgp"]
ALONE = ["asp", "easgd"]
ALONE_TOO = ["bsp", "ssp", "dssp", "arsgd", "local_sgd", "post_local_sgd", "diloco"]
ROUNDED = {"rtol": 1e-5, "atol": 1e-6}


def assert_bit_equal(name: str, workers: int = trained.WORKERS) -> None:
    (real, there), (virtual, here) = trained.really(name, workers), trained.virtually(name, workers)
    assert there.keys() == here.keys()
    for node in here:
        np.testing.assert_array_equal(there[node], here[node], err_msg=f"parameters of node {node}")
    assert len(losses(real)) == workers * trained.STEPS
    assert losses(real) == losses(virtual)
    for column in ("samples", "accuracy"):
        assert real.curves[column][-1] == virtual.curves[column][-1]


def losses(record: trained.Record) -> dict[tuple[int, int], float]:
    table = record.losses
    return dict(zip(zip(table["node"], table["step"], strict=True), table["loss"], strict=True))


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_synchronous_algorithms_agree_bit_for_bit(name: str) -> None:
    assert_bit_equal(name)


@pytest.mark.parametrize("name", ALONE)
def test_one_worker_agrees_bit_for_bit(name: str) -> None:
    assert_bit_equal(name, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE_TOO)
def test_one_worker_of_any_other_algorithm_agrees_bit_for_bit(name: str) -> None:
    assert_bit_equal(name, workers=1)


@pytest.mark.parametrize("name", ["bsp", trained.NATIVE])
def test_sums_in_order_of_arrival_agree_to_rounding(name: str) -> None:
    (real, there), (virtual, here) = trained.really(name), trained.virtually(name)
    for node in here:
        np.testing.assert_allclose(there[node], here[node], **ROUNDED)
    np.testing.assert_allclose(real.losses["loss"].sum(), virtual.losses["loss"].sum(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aladdin", "aladdin_l1", "aladdin_l2"])
def test_aladdin_alone_is_local_sgd_on_its_worker(name: str) -> None:
    (_, there), (_, here) = trained.really(name, 1), trained.virtually(name, 1)
    np.testing.assert_array_equal(there[0], here[0])
    for server in (1, 2):
        np.testing.assert_allclose(there[server], here[server], **ROUNDED)


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_both_learn(name: str) -> None:
    """What is compared is not the initial model."""
    record, params = trained.virtually(name)
    start, _ = trained.simulated(trained.scenario(name, **{"run.steps": 1}))
    assert record.curves["loss"][-1] < start.curves["loss"][-1]
    assert np.abs(params[0]).sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["asp", "ssp", "dssp", "easgd", "aladdin", "aladdin_l1", "aladdin_l2", "adpsgd", "sgp", "gosgd"],
)
def test_asynchronous_algorithms_reach_the_same_accuracy(name: str) -> None:
    """Final test accuracy over five seeds: the means differ by less than three standard errors and 1 %.

    L1 takes longer to show that it learns: its global model is the sum of what others learn.
    """
    found = {"real": [], "virtual": []}
    options = {"run.steps": 240 if name == "aladdin_l1" else 80, "cluster.slowdowns": []}
    if name == "sgp":
        options["algorithm.overlap"] = 1
    for seed in range(5):
        made = trained.scenario(name, **{"run.seed": seed, **options})
        for driver, train in (("real", trained.observed), ("virtual", trained.simulated)):
            found[driver].append(float(train(made)[0].curves["accuracy"][-1]))
    real, virtual = np.array(found["real"]), np.array(found["virtual"])
    error = np.sqrt((real.var(ddof=1) + virtual.var(ddof=1)) / 5)
    assert abs(real.mean() - virtual.mean()) <= 3 * error + 0.01, found
    assert real.mean() > 0.5

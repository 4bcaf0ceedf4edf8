"""Numbers in virtual time: gradients of a real model, and how good the model is in the end.

Rules this module obeys:

* A step's gradient is that at the node's parameters at the step's start, handed over at its end.
* Evaluation is outside the clock: it costs no simulated time.
* The model is the global one of the servers, or the mean of the live replicas where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from core.record import CURVE_COLUMNS, StepLog

if TYPE_CHECKING:
    from sim.driver import Driver

__all__ = ["Gradients", "TaskGradients", "curves"]


class Gradients(Protocol):
    """Real numbers for a timing run: values of parameters and gradients.

    ``initial`` is the flat vector that all nodes start from; the call returns the flat gradient at
    ``params`` on worker ``rank``'s mini-batch of ``step``, a fresh tensor. An optional method
    ``evaluate(params)`` returns (loss, accuracy).
    """

    initial: Any

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        """The gradient."""


class TaskGradients:
    """A task of ``scenarios.workloads`` as the simulator takes it."""

    def __init__(self, task: Any) -> None:
        self.initial = task.initial()
        self.evaluate = task.evaluate
        self._gradient = task.gradient

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        """The gradient of the batch of (rank, step), with weight decay."""
        return self._gradient(params, rank, step)[0]


def curves(driver: Driver, duration: float) -> dict[str, np.ndarray]:
    """One row on the final model: loss, accuracy, and the replicas' mean squared distance from their mean."""
    log = StepLog(CURVE_COLUMNS)
    evaluate = getattr(driver.gradients, "evaluate", None)
    plan = driver.plan
    if evaluate is not None and plan.scenario.run.evaluate:
        replicas = [host.node.params for host in driver.hosts if not host.server and not host.crashed]
        mean = sum(replicas[1:], replicas[0]) / len(replicas)
        distance = sum(float(((x - mean) ** 2).sum()) for x in replicas) / len(replicas)
        for shard in plan.shards:
            shard.of(mean)[:] = driver.hosts[shard.server].node.params
        loss, accuracy = evaluate(mean)
        steps = sum(host.node.step for host in driver.hosts)
        samples = steps * plan.scenario.workload.batch
        row = (duration, steps, samples / plan.samples_per_epoch, samples, loss, accuracy, distance)
        log.append(row)
    return log.table(("step", "samples"))

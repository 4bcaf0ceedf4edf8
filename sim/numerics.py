"""Numbers in virtual time: gradients of a real model, and how good the model is as training goes on.

Rules this module obeys:

* A step's gradient is that at the node's parameters at the step's start, handed over at its end. It is
  evaluated when the first step in flight ends, together with those of others (as many as the gradients'
  ``chunk`` says). Parameters that a companion could change meanwhile are copied at the step's start.
* No event, no order and no time depends on a value: timing is the same with numbers and without.
* Evaluation is outside the clock: it costs no simulated time.
* The model is the global one of the servers, or the (weighted) mean of the live replicas where there is
  none.
* Where a loss is no longer a finite number the run has diverged, and ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from core.quality import judged
from core.record import CURVE_COLUMNS, LOSS_COLUMNS, StepLog, losses
from core.tensors import Tensors
from sim.errors import Diverged
from sim.memory import Room

if TYPE_CHECKING:
    from sim.checkpoint import Registry
    from sim.driver import Driver
    from sim.host import Host

__all__ = ["Gradients", "InFlight", "Numerics", "TaskGradients", "evaluator"]

RETAINED = 2**30
"""Bytes that gradients of one batched call, which share their memory, may keep alive in all."""


ROOM = Room()


class Gradients(Protocol):
    """Real numbers for a timing run: values of parameters and gradients.

    ``initial`` is the flat vector that all nodes start from; the call returns the flat gradient at
    ``params`` on worker ``rank``'s mini-batch of ``step``, a fresh tensor. Optional methods:

    evaluate(params)          (loss, accuracy)
    several(params, keys)     (gradients, losses) of at most ``chunk`` (an attribute) steps, at their
                              parameters, by (rank, step); ``shares`` (an attribute) says that the
                              gradients of one call share memory
    adopt(array)              a tensor that shares a NumPy array's memory; default: the array itself
    describe(), use(choice)   how gradients are evaluated, for the record; and as an earlier run did
    """

    initial: Any

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        """The gradient."""


class TaskGradients:
    """A task of ``scenarios.workloads`` as the simulator takes it: one gradient after the other."""

    chunk = 1

    def __init__(self, task: Any) -> None:
        self.initial = task.initial()
        self.evaluate = task.evaluate
        self._gradient = task.gradient

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        """The gradient of the batch of (rank, step), with weight decay."""
        return self._gradient(params, rank, step)[0]

    def several(
        self, params: Sequence[Any], keys: Sequence[tuple[int, int]]
    ) -> tuple[list[Any], list[float]]:
        """Gradients and losses, one by one."""
        found = [self._gradient(x, *key) for x, key in zip(params, keys, strict=True)]
        return [gradient for gradient, _ in found], [loss for _, loss in found]


class InFlight:
    """One step under way: where its gradient is wanted, and, once evaluated, what it is."""

    __slots__ = ("gradient", "key", "loss", "params")

    def __init__(self, params: Any, rank: int, step: int) -> None:
        self.params, self.key = params, (rank, step)
        self.gradient: Any = None
        self.loss = nan


class Numerics:
    """The gradients in flight, the losses and the curves of one run.

    registry  where a checkpoint finds all tensors; while it is hollow nothing is evaluated
    """

    def __init__(self, driver: Driver, gradients: Gradients, registry: Registry | None) -> None:
        self._driver, self._gradients, self.registry = driver, gradients, registry
        self._pending: dict[InFlight, None] = {}
        self._several = getattr(gradients, "several", None)
        self._evaluate = getattr(gradients, "evaluate", None)
        self.chunk = int(getattr(gradients, "chunk", 1)) if self._several is not None else 1
        plan = driver.plan
        ROOM.make(
            3 * len(plan.machine_of) * gradients.initial.nbytes
        )  # parameters, momentum, what is under way
        held = plan.workers * self.chunk * gradients.initial.nbytes
        shared = bool(getattr(gradients, "shares", False))
        self._own = registry is not None or (shared and held > RETAINED)
        self.curve_log, self.loss_log = StepLog(CURVE_COLUMNS), StepLog(LOSS_COLUMNS)
        run = plan.scenario.run
        self._batch, self._steps = plan.scenario.workload.batch, 0
        self._last: tuple[int, int] | None = None
        self._every = run.evaluate_every * plan.samples_per_epoch
        self._due = self._every or float("inf")
        self._evaluations = 0

    @property
    def hollow(self) -> bool:
        """Whether tensors have no values now, because a checkpoint will bring them."""
        return self.registry is not None and self.registry.hollow

    # Gradients

    def begin(self, host: Host) -> InFlight:
        """Worker ``host`` begins a step at its parameters."""
        node, params = host.node, host.node.params
        if len(host.programs) > 1:
            params = self.copy(params)
        flight = InFlight(params, host.id, node.step)
        self._pending[flight] = None
        return flight

    def finish(self, flight: InFlight, now: float) -> Any:
        """The gradient of a step that ends now; raises ``Diverged`` if its loss is not finite."""
        if flight in self._pending:
            self._together(flight)
        gradient, flight.gradient = flight.gradient, None
        if self._several is not None:
            self.loss_log.append((now, *flight.key, flight.loss))
            if not isfinite(flight.loss) and not self.hollow:
                rank, step = flight.key
                raise Diverged(flight.loss, now, worker=rank, step=step)
        self._steps, self._last = self._steps + 1, flight.key
        return gradient

    def drop(self, flight: InFlight | None) -> None:
        """The worker died: its gradient is not needed."""
        if flight is not None:
            self._pending.pop(flight, None)

    def _together(self, wanted: InFlight) -> None:
        """Evaluate the gradient that is wanted, and those in flight longest along with it."""
        pending = self._pending
        del pending[wanted]
        flights = [wanted]
        while pending and len(flights) < self.chunk:
            first = next(iter(pending))
            del pending[first]
            flights.append(first)
        gradients, found = self._values(flights)
        for flight, gradient, loss in zip(flights, gradients, found, strict=True):
            flight.gradient = self.copy(gradient) if self._own else gradient
            flight.loss, flight.params = loss, None

    def _values(self, flights: Sequence[InFlight]) -> tuple[Sequence[Any], Sequence[float]]:
        if self.hollow:
            return [flight.params for flight in flights], [nan] * len(flights)
        if self._several is None:
            return [self._gradients(flight.params, *flight.key) for flight in flights], [nan] * len(flights)
        found: tuple[list[Any], list[float]] = self._several(
            [flight.params for flight in flights], [flight.key for flight in flights]
        )
        return found

    def copy(self, x: Any) -> Any:
        """A copy of ``x`` of its own, where a checkpoint finds it."""
        if self.registry is not None:
            return self.registry.copy(x)
        return Tensors.copy_of(x)

    # Curves

    def stepped(self, now: float) -> None:
        """Evaluate the model if it is due after the step that has just ended."""
        samples = self._steps * self._batch
        if samples >= self._due:
            self.evaluate(now)
            self._due = (samples // self._every + 1) * self._every

    def evaluate(self, now: float) -> None:
        """Add a row to the curves; raises ``Diverged`` if the loss is not finite."""
        if self._evaluate is None:
            return
        plan, samples = self._driver.plan, self._steps * self._batch
        row = [nan] * 4 if self.hollow else self._quality()
        self.curve_log.append((now, self._steps, samples / plan.samples_per_epoch, samples, *row))
        if not self.hollow and not isfinite(row[0]):
            raise Diverged(row[0], now, step=self._steps, last=self._last)

    def _quality(self) -> list[float]:
        """Loss and accuracy of the model, the replicas' consensus distance, the model's from their mean."""
        driver = self._driver
        nodes = [host.node for host in driver.hosts if not host.server and not host.absent]
        model, distance, lemma = judged(
            [node.params for node in nodes],
            [node.weight for node in nodes],
            [(shard, driver.hosts[shard.server].node.params) for shard in driver.plan.shards],
        )
        assert self._evaluate is not None
        loss, accuracy = self._evaluate(model)
        return [loss, accuracy, distance, lemma]

    # What is left of it

    def tables(self) -> Mapping[str, dict[str, np.ndarray]]:
        """The tables ``curves`` and ``losses`` of a record."""
        table = losses(self.loss_log) if self._several is not None else {}
        return {"curves": self.curve_log.table(("step", "samples")), "losses": table}

    def environment(self) -> dict[str, Any]:
        """How gradients were evaluated, for the manifest's environment."""
        describe = getattr(self._gradients, "describe", None)
        return {"numerics": describe()} if describe is not None else {}


def evaluator(driver_plan: Any, timer: Any = None) -> Any:
    """The gradients of a plan's workload; imports torch. ``timer`` is needed to measure what is faster.

    With ``run.device: cuda`` they are evaluated there one by one; all tensors stay in host memory. Raises
    ``ScenarioError`` where there is no such device, or where gradients must be batched.
    """
    from scenarios.errors import ScenarioError
    from scenarios.workloads import load
    from scenarios.workloads.batched import Evaluator
    from scenarios.workloads.offloaded import Offloaded

    scenario = driver_plan.scenario
    run, workload, batched = scenario.run, scenario.workload, scenario.run.batched
    if run.device == "cpu":
        task = load(workload, run.seed)
    elif batched == "always":
        raise ScenarioError("run.batched", batched, f"auto or never with run.device: {run.device}")
    else:
        task, batched = Offloaded(workload, run.seed, run.device), "never"
    return Evaluator(task, workers=driver_plan.workers, batched=batched, threads=run.threads, timer=timer)

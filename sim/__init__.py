"""The simulator: node programs in virtual time, on SimPy. ``simulate`` runs a scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sim import compiled
from sim.errors import Deadlock, Diverged, ServerLost
from sim.interrupts import Interrupted, Stop

if TYPE_CHECKING:
    from core.record import Record
    from scenarios.schema import Scenario
    from sim.checkpoint import Checkpoints
    from sim.numerics import Gradients

compiled.use(__path__)

__all__ = ["Deadlock", "Diverged", "Interrupted", "ServerLost", "Stop", "simulate"]


def simulate(
    scenario: Scenario,
    *,
    gradients: Gradients | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_clock: Callable[[float, int], None] | None = None,
    timer: Callable[[], float] | None = None,
    checkpoints: Checkpoints | None = None,
    stop: Stop | None = None,
) -> Record:
    """What ``scenario`` would do on its cluster.

    gradients    values instead of Phantoms (see ``sim.numerics.Gradients``); by default those of the
                 workload's own model and data if ``run.numerics`` is on (imports torch)
    on_progress  called now and then with (done, total); on_clock: with the simulated
                 seconds and the steps that workers have begun, all together
    timer        seconds of real time, by which ``run.batched: auto`` measures; without it, it guesses
    checkpoints  where to save a run with numerics, and to resume it from
    stop         set its ``asked``, from a signal handler or a callback, to end the run at the next step,
                 or, where that is far, after ``sim.clock.BEAT`` events at the latest

    Raises ``Deadlock`` when programs wait for what cannot happen; with the ``record`` of what there was by
    then ``Diverged`` when a loss is not finite, ``Interrupted`` (a ``KeyboardInterrupt``) when stopped,
    ``ServerLost`` (a ``Deadlock``) when a server dies for good; ``CheckpointError`` (a ``ScenarioError``)
    for a checkpoint of another run.
    """
    from scenarios.plan import plan
    from sim.driver import Driver
    from sim.numerics import evaluator

    kind: type[Driver] = Driver
    if scenario.faults:
        from sim.faults import Faulty

        kind = Faulty
    made = plan(scenario)
    values = evaluator(made, timer) if gradients is None and scenario.run.numerics else None
    driver = kind(
        made,
        gradients=gradients if values is None else values,
        on_progress=on_progress,
        on_clock=on_clock,
        checkpoints=checkpoints,
        stop=stop,
    )
    if values is None:
        return driver.run()
    with values:
        return driver.run()

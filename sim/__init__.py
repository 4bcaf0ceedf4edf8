"""The simulator: node programs in virtual time, on SimPy. ``simulate`` runs a scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.errors import Deadlock

if TYPE_CHECKING:
    from core.record import Record
    from scenarios.schema import Scenario
    from sim.numerics import Gradients

__all__ = ["Deadlock", "simulate"]


def simulate(
    scenario: Scenario,
    *,
    gradients: Gradients | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """What ``scenario`` would do on its cluster.

    gradients    values instead of Phantoms: see ``sim.numerics.Gradients``
    on_progress  called now and then with (done, total)

    Raises ``Deadlock`` when programs wait for what cannot happen.
    """
    from scenarios.plan import plan
    from sim.driver import Driver

    return Driver(plan(scenario), gradients=gradients, on_progress=on_progress).run()

"""What the process of a server that keeps a journal is made of.

Rules this module obeys: it decides nothing; ``real.replay`` does the work, ``real.churn`` says whose server
keeps one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from core.node import Program
from real.driver import Driver
from real.keeping import KeptTensors, Registry
from real.kept import KeptEndpoint
from real.replay import Keeper
from scenarios.plan import Plan

__all__ = ["Custody"]


class Custody:
    """What server ``node`` of a run is made of: tensors, endpoint and program that are kept in ``folder``.

    every  seconds between checkpoints
    clock  seconds since the start of the run; parts: where its time went so far
    """

    def __init__(
        self, plan: Plan, node: int, token: bytes, folder: Path, every: float, clock: Callable[[], float],
        parts: Callable[[], list[float]],
    ) -> None:  # fmt: skip
        scenario = json.dumps(plan.scenario.to_dict(), sort_keys=True)
        identity = {
            "run": token.hex(), "node": node, "scenario": sha256(scenario.encode()).hexdigest(),
        }  # fmt: skip
        registry = Registry()
        self.keeper = Keeper(folder, identity, registry, every=every, clock=clock, parts=parts)
        self.tensors = KeptTensors(registry)
        self._registry = registry

    def endpoint(self, *args: Any, **options: Any) -> KeptEndpoint:
        """As ``real.endpoint.Endpoint``, with a journal."""
        return KeptEndpoint(*args, **{**options, "allocate": self._registry.room})

    def program(self, inner: Program, driver: Driver) -> Program:
        """The server's program as the driver is to run it; where it comes back, it stands where it stood."""
        self.keeper.keep(driver.node, cast(KeptEndpoint, driver.endpoint))
        history = self.keeper.history
        if history is not None:
            driver.read = sum(record[0] == "took" for record in history.answers)
            driver.booker.parts[: len(history.parts)] = history.parts
        return self.keeper.program(inner)

    def summary(self) -> dict[str, Any]:
        """For the record: what was kept, what it cost, and what went wrong and was got over."""
        keeper = self.keeper
        return {
            "bytes": keeper.journal.total, "checkpoints": keeper.taken, "seconds": keeper.spent,
            "replayed": keeper.replayed, "notes": keeper.notes,
        }  # fmt: skip

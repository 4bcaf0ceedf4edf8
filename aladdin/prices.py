"""What probes cost on a machine, for plans: how long steps, messages and starts take, by what is known of it.

Rules this module obeys:

* What was probed counts; before that, what the scenario says, and guesses, rather too high than too low.
* Messages are cut to what moves in ``LONGEST`` seconds: what is asked of links does not depend on the size.
"""

from __future__ import annotations

from scenarios import Scenario
from scenarios.hardware import hardware
from scenarios.profile import Profile
from scenarios.workloads.layers import layer_sizes

__all__ = ["LONGEST", "NATIVE", "RING", "Prices", "crowds", "nominal", "times"]

LONGEST = 0.2
"""Seconds that the largest message of a probe takes over a link with a rate."""

NATIVE, RING = 1e9, 4e8
"""Bytes/s that native links and native all-reduces are taken for before they are probed."""

CROWD = 8
"""Cores that steps are probed on beside messages, at most: it takes a process for each."""

RUN, PROCESS, PER_BYTE = 0.7, 0.1, 4e-9
"""Seconds, for plans: of starting and ending a run, per process of it, and per byte of the model in each."""


def nominal(base: Scenario) -> float:
    """Bytes/s at which the first machine's links are paced or shaped."""
    return min(base.cluster.machines[0].up, base.cluster.machines[0].down)


def times(seconds: float, each: float, least: int, most: int) -> int:
    """How often something that takes ``each`` fits into ``seconds``, in bounds."""
    return most if each <= 0 else max(least, min(most, int(seconds / each)))


def crowds(most: int) -> list[int]:
    """Numbers of workers, up to ``most``, whose steps are probed beside messages: one, and no core idle."""
    return sorted({1, min(int(hardware()["cores"] or 1), most, CROWD)})


class Prices:
    """Seconds that probes of a scenario take.

    bytes  of a whole gradient; nominal: bytes/s of links that have a rate
    """

    def __init__(self, base: Scenario) -> None:
        self.base = base
        self.bytes = 4.0 * sum(layer_sizes(base.workload))
        self.nominal = nominal(base)

    def rate(self, kind: str) -> float:
        """Bytes/s of a link."""
        return NATIVE if kind == "native" else self.nominal

    def part(self, rate: float, seconds: float = LONGEST) -> float:
        """Share of a vector that moves at ``rate`` within ``seconds``, at most 1."""
        return min(1.0, max(rate * seconds, 4.0) / self.bytes)

    def transfer(self, rate: float) -> float:
        """Seconds that the largest message of a probe takes."""
        return self.part(rate) * self.bytes / rate

    def step(self, profile: Profile, n: int = 1) -> float:
        """Seconds of a step of each of ``n`` workers at once."""
        slots = profile.by_workers("device.slots", n, min(n, float(profile.hardware.get("cores") or 2)))
        return profile.value("step_time.mean", self.base.cluster.compute.mean) * max(1.0, n / slots)

    def start(self, n: int, first: float = 0.0) -> float:
        """Seconds of starting and ending ``n`` processes whose first gradient takes ``first`` seconds."""
        return RUN + n * (PROCESS + PER_BYTE * self.bytes) + first

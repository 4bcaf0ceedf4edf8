"""A machine: its NIC, and the traffic that stays inside it.

Rules this module obeys:

* Rates are bytes/s, times seconds; text with units is read on the way in.
* A machine is checked when it is made; ``twin`` copies one that has been, so that a hundred thousand
  equal ones cost little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from scenarios.fields import amount, check, real, text

__all__ = ["MOST", "Machine", "twin"]

MOST = 1_000_000
"""Workers, servers or machines: beyond this a number is a mistake that would fill the memory."""

M = TypeVar("M", bound="Machine")


@dataclass(frozen=True)
class Machine:
    """One machine: full-duplex NIC, and bandwidth of traffic that stays inside it.

    name             unique in its cluster
    up, down         bytes/s that leave and enter through its NIC
    latency          seconds that this NIC adds to every path through it
    local_bandwidth  bytes/s between nodes on this machine; local_latency in seconds
    """

    name: str = text("")
    up: float = amount(1.25e9, "bytes/s", above=0.0)
    down: float = amount(1.25e9, "bytes/s", above=0.0)
    latency: float = amount(0.0, "seconds")
    local_bandwidth: float = amount(8e9, "bytes/s", above=0.0)
    local_latency: float = amount(0.0, "seconds")

    ALSO: ClassVar[tuple[str, ...]] = ("bandwidth",)

    def __post_init__(self) -> None:
        check(self)

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """``bandwidth`` stands for both ``up`` and ``down``."""
        if "bandwidth" in tree:
            both = tree.pop("bandwidth")
            real(dimension="bytes/s", above=0.0)(both, "bandwidth")
            tree.setdefault("up", both)
            tree.setdefault("down", both)
        return tree


def twin(machine: M, name: str, up: float = 0.0, down: float = 0.0, latency: float | None = None) -> M:
    """A copy of a (checked) machine under another name; rates above 0 and a latency replace its own."""
    copy: M = object.__new__(type(machine))
    copy.__dict__.update(machine.__dict__, name=name)
    if up:
        copy.__dict__["up"] = up
    if down:
        copy.__dict__["down"] = down
    if latency is not None:
        copy.__dict__["latency"] = latency
    return copy

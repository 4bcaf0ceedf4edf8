"""Routes: what the network must know of the paths between machines beyond their NICs.

Rules this module obeys:

* It is asked once per pair of nodes that talk, and keeps nothing per pair.
* An up-link that carries as much as all NICs behind it together can never be a bottleneck: it is left
  out, and only its latency and overhead count.
* The backplane, where there is one, is the last link of every path between two machines.
"""

from __future__ import annotations

from collections.abc import Sequence

from scenarios.cluster import Cluster
from scenarios.machines import Machine
from scenarios.paths import Paths

__all__ = ["Routes", "routes"]


class Routes:
    """Further links of a path and the time that they add, by (machine from, machine to)."""

    def __init__(self, paths: Paths | None, machines: Sequence[Machine], backplane: float) -> None:
        self._paths = paths
        self._wide = _wide(paths, machines) if paths is not None else set()
        self._shared = [("backplane", backplane)] if backplane else []

    def __call__(self, a: int, b: int) -> list[tuple[str, float]]:
        """(name, bytes/s) of each link between the NICs."""
        if self._paths is None:
            return self._shared
        wires, wide = self._paths.between(a, b).wires, self._wide
        return [(wire.name, wire.rate) for wire in wires if wire.name not in wide] + self._shared

    def delay(self, a: int, b: int) -> tuple[float, float]:
        """(latency, overhead per message) that these links add, seconds."""
        if self._paths is None:
            return 0.0, 0.0
        path = self._paths.between(a, b)
        return path.latency, path.overhead


def _wide(paths: Paths, machines: Sequence[Machine]) -> set[str]:
    """Names of the up-links' directions that no traffic of the NICs behind them can fill."""
    up, down = [0.0] * len(paths.places), [0.0] * len(paths.places)
    for i, machine in zip(paths.where, machines, strict=True):
        up[i] += machine.up
        down[i] += machine.down
    sides = [
        side for place, *most in zip(paths.places, up, down, strict=True)
        for side in zip((place.up, place.down), most, strict=True)
    ]  # fmt: skip
    return {wire.name for wire, most in sides if wire is not None and wire.rate >= most}


def routes(cluster: Cluster) -> Routes | None:
    """The routes of ``cluster``; None where there is nothing between the NICs."""
    backplane = cluster.network.backplane
    return (
        Routes(cluster.paths, cluster.machines, backplane) if cluster.paths is not None or backplane else None
    )

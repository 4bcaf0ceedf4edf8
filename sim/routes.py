"""Routes: what the network must know of the paths between machines beyond their NICs.

Rules this module obeys:

* It is asked once per pair of nodes that talk, and keeps nothing per pair.
* The backplane, where there is one, is the last link of every path between two machines.
"""

from __future__ import annotations

from scenarios.cluster import Cluster
from scenarios.paths import Paths

__all__ = ["Routes", "routes"]


class Routes:
    """Further links of a path and the time that they add, by (machine from, machine to)."""

    def __init__(self, paths: Paths | None, backplane: float) -> None:
        self._paths = paths
        self._shared = [("backplane", backplane)] if backplane else []

    def __call__(self, a: int, b: int) -> list[tuple[str, float]]:
        """(name, bytes/s) of each link between the NICs."""
        if self._paths is None:
            return self._shared
        return [(wire.name, wire.rate) for wire in self._paths.between(a, b).wires] + self._shared

    def delay(self, a: int, b: int) -> tuple[float, float]:
        """(latency, overhead per message) that these links add, seconds."""
        if self._paths is None:
            return 0.0, 0.0
        path = self._paths.between(a, b)
        return path.latency, path.overhead


def routes(cluster: Cluster) -> Routes | None:
    """The routes of ``cluster``; None where there is nothing between the NICs."""
    backplane = cluster.network.backplane
    return Routes(cluster.paths, backplane) if cluster.paths is not None or backplane else None

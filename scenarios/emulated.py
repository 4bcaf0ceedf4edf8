"""What probes at two rates and a few numbers of workers say of emulated links at others.

Rules this module obeys:

* Links were probed at their nominal rate and at a lower one (``Profile.ranges["link_rate"]``); between
  and beyond the two a byte takes a share of its time on the wire, and a time of its own.
* A ring goes at the pace of its slowest NIC. How late its messages ask falls with that pace, and so with how
  busy they keep the host's cores, as a power that the ring of most workers was probed for at both rates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenarios.cluster import Cluster
    from scenarios.profile import Profile

__all__ = ["carried", "ring_lag"]


def carried(profile: Profile, kind: str, nominal: float) -> float:
    """Bytes/s that a link of a ``nominal`` rate really carries.

    What a byte takes of its own, however fast the link is (the host's work between one message and the
    next), counts for less on slow links. Without a probe at a lower rate: the same share of every rate.
    """
    share = profile.value(f"link.{kind}.efficiency", 1.0)
    slow = profile.value(f"link.{kind}.efficiency.slow", share)
    low, high = profile.ranges.get("link_rate", (0.0, 0.0))
    if not (0 < low < high and share < slow):
        return nominal * share
    fastest, slowest = 1 / (share * high), 1 / (slow * low)
    wire = (slowest - fastest) / (1 / low - 1 / high)
    own = max(fastest - wire / high, 0.0)
    return 1 / (wire / nominal + own)


def ring_lag(profile: Profile, cluster: Cluster, kind: str) -> float:
    """Seconds by which messages of a ring ask late, in the mean, at the rates that ``cluster`` has.

    As probed at the nominal rate, by number of workers; without a probe at a lower rate in proportion to it.
    """
    used = [cluster.machines[place] for place in cluster.placement]
    high = profile.ranges.get("link_rate", (0.0, 0.0))[1]
    pace = min(min(machine.up, machine.down) for machine in used) / high if high else 1.0
    lag = profile.by_workers(f"ring.{kind}.lag", cluster.workers)
    return float(lag * min(pace, 1.0) ** _power(profile, f"ring.{kind}.lag"))


def _power(profile: Profile, name: str) -> float:
    """Of the pace, with which the lag ``name`` falls: between 0, not at all, and 1, in proportion."""
    low, high = profile.ranges.get("link_rate", (0.0, 0.0))
    found = []
    for key, slow in profile.constants.items():
        fast = profile.value(key.removesuffix(".slow"))
        if key.startswith(name) and key.endswith(".slow") and slow.value and fast and 0 < low < high:
            found.append(math.log(fast / slow.value) / math.log(high / low))
    return min(max(found[-1], 0.0), 1.0) if found else 1.0

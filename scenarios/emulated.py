"""What probes at two rates and a few numbers of workers say of emulated links, and of their host, at others.

Rules this module obeys:

* Links were probed at their nominal rate and at a lower one (``Profile.ranges["link_rate"]``); between
  and beyond the two a byte takes a share of its time on the wire, and a time of its own.
* A ring goes at the pace of its slowest NIC. How late its messages ask falls with that pace, and so with how
  busy they keep the host's cores, as a power that the ring of most workers was probed for at both rates.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scenarios.cluster import Cluster
    from scenarios.profile import Profile

__all__ = ["beside", "carried", "crowded", "handover", "moved", "ring_lag"]


def carried(profile: Profile, kind: str, nominal: float) -> float:
    """Bytes/s that a link of a ``nominal`` rate really carries.

    What a byte takes of its own, however fast the link is (the host's work between one message and the
    next), counts for less on slow links. Without a probe at a lower rate: the same share of every rate.
    Never more than ``nominal``: an emulated link allows no more, and what says so was disturbed.
    """
    share = min(profile.value(f"link.{kind}.efficiency", 1.0), 1.0)
    slow = min(profile.value(f"link.{kind}.efficiency.slow", share), 1.0)
    low, high = profile.ranges.get("link_rate", (0.0, 0.0))
    if not (0 < low < high and share < slow):
        return nominal * share
    fastest, slowest = 1 / (share * high), 1 / (slow * low)
    wire = (slowest - fastest) / (1 / low - 1 / high)
    own = max(fastest - wire / high, 0.0)
    return min(1 / (wire / nominal + own), nominal)


def ring_lag(profile: Profile, cluster: Cluster, kind: str) -> float:
    """Seconds by which messages of a ring ask late, in the mean, at the rates that ``cluster`` has.

    As probed at the nominal rate, by number of workers; without a probe at a lower rate in proportion to it.
    """
    used = [cluster.machines[place] for place in cluster.placement]
    high = profile.ranges.get("link_rate", (0.0, 0.0))[1]
    pace = min(min(machine.up, machine.down) for machine in used) / high if high else 1.0
    lag = profile.by_workers(f"ring.{kind}.lag", cluster.workers)
    return float(lag * min(pace, 1.0) ** _power(profile, f"ring.{kind}.lag"))


def handover(profile: Profile, workers: int, kind: str) -> float:
    """Seconds for which a link rests where it is handed over, as probed with as many senders as ``workers``.

    One sender hands over to nobody; between the numbers that were probed it lies on a line.
    """
    points = {1: 0.0, **profile.points(f"hub.{kind}.handover")}
    return float(np.interp(workers, sorted(points), [points[n] for n in sorted(points)]))


def _power(profile: Profile, name: str) -> float:
    """Of the pace, with which the lag ``name`` falls: between 0, not at all, and 1, in proportion."""
    low, high = profile.ranges.get("link_rate", (0.0, 0.0))
    found = []
    for key, slow in profile.constants.items():
        fast = profile.value(key.removesuffix(".slow"))
        if key.startswith(name) and key.endswith(".slow") and slow.value and fast and 0 < low < high:
            found.append(math.log(fast / slow.value) / math.log(high / low))
    return min(max(found[-1], 0.0), 1.0) if found else 1.0


def crowded(profile: Profile) -> tuple[int, tuple[float, ...]]:
    """Cores of the host, and what 1, 2, ... jobs at once get done on them: see ``Host``.

    The share of their cores that is lost lies on a line between the numbers of workers probed.
    """
    value = profile.value("device.slots")
    points = profile.points("device.slots") or {math.ceil(value): value}
    cores = int(profile.hardware.get("cores") or math.ceil(max(points.values())))
    used = {1: 1.0, **{n: slots / min(n, cores) for n, slots in points.items()}}
    jobs = np.arange(1, max(*used, cores) + 1)
    found = np.minimum(jobs, cores) * np.interp(jobs, list(used), list(used.values()))
    return cores, tuple(found.tolist())


def moved(profile: Profile, kind: str) -> tuple[float, float]:
    """Seconds of a core per byte, and cores while a message moves.

    Bytes that come more slowly cost more each, for their ends are woken as often: what a byte costs
    is taken for a fixed part and one that is inverse to the rate.
    """
    fast = profile.value(f"host.{kind}.byte_cost")
    slow = profile.value(f"host.{kind}.byte_cost.slow", fast)
    low, high = profile.ranges.get("link_rate", (0.0, 0.0))
    if not 0 < low < high:
        return fast, 0.0
    moving = min(max((slow - fast) / (1 / low - 1 / high), 0.0), fast * high)
    return fast - moving / high, moving


def beside(profile: Profile, kind: str) -> tuple[float, ...]:
    """How many times the processor time of messages 1, 2, ... steps lose beside them: see ``Host``.

    Usually less than once where a core is idle, as messages move there; and where none is, too, as ends that
    are woken late find more to do at a time. In the same ratio at all rates, for it is probed at one. Once
    where no core is idle and that was not probed.
    """
    cost, cores = profile.value(f"host.{kind}.byte_cost"), int(profile.hardware.get("cores") or 0)
    points = {n: value / cost for n, value in profile.points(f"host.{kind}.beside").items() if cost}
    if not points:
        return ()
    if cores:
        points = {cores: 1.0, **{n: times for n, times in points.items() if n <= cores}}
    jobs = range(1, max(points) + 1)
    return tuple(np.interp(jobs, sorted(points), [points[n] for n in sorted(points)]).tolist())

"""What probes at two rates and a few numbers of workers say of emulated links at others.

Rules this module obeys:

* Links were probed at their nominal rate and at a lower one (``Profile.ranges["link_rate"]``); between
  and beyond the two a byte takes a share of its time on the wire, and a time of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scenarios.profile import Profile

__all__ = ["carried"]


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

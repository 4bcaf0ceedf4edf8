"""How a direction of a link is held to its rate by the kernel.

Rules this module obeys:

* Rates are of the wire, bytes/s with Ethernet headers. A message's own bytes get ``GOODPUT`` of that.
* One message at a time: a token bucket (``tbf``), first in, first out. Its burst is at least 128 KiB:
  with less the kernel splits segments and saturates the processor. So an idle link is ahead by a
  burst: 1 ms at 1 Gbit/s, 5 ms at 200 Mbit/s.
* Many at a time, fairly: ``htb`` with a leaf per peer, found by the peer's address (``u32``). TCP's own
  fairness is poor.
* Queues hold what a dozen senders' buffers may put there (``htb``: 1000 segments per leaf), so that next to
  nothing is dropped for want of room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["BURST", "GOODPUT", "HIGHEST", "LOWEST", "MTU", "shape"]

MTU = 9000
GOODPUT = (MTU - 52) / (MTU + 14)
"""Share of a link's rate that is TCP payload: IP and TCP headers with time stamps, Ethernet header."""

LOWEST, HIGHEST = 125e3, 4e9
"""Rates that can be played, bytes/s: 1 Mbit/s to 32 Gbit/s (beyond them the kernel's fields overflow)."""

BURST = 128 << 10
_BURST_SECONDS = 0.5e-3
_QUANTUM = 32768
_LIMIT = 8 << 20
_ROOT, _PARENT, _FIRST_LEAF, _REST = 0x10000, 0x10001, 0x10010, 0x1000F
_ETH_P_IP = 0x0800
SOURCE, DESTINATION = 12, 16
"""Where an IPv4 header holds the address that tells peers apart: of what comes, and of what goes."""


def shape(
    kernel: Any, index: int, rate: float, *, peers: Sequence[str] = (), field: int = DESTINATION
) -> None:
    """Hold what leaves by interface ``index`` to ``rate`` (bytes/s); infinite: leave it alone.

    kernel  pyroute2's ``IPRoute``
    peers   addresses among which it is shared fairly; without any, first in, first out
    field   which address of a packet is the peer's: ``SOURCE`` or ``DESTINATION``
    """
    if math.isinf(rate):
        return
    burst = max(BURST, int(rate * _BURST_SECONDS))
    if not peers:
        limit = max(_LIMIT, burst)
        kernel.tc("add", "tbf", index, handle=_ROOT, rate=int(rate), burst=burst, limit=limit)
        return
    kernel.tc("add", "htb", index, _ROOT, default=_REST)
    settings = {"rate": int(rate), "ceil": int(rate), "burst": burst, "cburst": burst, "quantum": _QUANTUM}
    kernel.tc("add-class", "htb", index, _PARENT, parent=_ROOT, **settings)
    share = {**settings, "rate": max(1, int(rate / (len(peers) + 1)))}
    leaves = [(_REST, ""), *((_FIRST_LEAF + i, peer) for i, peer in enumerate(peers))]
    for leaf, peer in leaves:
        kernel.tc("add-class", "htb", index, leaf, parent=_PARENT, **share)
        if peer:
            a, b, c, d = (int(part) for part in peer.split("."))
            key = f"0x{(a << 24) + (b << 16) + (c << 8) + d:08x}/0xffffffff+{field}"
            kernel.tc(
                "add-filter", "u32", index, parent=_ROOT, prio=10, protocol=_ETH_P_IP, target=leaf, keys=[key]
            )

"""How a direction of a link is held to its rate by the kernel.

Rules this module obeys:

* Rates are of the wire, bytes/s with Ethernet headers. A message's own bytes get ``GOODPUT`` of that.
* The rate is that of an ``htb`` root class. Its burst is at least 128 KiB: with less the kernel splits
  segments and saturates the processor. So an idle link is ahead by a burst: 1 ms at 1 Gbit/s, 5 ms at
  200 Mbit/s.
* TCP's bare acknowledgements pass all others. Behind data in the same queue they would wait for so long
  that send buffers run out, and a slow up-link would slow what its machine receives.
* So do packets marked ``URGENT``, in which grants travel against the data. All packets of one direction
  of a connection are marked or none is, so that none overtakes another of its own.
* All other packets share one queue, first in, first out; or, to share the link fairly, one queue per
  peer, found by the peer's address (``u32``): TCP's own fairness is poor.
* A queue holds a thousand segments, more than all senders' buffers: nothing is dropped for want of room.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from typing import Any

__all__ = [
    "BURST", "DESTINATION", "FIRST", "GOODPUT", "HIGHEST", "LOWEST", "MTU", "PASSING", "SOURCE", "URGENT",
    "shape",
]  # fmt: skip

MTU = 9000
GOODPUT = (MTU - 52) / (MTU + 14)
"""Share of a link's rate that is TCP payload: IP and TCP headers with time stamps, Ethernet header."""

LOWEST, HIGHEST = 125e3, 4e9
"""Rates that can be played, bytes/s: 1 Mbit/s to 32 Gbit/s (beyond them the kernel's fields overflow)."""

BURST = 128 << 10
_BURST_SECONDS = 0.5e-3

URGENT = 0x10
"""Type of service (low delay) of packets that pass others."""

SOURCE, DESTINATION = 12, 16
"""Where an IPv4 header holds the address that tells peers apart: of what comes, and of what goes."""

PASSING, FIRST = 0x10002, 0x10010
"""Handles of classes: of what passes, and of the first queue of all else."""

_QUANTUM = 32768
_ROOT, _ALL = 0x10000, 0x10001
_PASSING_SHARE = 0.1
_ACKNOWLEDGEMENTS = (5, 8, 11, 13, 15)
"""Words of a TCP header: without options, with time stamps, and with one to three blocks of SACK."""
_ETH_P_IP = 0x0800


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
    keys = [f"0x{_number(peer):08x}/0xffffffff+{field}" for peer in peers] or ["0x0/0x0+0"]
    share = rate * (1 - _PASSING_SHARE) / len(keys)
    kernel.tc("add", "htb", index, _ROOT, default=PASSING)
    _add_class(kernel, index, _ALL, _ROOT, rate, rate)
    _add_class(kernel, index, PASSING, _ALL, rate * _PASSING_SHARE, rate, prio=0)
    _add_filter(kernel, index, 1, PASSING, f"0x{URGENT:02x}/0xff+1")
    for words in _ACKNOWLEDGEMENTS:
        _add_filter(kernel, index, 1, PASSING, *_bare(words))
    for leaf, key in enumerate(keys, FIRST):
        _add_class(kernel, index, leaf, _ALL, share, rate, prio=1)
        _add_filter(kernel, index, 2, leaf, key)


def _add_class(
    kernel: Any, index: int, handle: int, parent: int, rate: float, most: float, prio: int = 0
) -> None:
    """A share of the link: ``rate`` is its own, up to ``most`` what others leave."""
    burst = max(BURST, int(most * _BURST_SECONDS))
    kernel.tc(
        "add-class", "htb", index, handle, parent=parent, rate=int(rate), ceil=int(most),
        burst=burst, cburst=burst, quantum=_QUANTUM, prio=prio,
    )  # fmt: skip


def _add_filter(kernel: Any, index: int, order: int, target: int, *keys: str) -> None:
    """Put packets that match all ``keys`` (value/mask+offset, in bytes) into a class; low orders first."""
    kernel.tc(
        "add-filter", "u32", index, parent=_ROOT, prio=order, protocol=_ETH_P_IP, target=target, keys=[*keys]
    )


def _bare(words: int) -> list[str]:
    """Keys of an IPv4 packet that is a TCP header of so many words with nothing but ACK set, and no data."""
    length = 20 + 4 * words
    return [
        "0x45/0xff+0", f"0x{length:04x}/0xffff+2", f"0x{socket.IPPROTO_TCP:02x}/0xff+9",
        f"0x{words << 4:02x}/0xf0+32", "0x10/0xff+33",
    ]  # fmt: skip


def _number(address: str) -> int:
    a, b, c, d = (int(part) for part in address.split("."))
    return (a << 24) + (b << 16) + (c << 8) + d

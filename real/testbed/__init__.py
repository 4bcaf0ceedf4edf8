"""A test-bed on one machine: network namespaces whose links are shaped by the kernel.

    from real.testbed import Nic, Testbed

    with Testbed([Nic(up=25e6, down=25e6), Nic(up=125e6, down=12.5e6)]) as bed:
        ...  # bed.places: where to put processes, and under which addresses they find each other

It needs Linux, root and pyroute2; ``unavailable()`` says what is missing. docs/testbed.md describes it.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.util import find_spec

from real.testbed.bed import MOST, Nic, Testbed, check_nics, clean
from real.testbed.places import Place, enter, verify, within
from real.testbed.shaping import BURST, GOODPUT, HIGHEST, LOWEST, MTU

__all__ = [
    "BURST", "GOODPUT", "HIGHEST", "LOWEST", "MOST", "MTU", "Nic", "Place", "Testbed", "check_nics",
    "clean", "enter", "forbidden", "unavailable", "verify", "within",
]  # fmt: skip


def unavailable() -> str | None:
    """Why there can be no test-bed here, in words; None where there can be one.

    The kernel is asked by building the smallest one.
    """
    return forbidden() or _refused()


def forbidden() -> str | None:
    """Why this process cannot even try, in words; None where it can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if find_spec("pyroute2") is None:
        return "it needs pyroute2; install it with: pip install 'aladdin[testbed]'"
    return None


@lru_cache
def _refused() -> str | None:
    """What the kernel says to the smallest test-bed; asked once."""
    from real.errors import TransportError

    try:
        Testbed([Nic(125e6, 125e6)] * 2).close()
    except TransportError as error:
        return str(error)
    return None

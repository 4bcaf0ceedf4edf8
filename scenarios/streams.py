"""Named streams of random numbers: one per (seed, node, purpose), independent of each other.

Rules this module obeys:

* Nobody shares a stream, so what one part draws never changes what another part sees, and the
  order of calls between nodes does not matter.
* A purpose is text; it enters by its CRC-32, which is the same on every machine and run.
* ``node`` -1 stands for the run as a whole (initial parameters, data split).
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

__all__ = ["RUN", "stream"]

RUN = -1
"""The node number of streams that belong to the whole run."""


def stream(seed: int, node: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator of (seed, node, purpose), at its beginning; ``index`` numbers blocks or epochs."""
    key = (node + 1, crc32(purpose.encode()), index) if index else (node + 1, crc32(purpose.encode()))
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))

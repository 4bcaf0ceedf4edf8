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

__all__ = ["RUN", "Seed", "another", "stream"]

Seed = int | tuple[int, int]
"""What streams grow from: a run's seed, or that and the number of a further draw."""

RUN = -1
"""The node number of streams that belong to the whole run."""


def another(seed: int, draw: int) -> Seed:
    """The seed of draw number ``draw`` of what is random for no run to repeat; 0 is the run's own."""
    return (seed, draw) if draw else seed


def stream(seed: Seed, node: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator of (seed, node, purpose), at its beginning; ``index`` numbers blocks or epochs."""
    key = (node + 1, crc32(purpose.encode()), index) if index else (node + 1, crc32(purpose.encode()))
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))

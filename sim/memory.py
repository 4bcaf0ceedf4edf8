"""The garbage collector, kept from looking at what lives as long as a run.

Rules this module obeys:

* A run makes no cycles of its own but what lasts to its end; what algorithms or tensors may make is
  still collected, only less often.
* What was set before is set again afterwards, whatever happens.
* What runs leave behind is in the collector's oldest generation, where it hardly ever looks by itself: so
  now and then a run that has ended makes it look; and one with tensors does before it makes its own, where
  those before it had large ones, which count as single objects.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LEFT", "Room", "seldom", "undisturbed"]

SELDOM = 50_000
"""Objects that a run makes, over those that it lets go, between two looks of the collector."""

OFTEN = 32
"""Runs between two looks at all that they left behind."""

LEFT = 2**28
"""Bytes that tensors of ended runs may hold before the next run makes the collector look for them."""

_runs = itertools.count(1)


class Room:
    """Bytes of tensors of all runs since the collector last looked for those that have ended."""

    def __init__(self, most: int = LEFT) -> None:
        self._most, self._made = most, 0

    def make(self, size: int) -> None:
        """A run is about to make tensors of ``size`` bytes: what others left goes first, if it is much."""
        if self._made > self._most:
            gc.collect()
            self._made = 0
        self._made += size


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without collection: for building what stays."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextmanager
def seldom() -> Iterator[None]:
    """With few collections, none of which looks at what there is now."""
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    if not frozen:  # what the caller froze stays frozen
        gc.freeze()
    gc.set_threshold(max(SELDOM, thresholds[0]) if thresholds[0] else 0, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if not frozen:
            gc.unfreeze()
            if thresholds[0] and gc.isenabled() and next(_runs) % OFTEN == 0:
                gc.collect()

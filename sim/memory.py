"""The garbage collector, kept from looking at what lives as long as a run.

Rules this module obeys:

* A run makes no cycles of its own but what lasts to its end; what algorithms or tensors may make is
  still collected, only less often.
* What was set before is set again afterwards, whatever happens.
* What runs leave behind is in the collector's oldest generation, where it hardly ever looks by itself: so
  now and then a run that has ended makes it look.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["seldom", "undisturbed"]

SELDOM = 50_000
"""Objects that a run makes, over those that it lets go, between two looks of the collector."""

OFTEN = 32
"""Runs between two looks at all that they left behind."""

_runs = itertools.count(1)


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

"""The phases of a transfer, in a module of their own: all of the network refers to them."""

from __future__ import annotations

__all__ = [
    "ASKING", "CALLING", "FLOWING", "HELD", "OVER", "PARKED", "QUEUED", "STALLED", "STARTING", "TIMED",
]  # fmt: skip

QUEUED, CALLING, ASKING, STARTING, TIMED, FLOWING, OVER, HELD, PARKED, STALLED = range(10)
"""Phases of a transfer: queued; its request on its way over a busy host; asked for a grant; in
latency or overhead; moving, alone on its path or with others; delivered or dropped; (``HELD``) one that
stands for nothing, but keeps the others of its pair from moving; and, while an end of its path is silent
(``sim.silence``), waiting without slots, or granted and in its slots."""

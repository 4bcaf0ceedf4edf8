"""What can go wrong in a real run, beyond bad input (``scenarios.errors.ScenarioError``)."""

from __future__ import annotations

from core.record import Record

__all__ = ["Interrupted", "Refused", "Replayed", "TransportError", "WireError", "misfit"]


class WireError(ValueError):
    """A frame that is not one of ours, or not one that was agreed: dropped, its sender cut off."""


class Replayed(WireError):
    """A frame that was handled before: dropped and counted, no more."""


class TransportError(RuntimeError):
    """A run that cannot go on: a server is gone, nothing moves any more, a process does not start.

    ``record`` holds what was finished by then; None where nothing had begun.
    """

    record: Record | None = None


class Refused(TransportError):
    """Node ``by`` got a frame of node ``peer`` that does not fit what was agreed."""

    def __init__(self, by: int, peer: int, why: str) -> None:
        super().__init__(f"node {by} had to refuse a frame of node {peer}: {why}")
        self.by, self.peer = by, peer


class Interrupted(Exception):
    """The run was stopped from outside (Ctrl-C); ``record`` holds what was finished by then."""

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message)
        self.record = record


def misfit(old: bool, what: str) -> WireError:
    """Why a frame does not fit: it is ``old``, so it came before, or it is made up."""
    return (Replayed if old else WireError)(what)

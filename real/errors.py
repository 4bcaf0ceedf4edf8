"""What can go wrong in a real run, beyond bad input (``scenarios.errors.ScenarioError``)."""

from __future__ import annotations

from core.record import Record

__all__ = ["Interrupted", "TransportError", "WireError"]


class WireError(ValueError):
    """A frame that is not one of ours, or not one that was agreed: dropped, its sender cut off."""


class TransportError(RuntimeError):
    """A run that cannot go on: a server is gone, nothing moves any more, a process does not start.

    ``record`` holds what was finished by then; None where nothing had begun.
    """

    record: Record | None = None


class Interrupted(Exception):
    """The run was stopped from outside (Ctrl-C); ``record`` holds what was finished by then."""

    def __init__(self, message: str, record: Record) -> None:
        super().__init__(message)
        self.record = record

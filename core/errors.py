"""Errors that the core raises about what it was given; ``scenarios`` turns them into ScenarioError."""

from __future__ import annotations

from typing import Any

__all__ = ["OptionError", "require"]


class OptionError(ValueError):
    """An option has a value that is not valid: names the field, the value and what would be valid."""

    def __init__(self, field: str, value: Any, valid: str) -> None:
        super().__init__(f"{field}: {value!r} is not valid; expected {valid}")
        self.field, self.value, self.valid = field, value, valid


def require(field: str, value: Any, holds: bool, valid: str) -> None:
    """Raise ``OptionError`` unless ``holds``; a comparison with NaN does not hold."""
    if not holds:
        raise OptionError(field, value, valid)

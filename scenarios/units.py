"""Quantities with units: text in, SI base units (seconds, bytes, bytes per second) out.

Rules this module obeys:

* A bare number is in the base unit. Text is a number and a unit, ``10 Gbit/s``, with or without
  the blank. ``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` powers of 1024; a bit is 1/8 byte.
* Upper and lower case matter where they mean something (``b`` is never accepted for a byte).
* Units of another dimension are refused by name: a size where a rate is expected is an error.
* Conversion is exact: ``50 us`` is the float 5e-05, as if written so.
* No registry of dimensions and no arithmetic: quantities are plain floats once read.
"""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException
from typing import Any

from scenarios.errors import ScenarioError, suggestion

__all__ = ["DIMENSIONS", "quantity"]

_PREFIXES = {"": Decimal(1), "k": Decimal(10**3), "K": Decimal(10**3), "M": Decimal(10**6),
             "G": Decimal(10**9), "T": Decimal(10**12)}  # fmt: skip
_BINARY = {"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40)}
_SIZES = {p + "B": f for p, f in (_PREFIXES | _BINARY).items()} | {
    p + "bit": f / 8 for p, f in _PREFIXES.items()
}
_RATES = {unit + "/s": f for unit, f in _SIZES.items()} | {p + "bps": f / 8 for p, f in _PREFIXES.items()}
_SECONDS = {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"),
            "ns": Decimal("1e-9"), "min": Decimal(60), "h": Decimal(3600)}  # fmt: skip

DIMENSIONS = {"seconds": _SECONDS, "bytes": _SIZES, "bytes/s": _RATES}
"""Units by dimension: name of the unit -> factor to the base unit."""

_EXAMPLES = {"seconds": "50 ms", "bytes": "553 MB", "bytes/s": "10 Gbit/s"}
_TEXT = re.compile(
    r"\s*([-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:inf|nan))\s*(.*?)\s*", re.ASCII
)


def quantity(value: Any, dimension: str, field: str = "") -> float:
    """``value`` (a number, or text with a unit) in the base unit of ``dimension``.

    Raises ``ScenarioError`` with the path ``field`` for what is no number, an unknown unit, or a
    unit of another dimension. Range and finiteness are the field's business, not the unit's.
    """
    try:
        return _converted(value, dimension, field)
    except (OverflowError, DecimalException):
        raise ScenarioError(field, value, f"a quantity such as {_EXAMPLES[dimension]!r}") from None


def _converted(value: Any, dimension: str, field: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = _TEXT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ScenarioError(field, value, f"a quantity such as {_EXAMPLES[dimension]!r}")
    number, unit = Decimal(match[1].replace("_", "")), match[2].replace(" ", "")
    units = DIMENSIONS[dimension]
    if not unit:
        return float(number)
    if unit not in units:
        for other, names in DIMENSIONS.items():
            if unit in names:
                raise ScenarioError(
                    field, value, f"{dimension}, such as {_EXAMPLES[dimension]!r}, not {other}"
                )
        raise ScenarioError(field, value, hint=f"has an unknown unit — {suggestion(unit, units)}")
    return float(number * units[unit])

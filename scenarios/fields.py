"""Kinds of field: how a scenario's values are read, normalised and checked.

Rules this module obeys:

* A dataclass states the kind of each field beside its default (``whole(4, low=1)``); ``check``, called
  from ``__post_init__``, normalises and validates them all. So text with units, YAML and Python
  values go through one door and give equal objects.
* A kind is a function (value, field name) -> normalised value that raises ``ScenarioError``.
* ``build`` makes a dataclass from a mapping, ``plain`` a JSON-ready mapping from a dataclass;
  ``build(cls, plain(x)) == x``.
* Where a number may be without bound, it is written ``unlimited``.
* Every other number has an upper bound, its own or ``LARGEST``: generous, and far below where sums and
  products of such numbers lose their meaning. Rates have a lower bound, too.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from scenarios.errors import ScenarioError, unknown, unknown_field
from scenarios.units import quantity

__all__ = [
    "LARGEST", "SLOWEST", "Kind", "amount", "boolean", "build", "check", "choice", "each", "integer",
    "listed", "nested", "number", "numbers", "of_kind", "one_of", "plain", "real", "sequence",
    "table", "text", "whole",
]  # fmt: skip

LARGEST = {"": 1e12, "seconds": 1e9, "bytes": 1e18, "bytes/s": 1e18}
"""Upper bounds by dimension: a plain number; 32 years; an exabyte; an exabyte per second."""

SLOWEST = 1e-3
"""Lower bound of rates, bytes/s; 0 where that has a meaning of its own."""

Kind = Callable[[Any, str], Any]
T = TypeVar("T")


def of_kind(default: Any, reads: Kind) -> Any:
    """A dataclass field with ``default`` whose values are read by ``reads``."""
    return dataclasses.field(default=default, metadata={"kind": reads})


def _as_number(value: Any, name: str, valid: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ScenarioError(name, value, valid) from None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or _beyond_floats(value):
        raise ScenarioError(name, value, valid)
    return value


def _beyond_floats(value: float) -> bool:
    """Whether a whole number is too large for what is computed with it."""
    return isinstance(value, int) and abs(value) > sys.float_info.max


def integer(low: int, high: float = LARGEST[""], unlimited: bool = False) -> Kind:
    """Whole numbers in [low, high]; with ``unlimited`` also that word (infinity)."""
    valid = f"a whole number of at least {low}" + (" or 'unlimited'" if unlimited else "")
    beyond = f"a whole number of at most {int(high)}"

    def read(value: Any, name: str) -> float:
        if unlimited and (value == "unlimited" or value == math.inf):
            return math.inf
        found = _as_number(value, name, valid)
        if not math.isfinite(found) or found != int(found) or found < low:
            raise ScenarioError(name, value, valid)
        if found > high:
            raise ScenarioError(name, value, beyond)
        return int(found)

    return read


def real(
    low: float = -math.inf, high: float | None = None, above: float = -math.inf, dimension: str = ""
) -> Kind:
    """Finite numbers in [low, high], greater than ``above``; with a dimension, text with units too.

    ``high`` is at most, and by default, ``LARGEST`` of the dimension.
    """
    high = LARGEST[dimension] if high is None else high
    bounds = [f"above {above:g}"] if math.isfinite(above) else []
    bounds += [f"of at least {low:g}"] if math.isfinite(low) else []
    rate = dimension == "bytes/s"
    what = {"": "a finite number", "seconds": "a finite time in seconds", "bytes": "a finite size in bytes",
            "bytes/s": "a finite rate in bytes/s"}[dimension]  # fmt: skip
    valid = f"{what} {' and '.join(bounds)}".strip()

    def read(value: Any, name: str) -> float:
        found = quantity(value, dimension, name) if dimension else float(_as_number(value, name, valid))
        if not (math.isfinite(found) and low <= found and found > above):
            raise ScenarioError(name, value, valid)
        if found > high:
            raise ScenarioError(name, value, f"{what} of at most {high:g}")
        if rate and 0 < found < SLOWEST:
            raise ScenarioError(name, value, f"{what} of at least {SLOWEST:g}")
        return found

    return read


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ScenarioError(name, value, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ScenarioError(name, value, "text that can be written in UTF-8") from None
    return value


def _boolean(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ScenarioError(name, value, "true or false")
    return value


def sequence(item: Kind) -> Kind:
    """Tuples of ``item``; a single value stands for a tuple of one."""

    def read(value: Any, name: str) -> tuple[Any, ...]:
        if isinstance(value, (str, int, float, Mapping)):
            value = (value,)
        if not isinstance(value, (list, tuple)):
            raise ScenarioError(name, value, "a list")
        return tuple(item(v, f"{name}[{i}]") for i, v in enumerate(value))

    return read


_FROM_TO = re.compile(r"\s*(\d{1,12})\s*-\s*(\d{1,12})\s*", re.ASCII)


def numbers(high: int) -> Kind:
    """Tuples of whole numbers in [0, high]; text such as ``8-15`` stands for all of them, both included."""
    single = integer(0, high)

    def item(value: Any, name: str) -> Sequence[int]:
        match = _FROM_TO.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return (single(value, name),)
        first, last = (int(single(end, name)) for end in match.groups())
        if last < first:
            raise ScenarioError(name, value, "a range whose end is not below its beginning, such as 8-15")
        return range(first, last + 1)

    def read(value: Any, name: str) -> tuple[int, ...]:
        return tuple(chain.from_iterable(sequence(item)(value, name)))

    return read


def whole(default: int, low: int = 0, high: float = LARGEST[""]) -> Any:
    """A whole number in [low, high]."""
    return of_kind(default, integer(low, high))


def number(default: float, **bounds: float) -> Any:
    """A finite number; bounds as for ``real``."""
    return of_kind(default, real(**bounds))  # type: ignore[arg-type]


def amount(default: float, dimension: str, **bounds: float) -> Any:
    """A quantity of ``dimension`` (seconds, bytes, bytes/s), at least 0 unless bounds say otherwise."""
    return of_kind(default, real(dimension=dimension, **(bounds or {"low": 0.0})))


def one_of(*names: str) -> Kind:
    """One of the given names."""

    def read(value: Any, name: str) -> str:
        if value not in names:
            raise unknown(name, value, names)
        return str(value)

    return read


def choice(default: str, *names: str) -> Any:
    """One of the given names."""
    return of_kind(default, one_of(*names))


def text(default: str = "") -> Any:
    """Any text."""
    return of_kind(default, _text)


def boolean(default: bool) -> Any:
    """True or false, never a word that reads like it."""
    return of_kind(default, _boolean)


def listed(item: Kind) -> Any:
    """A tuple of ``item``, empty by default."""
    return of_kind((), sequence(item))


def _table(item: Kind, names: tuple[str, ...]) -> Kind:
    def read(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ScenarioError(name, value, "a table of names and values")
        for key in value:
            if key not in names:
                raise unknown_field(f"{name}.{key}", names)
        return {str(key): item(v, f"{name}.{key}") for key, v in value.items()}

    return read


def table(item: Kind, *names: str) -> Any:
    """A mapping from some of ``names`` to ``item``, empty by default."""
    return dataclasses.field(default_factory=dict, metadata={"kind": _table(item, names)})


def _instance(cls: type[Any]) -> Kind:
    def read(value: Any, name: str) -> Any:
        if isinstance(value, cls):
            return value
        try:
            return build(cls, value)
        except ScenarioError as error:
            raise error.under(name) from error.__cause__

    return read


def nested(cls: type[T], default: Callable[[], T] | None = None) -> Any:
    """A dataclass, given as such or as a mapping."""
    return dataclasses.field(default_factory=default or cls, metadata={"kind": _instance(cls)})


def each(cls: type[Any]) -> Any:
    """A tuple of dataclasses, empty by default."""
    return listed(_instance(cls))


def check(self: Any) -> None:
    """Normalise and validate every field of a (frozen) dataclass in place; for ``__post_init__``."""
    for field in dataclasses.fields(self):
        reads = field.metadata.get("kind")
        if reads is not None:
            object.__setattr__(self, field.name, reads(getattr(self, field.name), field.name))


def build(cls: type[T], tree: Any) -> T:
    """``cls`` from a mapping of its fields; unknown names are refused with near misses.

    A class may offer ``expand(tree) -> tree`` to read further, more compact spellings.
    """
    if not isinstance(tree, Mapping):
        raise ScenarioError("", tree, "a table of fields")
    expand = getattr(cls, "expand", None)
    values = expand(dict(tree)) if expand else dict(tree)
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise unknown_field(str(name), [*known, *getattr(cls, "ALSO", ())])
    return cls(**values)


def plain(value: Any) -> Any:
    """JSON-ready form: mappings, lists, numbers, text; infinity as ``unlimited``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compact = getattr(value, "compact", None)
        tree = compact() if compact else {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return plain(tree)
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return "unlimited" if value == math.inf else value

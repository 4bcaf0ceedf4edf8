"""ScenarioError: what is wrong with a scenario, where, and what would be valid.

Rules this module obeys:

* One exception for all bad input. It names the field's full path, the value and what is valid,
  and near misses where a name is unknown.
* A message is one line that can be read, whatever the value: long ones are cut in the middle.
* Values know nothing of where they stand: an error starts with the field's own name, and whoever
  builds the enclosing object puts its path in front (``under``).
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

__all__ = ["ScenarioError", "suggestion", "unknown", "unknown_field"]

_MISSING = object()


class _Short(reprlib.Repr):
    """``repr``, cut where it is long; numbers of thousands of digits, which Python refuses to print."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 4, 12, 12, 12
        self.maxstring = self.maxother = self.maxlong = 120

    def repr_int(self, x: int, level: int) -> str:
        if abs(x) < 10**40:
            return repr(x)
        start = repr(x)[:8] if x.bit_length() < 10_000 else ""
        return f"{start}... (about {int(x.bit_length() * 0.30103) + 1} digits)"


_short = _Short()


def _shown(value: Any) -> str:
    """``value`` as it is written in a file, short."""
    return "null" if value is None else _short.repr(value)


class ScenarioError(ValueError):
    """Bad input. ``ScenarioError("free text")`` or ``ScenarioError(path, value, valid, hint=...)``.

    path   field path with dots, such as ``cluster.workers``
    value  what was found there
    valid  what would be valid, after the words "expected ..."
    hint   replaces "is not valid; expected ..." altogether
    """

    def __init__(self, path: str, value: Any = _MISSING, valid: str = "", *, hint: str = "") -> None:
        self.path, self.value, self.valid, self.hint = path, value, valid, hint
        super().__init__(path)

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        if self.value is _MISSING:
            return f"{where}{self.hint}" if self.hint else self.path
        if self.hint:
            return f"{where}{_shown(self.value)} {self.hint}"
        expected = f"; expected {self.valid}" if self.valid else ""
        return f"{where}{_shown(self.value)} is not valid{expected}"

    def under(self, prefix: str) -> ScenarioError:
        """The same error one level further out: ``workers`` becomes ``cluster.workers``."""
        joint = "" if not prefix or not self.path or self.path.startswith("[") else "."
        if self.value is _MISSING and not self.hint:
            return ScenarioError(prefix, hint=self.path)
        error = ScenarioError(f"{prefix}{joint}{self.path}", self.value, self.valid, hint=self.hint)
        error.__cause__ = self.__cause__
        return error


def near(name: object, known: Iterable[str]) -> str:
    """The known name that ``name`` may have been meant to be, or nothing."""
    names = {other.lower(): other for other in sorted(known)}
    found = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return names[found[0]] if found else ""


def suggestion(name: object, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known name is near, else the list of all that there is."""
    names = sorted(set(known))
    close = near(name, names)
    return f"did you mean {close!r}?" if close else f"known: {', '.join(names) or 'none'}"


def unknown(path: str, name: object, known: Iterable[str]) -> ScenarioError:
    """The error for a value that is not among the names ``known``; of more than 30 it tells the first."""
    names = list(known)
    if near(name, names):
        return ScenarioError(path, name, hint=f"— {suggestion(name, names)}")
    told = sorted(names) if len(names) <= 30 else [*names[:30], f"... ({len(names):,} in all)"]
    return ScenarioError(path, name, f"one of {', '.join(told)}")


def unknown_field(name: str, known: Iterable[str]) -> ScenarioError:
    """The error for a field that does not exist."""
    return ScenarioError(name, hint=f"no such field — {suggestion(name.rsplit('.', 1)[-1], known)}")

"""A section of the report: tables, claims with their status, pictures as data, notes.

Rules this module obeys:

* Cells of a table are text, numbers, None (unknown) or estimates over seeds (``analysis.seeds.estimate``);
  how they are shown is decided here, once.
* A claim holds, does not, or cannot be tested (``holds`` is True, False or None); nothing else says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Claim", "Picture", "Section", "Series", "Table", "error", "mean_of", "shown"]

ROUND_OFF = 1e-9
"""Half an interval over its mean, below which runs are alike and only their sums differ."""


@dataclass(frozen=True)
class Table:
    """``rows`` under ``columns``; ``note`` says how to read it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(r) for r in self.rows],
                "note": self.note}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """What a paper says, where, whether it holds here (None: not testable), and the evidence."""

    text: str
    source: str
    holds: bool | None
    evidence: str

    @property
    def status(self) -> str:
        """In words."""
        return "not testable here" if self.holds is None else "reproduced" if self.holds else "not reproduced"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"claim": self.text, "source": self.source, "status": self.status, "evidence": self.evidence}


@dataclass(frozen=True)
class Series:
    """One line or group of bars: ``points`` are (x, y) or (x, y, half of the interval).

    ``look`` names the algorithm in whose colour it is drawn; ``faint`` is for published values.
    """

    label: str
    points: Sequence[tuple[Any, ...]]
    look: str = ""
    faint: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture as data: panels of series.

    kind    lines | bars | stack
    panels  title -> series
    log     axes that are logarithmic: "", "x", "y" or "xy"
    line    draw y = x (linear speed-up)
    """

    name: str
    title: str
    panels: Mapping[str, Sequence[Series]]
    x: str
    y: str
    kind: str = "lines"
    log: str = ""
    line: bool = False


@dataclass(frozen=True)
class Section:
    """One table or figure of a paper, ours beside theirs."""

    name: str
    title: str
    source: str
    tables: Sequence[Table] = ()
    claims: Sequence[Claim] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; ``figures`` are whatever a test or another section may want to read."""
        return {
            "name": self.name, "title": self.title, "source": self.source,
            "tables": [table.to_dict() for table in self.tables],
            "claims": [claim.to_dict() for claim in self.claims],
            "notes": list(self.notes), "commands": list(self.commands), "figures": dict(self.figures),
        }  # fmt: skip


def error(ours: Any, theirs: float) -> float:
    """Relative error of ``ours`` (a number or an estimate): 0.05 is five per cent more than published."""
    return float(mean_of(ours)) / theirs - 1.0


def mean_of(value: Any) -> float:
    """The number itself, or an estimate's mean."""
    return float(value["mean"] if isinstance(value, Mapping) else value)


def shown(value: Any) -> str:
    """A cell as text: numbers to three digits, estimates with their 95 % interval."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        half = value.get("half")
        mean = _number(value["mean"])
        if half is None:
            return mean
        return f"{mean} ± {_number(half if half > ROUND_OFF * abs(value['mean']) else 0.0, digits=2)}"
    return _number(value)


def _number(value: float, digits: int = 3) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"

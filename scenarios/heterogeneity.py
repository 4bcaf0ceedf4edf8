"""Heterogeneity: device speeds and NIC rates that differ, drawn from a distribution or measured.

Rules this module obeys:

* Draws come from named streams of ``seed``, which is the cluster's own: another ``run.seed`` runs on the
  same machines. The draws of the first machines are the same however many follow.
* A speed of 2 halves the step time. Spreads are coefficients of variation of lognormal draws of mean 1.
* Only machines that hold workers differ; servers on machines of their own keep what they are given.
* A file is read once, where the scenario is read; what it said stands in the scenario from then on.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from scenarios import files
from scenarios.errors import ScenarioError, unknown
from scenarios.fields import check, choice, number, of_kind, real, sequence, whole
from scenarios.machines import Machine, twin
from scenarios.streams import RUN, stream

__all__ = ["COLUMNS", "Heterogeneity", "measured"]

COLUMNS = {
    "speed": real(above=0.0, high=1e6),
    "step_time": real(dimension="seconds", low=1e-9),
    "up": real(dimension="bytes/s", above=0.0),
    "down": real(dimension="bytes/s", above=0.0),
    "latency": real(dimension="seconds", low=0.0),
}
"""What may be measured of a device: speed relative to the others, seconds of a step, its NIC."""

NETWORK = ("up", "down", "latency")


def _devices(value: Any, name: str) -> dict[str, tuple[float, ...]]:
    if not isinstance(value, Mapping):
        raise ScenarioError(name, value, f"a table of columns: {', '.join(COLUMNS)}")
    found: dict[str, tuple[float, ...]] = {}
    for column, numbers in value.items():
        if column not in COLUMNS:
            raise unknown(name, column, COLUMNS)
        found[column] = sequence(COLUMNS[column])(numbers, f"{name}.{column}")
        if not found[column]:
            raise ScenarioError(f"{name}.{column}", numbers, "a value for each device, one at least")
    if len({len(numbers) for numbers in found.values()}) > 1:
        lengths = {column: len(numbers) for column, numbers in found.items()}
        raise ScenarioError(name, lengths, "columns of equal length")
    return found


@dataclass(frozen=True)
class Heterogeneity:
    """How devices differ: by spreads, or by measured devices; nothing unless given.

    speed      spread of device speeds; bandwidth: spread of NIC rates, one draw per machine, both ways alike
    per        machine | worker: who has a speed of its own
    devices    measured columns (``COLUMNS``), a row per device; in YAML ``file`` names a CSV with them
    order      turn: row i is that of the i-th machine that holds workers (or of worker i), from the start
               again after the last.
               random: rows are drawn, with replacement
    seed       of all these draws
    """

    speed: float = number(0.0, low=0.0, high=10.0)
    bandwidth: float = number(0.0, low=0.0, high=10.0)
    per: str = choice("machine", "machine", "worker")
    devices: Mapping[str, tuple[float, ...]] = of_kind(None, lambda v, n: _devices(v or {}, n))
    order: str = choice("turn", "turn", "random")
    seed: int = whole(0, high=2**63 - 1)

    ALSO: ClassVar[tuple[str, ...]] = ("file",)

    def __post_init__(self) -> None:
        check(self)
        for name in ("speed", "bandwidth"):
            if getattr(self, name) and self.devices:
                raise ScenarioError(name, getattr(self, name), "0 where devices are measured")
        if "speed" in self.devices and "step_time" in self.devices:
            raise ScenarioError("devices", sorted(self.devices), "speed or step_time, not both")
        if self.per == "worker" and any(name in self.devices for name in NETWORK):
            raise ScenarioError("per", "worker", "machine where NICs are measured: workers share them")

    @staticmethod
    def expand(tree: dict[str, Any]) -> dict[str, Any]:
        """``file`` stands for the devices that the CSV at that path holds."""
        if tree.get("file") is not None:
            tree["devices"] = measured(tree.pop("file"))
        tree.pop("file", None)
        return tree

    @property
    def networked(self) -> bool:
        """Whether NICs differ."""
        return self.bandwidth > 0 or any(name in self.devices for name in NETWORK)

    def machines(self, machines: Sequence[Machine], placement: Sequence[int]) -> tuple[Machine, ...]:
        """``machines`` with the rates of their own; those without workers stay as they are."""
        if not self.networked:
            return tuple(machines)
        made = list(machines)
        holding = sorted(set(placement))
        if not self.devices:
            draws = self._lognormal("bandwidth", self.bandwidth, len(holding))
            for index, factor in zip(holding, draws.tolist(), strict=True):
                one = made[index]
                made[index] = twin(one, one.name, one.up * factor, one.down * factor)
            return tuple(made)
        columns = {name: self.devices[name] for name in NETWORK if name in self.devices}
        for index, row in zip(holding, self._rows(len(holding)), strict=True):
            own = {name: values[row] for name, values in columns.items()}
            made[index] = twin(made[index], made[index].name, **own)
        return tuple(made)

    def scale(self, placement: Sequence[int], mean: float) -> tuple[float, ...]:
        """Factor on the step time of each worker, ``mean`` seconds; empty where all are alike."""
        own = self.per == "worker"
        index = {machine: i for i, machine in enumerate(sorted(set(placement)))}
        count = len(placement) if own else len(index)
        if self.speed:
            factors = 1.0 / self._lognormal("speed", self.speed, count)
        elif "speed" in self.devices:
            factors = 1.0 / np.asarray(self.devices["speed"])[self._rows(count)]
        elif "step_time" in self.devices:
            factors = np.asarray(self.devices["step_time"])[self._rows(count)] / mean
        else:
            return ()
        found = factors.tolist()
        return tuple(found if own else (found[index[machine]] for machine in placement))

    def _lognormal(self, what: str, spread: float, count: int) -> np.ndarray:
        variance = math.log1p(spread * spread)
        return stream(self.seed, RUN, f"heterogeneity {what}").lognormal(
            -variance / 2, math.sqrt(variance), count
        )

    def _rows(self, count: int) -> list[int]:
        """The row of each of ``count`` machines or workers."""
        rows = len(next(iter(self.devices.values())))
        if self.order == "turn":
            return [i % rows for i in range(count)]
        draws = stream(self.seed, RUN, "heterogeneity devices").random(count)
        found: list[int] = (draws * rows).astype(int).tolist()
        return found


_HEADER = re.compile(r"\s*([\w-]+)\s*(?:[\[(]\s*(.*?)\s*[\])])?\s*")


def measured(path: Any) -> dict[str, list[float]]:
    """Columns of the CSV file at ``path``, in base units.

    The first line names the columns: ``speed``, ``step_time``, ``up``, ``down``, ``bandwidth`` (both ways),
    ``latency``; ``name`` is passed over. Units stand in the header, ``bandwidth [Mbit/s]``, or in the
    cells. Raises ``ScenarioError`` that names the line.
    """
    if not isinstance(path, str):
        raise ScenarioError("file", path, "the path of a CSV file")
    try:
        text = files.text(path, "utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ScenarioError("file", path, hint=f"cannot be read: {error}") from error
    header: list[tuple[str, str]] = []
    columns: dict[str, list[float]] = {}
    for place, line in enumerate(text.split("\n"), 1):
        try:
            row = _cells(line)
            if not row:
                continue
            if not header:
                header = _header(row)
                columns = {name: [] for name, _ in header if name != "name"}
                continue
            if len(row) != len(header):
                names = ", ".join(name for name, _ in header)
                raise ScenarioError(f"has {len(row)} columns; expected {len(header)}: {names}")
            for (name, unit), cell in zip(header, row, strict=True):
                if name != "name":
                    columns[name].append(_cell(name, unit, cell))
        except ScenarioError as error:
            raise ScenarioError("file", path, hint=f"line {place}: {error}") from None
    if header and not columns:
        raise ScenarioError(
            "file", path, hint=f"measures nothing: expected some of {', '.join((*COLUMNS, 'bandwidth'))}"
        )
    if not columns or not all(columns.values()):
        raise ScenarioError("file", path, hint="holds no devices: expected a header and a row for each")
    if "bandwidth" in columns:
        both = columns.pop("bandwidth")
        columns |= {"up": both, "down": both}
    return columns


def _cells(line: str) -> list[str]:
    """The cells of one line, none of a blank line or a comment; a quoted cell ends where its line does."""
    if not line.strip(" \t,") or line.lstrip().startswith("#"):
        return []
    try:
        [row] = csv.reader([line], strict=True, skipinitialspace=True)
    except csv.Error as error:
        raise ScenarioError(f"cannot be read: {error}") from None
    return row


def _header(row: list[str]) -> list[tuple[str, str]]:
    """(column, unit) of each cell; the unit is empty where the header has none."""
    known = (*COLUMNS, "bandwidth", "name")
    found: list[tuple[str, str]] = []
    for cell in row:
        match = _HEADER.fullmatch(cell)
        if match is None or match[1] not in known:
            raise unknown("column", match[1] if match else cell, known)
        if match[1] in [name for name, _ in found]:
            raise ScenarioError("column", match[1], "each column once")
        unit = match[2] or ""
        if unit and match[1] != "name":
            _cell(match[1], unit, "1")
        found.append((match[1], unit))
    names = [name for name, _ in found]
    if "bandwidth" in names and ("up" in names or "down" in names):
        raise ScenarioError("column", "bandwidth", "up and down, or bandwidth for both")
    return found


def _cell(name: str, unit: str, cell: str) -> float:
    """A cell in base units; its own unit comes before that of the header."""
    value = cell.strip()
    if unit and not re.search(r"[a-zA-Zµ/]+$", re.sub(r"[eE][-+]?\d+$|inf$|nan$", "", value)):
        value = f"{value} {unit}"
    reads = COLUMNS["up" if name == "bandwidth" else name]
    return float(reads(value, name))

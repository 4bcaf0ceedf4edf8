"""Reads oracle files: transfers and whole runs with the times that an independent simulator gave.

Rules this module obeys:

* A file is JSON: ``{"net_cases": [...], "cases": [...]}``, either may be missing. Every case has
  ``name``, ``params`` and ``expected``. Bytes, bytes/s, seconds; latency per NIC (a path has two).
* Per-node values are a list or one number for all. ``L`` may be a list: of the workers, or of the
  workers and then the shards (of the workers alone: the shards have the generator's 50 us).
* Whatever a run depends on must be there (``n K T Bup Bdn L``; with servers also ``S G M A PSup PSdn``, for
  BSP and ALADDIN ``Aacc``, for ALADDIN ``pi``; ring: ``G``; gossip: ``M nb``). ``lock`` and ``eager`` are off
  where they are not given.
* ``expected.iter_end`` must be there, with all K times of every worker, or as many as are comparable; all
  other expected values are compared where they are given, whatever else stands there is ignored.
  ``min_ps_arrival_gap_s`` is so: it says how far the run was from a tie, it is no result.
* Anything else is a ``ScenarioError`` that names the case and the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from scenarios import files
from scenarios.errors import ScenarioError, unknown
from scenarios.fields import LARGEST, SLOWEST

__all__ = ["KINDS", "NetCase", "RunCase", "read"]

KINDS = ("asp", "bsp", "aladdin", "ring", "gossip")
SERVED = ("asp", "bsp", "aladdin")
WIDTH = 4
"""Bytes of an element: in runs of programs bytes stand for elements, so rates are as many times as high."""

SHARD_LATENCY = 5e-5
"""Seconds that the generator gives to a shard's NIC where ``L`` lists the workers' only."""

MOST = 100_000
"""Workers, shards, iterations: beyond it a number is a mistake."""

RATES = (SLOWEST, LARGEST["bytes/s"] / WIDTH)
"""Least and largest rates of NICs, bytes/s: those that the simulator takes."""

LONGEST = LARGEST["seconds"]
"""Seconds that a step, tensor work, a latency or a start is at most."""


@dataclass(frozen=True)
class NetCase:
    """Flows (source, target, bytes, start) between hosts with ``up``, ``down`` and ``latency`` each."""

    name: str
    up: tuple[float, ...]
    down: tuple[float, ...]
    latency: tuple[float, ...]
    flows: tuple[tuple[int, int, float, float], ...]
    completion: tuple[float, ...]


@dataclass(frozen=True)
class RunCase:
    """A whole run; ``up``, ``down`` and ``latency`` are those of the workers, then of the shards.

    ``gradient`` and ``model`` are bytes per shard; ``comparable`` iterations of each worker, and
    nothing after ``until``, are compared.
    """

    name: str
    kind: str
    workers: int
    servers: int
    iterations: int
    pi: int
    gradient: int
    model: int
    compute: tuple[float, ...]
    apply: float
    accumulate: float
    up: tuple[float, ...]
    down: tuple[float, ...]
    latency: tuple[float, ...]
    neighbours: tuple[tuple[int, ...], ...]
    locked: bool
    eager: bool
    expected: Mapping[str, Any]
    until: float
    comparable: tuple[int, ...]


class _Fields:
    """One JSON object of a case; every access checks."""

    def __init__(self, tree: Any, where: str) -> None:
        if not isinstance(tree, dict):
            raise ScenarioError(where, tree, "an object")
        self.tree, self.where = tree, where

    def get(self, name: str, default: Any = None) -> Any:
        if name not in self.tree and default is None:
            raise ScenarioError(f"{self.where}.{name}", hint="is missing")
        found = self.tree.get(name)
        return default if found is None else found

    def under(self, name: str) -> _Fields:
        return _Fields(self.get(name), f"{self.where}.{name}")

    def count(self, name: str) -> int:
        """A whole number between 1 and ``MOST``."""
        found = int(self.number(name, above=0, whole=True))
        if found > MOST:
            raise ScenarioError(f"{self.where}.{name}", found, f"a whole number of at most {MOST}")
        return found

    def flag(self, name: str) -> bool:
        """0 or 1, true or false; off where it is missing or null."""
        found = self.get(name, 0)
        if found not in (0, 1):
            raise ScenarioError(f"{self.where}.{name}", found, "0 or 1")
        return bool(found)

    def number(self, name: str, default: Any = None, *, above: float = -1.0, whole: bool = False,
               most: float = inf) -> float:  # fmt: skip
        found = _number(self.get(name, default), f"{self.where}.{name}", above, whole)
        if found > most:
            raise ScenarioError(f"{self.where}.{name}", found, f"a number of at most {most:g}")
        return found

    def rates(self, name: str, count: int) -> tuple[float, ...]:
        """``count`` rates of NICs, from a list or one for all."""
        least, most = RATES
        found = self.numbers(name, count, above=0.0, most=most)
        if found and min(found) < least:
            raise ScenarioError(f"{self.where}.{name}", min(found), f"rates of at least {least:g} bytes/s")
        return found

    def numbers(self, name: str, count: int, *, above: float = -1.0, most: float = LONGEST
                ) -> tuple[float, ...]:  # fmt: skip
        """``count`` numbers, from a list or one for all."""
        value, where = self.get(name), f"{self.where}.{name}"
        values = value if isinstance(value, list) else [value]
        if len(values) == 1:
            values = values * count
        if len(values) != count:
            raise ScenarioError(where, f"{len(values)} numbers", f"{count} of them, or one for all")
        found = tuple(_number(v, f"{where}[{i}]", above, False) for i, v in enumerate(values))
        if found and max(found) > most:
            raise ScenarioError(where, max(found), f"numbers of at most {most:g}")
        return found

    def rows(self, name: str, check: Callable[[Any, str], Any], count: int | None = None) -> tuple[Any, ...]:
        value, where = self.get(name), f"{self.where}.{name}"
        if not isinstance(value, list) or (count is not None and len(value) != count):
            raise ScenarioError(
                where, _short(value), "a list" + (f" of {count}" if count is not None else "")
            )
        return tuple(check(v, f"{where}[{i}]") for i, v in enumerate(value))


def _short(value: Any) -> Any:
    return f"list of {len(value)}" if isinstance(value, list) else value


def _number(value: Any, where: str, above: float, whole: bool) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300
    limit = "at least 0" if above < 0 else f"above {above:g}"
    if not good or (value < 0 if above < 0 else value <= above) or (whole and value != int(value)):
        raise ScenarioError(where, _short(value), f"a {'whole' if whole else 'finite'} number {limit}")
    return value  # type: ignore[no-any-return]


def _series(value: Any, where: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ScenarioError(where, value, "a list of numbers")
    return tuple(_number(v, f"{where}[{i}]", -1.0, False) for i, v in enumerate(value))


def read(path: str | Path) -> list[NetCase | RunCase]:
    """All cases of a file, transfers first. Raises ``ScenarioError`` for whatever is wrong with it."""
    path = files.place(path, "path")
    try:
        tree = json.loads(files.text(path, "utf-8-sig"))
    except OSError as error:
        raise ScenarioError(str(path), hint=f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ScenarioError(str(path), hint=f"is not JSON: {error}") from error
    except RecursionError:
        raise ScenarioError(str(path), hint="is nested too deeply") from None
    if not isinstance(tree, dict) or not {"cases", "net_cases"} & tree.keys():
        raise ScenarioError(
            str(path), hint="holds no cases: an object with 'cases' or 'net_cases' is expected"
        )
    found: list[NetCase | RunCase] = []
    for section, make in (("net_cases", _net_case), ("cases", _run_case)):
        cases = tree.get(section, [])
        if not isinstance(cases, list):
            raise ScenarioError(section, _short(cases), "a list of cases")
        for i, case in enumerate(cases):
            name = case.get("name") if isinstance(case, dict) else None
            if not isinstance(name, str) or not name:
                raise ScenarioError(f"{section}[{i}].name", name, "a name")
            found.append(make(_Fields(case, f"{section}[{i}] ({name})"), name))
    if not found:
        raise ScenarioError(str(path), hint="holds no cases: its lists of cases are empty")
    return found


def _net_case(case: _Fields, name: str) -> NetCase:
    params = case.under("params")
    up = _series(params.get("up"), f"{params.where}.up")
    hosts = len(up)

    def flow(value: Any, where: str) -> tuple[int, int, float, float]:
        fields = _Fields(value, where)
        ends = [int(fields.number(end, whole=True)) for end in ("src", "dst")]
        for end, host in zip(("src", "dst"), ends, strict=True):
            if host >= hosts:
                raise ScenarioError(f"{where}.{end}", host, f"a host between 0 and {hosts - 1}")
        nbytes = float(int(fields.number("bytes")))
        return ends[0], ends[1], nbytes, fields.number("start", most=LONGEST)

    flows = params.rows("flows", flow)
    expected = case.under("expected")
    completion = expected.rows("completion", lambda v, w: _number(v, w, -1.0, False), len(flows))
    rates = params.rates("up", hosts), params.rates("dn", hosts)
    return NetCase(name, *rates, params.numbers("lat", hosts), flows, completion)


def _run_case(case: _Fields, name: str) -> RunCase:
    params, expected = case.under("params"), case.under("expected")
    kind = params.get("alg")
    if kind not in KINDS:
        raise unknown(f"{params.where}.alg", kind, KINDS)
    served = kind in SERVED
    n, k = params.count("n"), params.count("K")
    servers = params.count("S") if served else 0
    parts = servers or (n if kind == "ring" else 1)
    up, down = (
        params.rates(f"B{way}", n) + (params.rates(f"PS{way}", servers) if served else ())
        for way in ("up", "dn")
    )
    neighbours: tuple[Any, ...] = ()
    if kind == "gossip":
        neighbours = params.rows("nb", lambda v, w: _neighbours(v, w, k, n), n)
    iterations = case.get("comparable_iterations", [k] * n)
    if not isinstance(iterations, list) or len(iterations) != n:
        raise ScenarioError(f"{case.where}.comparable_iterations", _short(iterations), f"a list of {n}")
    where = f"{case.where}.comparable_iterations"
    comparable = tuple(int(_number(v, f"{where}[{i}]", -1.0, True)) for i, v in enumerate(iterations))
    until = case.number("compare_until_s", 1e300)

    def given(name: str, kinds: tuple[str, ...], most: float = inf) -> float:
        return params.number(name, most=most) if kind in kinds else 0.0

    return RunCase(
        name=name, kind=kind, workers=n, servers=servers, iterations=k,
        pi=params.count("pi") if kind == "aladdin" else 1,
        gradient=int(given("G", (*SERVED, "ring"))) // parts,
        model=int(given("M", (*SERVED, "gossip"))) // (servers or 1),
        compute=params.numbers("T", n),
        apply=given("A", SERVED, LONGEST), accumulate=given("Aacc", ("bsp", "aladdin"), LONGEST),
        up=up, down=down, latency=_latency(params, n, servers),
        neighbours=neighbours, locked=params.flag("lock"), eager=params.flag("eager"),
        expected=_expected(expected, kind, k, comparable), until=until,
        comparable=comparable,
    )  # fmt: skip


def _latency(params: _Fields, workers: int, servers: int) -> tuple[float, ...]:
    given = params.tree.get("L")
    if servers and isinstance(given, list) and len(given) == workers:
        return params.numbers("L", workers) + (SHARD_LATENCY,) * servers
    return params.numbers("L", workers + servers)


def _neighbours(value: Any, where: str, iterations: int, workers: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != iterations:
        raise ScenarioError(where, _short(value), f"a list of {iterations} offsets")
    for i, offset in enumerate(value):
        whole = isinstance(offset, int | float) and abs(offset) < MOST * MOST and offset == int(offset)
        if not whole or offset % workers == 0:
            raise ScenarioError(f"{where}[{i}]", offset, "a whole offset to another worker")
    return tuple(int(offset) for offset in value)


def _expected(expected: _Fields, kind: str, k: int, comparable: tuple[int, ...]) -> dict[str, Any]:
    """The expected values that are compared, checked."""
    n = len(comparable)
    found: dict[str, Any] = {"iter_end": expected.rows("iter_end", _series, n)}
    for i, ends in enumerate(found["iter_end"]):
        if not min(comparable[i], k) <= len(ends) <= k:
            least = "" if comparable[i] >= k else f", or the first {comparable[i]}, which are comparable"
            raise ScenarioError(
                f"{expected.where}.iter_end[{i}]",
                f"list of {len(ends)}",
                f"{k} times, as many as K says{least}",
            )
    several = ["finish", "throughput_iter_per_s", "iterations_finished", "iterations_finished_at_t_first"]
    for name in several + ["model_pushes_received"] * (kind == "aladdin"):
        if expected.tree.get(name) is not None:
            found[name] = expected.rows(name, lambda value, where: _number(value, where, -1.0, False), n)
    for name in ("makespan", "t_first_finish", "n_transfers"):
        if expected.tree.get(name) is not None:
            found[name] = expected.number(name)
    if kind == "aladdin" and expected.tree.get("blend_at_iter") is not None:
        found["blend_at_iter"] = expected.rows("blend_at_iter", _series, n)
    return found

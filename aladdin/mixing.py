"""Which mixing matrix an algorithm applies on which graph, and what its spectrum says.

Rules this module obeys:

* Algorithms are made with their own options and asked for their own checks; the matrices come from
  ``core.mixing``. What is bad input there is bad input here, by the same message.
* One period of steps says it all: local steps are the identity, and the properties are those of the
  product. A random exchange is stood for by its expectation, and says so.
* Whatever is accepted is answered within 20 seconds on one core: ``LARGEST``, ``LONGEST``, ``EACH``,
  ``DRAWN`` and ``YAML`` are chosen so. Nothing is checked or decomposed twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core import algorithms, mixing
from core.errors import OptionError
from core.mixing import Matrix
from core.topology import graph, schedule
from scenarios import files
from scenarios.documents import DocumentError, parse
from scenarios.errors import ScenarioError

__all__ = [
    "DRAWN", "EACH", "FACTOR", "LARGEST", "LONGEST", "YAML", "Mixing", "describe", "read_rows", "value",
]  # fmt: skip

FACTOR = 10.0
"""By how much the consensus distance is to shrink."""

LARGEST = 1024
"""Workers."""

LONGEST = 1000
"""Steps of a period."""

EACH = 256
"""Nodes up to which each of several matrices is decomposed by itself, where that is not symmetric."""

DRAWN = 256
"""Workers up to which there is a picture."""

YAML = 250_000
"""Characters of a file that is YAML but not JSON; larger ones are JSON, CSV or text."""


@dataclass(frozen=True)
class Mixing:
    """One period of an algorithm's mixing, and its properties.

    matrices   (n, n) arrays, first step first; with a ``centre`` (n+1, n+1), the server last
    what       which matrix that is, in words
    unit       what one matrix stands for: a step of all workers, or an averaging of one pair
    layout     how its graph is best drawn
    squared    the matrix is E[W'W]: it is the squared distance that shrinks by zeta, on average
    """

    algorithm: str
    workers: int
    matrices: tuple[Matrix, ...]
    what: str
    unit: str = "step"
    layout: str = "circle"
    centre: bool = False
    squared: bool = False

    @cached_property
    def product(self) -> Matrix:
        """What one period does."""
        return mixing.product(self.matrices)

    @cached_property
    def zeta(self) -> float:
        """By how much a period shrinks the consensus distance in the long run."""
        found = _snapped(mixing.second_eigenvalue(self.product))
        return float(np.sqrt(found)) if self.squared else found

    @property
    def steps(self) -> float:
        """Units after which the consensus distance is a tenth of what it was, in any case."""
        return mixing.steps_to_shrink(self.matrices, FACTOR**2 if self.squared else FACTOR)

    def summary(self) -> dict[str, Any]:
        """All properties, as plain data."""
        zeta, period = self.zeta, len(self.matrices)
        return {
            "algorithm": self.algorithm, "workers": self.workers, "matrix": self.what, "unit": self.unit,
            "nodes": len(self.product), "period": period,
            "stochastic": _stochastic(self.product), "symmetric": _symmetric(self.product),
            "zeta_of_each": self._zeta_of_each(),
            "zeta": zeta, "rho": zeta**2, "spectral_gap": 1 - zeta, "rate": zeta ** (1 / period),
            "shrink": FACTOR, "steps_to_shrink": self.steps, "mean_square": self.squared,
        }  # fmt: skip

    def _zeta_of_each(self) -> list[float] | None:
        """That of each matrix by itself; None where it would take too long (``EACH``)."""
        distinct = {id(W): W for W in self.matrices}
        slow = len(distinct) > 1 and not all(map(_symmetric, distinct.values()))
        if slow and len(self.product) > EACH:
            return None
        found = {key: _snapped(mixing.second_eigenvalue(W)) for key, W in distinct.items()}
        return [found[id(W)] for W in self.matrices]


def describe(algorithm: str, workers: int, options: Mapping[str, Any] | None = None) -> Mixing:
    """The mixing of ``algorithm`` among ``workers``, with ``options`` as in a scenario.

    Raises ``ScenarioError`` for bad input, and for algorithms that mix no parameters.
    """
    try:
        if not 1 <= workers <= LARGEST:
            raise OptionError("workers", workers, f"between 1 and {LARGEST}")
        made = algorithms.make(algorithm, options)
        if algorithm not in _BUILDERS:
            raise OptionError("algorithm", algorithm, f"one that mixes parameters: {', '.join(known())}")
        if hasattr(made, "check"):
            made.check(workers)
        return _BUILDERS[algorithm](made, workers)
    except OptionError as error:
        field = "algorithm" if error.field == "name" else error.field
        raise ScenarioError(field, error.value, error.valid) from error


def known() -> tuple[str, ...]:
    """Names of the algorithms that have a mixing matrix."""
    return tuple(name for name in _BUILDERS if name in algorithms.ALGORITHMS)


def read_rows(path: str | Path, field: str) -> Any:
    """A matrix or an edge list from a file of nested lists (JSON, YAML) or of columns (CSV, text).

    Raises ``ScenarioError`` for the option ``field``.
    """
    try:
        text = files.text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ScenarioError(field, str(path), hint=f"cannot be read ({reason})") from error
    try:
        if text.lstrip().startswith(("[", "-")):
            return _nested(text)
        lines = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
        return [[int(word) if word.isdigit() else float(word) for word in line] for line in lines]
    except ValueError as error:
        raise ScenarioError(field, str(path), hint=f"holds no rows of numbers ({error})") from error


def _nested(text: str) -> Any:
    """Nested lists; raises ``DocumentError``."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        if len(text) > YAML:
            why = f"it is no JSON, and YAML of more than {YAML:,} characters is not read; give JSON or CSV"
            raise DocumentError(why) from error
        rows = parse(text)
    for row in rows if isinstance(rows, list) else ():
        inner = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
        if any(isinstance(item, dict | list) for item in inner):
            raise DocumentError("it is nested too deeply")
    return rows


def value(text: str, field: str) -> Any:
    """An option as text, as in a scenario; raises ``ScenarioError`` for the option ``field``."""
    try:
        return parse(text)
    except DocumentError as error:
        raise ScenarioError(field, text, f"a YAML value ({error})") from error


def _average(made: Any, n: int) -> Mixing:
    return Mixing(made.name, n, (mixing.average(n),), "everybody takes the mean at every step")


def _local(nodes: int, field: str, period: int) -> tuple[Matrix, ...]:
    """The local steps of a ``period``, one matrix for all."""
    if period > LONGEST:
        raise OptionError(field, period, f"a period of at most {LONGEST:,} steps")
    return (mixing.identity(nodes),) * (period - 1)


def _periodic(made: Any, n: int) -> Mixing:
    local = _local(n, "h", made.h)
    then = f"the mean of all after every {made.h} local steps"
    if made.name == "diloco":
        then += " (the outer step moves all replicas alike)"
    if made.name == "post_local_sgd":
        then += " (before the switch: at every step)"
    return Mixing(made.name, n, (*local, mixing.average(n)), then)


def _aladdin(made: Any, n: int) -> Mixing:
    if made.variant == "l1":
        return Mixing(made.name, n, (mixing.identity(n),), "nobody mixes (local self-updates alone)")
    if made.alpha == "count":
        raise OptionError("alpha", "count", "n_pi or a number in [0, 1]: with count every push has its own")
    alpha = mixing.aladdin_alpha(n, made.pi) if made.alpha == "n_pi" else float(made.alpha)
    local = _local(n, "pi", made.pi)
    every = "every step" if made.pi == 1 else f"every {made.pi} steps"
    what = f"(1-α) I + (α/n) 11' (Eq. 6) with α = {alpha:.4g}, after {every}"
    return Mixing(made.name, n, (*local, mixing.aladdin(n, alpha)), what)


def _easgd(made: Any, n: int) -> Mixing:
    alpha = made.beta / n
    local = _local(n + 1, "tau", made.tau)
    what = f"elastic exchange of all with the centre, α = β/n = {alpha:.4g}, after every {made.tau} steps"
    return Mixing(made.name, n, (*local, mixing.easgd(n, alpha)), what, layout="star", centre=True)


def _dpsgd(made: Any, n: int) -> Mixing:
    if made.matrix is not None:
        return Mixing(made.name, n, (made.weights(n),), "the given matrix, at every step")
    what = f"Metropolis weights on {_called(made.graph)}, at every step"
    return Mixing(made.name, n, (made.weights(n),), what, layout=_layout(made.graph))


def _adpsgd(made: Any, n: int) -> Mixing:
    g = graph(made.graph, n, degree=made.degree, seed=made.graph_seed)
    what = f"one active worker averages with a random neighbour on {_called(made.graph)}; expectation"
    W = mixing.pairwise_expected(g)
    return Mixing(made.name, n, (W,), what, unit="averaging", layout=_layout(made.graph), squared=True)


def _sgp(made: Any, n: int) -> Mixing:
    peers = schedule(made.graph, n, degree=made.degree, seed=made.graph_seed)
    late = "" if made.overlap == 0 else f"; the delay of overlap {made.overlap} is left out"
    turns = "at every step" if peers.period == 1 else f"in {peers.period} turns"
    what = f"push-sum shares to the peers of {_called(made.graph)}, {turns}{late}"
    matrices = tuple(mixing.push_sum(peers, step) for step in range(peers.period))
    return Mixing(made.name, n, matrices, what, layout=_layout(made.graph))


def _gosgd(made: Any, n: int) -> Mixing:
    what = (
        f"everybody sends half of its share to a random peer with p = {made.p:g}; "
        "expectation (single runs take about twice as long)"
    )
    return Mixing(made.name, n, (mixing.gossip_expected(n, made.p),), what)


_BUILDERS: dict[str, Callable[[Any, int], Mixing]] = {
    "bsp": _average, "easgd": _easgd, "aladdin": _aladdin, "aladdin_l1": _aladdin, "aladdin_l2": _aladdin,
    "arsgd": _average, "local_sgd": _periodic, "post_local_sgd": _periodic, "diloco": _periodic,
    "dpsgd": _dpsgd, "adpsgd": _adpsgd, "sgp": _sgp, "gosgd": _gosgd,
}  # fmt: skip


def _called(spec: Any) -> str:
    if not isinstance(spec, str):
        return "the given edges"
    return f"the {spec.replace('one_peer', 'one-peer').replace('_', ' ')} graph"


def _layout(spec: Any) -> str:
    return spec if spec in ("torus", "bipartite", "star") else "circle"


def _stochastic(W: Matrix) -> str:
    """``doubly``, ``by rows``, ``by columns`` or ``no``."""
    found = []
    for check, name in ((mixing.check_rows, "by rows"), (mixing.check_columns, "by columns")):
        try:
            check(W)
            found.append(name)
        except OptionError:
            pass
    return "doubly" if len(found) == 2 else (found or ["no"])[0]


def _symmetric(W: Matrix) -> bool:
    try:
        mixing.check_symmetric(W)
    except OptionError:
        return False
    return True


def _snapped(value: float) -> float:
    """``value``, and 0 where rounding is all that is left of it."""
    return 0.0 if value < 1e-12 else value

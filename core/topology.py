"""Who talks to whom: undirected graphs, and directed peer schedules that change from step to step.

Rules this module obeys:

* Everything is a pure function of its arguments: the same name, size, degree and seed give the same
  graph on every node and on every driver.
* Graphs are simple: no edge twice, none from a worker to itself. Every worker also keeps its own
  share; that self-loop belongs to the mixing matrix (``core.mixing``), not to the graph.
* What cannot be built is refused with an ``OptionError`` that says what would fit.

======================  ==============================================================  ================
name                    neighbours of worker i (modulo n)                               needs
======================  ==============================================================  ================
``ring``                i - 1, i + 1
``torus``               up, down, left, right on the squarest a x b grid, wrapped        n not prime
``hypercube``           i with one bit flipped                                          n = 2^k
``exponential``         i + 2^k and i - 2^k for every 2^k < n
``complete``            everybody
``bipartite``           every odd worker for an even one, and vice versa
``random_regular``      ``degree`` random ones, the graph connected                     n x degree even
``star``                worker 0
``[[0, 1], ...]``       as listed
======================  ==============================================================  ================

Sources: the graphs of D-PSGD (Lian et al. 2017), AD-PSGD (2018) and SGP (Assran et al. 2019, appendix
A); random regular graphs by Steger and Wormald (1999).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from core.errors import OptionError

__all__ = [
    "GRAPHS", "SCHEDULES", "Graph", "PeerSchedule", "Spec", "check_bipartite", "check_connected", "graph",
    "grid", "schedule",
]  # fmt: skip

Spec = str | Sequence[Sequence[int]]
"""A graph's name, or its edges."""

Edges = tuple[tuple[int, int], ...]

GRAPHS = (
    "ring", "torus", "hypercube", "exponential", "complete", "bipartite", "random_regular", "star",
)  # fmt: skip

SCHEDULES = ("one_peer_exponential", *GRAPHS)


@dataclass(frozen=True)
class Graph:
    """A simple undirected graph of ``n`` workers; ``edges`` are kept as sorted pairs (i, j), i < j."""

    n: int
    edges: Edges
    _near: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        edges = tuple(sorted({(min(e), max(e)) for e in self.edges}))
        near: list[list[int]] = [[] for _ in range(self.n)]
        for i, j in edges:
            if i == j or not 0 <= i <= j < self.n:
                raise OptionError("graph", [i, j], f"two different workers of 0 .. {self.n - 1}")
            near[i].append(j)
            near[j].append(i)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "_near", tuple(tuple(sorted(others)) for others in near))

    def neighbours(self, i: int) -> tuple[int, ...]:
        """Whom worker ``i`` shares an edge with, in ascending order."""
        return self._near[i]

    def degree(self, i: int) -> int:
        """How many neighbours worker ``i`` has."""
        return len(self._near[i])

    def components(self) -> tuple[tuple[int, ...], ...]:
        """The connected parts, each in ascending order, by their lowest member."""
        left, found = set(range(self.n)), []
        while left:
            part = set(self.distances(min(left)))
            found.append(tuple(sorted(part)))
            left -= part
        return tuple(found)

    def connected(self) -> bool:
        """Whether every worker can reach every other one."""
        return len(self.distances(0)) == self.n

    def distances(self, start: int) -> dict[int, int]:
        """Edges between ``start`` and every worker that it can reach."""
        found, front = {start: 0}, [start]
        while front:
            after = []
            for i in front:
                for j in self._near[i]:
                    if j not in found:
                        found[j] = found[i] + 1
                        after.append(j)
            front = after
        return found

    def diameter(self) -> int:
        """The longest of all shortest paths, in edges; raises ``OptionError`` if there is none."""
        check_connected(self)
        return max(max(self.distances(i).values()) for i in range(self.n))

    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The two sides of a bipartite graph (the one with worker 0 first), or None if it is not."""
        sides: tuple[list[int], list[int]] = ([], [])
        for part in self.components():
            for i, distance in self.distances(part[0]).items():
                sides[distance % 2].append(i)
        of = {i: side for side, members in enumerate(sides) for i in members}
        if any(of[i] == of[j] for i, j in self.edges):
            return None
        return tuple(sorted(sides[0])), tuple(sorted(sides[1]))

    def odd_cycle(self) -> tuple[int, ...]:
        """The workers along one cycle of odd length, in order; empty if the graph is bipartite."""
        parent: dict[int, int] = {}
        depth: dict[int, int] = {}
        for start in range(self.n):
            if start in depth:
                continue
            parent[start], depth[start] = start, 0
            front = [start]
            for i in front:
                for j in self._near[i]:
                    if j not in depth:
                        parent[j], depth[j] = i, depth[i] + 1
                        front.append(j)
                    elif depth[j] == depth[i]:
                        return _close(parent, i, j)
        return ()


def _close(parent: dict[int, int], i: int, j: int) -> tuple[int, ...]:
    """The cycle of edge (i, j) and the paths from both ends up to where these meet."""
    left, right = [i], [j]
    while left[-1] != right[-1]:
        left.append(parent[left[-1]])
        right.append(parent[right[-1]])
    return (*left, *reversed(right[:-1]))


def check_connected(graph: Graph, name: str = "graph", value: Any = None) -> None:
    """Raise ``OptionError`` for the option ``name`` unless ``graph`` is connected; names its parts."""
    if not graph.connected():
        parts = graph.components()
        listed = ", ".join(_members(part) for part in parts[:4])
        more = ", ..." if len(parts) > 4 else ""
        raise OptionError(
            name, _shown(graph, value), f"a connected graph; this one has {len(parts)} parts: {listed}{more}"
        )


def check_bipartite(graph: Graph, name: str = "graph", value: Any = None) -> None:
    """Raise ``OptionError`` for the option ``name`` unless ``graph`` is bipartite; names an odd cycle."""
    cycle = graph.odd_cycle()
    if cycle:
        path = " - ".join(map(str, (*cycle, cycle[0])))
        raise OptionError(
            name, _shown(graph, value),
            f"a bipartite graph; this one has a cycle of odd length ({path}) at n = {graph.n}",
        )  # fmt: skip


def _members(part: Sequence[int]) -> str:
    shown = ", ".join(map(str, part if len(part) <= 8 else (*part[:6], "...", part[-1])))
    return "{" + shown + "}"


def _shown(graph: Graph, value: Any) -> Any:
    """What to call the graph in a message: as it was asked for, or how large it is."""
    if isinstance(value, str):
        return value
    return [list(edge) for edge in graph.edges] if len(graph.edges) <= 8 else f"{len(graph.edges)} edges"


@dataclass(frozen=True)
class PeerSchedule:
    """Who sends to whom at each step: directed, deterministic, repeating after ``period`` steps.

    ``rounds[k][i]`` are the workers that worker i sends to at the steps k, k + period, ...
    """

    n: int
    rounds: tuple[tuple[tuple[int, ...], ...], ...]
    _into: tuple[tuple[tuple[int, ...], ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        into = []
        for targets in self.rounds:
            sources: list[list[int]] = [[] for _ in range(self.n)]
            for i, peers in enumerate(targets):
                for j in peers:
                    sources[j].append(i)
            into.append(tuple(map(tuple, sources)))
        object.__setattr__(self, "_into", tuple(into))

    @property
    def period(self) -> int:
        """Steps after which the schedule repeats."""
        return len(self.rounds)

    def out(self, rank: int, step: int) -> tuple[int, ...]:
        """Whom ``rank`` sends to at ``step``."""
        return self.rounds[step % len(self.rounds)][rank]

    def into(self, rank: int, step: int) -> tuple[int, ...]:
        """Who sends to ``rank`` at ``step``, in ascending order."""
        return self._into[step % len(self.rounds)][rank]


def graph(spec: Spec, n: int, *, degree: int = 3, seed: int = 0) -> Graph:
    """The graph called ``spec`` on ``n`` workers, or the one with the edges ``spec``.

    ``degree`` and ``seed`` matter to ``random_regular`` alone. An edge list need not be connected;
    ask ``check_connected``. Raises ``OptionError`` for the fields ``graph``, ``degree`` or ``workers``.
    """
    _check_size(n)
    if not isinstance(spec, str):
        return Graph(n, _listed(spec, n))
    if spec not in GRAPHS:
        raise OptionError("graph", spec, _names(spec, GRAPHS))
    return _named(spec, n, *((degree, seed) if spec == "random_regular" else (0, 0)))


def schedule(spec: Spec, n: int, *, degree: int = 3, seed: int = 0) -> PeerSchedule:
    """The peer schedule called ``spec`` on ``n`` workers.

    ``one_peer_exponential``: at step k worker i sends to i + 2^(k mod ceil(log2 n)) alone.
    ``exponential``: it sends to i + 2^k for every 2^k < n at every step. Any other graph, and an edge
    list: to all neighbours at every step, both ways. Raises ``OptionError`` as ``graph`` does.
    """
    _check_size(n)
    if isinstance(spec, str) and spec not in SCHEDULES:
        raise OptionError("graph", spec, _names(spec, SCHEDULES))
    if spec in ("one_peer_exponential", "exponential"):
        return _exponential(str(spec), n)
    both_ways = graph(spec, n, degree=degree, seed=seed)
    return PeerSchedule(n, (tuple(both_ways.neighbours(i) for i in range(n)),))


def _check_size(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise OptionError("workers", n, "a whole number of at least 1")


def grid(n: int) -> tuple[int, int]:
    """Rows and columns (rows <= columns) of the squarest grid with ``n`` places."""
    rows = next(a for a in range(int(n**0.5), 0, -1) if n % a == 0)
    return rows, n // rows


@lru_cache(maxsize=32)
def _named(name: str, n: int, degree: int, seed: int) -> Graph:
    if name == "random_regular":
        return _random_regular(n, degree, seed)
    if name == "torus":
        return _torus(n)
    if name == "hypercube" and n & (n - 1):
        below = 1 << (n.bit_length() - 1)
        raise OptionError(
            "graph", name,
            f"another graph at n = {n}: a hypercube needs a power of two ({below} or {2 * below} workers)",
        )  # fmt: skip
    far: dict[str, set[tuple[int, int]]] = {
        "ring": {(i, (i + 1) % n) for i in range(n)},
        "hypercube": {(i, i ^ bit) for bit in _hops(n) for i in range(n)},
        "exponential": {(i, (i + hop) % n) for hop in _hops(n) for i in range(n)},
        "star": {(0, i) for i in range(1, n)},
    }
    if name == "complete":
        edges: Any = combinations(range(n), 2)
    elif name == "bipartite":
        edges = ((i, j) for i in range(0, n, 2) for j in range(1, n, 2))
    else:
        edges = ((i, j) for i, j in far[name] if i != j)
    return Graph(n, tuple(edges))


def _hops(n: int) -> list[int]:
    """The powers of two below ``n``."""
    return [1 << k for k in range((n - 1).bit_length())]


def _torus(n: int) -> Graph:
    rows, columns = grid(n)
    if rows == 1 and n > 1:
        raise OptionError(
            "graph", "torus", f"another graph at n = {n}: a torus needs n = a x b with a and b above 1"
        )
    edges = []
    for i in range(n):
        row, column = divmod(i, columns)
        edges += [(i, row * columns + (column + 1) % columns), (i, (row + 1) % rows * columns + column)]
    return Graph(n, tuple(edge for edge in edges if edge[0] != edge[1]))


@lru_cache(maxsize=32)
def _exponential(name: str, n: int) -> PeerSchedule:
    hops = _hops(n)
    if name == "exponential" or not hops:
        return PeerSchedule(n, (tuple(tuple((i + hop) % n for hop in hops) for i in range(n)),))
    return PeerSchedule(n, tuple(tuple(((i + hop) % n,) for i in range(n)) for hop in hops))


def _random_regular(n: int, degree: int, seed: int) -> Graph:
    """A connected graph in which everybody has ``degree`` neighbours; retries until one comes out."""
    whole = isinstance(degree, int) and not isinstance(degree, bool)
    if n == 1:
        return Graph(1, ())
    if not whole or not 1 <= degree < n or n * degree % 2 or (degree == 1 and n > 2):
        raise OptionError("degree", degree, _degrees(n))
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise OptionError("graph_seed", seed, "a whole number of at least 0")
    rng = np.random.default_rng((seed, n, degree))
    sparse = min(degree, n - 1 - degree)
    while True:
        edges = _pairing(n, sparse, rng)
        if edges is None:
            continue
        if sparse != degree:
            edges = set(combinations(range(n), 2)) - edges
        found = Graph(n, tuple(edges))
        if found.connected():
            return found


def _degrees(n: int) -> str:
    if n == 2:
        return "1 at n = 2"
    kind = "a whole number" if n % 2 == 0 else "an even number"
    return f"{kind} from 2 to {n - 1} at n = {n} (n x degree must be even, the graph connected)"


def _pairing(n: int, degree: int, rng: np.random.Generator) -> set[tuple[int, int]] | None:
    """Join random free ends (Steger and Wormald); None if what is left cannot be joined."""
    edges: set[tuple[int, int]] = set()
    ends = np.repeat(np.arange(n), degree)
    while ends.size:
        rng.shuffle(ends)
        left: list[int] = []
        for i, j in ends.reshape(-1, 2).tolist():
            edge = (min(i, j), max(i, j))
            if i == j or edge in edges:
                left += [i, j]
            else:
                edges.add(edge)
        if len(left) == ends.size and not _joinable(edges, set(left)):
            return None
        ends = np.array(left, dtype=int)
    return edges


def _joinable(edges: set[tuple[int, int]], ends: set[int]) -> bool:
    """Whether some two of these workers do not share an edge yet."""
    return any(pair not in edges for pair in combinations(sorted(ends), 2))


def _listed(spec: Sequence[Sequence[int]], n: int) -> Edges:
    valid = f"a list of edges [i, j] between two different workers of 0 .. {n - 1}"
    if not isinstance(spec, list | tuple):
        raise OptionError("graph", spec, f"{', '.join(GRAPHS)}, or {valid}")
    edges = []
    for edge in spec:
        ends = list(edge) if isinstance(edge, list | tuple) else []
        whole = all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < n for i in ends)
        if not whole or len(ends) != 2 or ends[0] == ends[1]:
            raise OptionError("graph", edge, valid)
        edges.append((ends[0], ends[1]))
    return tuple(edges)


def _names(spec: str, known: Sequence[str]) -> str:
    near = get_close_matches(spec, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{', '.join(known)}, or a list of edges [i, j]{hint}"

"""Mixing matrices: what one step of averaging does to the workers' parameters, and what that implies.

Rules this module obeys:

* A matrix is an (n, n) float64 array and acts on the left: x_i' = sum_j W[i, j] x_j. ``easgd`` and
  ``aladdin_pull`` are (n+1, n+1), with the centre (the server's parameters) last.
* Push-sum and GoSGD act on the weighted sums (w_i x_i) and on the weights w_i alike; their matrices are
  column-stochastic, and the parameters are the quotient.
* Matrices are stated here and nowhere else; algorithms take their weights from here.

===============  =================================  =================  ==========================
algorithm        matrix                             stochastic         zeta
===============  =================================  =================  ==========================
BSP, AR-SGD      11'/n                              doubly, symmetric  0
local SGD        I, and 11'/n every H-th step       doubly, symmetric  0 over H steps
ALADDIN (Eq. 6)  (1-a) I + (a/n) 11'                doubly, symmetric  1-a
EASGD            star of workers around the centre  doubly, symmetric  max(|1-a|, |1-(n+1) a|)
D-PSGD           1/(1 + max(d_i, d_j)) on edges     doubly, symmetric  by the graph
AD-PSGD          average of one pair                doubly, symmetric  1; by the graph on average
SGP              1/(1 + d_j) to each peer           by columns         by the schedule
GoSGD            half of the sender's share         by columns         1; by p on average
===============  =================================  =================  ==========================

Sources: ALADDIN (CIKM 2022), Eq. 6; D-PSGD (Lian et al. 2017), section 3, and AD-PSGD (2018); Cooperative
SGD (Wang and Joshi) for EASGD as a matrix; SGP (Assran et al. 2019); GoSGD (Blot et al. 2016); Metropolis
weights by Xiao, Boyd and Lall (2005).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import OptionError, require
from core.topology import Graph, PeerSchedule, check_connected

__all__ = [
    "Matrix", "TOLERANCE",
    "aladdin", "aladdin_alpha", "aladdin_pull", "average", "check_columns", "check_doubly_stochastic",
    "check_rows", "check_symmetric", "contraction", "easgd", "easgd_exchange", "eigenvalues", "gossip",
    "gossip_expected", "gossip_share", "identity", "matrix", "metropolis", "metropolis_row", "pairwise",
    "pairwise_expected", "product", "push_sum", "rho", "second_eigenvalue", "spectral_gap", "steps_to_shrink",
]  # fmt: skip

Matrix = NDArray[np.float64]

TOLERANCE = 1e-9
"""By how much a sum of weights may differ from 1, and two mirrored weights from each other."""


def identity(n: int) -> Matrix:
    """Nobody mixes: a local step."""
    _check_n(n)
    return np.eye(n)


def average(n: int) -> Matrix:
    """Everybody takes the mean: BSP, AR-SGD, the end of a round of local SGD."""
    _check_n(n)
    return np.full((n, n), 1 / n)


def aladdin(n: int, alpha: float) -> Matrix:
    """ALADDIN, Eq. 6: (1-alpha) I + (alpha/n) 11', all workers mixing at once. Its zeta is 1 - alpha.

    Exact where the global model is the mean of the local ones (Lemma 1); see ``aladdin_pull``.
    """
    _check_share("alpha", alpha)
    return (1 - alpha) * identity(n) + alpha * average(n)


def aladdin_alpha(n: int, pi: int) -> float:
    """The weight of a push, alpha = 1 - 1/sqrt(n pi) (ALADDIN, section 3.2)."""
    _check_n(n)
    require("pi", pi, isinstance(pi, int) and pi >= 1, "a whole number of at least 1")
    return 1 - 1 / math.sqrt(n * pi)


def aladdin_pull(n: int, alpha: float, workers: Iterable[int] | None = None) -> Matrix:
    """ALADDIN's pushes as they are: x_i <- (1-alpha) x_i + alpha x~ for ``workers`` (default: all).

    (n+1, n+1), x~ last; row-stochastic only: the server takes gradients, never parameters. On the
    subspace where x~ is the mean of all x_i, the pull of all workers is ``aladdin``.
    """
    _check_n(n)
    _check_share("alpha", alpha)
    W = np.eye(n + 1)
    for i in range(n) if workers is None else workers:
        _check_worker(i, n)
        W[i, i], W[i, n] = 1 - alpha, alpha
    return W


def easgd(n: int, alpha: float) -> Matrix:
    """EASGD with all workers exchanging at once; (n+1, n+1), the centre last.

    x_i <- (1-alpha) x_i + alpha x~ and x~ <- (1 - n alpha) x~ + alpha sum x_i. Its zeta is
    max(|1-alpha|, |1-(n+1) alpha|); alpha = beta/n.
    """
    _check_n(n)
    _check_share("alpha", alpha)
    W = np.eye(n + 1) * (1 - alpha)
    W[n, :n] = W[:n, n] = alpha
    W[n, n] = 1 - n * alpha
    return W


def easgd_exchange(n: int, alpha: float, worker: int) -> Matrix:
    """One elastic exchange of one worker with the centre: preserves x_i + x~."""
    _check_n(n)
    _check_share("alpha", alpha)
    _check_worker(worker, n)
    W = np.eye(n + 1)
    W[worker, worker] = W[n, n] = 1 - alpha
    W[worker, n] = W[n, worker] = alpha
    return W


def metropolis(graph: Graph) -> Matrix:
    """Metropolis weights: 1/(1 + max(d_i, d_j)) on every edge, the rest kept.

    Symmetric and doubly stochastic on any graph; zeta < 1 if and only if the graph is connected.
    """
    W = np.zeros((graph.n, graph.n))
    degrees = np.array([graph.degree(i) for i in range(graph.n)])
    i, j = np.array(graph.edges, dtype=int).reshape(-1, 2).T
    W[i, j] = W[j, i] = 1 / (1 + np.maximum(degrees[i], degrees[j]))
    np.fill_diagonal(W, 1 - W.sum(axis=1))
    return W


def metropolis_row(graph: Graph, i: int) -> dict[int, float]:
    """Row ``i`` of ``metropolis`` without its zeros, by worker: a matrix of many workers fills the memory."""
    degree = graph.degree(i)
    row = {j: 1 / (1 + max(degree, graph.degree(j))) for j in graph.neighbours(i)}
    return {**row, i: 1 - math.fsum(row.values())}


def pairwise(n: int, i: int, j: int) -> Matrix:
    """Workers ``i`` and ``j`` both take their average (AD-PSGD)."""
    _check_n(n)
    _check_pair(i, j, n)
    W = np.eye(n)
    W[i, i] = W[i, j] = W[j, i] = W[j, j] = 0.5
    return W


def pairwise_expected(graph: Graph, active: Iterable[int] | None = None) -> Matrix:
    """Expectation of one averaging: a worker of ``active`` and one of its neighbours, both uniformly.

    ``active`` are by default the side of worker 0 of a bipartite graph. A pairwise average is a
    projection, so E[W'W] = E[W]: the *squared* consensus distance shrinks by zeta of this matrix
    per averaging, in expectation. Raises ``OptionError`` if the graph is not connected or, without
    ``active``, not bipartite.
    """
    check_connected(graph)
    if active is None:
        sides = graph.sides()
        if sides is None:
            raise OptionError("graph", f"{len(graph.edges)} edges", "a bipartite graph, or active workers")
        active = sides[0]
    starters = [i for i in active if graph.degree(i)]
    require("workers", graph.n, bool(starters), "at least 2 to average with each other")
    half = np.zeros((graph.n, graph.n))
    for i in starters:
        half[i, list(graph.neighbours(i))] = 1 / (2 * len(starters) * graph.degree(i))
    half = half + half.T
    return np.eye(graph.n) - np.diag(half.sum(axis=1)) + half


def push_sum(schedule: PeerSchedule, step: int) -> Matrix:
    """SGP at ``step``: worker j keeps 1/(1 + d_j) of (x_j, w_j) and sends as much to each of its d_j peers.

    Column-stochastic, so sums over workers are conserved; doubly so where everybody is sent to as often
    as he sends.
    """
    P = np.zeros((schedule.n, schedule.n))
    for j in range(schedule.n):
        peers = schedule.out(j, step)
        np.add.at(P, ([j, *peers], j), 1 / (1 + len(peers)))
    return P


def gossip_share(n: int, sender: int, receiver: int) -> Matrix:
    """GoSGD's exchange on the weighted sums (w_i x_i) and the weights: half of the sender's go over."""
    _check_n(n)
    _check_pair(sender, receiver, n)
    A = np.eye(n)
    A[sender, sender] = A[receiver, sender] = 0.5
    return A


def gossip(n: int, sender: int, receiver: int, w: Sequence[float]) -> Matrix:
    """GoSGD's exchange on the parameters, given everybody's weights ``w`` before it; row-stochastic.

    The receiver sets x <- (w x + w' x')/(w + w') with w' half of the sender's weight; nobody else moves.
    """
    _check_n(n)
    _check_pair(sender, receiver, n)
    require("w", list(w), len(w) == n and all(x > 0 for x in w), f"{n} weights above 0")
    half, own = w[sender] / 2, w[receiver]
    W = np.eye(n)
    W[receiver, receiver], W[receiver, sender] = own / (own + half), half / (own + half)
    return W


def gossip_expected(n: int, p: float) -> Matrix:
    """GoSGD's expectation over one step of every worker, on the weighted sums and the weights.

    Everybody sends with probability ``p`` to one of the others, uniformly. Zeta is 1 - (p/2) n/(n-1).
    """
    _check_share("p", p)
    require("workers", n, n >= 2, "at least 2, to have a peer")
    return (1 - p / 2) * np.eye(n) + p / 2 / (n - 1) * (np.ones((n, n)) - np.eye(n))


def matrix(rows: Any, n: int | None = None, field: str = "matrix") -> Matrix:
    """A user's matrix for D-PSGD: nested lists of numbers, checked.

    Raises ``OptionError`` unless it is n x n, of weights in [0, 1], symmetric, doubly stochastic and
    connected with zeta < 1 (Assumption 1 of D-PSGD); says where, and by how much, it is not. What it
    returns is symmetric to the last bit, and weights between workers are 0 or at least ``TOLERANCE``: what
    rounding left of others goes to the worker itself. So both ends of an edge agree that there is one.
    """
    try:
        W = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(field, rows, "rows of numbers, all of the same length") from None
    size = "square" if n is None else f"{n} x {n}, one row and column per worker"
    if W.ndim != 2 or W.shape[0] != W.shape[1] or (n is not None and len(W) != n) or not W.size:
        raise OptionError(field, " x ".join(map(str, W.shape)) or rows, f"a matrix that is {size}")
    check_doubly_stochastic(W, field)
    check_symmetric(W, field)
    W = _cleared((W + W.T) / 2)
    check_connected(Graph(len(W), tuple((int(i), int(j)) for i, j in np.argwhere(np.triu(W, 1)))), field)
    if len(W) > 1 and second_eigenvalue(W) > 1 - TOLERANCE:
        raise OptionError(
            field, f"zeta = {second_eigenvalue(W):.9g}",
            "a second-largest eigenvalue magnitude below 1 (let every worker keep a share of its own)",
        )  # fmt: skip
    return W


def _cleared(W: Matrix) -> Matrix:
    """``W`` with the weights between workers that rounding left given to the workers themselves."""
    dust = np.where(np.abs(W) < TOLERANCE, W, 0.0)
    np.fill_diagonal(dust, 0.0)
    return W - dust + np.diag(dust.sum(axis=1))


def check_rows(W: Matrix, field: str = "matrix") -> None:
    """Raise ``OptionError`` unless weights are in [0, 1] and every row sums to 1; names the worst row."""
    _check_weights(W, field)
    _check_sums(W.sum(axis=1), "row", field)


def check_columns(W: Matrix, field: str = "matrix") -> None:
    """As ``check_rows``, for columns."""
    _check_weights(W, field)
    _check_sums(W.sum(axis=0), "column", field)


def check_doubly_stochastic(W: Matrix, field: str = "matrix") -> None:
    """Raise ``OptionError`` unless rows and columns all sum to 1; names the worst one and by how much."""
    check_rows(W, field)
    check_columns(W, field)


def check_symmetric(W: Matrix, field: str = "matrix") -> None:
    """Raise ``OptionError`` unless W[i, j] = W[j, i]; names the pair that differs most."""
    gap = np.abs(W - W.T)
    i, j = (int(k) for k in np.unravel_index(np.argmax(np.nan_to_num(gap, nan=np.inf)), gap.shape))
    if not gap[i, j] <= TOLERANCE:
        raise OptionError(
            field, f"[{i}, {j}] is {W[i, j]:g} and [{j}, {i}] is {W[j, i]:g}", "a symmetric matrix"
        )


def _check_weights(W: Matrix, field: str) -> None:
    bad = np.argwhere(~((W >= -TOLERANCE) & (W <= 1 + TOLERANCE)))
    if len(bad):
        i, j = bad[0]
        raise OptionError(field, f"[{i}, {j}] is {W[i, j]:g}", "weights between 0 and 1")


def _check_sums(sums: Matrix, what: str, field: str) -> None:
    worst = int(np.argmax(np.abs(sums - 1)))
    if not abs(sums[worst] - 1) <= TOLERANCE * len(sums):
        raise OptionError(
            field, f"{what} {worst} sums to {sums[worst]:.9g}, off by {sums[worst] - 1:+.3g}",
            f"{what}s that sum to 1",
        )  # fmt: skip


def eigenvalues(W: Matrix) -> NDArray[np.complex128]:
    """All eigenvalues, by falling magnitude; real ones first among equals."""
    found = np.linalg.eigvalsh(W) if _symmetric(W) else np.linalg.eigvals(W)
    order = np.lexsort((-found.real, -np.round(np.abs(found), 12)))
    return found[order].astype(np.complex128)


def second_eigenvalue(W: Matrix) -> float:
    """Zeta: the second-largest magnitude of an eigenvalue; 0 for a 1 x 1 matrix."""
    return float(abs(eigenvalues(W)[1])) if len(W) > 1 else 0.0


def rho(W: Matrix) -> float:
    """Zeta squared: the rho of D-PSGD's Assumption 1."""
    return second_eigenvalue(W) ** 2


def spectral_gap(W: Matrix) -> float:
    """1 - zeta."""
    return 1 - second_eigenvalue(W)


def product(matrices: Iterable[Matrix]) -> Matrix:
    """What the steps do together, the first of them first: ... W_2 W_1 W_0. Local steps cost nothing."""
    total: Matrix | None = None
    last, local = None, False
    for W in matrices:
        if W is not last:
            last, local = W, _local(W)
        if total is None:
            total = W
        elif not local:
            total = W @ total
    if total is None:
        raise ValueError("a product needs at least one matrix")
    return total


def contraction(W: Matrix) -> float:
    """The largest factor by which ``W`` can change the consensus distance sqrt(sum |x_i - mean|^2).

    For column-stochastic matrices that of the quotients (W x)/(W 1), push-sum's estimates. Equal to zeta
    where ``W`` is symmetric and doubly stochastic.
    """
    quotient = W / W.sum(axis=1, keepdims=True)
    apart = quotient - quotient.mean(axis=0)
    return math.sqrt(max(float(np.linalg.eigvalsh(apart.T @ apart)[-1]), 0.0))


def steps_to_shrink(W: Matrix | Sequence[Matrix], factor: float = 10.0) -> float:
    """Steps after which the consensus distance is at most 1/``factor`` of what it was, in any case.

    ``W`` is one matrix, or those of one period. The smallest such number; infinity if there is none.
    """
    require("factor", factor, factor > 1, "a number above 1")
    period = [W] if isinstance(W, np.ndarray) else list(W)
    limit = 1 / factor * (1 + 1e-9)
    if len(period[0]) == 1:
        return 1.0
    if len(period) == 1 and _symmetric(period[0]) and np.allclose(period[0].sum(axis=0), 1):
        return _geometric(second_eigenvalue(period[0]), factor)
    whole = product(period)
    powers = [whole]
    while contraction(powers[-1]) > limit:
        if len(powers) > 60 or (len(powers) == 1 and second_eigenvalue(whole) > 1 - 1e-12):
            return math.inf
        powers.append(powers[-1] @ powers[-1])
    return float(_refine(period, powers, limit))


def _geometric(zeta: float, factor: float) -> float:
    """The smallest k with zeta^k <= 1/factor."""
    if zeta > 1 - 1e-12:
        return math.inf
    return float(max(1, math.ceil(math.log(factor) / -math.log(max(zeta, 1e-300)) - 1e-9)))


def _refine(period: Sequence[Matrix], powers: Sequence[Matrix], limit: float) -> int:
    """The first step within the limit, given W, W^2, W^4, ... of which the last is."""
    done, rounds = np.eye(len(period[0])), 0
    for k in reversed(range(len(powers) - 1)):
        further = powers[k] @ done
        if contraction(further) > limit:
            done, rounds = further, rounds + (1 << k)
    local = {id(W): _local(W) for W in period}
    for step, W in enumerate(period, 1):
        if local[id(W)]:
            continue
        done = W @ done
        if contraction(done) <= limit:
            return rounds * len(period) + step
    raise AssertionError("the whole period is within the limit")


def _local(W: Matrix) -> bool:
    """Whether ``W`` is the identity: a local step."""
    return bool(W[0, 0] == 1 and np.array_equal(W, np.eye(len(W))))


def _symmetric(W: Matrix) -> bool:
    return bool(np.allclose(W, W.T, rtol=0, atol=1e-12))


def _check_n(n: int) -> None:
    require("workers", n, isinstance(n, int) and n >= 1, "a whole number of at least 1")


def _check_share(name: str, value: float) -> None:
    require(name, value, 0 <= value <= 1, "a number in [0, 1]")


def _check_worker(i: int, n: int) -> None:
    require("worker", i, 0 <= i < n, f"a worker of 0 .. {n - 1}")


def _check_pair(i: int, j: int, n: int) -> None:
    _check_worker(i, n)
    _check_worker(j, n)
    require("workers", [i, j], i != j, "two different workers")

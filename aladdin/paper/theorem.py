"""Theorem 1 along runs: the bound of Eq. 7 beside the gradient norms of the algorithm itself.

Rules this module obeys:

* The objective is f(x) = L/2 |x|² with Gaussian noise on every gradient, so L, σ and f(x_0) − f* are known,
  not estimated. The algorithm is ALADDIN as it runs on the simulator, asynchronous, without momentum; the
  theorem is about its reduction, in which all workers mix at once.
* These short runs are made here: no summary has what they measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from aladdin.paper.cases import Case, Results, case
from analysis.paper import Claim, Picture, Section, Series, Table
from analysis.seeds import estimate
from analysis.theory import aladdin_bound, aladdin_rate_holds

__all__ = ["theorem1", "wanted"]

L, SIGMA, ETA, WORKERS, SIZE = 1.0, 1.0, 0.05, 8, 16
STEPS = (25, 50, 100, 200, 400)
PERIODS = (1, 2, 4)
START = 2.0
"""Length of x_0: f(x_0) − f* = L START² / 2."""


def _case(pi: int) -> Case:
    return case("digits", {
        "workload.parameters": SIZE, "algorithm.pi": pi, "algorithm.momentum": 0.0, "algorithm.lr": ETA,
        "algorithm.lr_scaling": "none", "algorithm.milestones": [], "workload.weight_decay": 0.0,
        "run.numerics": False, "run.evaluate": False, "run.evaluate_every": 0, "run.steps": STEPS[-1],
    })  # fmt: skip


def wanted() -> Iterable[Case]:
    """None: these runs are made where they are measured."""
    return ()


class _Bowl:
    """Noisy gradients of f, and where every worker was when it asked for one."""

    def __init__(self, seed: int) -> None:
        self.initial = np.full(SIZE, START / SIZE**0.5, dtype=np.float32)
        self.asked: dict[tuple[int, int], np.ndarray] = {}
        self._seed = seed

    def __call__(self, params: np.ndarray, rank: int, step: int) -> np.ndarray:
        self.asked[rank, step] = params.copy()
        noise = np.random.default_rng((self._seed, rank, step)).standard_normal(SIZE)
        return np.asarray(L * params + SIGMA / SIZE**0.5 * noise, dtype=np.float32)

    def norms(self) -> np.ndarray:
        """|∇f|² at the mean of the workers, step by step."""
        steps = 1 + max(step for _, step in self.asked)
        means = [np.mean([self.asked[rank, k] for rank in range(WORKERS)], axis=0) for k in range(steps)]
        return np.array([float(np.sum((L * mean) ** 2)) for mean in means])


def _measured(pi: int, seed: int) -> list[float]:
    import sim

    bowl = _Bowl(seed)
    sim.simulate(_case(pi).load(seed), gradients=bowl)
    norms = bowl.norms()
    return [float(norms[:k].mean()) for k in STEPS]


def theorem1(results: Results) -> Section:
    """Mean squared gradient norms over K steps, and the bound."""
    rows, holds = [], []
    lines = []
    for pi in PERIODS:
        zeta = 1 / (WORKERS * pi) ** 0.5
        assert aladdin_rate_holds(L=L, zeta=zeta, pi=pi, eta=ETA)
        found = [_measured(pi, seed) for seed in results.seeds]
        known: dict[str, Any] = {"L": L, "sigma": SIGMA, "delta": L * START**2 / 2, "zeta": zeta, "pi": pi}
        for place, k in enumerate(STEPS):
            bound = aladdin_bound(**known, n=WORKERS, K=k, eta=ETA)
            mine = estimate([one[place] for one in found])
            assert mine is not None
            rows.append([pi, k, mine, bound, bound / mine["mean"]])
            holds.append(mine["mean"] + (mine["half"] or 0.0) <= bound)
        lines.append(
            Series(f"π = {pi}, measured", [(row[1], row[2]["mean"]) for row in rows if row[0] == pi])
        )
        lines.append(
            Series(f"π = {pi}, bound", [(row[1], row[3]) for row in rows if row[0] == pi], faint=True)
        )
    loosest = max(row[4] for row in rows)
    claims = [
        Claim("Theorem 1's bound holds along runs", "Theorem 1", all(holds),
              f"in all {len(holds)} cells, between {min(row[4] for row in rows):.1f} and {loosest:.1f} times "
              "what is measured"),
    ]  # fmt: skip
    table = Table(
        "(1/K) Σ |∇f(mean)|², n = 8, η = 0.05, L = σ = 1", ("π", "K", "ours", "Eq. 7", "times"), rows
    )
    return Section(
        "theorem1", "Theorem 1: the bound along runs", "ALADDIN, Theorem 1 (Eq. 7)", [table], claims,
        [Picture("theorem1", "Theorem 1", {"": lines}, "K", "mean squared gradient norm", log="xy")],
    )  # fmt: skip

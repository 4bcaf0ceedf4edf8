"""How long each step computes: a distribution, times whatever slows the worker down.

Rules this module obeys:

* A draw depends on (seed, rank, step) and, for slow-downs that come and go, on the time at which the
  step starts; never on the order in which workers ask.
* What can be known beforehand is: steps are drawn in blocks, and a worker whose step time never
  changes costs one look-up per step.
* A step's factor is that of the moment at which it starts.

With mean m and coefficient of variation c the distributions are: lognormal, sigma^2 = ln(1 + c^2),
mu = ln m - sigma^2 / 2; gamma, shape 1 / c^2, scale m c^2; shifted exponential, m (1 - c) + Exp(m c);
empirical, drawn from the measured samples with replacement.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np

from scenarios.cluster import Cluster
from scenarios.compute import Slowdown, StepTime
from scenarios.streams import Seed, stream

__all__ = ["StepTimes"]

_BITS = 6
_BLOCK = 1 << _BITS

Draw = tuple[float, float]

_NONE: array[float] = array("d")


def _packed(values: np.ndarray) -> array[float]:
    """Eight bytes each, for there may be a hundred thousand workers, and quicker to look up than NumPy's."""
    return array("d", values.astype(float).tobytes())


class StepTimes:
    """Step times of all workers of a cluster. ``draw(rank, step, now)``: see there.

    base  where the base times are drawn from, if not from ``seed`` as all else
    """

    def __init__(self, cluster: Cluster, seed: int, base: Seed | None = None) -> None:
        self._model, self._seed = cluster.compute, seed
        self._base = seed if base is None else base
        self._overhead = cluster.compute.overhead
        n = cluster.workers
        self._scale = cluster.scale or (1.0,) * n
        slowed = [(s, frozenset(s.ranks)) for s in cluster.slowdowns]
        concerned = [[s for s, ranks in slowed if not ranks or rank in ranks] for rank in range(n)]
        self._fixed = [
            math.prod((s.factor for s in slows if s.kind == "fixed"), start=1.0) for slows in concerned
        ]
        self._tails = [[s.shape for s in slows if s.kind == "heavy_tailed"] for slows in concerned]
        self._timed = [
            [self._by_time(s, rank, i) for i, s in enumerate(slows) if s.kind in ("transient", "scheduled")]
            for rank, slows in enumerate(concerned)
        ]
        steady = cluster.compute.model == "constant" or (not cluster.compute.spread)
        self._blocks: list[array[float]] = [_NONE] * n
        self._factors: list[array[float] | None] = [None] * n
        self._block_of = [-1] * n
        if steady and not any(self._tails) and not any(self._timed):
            self._pairs = [
                self._pair(self._model.mean * k, f) for k, f in zip(self._scale, self._fixed, strict=True)
            ]
            self.draw: Callable[[int, int, float], Draw] = self._steady
        else:
            plain = self._whole if self._overhead else self._drawn
            self.draw = self._general if any(self._timed) else plain

    def _steady(self, rank: int, step: int, now: float) -> Draw:
        """(base seconds, factor) of worker ``rank``'s step that starts at ``now``; it takes base * factor.

        ``base`` is the step's time on an undisturbed worker, ``factor`` its slow-down.
        """
        return self._pairs[rank]

    def _drawn(self, rank: int, step: int, now: float) -> Draw:
        if self._block_of[rank] != step >> _BITS:
            self._refill(rank, step >> _BITS)
        place, tails = step & (_BLOCK - 1), self._factors[rank]
        return self._blocks[rank][place], self._fixed[rank] if tails is None else tails[place]

    def _whole(self, rank: int, step: int, now: float) -> Draw:
        return self._pair(*self._drawn(rank, step, now))

    def _general(self, rank: int, step: int, now: float) -> Draw:
        base, factor = self._drawn(rank, step, now)
        for by_time in self._timed[rank]:
            factor *= by_time(now)
        return self._pair(base, factor)

    def _pair(self, base: float, factor: float) -> Draw:
        if not self._overhead:
            return base, factor
        return base + self._overhead, (base * factor + self._overhead) / (base + self._overhead)

    def _refill(self, rank: int, block: int) -> None:
        rng = stream(self._base, rank, "step-time", block)
        self._blocks[rank] = _packed(_sample(self._model, rng) * self._scale[rank])
        if self._tails[rank]:
            rng = stream(self._seed, rank, "tail", block)
            factors = np.full(_BLOCK, self._fixed[rank])
            for shape in self._tails[rank]:
                factors *= 1.0 + rng.pareto(shape, _BLOCK)
            self._factors[rank] = _packed(factors)
        self._block_of[rank] = block

    def _by_time(self, slow: Slowdown, rank: int, index: int) -> Callable[[float], float]:
        if slow.kind == "scheduled":
            return _Scheduled(slow.intervals)
        return _Transient(slow, stream(self._seed, rank, f"transient-{index}"))


def _sample(model: StepTime, rng: np.random.Generator) -> np.ndarray:
    """One block of base step times, seconds."""
    m, c = model.mean, model.spread
    if model.model == "empirical":
        return rng.choice(np.asarray(model.samples), _BLOCK)
    if not c:
        return np.full(_BLOCK, m)
    if model.model == "lognormal":
        variance = math.log1p(c * c)
        return rng.lognormal(math.log(m) - variance / 2, math.sqrt(variance), _BLOCK)
    if model.model == "gamma":
        return rng.gamma(1 / (c * c), m * c * c, _BLOCK)
    return m * (1 - c) + rng.exponential(m * c, _BLOCK)


class _Scheduled:
    """Product of the factors of the intervals that hold ``now``."""

    def __init__(self, intervals: Sequence[tuple[float, float, float]]) -> None:
        self._intervals = intervals

    def __call__(self, now: float) -> float:
        return math.prod((factor for start, end, factor in self._intervals if start <= now < end), start=1.0)


class _Transient:
    """Alternating exponential periods, on with the factor and off without; starts in equilibrium."""

    def __init__(self, slow: Slowdown, rng: np.random.Generator) -> None:
        self._means = (slow.mean_off, slow.mean_on)
        self._factors = (1.0, slow.factor)
        self._rng = rng
        self._on = int(rng.random() < slow.mean_on / (slow.mean_on + slow.mean_off))
        self._switches = [rng.exponential(self._means[self._on])]

    def __call__(self, now: float) -> float:
        switches = self._switches
        while switches[-1] <= now:
            switches.append(switches[-1] + self._rng.exponential(self._means[(self._on + len(switches)) & 1]))
        return self._factors[(self._on + bisect_right(switches, now)) & 1]

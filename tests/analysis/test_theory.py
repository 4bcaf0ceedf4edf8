"""The bounds against measured gradient norms, on problems whose L, sigma and varsigma are known.

The matrices are iterated directly: D-PSGD as X <- W X - gamma G(X), ALADDIN as X <- W_k (X - eta G(X)) with
Eq. 6 at every pi-th step. What is measured is the left-hand side of the theorems, the mean over K steps of
|grad f(mean_i x_i)|^2, averaged over seeds.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import theory
from core import mixing
from core.errors import OptionError
from core.mixing import Matrix
from core.topology import graph

SEEDS = range(5)


@dataclass
class Quadratic:
    """f_i(x) = 1/2 (x - c_i)' A (x - c_i), gradients with Gaussian noise of variance sigma^2 in all.

    L is A's largest eigenvalue; grad f_i - grad f = A (mean c - c_i) whatever x, so varsigma is exact.
    """

    n: int
    sigma: float
    apart: float = 0.0
    d: int = 10
    start: float = 1.0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        self.A = np.linspace(0.05, 1.0, self.d)
        self.L = float(self.A.max())
        centres = rng.normal(size=(self.n, self.d))
        centres -= centres.mean(axis=0)
        spread = math.sqrt(float((np.square(self.A * centres)).sum(axis=1).mean()))
        self.centres = centres * (self.apart / spread) if self.apart else np.zeros((self.n, self.d))
        self.varsigma = self.apart
        self.x0 = np.full(self.d, self.start)
        self.delta = float(0.5 * (self.A * self.x0**2).sum())

    def gradients(self, X: Matrix, rng: np.random.Generator) -> Matrix:
        noise = rng.normal(size=X.shape) * (self.sigma / math.sqrt(self.d))
        return self.A * (X - self.centres) + noise

    def full(self, x: Matrix) -> Matrix:
        return self.A * x


class Logistic:
    """l2-regularised logistic regression; gradients on one sample each, drawn uniformly.

    L = max |a|^2/4 + l bounds the curvature. A sample's gradient minus the mean one is that of the loss
    alone, at most max |a| in length, so sigma = max |a| bounds it whatever x; varsigma = 0.
    """

    def __init__(self, n: int, samples: int = 200, d: int = 6, decay: float = 0.05) -> None:
        rng = np.random.default_rng(3)
        self.n, self.decay, self.varsigma = n, decay, 0.0
        a = rng.normal(size=(samples, d))
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        labels = np.where(a @ rng.normal(size=d) + 0.3 * rng.normal(size=samples) > 0, 1.0, -1.0)
        self.a = a * labels[:, None]
        self.L, self.sigma = 0.25 + decay, 1.0
        self.x0 = np.full(d, 2.0)
        x = self.x0.copy()
        for _ in range(20_000):
            x -= self.full(x) / self.L
        assert np.linalg.norm(self.full(x)) < 1e-9
        self.delta = self.value(self.x0) - self.value(x)

    def value(self, x: Matrix) -> float:
        return float(np.logaddexp(0, -self.a @ x).mean() + self.decay / 2 * x @ x)

    def full(self, x: Matrix) -> Matrix:
        pull: Matrix = -(self.a / (1 + np.exp(self.a @ x))[:, None]).mean(axis=0) + self.decay * x
        return pull

    def gradients(self, X: Matrix, rng: np.random.Generator) -> Matrix:
        a = self.a[rng.integers(len(self.a), size=self.n)]
        pull: Matrix = -a / (1 + np.exp((a * X).sum(axis=1)))[:, None] + self.decay * X
        return pull


class Waves:
    """f(x) = sum (1 - cos x_j): not convex, L = 1, f* = 0; gradients with Gaussian noise, varsigma = 0."""

    def __init__(self, n: int, sigma: float = 1.0, d: int = 8) -> None:
        self.n, self.sigma, self.d, self.varsigma, self.L = n, sigma, d, 0.0, 1.0
        self.x0 = np.full(d, 2.5)
        self.delta = float((1 - np.cos(self.x0)).sum())

    def full(self, x: Matrix) -> Matrix:
        return np.sin(x)

    def gradients(self, X: Matrix, rng: np.random.Generator) -> Matrix:
        return np.sin(X) + rng.normal(size=X.shape) * (self.sigma / math.sqrt(self.d))


Problem = Quadratic | Logistic | Waves
Step = Callable[[Matrix, Matrix, int], Matrix]


def measure(problem: Problem, step: Step, K: int, seeds: Sequence[int] = SEEDS) -> float:
    """Mean over seeds and K steps of |grad f(mean)|^2."""
    total = 0.0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        X = np.tile(problem.x0, (problem.n, 1))
        for k in range(K):
            total += float(np.square(problem.full(X.mean(axis=0))).sum())
            X = step(X, problem.gradients(X, rng), k)
    return total / K / len(seeds)


def dpsgd(W: Matrix, gamma: float) -> Step:
    return lambda X, G, _: W @ X - gamma * G


def aladdin(n: int, pi: int, eta: float) -> Step:
    W = mixing.aladdin(n, mixing.aladdin_alpha(n, pi))
    return lambda X, G, k: W @ (X - eta * G) if (k + 1) % pi == 0 else X - eta * G


def aladdin_with_server(n: int, pi: int, eta: float) -> Step:
    """The same as it is run: x~ last, moved by eta/n per gradient; all workers pull at every pi-th step."""
    W = mixing.aladdin_pull(n, mixing.aladdin_alpha(n, pi))

    def step(X: Matrix, G: Matrix, k: int) -> Matrix:
        X = X - eta * np.vstack([G[:n], G[:n].mean(axis=0)])
        return W @ X if (k + 1) % pi == 0 else X

    return step


PROBLEMS = {
    "quadratic": lambda n: Quadratic(n, sigma=1.0), "noisy": lambda n: Quadratic(n, sigma=5.0, start=0.1),
    "calm": lambda n: Quadratic(n, sigma=0.05), "logistic": Logistic, "waves": Waves,
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize(("n", "pi"), [(2, 1), (4, 4), (8, 1), (8, 4), (16, 2)])
@pytest.mark.parametrize("part", [1.0, pytest.param(0.3, marks=pytest.mark.slow)])
def test_aladdins_theorem_1_holds(name: str, n: int, pi: int, part: float) -> None:
    problem, K, zeta = PROBLEMS[name](n), 200, 1 / math.sqrt(n * pi)
    eta = part * rate_limit(problem.L, zeta, pi) * (1 - 1e-9)
    assert theory.aladdin_rate_holds(L=problem.L, zeta=zeta, pi=pi, eta=eta)
    bound = theory.aladdin_bound(
        L=problem.L, sigma=problem.sigma, delta=problem.delta, zeta=zeta, pi=pi, n=n, K=K, eta=eta
    )
    assert measure(problem, aladdin(n, pi, eta), K) <= bound < math.inf


def rate_limit(L: float, zeta: float, pi: int) -> float:
    """The largest eta with eta L + 5 (eta L pi/(1-zeta))^2 <= 1."""
    b = 5 * (pi / (1 - zeta)) ** 2
    return (math.sqrt(1 + 4 * b) - 1) / (2 * b) / L


@pytest.mark.parametrize("name", ["quadratic", "logistic"])
@pytest.mark.parametrize(("n", "pi"), [(4, 1), (8, 2)])
def test_aladdins_corollary_1_holds(name: str, n: int, pi: int) -> None:
    problem, zeta = PROBLEMS[name](n), 1 / math.sqrt(n * pi)
    K = 4000
    eta = theory.aladdin_rate(L=problem.L, n=n, K=K)
    assert theory.aladdin_rate_holds(L=problem.L, zeta=zeta, pi=pi, eta=eta)
    bound = theory.aladdin_bound_at_best_rate(
        L=problem.L, sigma=problem.sigma, delta=problem.delta, zeta=zeta, pi=pi, n=n, K=K
    )
    assert measure(problem, aladdin(n, pi, eta), K, range(3)) <= bound


def test_the_servers_model_is_the_mean_when_all_mix_at_once() -> None:
    """Lemma 1 and the reduction to Eq. 6, with gradients: both iterations are one."""
    n, pi, eta = 6, 3, 0.1
    problem, rng = Quadratic(n, sigma=1.0), np.random.default_rng(0)
    X = np.tile(problem.x0, (n, 1))
    state = np.vstack([X, X.mean(axis=0)])
    one, other = aladdin(n, pi, eta), aladdin_with_server(n, pi, eta)
    for k in range(40):
        G = problem.gradients(X, rng)
        X, state = one(X, G, k), other(state, G, k)
        assert np.allclose(state[:n], X)
        assert np.allclose(state[n], X.mean(axis=0))


GRAPHS = [("ring", 4), ("ring", 8), ("torus", 16), ("complete", 8), ("star", 5)]


@pytest.mark.parametrize("name", [*PROBLEMS, "apart"])
@pytest.mark.parametrize(("spec", "n"), GRAPHS)
def test_dpsgds_theorem_1_holds(name: str, spec: str, n: int) -> None:
    problem = Quadratic(n, sigma=1.0, apart=2.0) if name == "apart" else PROBLEMS[name](n)
    W, K = mixing.metropolis(graph(spec, n)), 200
    rho = mixing.rho(W)
    widest = (1 - math.sqrt(rho)) / math.sqrt(36 * n) / problem.L  # D1 = 0 there
    for part in (0.7, 0.2):
        gamma = min(part * widest, 1 / problem.L)
        bound = theory.dpsgd_bound(
            L=problem.L, sigma=problem.sigma, varsigma=problem.varsigma, delta=problem.delta, rho=rho, n=n,
            K=K, gamma=gamma,
        )  # fmt: skip
        assert math.isfinite(bound)
        assert measure(problem, dpsgd(W, gamma), K) <= bound


@pytest.mark.parametrize(
    ("spec", "n", "apart"), [("complete", 4, 0.0), ("ring", 4, 0.0), ("complete", 4, 1.0)]
)
def test_dpsgds_corollary_2_holds_where_its_conditions_do(spec: str, n: int, apart: float) -> None:
    problem = Quadratic(n, sigma=6.0, apart=apart)
    W = mixing.metropolis(graph(spec, n))
    rho = mixing.rho(W)
    K = math.ceil(
        theory.dpsgd_steps_for_speedup(
            L=problem.L, sigma=problem.sigma, varsigma=apart, delta=problem.delta, rho=rho, n=n
        )
    )
    assert K < 3000
    gamma = theory.dpsgd_rate(L=problem.L, sigma=problem.sigma, n=n, K=K)
    bound = theory.dpsgd_bound_at_best_rate(
        L=problem.L, sigma=problem.sigma, delta=problem.delta, n=n, K=K
    )  # fmt: skip
    assert measure(problem, dpsgd(W, gamma), K) <= bound


CONSTANTS = st.fixed_dictionaries(
    {
        "L": st.floats(1e-2, 1e2), "sigma": st.floats(1e-2, 1e2), "delta": st.floats(1e-3, 1e3),
        "n": st.integers(1, 64), "rho": st.floats(0, 0.999),
    }
)  # fmt: skip


@given(CONSTANTS, st.floats(0, 1e2), st.floats(1, 1e3))
def test_corollary_2_follows_from_theorem_1(c: dict[str, float], varsigma: float, times: float) -> None:
    """Both conditions on K, however much above them, give Corollary 2 from Theorem 1 (docs/theory.md)."""
    K = math.ceil(times * theory.dpsgd_steps_for_speedup(**c, varsigma=varsigma)) + 1  # type: ignore[arg-type]
    L, sigma, n, rho = c["L"], c["sigma"], int(c["n"]), c["rho"]
    gamma = theory.dpsgd_rate(L=L, sigma=sigma, n=n, K=K)
    assert theory.d2(L=L, n=n, rho=rho, gamma=gamma) >= 3 / 4 - 1e-9
    assert theory.d1(L=L, n=n, rho=rho, gamma=gamma) >= 1 / 3 - 1e-9
    left = theory.dpsgd_bound(**c, varsigma=varsigma, K=K, gamma=gamma)  # type: ignore[arg-type]
    right = theory.dpsgd_bound_at_best_rate(L=L, sigma=sigma, delta=c["delta"], n=n, K=K)
    assert left <= right * (1 + 1e-9)


@given(CONSTANTS, st.integers(1, 16), st.integers(1, 10**12))
def test_aladdins_corollary_1_is_theorem_1_at_its_rate(c: dict[str, float], pi: int, K: int) -> None:
    L, n, zeta = c["L"], int(c["n"]), math.sqrt(c["rho"])
    named = {"L": L, "sigma": c["sigma"], "delta": c["delta"], "zeta": zeta, "pi": pi, "n": n, "K": K}
    eta = theory.aladdin_rate(L=L, n=n, K=K)
    at_rate = theory.aladdin_bound(**named, eta=eta)  # type: ignore[arg-type]
    if theory.aladdin_rate_holds(L=L, zeta=zeta, pi=pi, eta=eta):
        assert theory.aladdin_bound_at_best_rate(**named) == pytest.approx(at_rate)  # type: ignore[arg-type]
    else:
        assert at_rate == math.inf


@given(CONSTANTS, st.integers(1, 16))
def test_from_the_stated_step_on_aladdins_first_term_dominates(c: dict[str, float], pi: int) -> None:
    L, sigma, n, zeta = c["L"], c["sigma"], int(c["n"]), math.sqrt(c["rho"])
    K = theory.aladdin_steps_for_speedup(L=L, sigma=sigma, delta=c["delta"], zeta=zeta, pi=pi, n=n)
    if K > 0:
        first = (2 * L * c["delta"] + sigma**2) / math.sqrt(n * K)
        second = n * sigma**2 / K * theory.aladdin_drift(zeta, pi)
        assert first == pytest.approx(second)


@pytest.mark.parametrize(("varsigma", "power"), [(0.0, 9), (1.0, 13)])
def test_on_a_ring_the_steps_for_speedup_grow_as_the_paper_says(varsigma: float, power: int) -> None:
    """D-PSGD's text: linear speed-up on a ring up to n of the order of K^(1/9), or K^(1/13)."""
    sizes = [64, 128, 256, 512]
    steps = [
        theory.dpsgd_steps_for_speedup(
            L=1, sigma=1, varsigma=varsigma, delta=1, n=n, rho=mixing.rho(mixing.metropolis(graph("ring", n)))
        )
        for n in sizes
    ]
    assert slope(sizes, steps) == pytest.approx(power, abs=0.1)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through log y by log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


SPEEDUPS = {
    "aladdin, pi = 1": lambda n, rate: aladdin(n, 1, rate),
    "aladdin, pi = 4": lambda n, rate: aladdin(n, 4, rate),
    "dpsgd, ring": lambda n, rate: dpsgd(mixing.metropolis(graph("ring", n)), rate),
    "dpsgd, complete": lambda n, rate: dpsgd(mixing.average(n), rate),
}


@pytest.mark.parametrize("name", SPEEDUPS)
def test_linear_speedup_is_a_slope_of_minus_one(name: str) -> None:
    """At one small step size the noise term remains: K steps of n workers are as good as n K steps of one.

    Measured at the end, where the start is forgotten: log |grad f|^2 by log n has slope -1.
    """
    sizes, rate, K, last = [2, 4, 8, 16], 0.02, 1500, 1000
    errors = []
    for n in sizes:
        problem, total = Quadratic(n, sigma=2.0, start=0.0), 0.0
        step = SPEEDUPS[name](n, rate)
        for seed in range(6):
            rng = np.random.default_rng((seed, n))
            X = np.tile(problem.x0, (n, 1))
            for k in range(K):
                X = step(X, problem.gradients(X, rng), k)
                if k >= K - last:
                    total += float(np.square(problem.full(X.mean(axis=0))).sum())
        errors.append(total)
    assert slope(sizes, errors) == pytest.approx(-1, abs=0.12)


def test_without_mixing_the_models_drift_apart_and_the_mean_no_longer_stands_for_them() -> None:
    """The bound's (1+z^2)/(1-z^2) pi - 1 grows with pi, and so does the measured distance from the mean."""
    n, eta = 8, 0.05
    apart = []
    for pi in (1, 4, 16):
        problem, rng, total = Quadratic(n, sigma=2.0), np.random.default_rng(0), 0.0
        step, X = aladdin(n, pi, eta), np.tile(problem.x0, (n, 1))
        for k in range(800):
            X = step(X, problem.gradients(X, rng), k)
            total += float(np.square(X - X.mean(axis=0)).sum())
        apart.append(total)
    assert apart[0] < apart[1] < apart[2]
    drifts = [theory.aladdin_drift(1 / math.sqrt(n * pi), pi) for pi in (1, 4, 16)]
    assert drifts[0] < drifts[1] < drifts[2]


def discrepancy(matrices: Sequence[Matrix], noise_first: bool, periods: int = 400) -> float:
    """E |x_i - mean|^2 per worker, over one period at the end, on a flat objective with unit noise steps.

    Exact: the covariance C of the workers is iterated, C <- W (C + I) W', or W C W' + I.
    """
    n = len(matrices[0])
    C, noise, away = np.zeros((n, n)), np.eye(n), np.eye(n) - 1 / n
    for _ in range(periods):
        found = 0.0
        for W in matrices:
            found += float(np.trace(away @ C)) / n
            C = W @ (C + noise) @ W.T if noise_first else W @ C @ W.T + noise
    return found / len(matrices)


@given(st.integers(2, 12), st.integers(1, 8))
def test_the_drift_term_is_twice_the_exact_distance_from_the_mean(n: int, pi: int) -> None:
    """Eq. 7's bracket: noise alone keeps the workers 1/2 (1 - 1/n) eta^2 sigma^2 drift from their mean."""
    zeta = 1 / math.sqrt(n * pi)
    period = [mixing.identity(n)] * (pi - 1) + [mixing.aladdin(n, mixing.aladdin_alpha(n, pi))]
    exact = 0.5 * (1 - 1 / n) * theory.aladdin_drift(zeta, pi)
    assert discrepancy(period, noise_first=True) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("spec", "n"), GRAPHS)
def test_dpsgds_noise_keeps_within_1_over_1_minus_rho(spec: str, n: int) -> None:
    W = mixing.metropolis(graph(spec, n))
    found = discrepancy([W], noise_first=False)
    slowest = (1 + mixing.rho(W) / (1 - mixing.rho(W))) / n
    assert slowest <= found * (1 + 1e-9)
    assert found <= (1 - 1 / n) / (1 - mixing.rho(W)) * (1 + 1e-9)


@pytest.mark.parametrize("n", [2, 4])
def test_the_bounds_are_not_empty(n: int) -> None:
    """On a round quadratic the noise term and the start term are met within a factor of 2 and a little."""
    rate, pi = 0.02, 1
    zeta, K = 1 / math.sqrt(n * pi), 6000
    for sigma, start in ((3.0, 0.0), (0.0, 1.0)):
        problem = Quadratic(n, sigma=sigma, start=start)
        problem.A = np.ones(problem.d)
        problem.delta = 0.5 * float(problem.x0 @ problem.x0)
        common = {"L": 1.0, "sigma": sigma, "delta": problem.delta, "n": n, "K": K}
        found = measure(problem, aladdin(n, pi, rate), K, range(2))
        bound = theory.aladdin_bound(**common, zeta=zeta, pi=pi, eta=rate)  # type: ignore[arg-type]
        assert found <= bound <= 3 * found
        found = measure(problem, dpsgd(mixing.average(n), rate / 4), K, range(2))
        bound = theory.dpsgd_bound(**common, varsigma=0.0, rho=0.0, gamma=rate / 4)  # type: ignore[arg-type]
        assert found <= bound <= 4 * found


@pytest.mark.parametrize(
    "call",
    [
        lambda: theory.aladdin_drift(1.0, 4), lambda: theory.aladdin_drift(0.5, 0),
        lambda: theory.d2(L=1, n=4, rho=1.0, gamma=0.1),
        lambda: theory.aladdin_rate_holds(L=1, zeta=1.0, pi=1, eta=0.1),
    ],
)  # fmt: skip
def test_constants_out_of_range_are_refused(call: Callable[[], float]) -> None:
    with pytest.raises(OptionError):
        call()


NAMED = {
    "L": 1.0, "sigma": 1.0, "varsigma": 0.5, "delta": 1.0, "zeta": 0.5, "rho": 0.25, "pi": 2, "n": 4,
    "K": 100, "eta": 0.01, "gamma": 0.01,
}  # fmt: skip
LEAST = {"sigma": 0.0, "varsigma": 0.0, "delta": 0.0, "zeta": 0.0, "rho": 0.0}
DIVIDED = {("dpsgd_steps_for_d2", "sigma"), ("dpsgd_steps_for_speedup", "sigma")}


@pytest.mark.parametrize("name", [name for name in theory.__all__ if name != "aladdin_drift"])
def test_every_function_takes_what_is_in_range_and_refuses_the_rest(name: str) -> None:
    """Nothing is divided by zero; each constant is refused by its name."""
    function = getattr(theory, name)
    given = {key: NAMED[key] for key in inspect.signature(function).parameters}
    assert math.isfinite(function(**given))
    for key in given:
        for bad in (-1.0, math.nan, math.inf, LEAST.get(key, 0)):
            if (key, bad) == (key, LEAST.get(key)) and (name, key) not in DIVIDED:
                assert function(**given | {key: bad}) >= 0
                continue
            with pytest.raises(OptionError) as caught:
                function(**given | {key: bad})
            assert caught.value.field == key


def test_without_noise_there_is_nothing_to_outweigh() -> None:
    named = {"L": 1.0, "sigma": 0.0, "delta": 0.0, "zeta": 0.5, "pi": 2, "n": 4}
    assert theory.aladdin_steps_for_speedup(**named) == 0  # type: ignore[arg-type]


def test_a_rate_beyond_the_theorem_gives_no_bound() -> None:
    named = {"L": 1.0, "sigma": 1.0, "varsigma": 0.0, "delta": 1.0, "rho": 0.9, "n": 8, "K": 100}
    assert theory.dpsgd_bound(**named, gamma=2.0) == math.inf  # type: ignore[arg-type]
    assert theory.dpsgd_bound(**named, gamma=0.1) == math.inf  # type: ignore[arg-type]
    named = {"L": 1.0, "sigma": 1.0, "delta": 1.0, "zeta": 0.9, "pi": 4, "n": 8, "K": 100}
    assert theory.aladdin_bound(**named, eta=0.1) == math.inf  # type: ignore[arg-type]
    assert theory.aladdin_bound(**named, eta=0.01) < math.inf  # type: ignore[arg-type]


def test_at_d2_zero_there_is_no_d1() -> None:
    assert theory.d1(L=1.0, n=2, rho=0.0, gamma=1 / 6) == -math.inf

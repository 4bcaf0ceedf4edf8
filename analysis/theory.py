"""Convergence theory: the bounds of ALADDIN and D-PSGD as functions of named constants.

Rules this module obeys:

* Every function is one formula of a paper, with its number; constants are named as there and given by
  keyword. Nothing is fitted and nothing is simulated here.
* All bounds are on the mean squared gradient norm at the averaged model over K steps,
  (1/K) sum_k E |grad f(mean_i x_{k,i})|^2.
* What the text at hand does not state, and we rely on, is marked "from memory" or "derived".
* A theorem whose condition on the step size is not met bounds nothing: ``aladdin_bound`` and
  ``dpsgd_bound`` are infinite then. The corollaries and conditions on K are their formulas, as they
  stand: what they need is said of each.
* Constants out of range raise ``OptionError``: L, eta, gamma are above 0, n, K, pi at least 1, zeta and rho
  in [0, 1), sigma, varsigma, delta at least 0 (sigma above 0 where it is divided by).

==============  ==========================================================================
L               Lipschitz constant of the gradients
sigma           root of the variance bound: E |g_i(x) - grad f_i(x)|^2 <= sigma^2, all coordinates together
varsigma        spread of the workers' objectives: mean_i |grad f_i(x) - grad f(x)|^2 <= varsigma^2
delta           f(x_0) - f*, how far the start lies above the optimum
zeta, rho       second-largest eigenvalue magnitude of the mixing matrix, and its square
n, K, pi        workers, steps, ALADDIN's update period
eta, gamma      learning rate (ALADDIN, D-PSGD)
==============  ==========================================================================

The mixing that the bounds are about: D-PSGD mixes at every step, X <- W X - gamma G. ALADDIN's analysis
takes local steps and, at every pi-th, mixes all workers at once, X <- W (X - eta G) (Eqs. 4 and 6).

Sources: ALADDIN (CIKM 2022), section 4; D-PSGD (Lian et al. 2017), section 4; Cooperative SGD (Wang and
Joshi, JMLR 2021), on which ALADDIN's analysis rests.
"""

from __future__ import annotations

import math

from core.errors import require

__all__ = [
    "aladdin_bound", "aladdin_bound_at_best_rate", "aladdin_drift", "aladdin_rate", "aladdin_rate_holds",
    "aladdin_steps_for_speedup", "d1", "d2", "dpsgd_bound", "dpsgd_bound_at_best_rate", "dpsgd_rate",
    "dpsgd_steps_for_d2", "dpsgd_steps_for_speedup",
]  # fmt: skip


def aladdin_drift(zeta: float, pi: int) -> float:
    """(1 + zeta^2)/(1 - zeta^2) pi - 1: what mixing only every pi steps, and then not fully, costs."""
    _check(zeta=zeta, pi=pi)
    return (1 + zeta**2) / (1 - zeta**2) * pi - 1


def aladdin_bound(
    *, L: float, sigma: float, delta: float, zeta: float, pi: int, n: int, K: int, eta: float
) -> float:
    """ALADDIN, Theorem 1 (Eq. 7).

    2 delta/(eta K) + eta L sigma^2/n + eta^2 L^2 sigma^2 ((1+zeta^2)/(1-zeta^2) pi - 1)

    Holds for workers that share one objective, and under ``aladdin_rate_holds``: infinity where that is
    false.
    """
    _check(L=L, sigma=sigma, delta=delta, n=n, K=K, eta=eta)
    if not aladdin_rate_holds(L=L, zeta=zeta, pi=pi, eta=eta):
        return math.inf
    optimisation = 2 * delta / (eta * K)
    noise = eta * L * sigma**2 / n
    return optimisation + noise + (eta * L * sigma) ** 2 * aladdin_drift(zeta, pi)


def aladdin_rate_holds(*, L: float, zeta: float, pi: int, eta: float) -> bool:
    """Whether eta is small enough for Theorem 1: eta L + 5 eta^2 L^2 (pi/(1-zeta))^2 <= 1.

    The paper states no condition; this is the one of Cooperative SGD, Theorem 1, from memory.
    """
    _check(L=L, zeta=zeta, pi=pi, eta=eta)
    return eta * L + 5 * (eta * L * pi / (1 - zeta)) ** 2 <= 1


def aladdin_rate(*, L: float, n: int, K: int) -> float:
    """Corollary 1: eta = (1/L) sqrt(n/K)."""
    _check(L=L, n=n, K=K)
    return math.sqrt(n / K) / L


def aladdin_bound_at_best_rate(
    *, L: float, sigma: float, delta: float, zeta: float, pi: int, n: int, K: int
) -> float:
    """ALADDIN, Corollary 1 (Eq. 8): Theorem 1 at eta = (1/L) sqrt(n/K).

    (2 L delta + sigma^2)/sqrt(n K) + n sigma^2/K ((1+zeta^2)/(1-zeta^2) pi - 1)

    The formula, for K so large that ``aladdin_rate_holds`` at ``aladdin_rate``.
    """
    _check(L=L, sigma=sigma, delta=delta, n=n, K=K)
    return (2 * L * delta + sigma**2) / math.sqrt(n * K) + n * sigma**2 / K * aladdin_drift(zeta, pi)


def aladdin_steps_for_speedup(*, L: float, sigma: float, delta: float, zeta: float, pi: int, n: int) -> float:
    """Steps K from which the first term of Eq. 8 is at least the second: linear speed-up from there on.

    Derived from Eq. 8: K >= n^3 sigma^4 ((1+zeta^2)/(1-zeta^2) pi - 1)^2/(2 L delta + sigma^2)^2. Holds for
    the bound; the step size must besides satisfy ``aladdin_rate_holds`` at that K. 0 without noise.
    """
    _check(L=L, sigma=sigma, delta=delta, n=n)
    if sigma == 0:
        return 0.0
    drift = sigma**2 * aladdin_drift(zeta, pi)
    return n**3 * (drift / (2 * L * delta + sigma**2)) ** 2


def d2(*, L: float, n: int, rho: float, gamma: float) -> float:
    """D-PSGD: D2 = 1 - 18 gamma^2 n L^2/(1 - sqrt(rho))^2."""
    _check(L=L, n=n, gamma=gamma)
    return 1 - 18 * n * (gamma * L / _gap(rho)) ** 2


def d1(*, L: float, n: int, rho: float, gamma: float) -> float:
    """D-PSGD: D1 = 1/2 - 9 gamma^2 n L^2/((1 - sqrt(rho))^2 D2); minus infinity where D2 is not above 0."""
    second = d2(L=L, n=n, rho=rho, gamma=gamma)
    return 0.5 - 9 * n * (gamma * L / _gap(rho)) ** 2 / second if second > 0 else -math.inf


def dpsgd_bound(
    *, L: float, sigma: float, varsigma: float, delta: float, rho: float, n: int, K: int, gamma: float
) -> float:
    """D-PSGD, Theorem 1, solved for the gradient at the mean: its right-hand side over D1.

    (1/D1) (delta/(gamma K) + gamma L sigma^2/(2n) + gamma^2 L^2 n sigma^2/((1-rho) D2)
    + 9 gamma^2 L^2 n varsigma^2/((1-sqrt(rho))^2 D2))

    Dropping the other term on the left needs gamma L <= 1. Infinity where gamma is too large for the
    theorem to say anything (D1 or D2 not above 0, gamma L > 1).
    """
    _check(sigma=sigma, varsigma=varsigma, delta=delta, K=K)
    second = d2(L=L, n=n, rho=rho, gamma=gamma)
    if gamma * L > 1 or second <= 0 or d1(L=L, n=n, rho=rho, gamma=gamma) <= 0:
        return math.inf
    drift = (gamma * L) ** 2 * n / second * _spread(sigma, varsigma, rho)
    right = delta / (gamma * K) + gamma * L * sigma**2 / (2 * n) + drift
    return right / d1(L=L, n=n, rho=rho, gamma=gamma)


def dpsgd_rate(*, L: float, sigma: float, n: int, K: int) -> float:
    """D-PSGD, Corollary 2: gamma = 1/(2 L + sigma sqrt(K/n)) (from memory)."""
    _check(L=L, sigma=sigma, n=n, K=K)
    return 1 / (2 * L + sigma * math.sqrt(K / n))


def dpsgd_bound_at_best_rate(*, L: float, sigma: float, delta: float, n: int, K: int) -> float:
    """D-PSGD, Corollary 2: 8 delta L/K + (8 delta + 4 L) sigma/sqrt(K n).

    From memory of the published paper; docs/theory.md derives it from Theorem 1, for
    K >= ``dpsgd_steps_for_speedup`` and gamma = ``dpsgd_rate``.
    """
    _check(L=L, sigma=sigma, delta=delta, n=n, K=K)
    return 8 * delta * L / K + (8 * delta + 4 * L) * sigma / math.sqrt(K * n)


def dpsgd_steps_for_d2(*, L: float, sigma: float, rho: float, n: int) -> float:
    """First condition on K of Corollary 2: K >= 72 n^2 L^2/(sigma^2 (1 - sqrt(rho))^2).

    Derived: gamma^2 <= n/(sigma^2 K), so it makes 18 gamma^2 n L^2/(1-sqrt(rho))^2 <= 1/4, hence D2 >= 3/4
    and D1 >= 1/2 - (1/8)/(3/4) = 1/3. Without noise (sigma = 0) no K does.
    """
    _check(L=L, n=n)
    _check_divisor(sigma)
    return 72 * (n * L / (sigma * _gap(rho))) ** 2


def dpsgd_steps_for_speedup(
    *, L: float, sigma: float, varsigma: float, delta: float, rho: float, n: int
) -> float:
    """Steps K from which D-PSGD's Corollary 2 holds: linear speed-up from there on.

    The larger of ``dpsgd_steps_for_d2`` and
    4 L^4 n^5/(sigma^6 (delta + L)^2) (sigma^2/(1-rho) + 9 varsigma^2/(1-sqrt(rho))^2)^2

    The second is from memory of the published paper, and its wording unverified. That the two together
    suffice for ``dpsgd_bound_at_best_rate`` is derived in docs/theory.md; that on a ring it grows as n^9
    (n^13 with varsigma > 0) is what the paper's text says of rings.
    """
    _check(L=L, delta=delta, varsigma=varsigma, n=n)
    _check_divisor(sigma)
    spread = _spread(sigma, varsigma, rho)
    drift = 4 * L**4 * n**5 / (sigma**6 * (delta + L) ** 2) * spread**2
    return max(dpsgd_steps_for_d2(L=L, sigma=sigma, rho=rho, n=n), drift)


def _spread(sigma: float, varsigma: float, rho: float) -> float:
    return sigma**2 / (1 - rho) + 9 * (varsigma / _gap(rho)) ** 2


def _gap(rho: float) -> float:
    _check(rho=rho)
    return 1 - math.sqrt(rho)


_ABOVE, _COUNTS, _SHARES = ("L", "eta", "gamma"), ("n", "K", "pi"), ("zeta", "rho")


def _check(**named: float) -> None:
    """Raise ``OptionError`` for the first constant out of range."""
    for name, value in named.items():
        if name in _SHARES:
            require(name, value, 0 <= value < 1, "a number in [0, 1)")
        elif name in _COUNTS:
            require(name, value, 1 <= value < math.inf, "a number of at least 1")
        elif name in _ABOVE:
            require(name, value, 0 < value < math.inf, "a number above 0")
        else:
            require(name, value, 0 <= value < math.inf, "a number of at least 0")


def _check_divisor(sigma: float) -> None:
    require("sigma", sigma, 0 < sigma < math.inf, "a number above 0: the condition is on K sigma^2")

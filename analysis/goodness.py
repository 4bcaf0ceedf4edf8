"""How well a fit fits: what was measured beside what was fitted, ready for JSON and for pictures.

Rules this module obeys:

* A fit's quality is told by what it leaves over: R^2 and the largest residual of a line, relative to the
  measurement; the Kolmogorov-Smirnov distance and p-value of a distribution; the scatter of a rate.
* The p-value allows for parameters that come from the same sample: by parametric bootstrap, from a fixed
  seed (Lilliefors' correction, for distributions that have no table).
* It holds the points (medians with the middle 95 % of repetitions), so that a picture needs no record.
* It judges the very estimates of ``analysis.calibrate``, which it takes from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.calibrate import (
    StepFit,
    by_size,
    distribution,
    observed,
    step_times,
)  # fmt: skip
from analysis.resampling import line
from core.probes import ALLREDUCE, DUPLEX, PING, STREAM
from core.record import Record
from core.tensors import OPERATIONS

DRAWS = 200
"""Samples of the bootstrap."""

__all__ = ["allreduce", "links", "steps", "tensors"]


def steps(record: Record, fit: StepFit, workers: int = 0) -> dict[str, Any]:
    """A step-time distribution and its sample (seconds, at most 400); ``workers`` as it was fitted."""
    times = step_times(record, workers)
    p = 1.0 if fit.model == "constant" else _plausible(fit, len(times))
    return {
        "kind": "distribution", "model": fit.model, "mean": fit.mean, "spread": fit.spread, "ks": fit.ks,
        "p": p, "times": [float(time) for time in times[:400]],
    }  # fmt: skip


def _plausible(fit: StepFit, count: int) -> float:
    """Share of samples of ``count`` from the fitted distribution that lie as far from their own fit."""
    drawn = distribution(fit.model, fit.mean, fit.spread).rvs(
        size=(DRAWS, count), random_state=np.random.default_rng(0)
    )
    above, below = np.arange(1, count + 1) / count, np.arange(count) / count
    far = 0
    for sample in np.sort(drawn, axis=1):
        mean = float(sample.mean())
        fitted = distribution(fit.model, mean, float(sample.std()) / mean).cdf(sample)
        far += max((above - fitted).max(), (fitted - below).max()) >= fit.ks
    return far / DRAWS


def tensors(record: Record) -> dict[str, Any]:
    """Rates (bytes/s) of every tensor operation: median, middle 95 %, and the scatter of its repetitions.

    ``residual`` is the median distance of a repetition from the fitted rate, relative to it.
    """
    found = {}
    for kind, operation in enumerate(OPERATIONS):
        nbytes, seconds = observed(record, kind)
        if not len(seconds) or not (seconds > 0).any():
            continue
        rates = nbytes / np.maximum(seconds, 1e-9)
        middle = float(np.median(rates))
        low, high = np.percentile(rates, (2.5, 97.5))
        found[operation] = {
            "rate": middle, "low": float(low), "high": float(high),
            "residual": float(np.median(np.abs(rates - middle)) / middle),
        }  # fmt: skip
    return {"kind": "rates", "rates": found}


def links(record: Record) -> dict[str, Any]:
    """The lines of pings, one-way streams and streams both ways over the message's size."""
    found: dict[str, Any] = {"kind": "lines", "what": "seconds per message", "lines": {}}
    for name, kind in (("ping", PING), ("stream", STREAM), ("both ways", DUPLEX)):
        times = by_size(record, kind)
        found["lines"][name] = _line(times, *line(times))
    return found


def allreduce(record: Record, workers: int) -> dict[str, Any]:
    """The line of a native all-reduce over the tensor's size."""
    times = by_size(record, ALLREDUCE, over_nodes=np.min)
    lines = {f"{workers} workers": _line(times, *line(times))}
    return {"kind": "lines", "what": "seconds per all-reduce", "lines": lines}


def _line(times: Mapping[float, np.ndarray], intercept: float, slope: float) -> dict[str, Any]:
    """Points, fitted line, R^2 of the points' medians, and the largest residual relative to its point."""
    sizes = np.array(sorted(times))
    medians = np.array([np.median(times[size]) for size in sizes])
    fitted = intercept + slope * sizes
    left, total = np.square(medians - fitted).sum(), np.square(medians - medians.mean()).sum()
    return {
        "bytes": sizes.tolist(),
        "seconds": medians.tolist(),
        "low": [float(np.percentile(times[size], 2.5)) for size in sizes],
        "high": [float(np.percentile(times[size], 97.5)) for size in sizes],
        "intercept": float(intercept),
        "slope": float(slope),
        "r2": float(1 - left / total) if total else 1.0,
        "residual": float(np.abs(fitted / medians - 1).max()),
    }

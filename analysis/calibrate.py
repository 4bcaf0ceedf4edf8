"""From probe records to constants: step-time distribution, tensor operations, links, all-reduce.

Rules this module obeys:

* It sees records of probe programs (``core.probes``) and nothing else: never a run of the kind that
  the constants are to predict.
* Every constant comes with a 95 % interval, by bootstrap (``analysis.resampling``). What changes between
  probes no single record shows; ``analysis.repetitions`` adds it.
* Medians, not means, wherever a probe may be disturbed by a machine that does something else too.

Links. With latency L, overhead o per message and rate R, half a round trip of b bytes takes
L + o + b/R and messages back to back take o + b/R each. So the streams' intercept over the sizes is
o, their slope 1/R, and L is what a ping takes longer than a stream of the same size. Where a link saves
up to B bytes while it is idle, a ping takes min(b, B)/R less, a stream nothing less. Pings of some sizes
are enough, for L is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, stats

from analysis.resampling import FLATTEST, Lines, constant, interval, medians, resamples
from core.probes import ALLREDUCE, DUPLEX, HUB, PING, STEP, STREAM, TALKS, TURN
from core.record import Record
from core.tensors import OPERATIONS
from scenarios.profile import Constant

__all__ = [
    "CalibrationError", "StepFit", "at_most", "by_size", "distribution", "fit_allreduce", "fit_beside",
    "fit_byte_cost", "fit_carried", "fit_cold", "fit_handover", "fit_links", "fit_message", "fit_pacing",
    "fit_ring_lag", "fit_slots", "fit_steps", "fit_tensors", "observed", "step_times",
]  # fmt: skip

SHORTEST = 1e-5
"""Seconds below which a lag is none."""

LEFT_OUT = 4
"""Of so many steps in a phase of a ``BesideProbe`` the first is left out."""

FEWEST = 5
"""Steps of each of two kinds that say something of their difference."""

BRACKETS = 64
"""A power of two: into so many parts costs are divided, the first of which is looked through first."""

LONGEST_LOST = 1e3
"""Seconds that can be lost each time."""

LAGS = (0.06, 0.2, 0.5)
"""Shares of the greatest lag in question with which a ring is simulated, too; between them it is a line."""


class CalibrationError(Exception):
    """A probe's record cannot be fitted: says which and why."""


@dataclass(frozen=True)
class StepFit:
    """A step-time distribution: its model's name and parameters and how well it fits.

    ks is the Kolmogorov-Smirnov distance (0: perfect), p its p-value for the fitted distribution.
    """

    model: str
    mean: float
    spread: float
    ks: float
    p: float


def step_times(record: Record, workers: int = 0, skip: int = 2) -> np.ndarray:
    """Compute times of a ``StepProbe`` run in order of node and time, all workers pooled.

    Those that it observed as steps of so many ``workers`` at once; with 0 all but the first ``skip`` of each.
    """
    steps, seen = record.steps, record.observations
    if not workers:
        return np.asarray(steps["compute"][steps["step"] >= skip])
    rows = (seen["kind"] == STEP) & (seen["bytes"] == workers)
    chosen = set(zip(seen["node"][rows].tolist(), seen["seconds"][rows].tolist(), strict=True))
    places = zip(steps["node"].tolist(), steps["step"].tolist(), strict=True)
    return np.asarray(steps["compute"][[place in chosen for place in places]])


def fit_steps(record: Record, name: str, workers: int = 0) -> tuple[StepFit, dict[str, Constant]]:
    """Fit the ``step_times`` of a ``StepProbe`` run, of so many ``workers`` at once if that is not 0.

    Of lognormal, gamma and shifted exponential, by moments as ``scenarios.steptime`` parametrizes
    them, the one with the least KS distance is taken; constant below a spread of 0.5 %. Constants:
    ``<name>.mean`` and ``<name>.spread``.
    """
    times = step_times(record, workers)
    if len(times) < 5:
        raise CalibrationError(
            f"step probe: {len(times)} steps after warm-up are too few; expected at least 5"
        )
    mean, spread = float(times.mean()), float(times.std() / times.mean())
    if spread < 0.005:
        fit = StepFit("constant", mean, 0.0, 0.0, 1.0)
    else:
        fit = min((_distance(model, times, mean, spread) for model in _FROZEN), key=lambda f: f.ks)
    constants = {
        f"{name}.mean": constant(times, np.mean, "s", fit.model),
        f"{name}.spread": constant(times, _spread, "1", fit.model),
    }
    return fit, constants


def _spread(times: np.ndarray, axis: int) -> Any:
    return times.std(axis=axis) / times.mean(axis=axis)


def _lognormal(mean: float, spread: float) -> Any:
    variance = math.log1p(spread * spread)
    return stats.lognorm(s=math.sqrt(variance), scale=mean / math.sqrt(1 + spread * spread))


def _gamma(mean: float, spread: float) -> Any:
    return stats.gamma(a=1 / spread**2, scale=mean * spread**2)


def _shifted_exponential(mean: float, spread: float) -> Any:
    return stats.expon(loc=mean * (1 - spread), scale=mean * spread)


_FROZEN = {"lognormal": _lognormal, "gamma": _gamma, "shifted_exponential": _shifted_exponential}


def distribution(model: str, mean: float, spread: float) -> Any:
    """The SciPy distribution of step times that ``model`` stands for (not ``constant``), seconds."""
    return _FROZEN[model](mean, min(spread, 0.999))


def _distance(model: str, times: np.ndarray, mean: float, spread: float) -> StepFit:
    test = stats.kstest(times, distribution(model, mean, spread).cdf)
    return StepFit(model, mean, spread, float(test.statistic), float(test.pvalue))


def fit_cold(
    measured: Record, simulated: Callable[[float], Record], step: float, skip: int = TURN
) -> Constant:
    """``step_time.cold``: what a step takes longer after a pause, seconds, from a ``RelayProbe`` run.

    In a simulation of the same probe with such a cost, ``simulated(cost)``, steps after pauses take as much
    longer than the others as was measured. ``step`` is the time of one. Below zero where they were
    shorter: cut off there, chance alone would make a cost of what costs nothing.
    """
    rested, warm = _turns(measured, skip)
    if min(len(rested), len(warm)) < FEWEST:
        few = f"{len(rested)} steps after a pause and {len(warm)} without are too few"
        raise CalibrationError(f"probe of steps after pauses: {few}; at least {FEWEST} of each")
    rng = np.random.default_rng(0)
    draws = resamples(rested, rng).mean(axis=1) - resamples(warm, rng).mean(axis=1)
    count, value = min(len(rested), len(warm)), float(rested.mean() - warm.mean())
    longer = interval(value, draws, "s", len(rested) + len(warm), count)

    def modelled(cost: float) -> float:
        rested, warm = _turns(simulated(cost), skip)
        return float(rested.mean() - warm.mean())

    none = modelled(0.0)
    each = (modelled(step / 4) - none) / (step / 4)
    if each <= 0.0:
        raise CalibrationError("probe of steps after pauses: in its simulation pauses cost nothing")
    low, value, high = ((longer - none) / each for longer in (longer.low, longer.value, longer.high))
    return Constant(value, "s", low, high, len(rested) + len(warm))


def _turns(record: Record, skip: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute times of a ``RelayProbe`` after ``skip`` steps: of the first steps of turns, of the others."""
    step, times = record.steps["step"], record.steps["compute"]
    first, late = step % TURN == 0, step >= skip
    return times[first & late], times[~first & late]


def fit_slots(alone: Constant, full: Constant, n: int) -> Constant:
    """``device.slots``: how many workers a device serves at full speed.

    ``alone`` is the mean step time of a worker that has it to itself, ``full`` that of n at once:
    full = alone max(1, n / slots). Chance may make it more than n, or than the cores that there are; cut off
    there (``at_most``) before they are pooled, several probes would say too little.
    """

    def slots(one: float, many: float) -> float:
        return max(1.0, n * one / many)

    value = slots(alone.value, full.value)
    low, high = slots(alone.low, full.high), slots(alone.high, full.low)
    return Constant(value, "1", min(low, value), max(high, value), alone.samples + full.samples)


def at_most(found: Constant, most: float) -> Constant:
    """``found``, cut off at ``most``."""
    value, low, high = (min(one, most) for one in (found.value, found.low, found.high))
    return replace(found, value=value, low=low, high=high)


def fit_pacing(record: Record, target: float, skip: int = 2) -> Constant:
    """What a paced step takes beyond its ``target`` seconds, from its start to the next one, as a rule."""
    rows = record.steps["step"] >= skip
    times = (record.steps["end"] - record.steps["start"])[rows]
    if len(times) < 5:
        raise CalibrationError(
            f"pacing probe: {len(times)} steps after warm-up are too few; expected at least 5"
        )
    return constant(times - target, _middle, "s")


def _middle(data: np.ndarray, axis: int) -> Any:
    """The mean of the middle three fifths: what disturbs a probe makes single steps very late."""
    return stats.trim_mean(data, 0.2, axis=axis)


def fit_tensors(record: Record) -> dict[str, Constant]:
    """``tensor_rate.<operation>`` in bytes/s from a ``TensorProbe`` run."""
    found = {}
    for kind, operation in enumerate(OPERATIONS):
        nbytes, seconds = observed(record, kind)
        if not len(seconds):
            raise CalibrationError(f"tensor probe: no measurement of {operation}")
        if not (seconds > 0).any():
            continue
        found[f"tensor_rate.{operation}"] = constant(nbytes / np.maximum(seconds, 1e-9), np.median, "bytes/s")
    return found


def fit_message(record: Record) -> Constant:
    """``program.message``: what a program spends on one, from a ``TensorProbe`` run; seconds, in the median.

    Raises ``CalibrationError`` where it has no steps that are followed by messages, one sent and one taken.
    """
    steps = record.steps
    rows = (steps["node"] == 0) & (steps["step"] >= TALKS) & (steps["step"] % TALKS == TALKS - 1)
    if not rows.any():
        raise CalibrationError("tensor probe: no step that is followed by messages")
    return constant(steps["update"][rows] / 2, np.median, "s")


def fit_ring_lag(
    measured: Record, simulated: Callable[[float], Record], workers: int, whole: float = 0.0
) -> Constant:
    """``ring.<kind>.lag.<n>``: seconds by which messages of a ring ask late, in the mean.

    The lag with which a simulation of the same ``AllReduceProbe`` by messages, ``simulated(lag)``, takes as
    long as was measured; 0 where that took no longer than without. The largest size counts:
    the model's own, or byte for byte for a model of ``whole`` bytes.
    Raises ``CalibrationError`` where it was not measured and simulated alike, or no lag makes a simulation so
    long.
    """
    ours = by_size(measured, ALLREDUCE, over_nodes=np.max)
    if not ours:
        raise CalibrationError("ring probe: no all-reduce")
    largest, steps = max(ours), 2 * (workers - 1)

    def step(lag: float) -> float:
        theirs = by_size(simulated(lag), ALLREDUCE, over_nodes=np.max)
        if largest not in theirs:
            raise CalibrationError("ring probe: not measured and simulated alike")
        return float(np.median(theirs[largest])) / steps

    found = _lost(step, constant(ours[largest] / steps, np.median, "s"))
    low, value, high = (max(1.0, whole / largest) * t for t in (found.low, found.value, found.high))
    return replace(found, value=value, low=low, high=high)


def fit_handover(measured: Record, simulated: Callable[[float], Record]) -> Constant:
    """``hub.<kind>.handover.<n>``: seconds for which a link rests between messages of different nodes.

    That with which rounds of a simulation of the same ``AllReduceProbe`` (its ``hub``),
    ``simulated(handover)``, take as long as was measured, in the median; 0 where they took no longer than
    without.
    Raises ``CalibrationError`` where there is no round, it was not measured and simulated alike, or no
    handover makes a simulation so long.
    """
    sizes, rounds = observed(measured, HUB)
    if not len(rounds):
        raise CalibrationError("probe of many senders: no rounds")

    def step(handover: float) -> float:
        theirs, seconds = observed(simulated(handover), HUB)
        if not len(seconds) or theirs[0] != sizes[0]:
            raise CalibrationError("probe of many senders: not measured and simulated alike")
        return float(np.median(seconds))

    return _lost(step, constant(rounds, np.median, "s"))


def _lost(step: Callable[[float], float], taken: Constant) -> Constant:
    """The seconds lost each time with which a simulation, ``step(seconds)``, takes as long as ``taken``.

    Raises ``CalibrationError`` where no loss makes it so long.
    """
    least = step(0.0)
    most = max(taken.high - least, SHORTEST)
    while (longest := step(most)) < taken.high:
        if most > LONGEST_LOST:
            raise CalibrationError(f"losing {most:g} s each time, its simulation takes {longest:g} s")
        most *= 2
    lags = [0.0, *(most * share for share in LAGS), most]
    longer = np.maximum.accumulate([least, *map(step, lags[1:-1]), longest])

    def lost(seconds: float) -> float:
        return float(np.interp(seconds, longer, lags)) if seconds > least + SHORTEST else 0.0

    low, value, high = map(lost, (taken.low, taken.value, taken.high))
    return Constant(value, "s", low, high, taken.samples)


def fit_links(record: Record, name: str, nominal: float = 0.0, burst: float = 0.0) -> dict[str, Constant]:
    """Constants of a link from a ``LinkProbe`` run: ``<name>.latency``, ``.overhead``, ``.bandwidth``.

    ``.efficiency`` as well where the link has a ``nominal`` rate (bytes/s), ``.burst`` where it saves so
    many bytes while it is idle, and ``.shared``, the bytes/s of both directions together when both are busy.
    """
    pings, streams, duplex = (by_size(record, kind) for kind in (PING, STREAM, DUPLEX))
    if min(len(streams), len(duplex)) < 2 or not pings or not pings.keys() <= streams.keys():
        raise CalibrationError(
            f"link probe: messages of {len(streams)} sizes; expected two or more, with pings"
        )

    stream, both = Lines(streams), Lines(duplex)
    if not all(one.slope > FLATTEST for one in (stream, both)):
        raise CalibrationError("link probe: larger messages took no longer than small ones")
    found = {
        "overhead": stream.constant("s", stream.intercept, stream.intercepts),
        "bandwidth": stream.constant("bytes/s", 1 / stream.slope, 1 / stream.slopes),
        "latency": _latency(pings, stream, burst),
        "shared": both.constant("bytes/s", 2 / both.slope, 2 / both.slopes),
    }
    if nominal:
        share = 1 / nominal
        found["efficiency"] = stream.constant("1", share / stream.slope, share / stream.slopes)
    constants = {f"{name}.{key}": one for key, one in found.items()}
    if burst:
        constants[f"{name}.burst"] = Constant(
            burst, "bytes", burst, burst, stream.count, "as the links were set"
        )
    cost = fit_byte_cost(record)
    if cost is not None:
        constants[f"{name}.byte_cost".replace("link.", "host.")] = cost
    return constants


def _latency(pings: Mapping[float, np.ndarray], stream: Lines, burst: float) -> Constant:
    """What pings take longer than streams of the same size, in the median of the sizes; see the module."""
    rng, sizes = np.random.default_rng(1), np.array(sorted(pings))
    places = np.searchsorted(stream.sizes, sizes)
    saved = np.minimum(sizes, burst)
    drawn = np.stack([medians(pings[size], rng) for size in sizes], axis=1)
    longer = drawn + saved * stream.slopes[:, None] - stream.drawn[:, places]
    ours = np.array([np.median(pings[size]) for size in sizes])
    value = max(float(np.median(ours + saved * stream.slope - stream.medians[places])), 0.0)
    draws = np.maximum(np.median(longer, axis=1), 0.0)
    return interval(value, draws, "s", stream.count, min(stream.fewest, *map(len, pings.values())))


def fit_carried(record: Record, nominal: float) -> Constant:
    """Goodput of a ``LinkProbe``'s streams, all together, over the link's ``nominal`` rate (bytes/s).

    For few messages: where one is late the next one is as much earlier, so sums say more than medians.
    """
    streams = np.stack(observed(record, STREAM), axis=1)
    if not len(streams):
        raise CalibrationError("link probe: no streams")

    def carried(each: np.ndarray, axis: int) -> Any:
        nbytes, seconds = np.moveaxis(each.sum(axis=axis), -1, 0)
        return nbytes / seconds / nominal

    return constant(streams, carried, "1")


def fit_byte_cost(record: Record, nodes: Sequence[int] = ()) -> Constant | None:
    """Seconds of one core that moving a byte takes, both ends together; None if the driver does not know.

    What a probe's ``nodes`` (none: all) spent beside their programs, over all the bytes that they moved.
    (What programs do themselves are tensor operations, which have rates of their own.)
    """
    seconds: Mapping[str, float] = record.manifest.get("transport_seconds", {})
    spent = {int(node): value for node, value in seconds.items() if not nodes or int(node) in nodes}
    if not spent:
        return None
    chosen = np.isin(record.nodes["node"], list(spent))
    moved, count = (float(record.nodes[of][chosen].sum()) for of in ("bytes_out", "messages_out"))
    if not moved:
        return None
    cost = sum(spent.values()) / moved
    note = "one figure for a whole probe: its interval is that of repetitions"
    return Constant(cost, "s", cost, cost, int(count), note)


def fit_beside(
    measured: Record, simulated: Callable[[float], Record], phase: int, most: float = 1e-7
) -> Constant:
    """``host.<kind>.beside.<n>``: what moving a byte costs steps that go on meanwhile, seconds of one core.

    The cost at which in a simulation of the same ``BesideProbe``, ``simulated(cost)``, steps beside
    messages take as much longer than silent ones as was measured; 0 where they took no longer than without
    a cost, at most ``most``.
    """
    silent, beside = _phases(measured, phase)
    if min(len(silent), len(beside)) < FEWEST:
        few = f"{len(silent)} silent steps and {len(beside)} beside messages are too few"
        raise CalibrationError(f"probe of steps beside messages: {few}; at least {FEWEST} of each")

    @cache
    def longer(cost: float) -> float:
        return _ratio(*_phases(simulated(cost), phase))

    def cost(target: float) -> float:
        """The least: messages that cost far too much outlast their phases, and make silent steps longer."""
        if target <= longer(0.0):
            return 0.0
        low, high = 0.0, most / BRACKETS
        while longer(high) < target:
            low, high = high, 2 * high
            if high > most:
                return most
        return float(optimize.brentq(lambda c: longer(c) - target, low, high, rtol=1e-3, xtol=1e-13))

    rng = np.random.default_rng(0)
    draws = resamples(beside, rng).mean(axis=1) / resamples(silent, rng).mean(axis=1)
    smaller = min(len(silent), len(beside))
    ratio = interval(_ratio(silent, beside), draws, "1", len(silent) + len(beside), smaller)
    low, value, high = cost(ratio.low), cost(ratio.value), cost(ratio.high)
    return Constant(value, "s", min(low, value), max(high, value), ratio.samples)


def _phases(record: Record, phase: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute times of a ``BesideProbe`` with such a ``phase``: in silence, beside messages.

    A step counts where its middle is, by the phases of the first worker, of each of which the first part is
    left out: messages begin and end a little later than they are told, and first steps warm up.
    """
    rows = record.steps
    first = rows["node"] == 0
    places = (0, max(1, phase // LEFT_OUT))
    bounds, begun = (rows["start"][first & (rows["step"] % phase == place)] for place in places)
    if not len(begun):
        return begun, begun
    middle = (rows["start"] + rows["end"]) / 2
    turn = np.minimum(np.maximum(np.searchsorted(bounds, middle, side="right") - 1, 0), len(begun) - 1)
    counts = (middle >= begun[turn]) & (middle <= rows["end"][first].max())
    sending = turn % 2 == 1
    return rows["compute"][counts & ~sending], rows["compute"][counts & sending]


def _ratio(silent: np.ndarray, beside: np.ndarray) -> float:
    return float(beside.mean() / silent.mean())


def fit_allreduce(record: Record, workers: int) -> dict[str, Constant]:
    """``allreduce.alpha.<n>`` and ``.bandwidth.<n>`` of a ring of ``workers`` from an ``AllReduceProbe`` run.

    2 (n - 1) (alpha + b / n / bandwidth). Each repetition is taken at the worker that it took the
    least time: the last to join, which waited for nobody.
    """
    times = by_size(record, ALLREDUCE, over_nodes=np.min)
    if len(times) < 2:
        raise CalibrationError(f"all-reduce probe: {len(times)} sizes; expected two or more")
    lines, steps = Lines(times), 2 * (workers - 1)
    if not lines.slope > FLATTEST:
        raise CalibrationError("all-reduce probe: larger tensors took no longer than small ones")
    share = steps / workers
    return {
        f"allreduce.alpha.{workers}": lines.constant("s", lines.intercept / steps, lines.intercepts / steps),
        f"allreduce.bandwidth.{workers}": lines.constant(
            "bytes/s", share / lines.slope, share / lines.slopes
        ),
    }


def observed(record: Record, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and seconds of everything of that kind that a probe observed."""
    rows = record.observations["kind"] == kind
    return record.observations["bytes"][rows].astype(float), record.observations["seconds"][rows]


def by_size(
    record: Record, kind: int, over_nodes: Callable[..., np.ndarray] | None = None
) -> dict[float, np.ndarray]:
    """Seconds by message size; ``over_nodes`` reduces the nodes' durations of each repetition to one."""
    found = {}
    rows = record.observations["kind"] == kind
    nodes, sizes = record.observations["node"], record.observations["bytes"]
    for size in np.unique(sizes[rows]):
        chosen = rows & (sizes == size)
        seconds = record.observations["seconds"][chosen]
        if over_nodes is not None:
            each = [seconds[nodes[chosen] == node] for node in np.unique(nodes[chosen])]
            seconds = over_nodes(each, axis=0)
        found[float(size)] = seconds
    return found

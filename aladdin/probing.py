"""The probes that measure a machine: what each runs, and what a profile learns from it.

Rules this module obeys:

* Constants come from probes only (``core.probes``), also where steps or links are paced or shaped. A
  probe never runs an algorithm that its constants are to predict.
* Probes run with numbers of workers of their own, so on machines of their own: equal ones, one for each
  worker, with the NIC of the scenario's first. Who has which machine is no constant of this one.
* A probe may use the constants of earlier ones: to fit its own, and to know how much of it is affordable.
* Each lasts ``share`` seconds at most, as far as can be told before: fewer repetitions of long steps and
  large messages, never so few that they cannot be fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from analysis import calibrate as fits
from analysis import goodness
from core.probes import PHASE
from core.record import Record
from scenarios import Scenario
from scenarios.cluster import Layout
from scenarios.plan import players
from scenarios.profile import PAUSE, Constant, Profile
from scenarios.topology import Topology
from scenarios.workloads.layers import layer_sizes

__all__ = ["Learned", "Probe", "alike", "fixed", "nominal", "probes", "refreshing"]

PARTS = 1.875
"""Messages of the full size that those of a probe with parts 1/8, 1/4, 1/2 and 1 amount to."""


LITTLE = 4e6
"""Bytes of the largest message that goes over slow links, where only what its bytes cost is asked."""


MOST_BESIDE = 3e-8
"""Seconds that moving a byte may cost the steps beside it; twenty times what was ever seen."""


SLOWER = 5.0
"""How many times slower the links are over which a byte's cost is probed once more."""


DRAWN = 12
"""All-reduces in a simulation that a ring's lag is fitted by: what is drawn must not decide."""


OVERRUN = 0.1
"""Lateness of paced steps, as a share of them, that is no lateness any more: the machine cannot keep pace."""


@dataclass(frozen=True)
class Learned:
    """What a probe says: constants, how well their fits fit (``Profile.notes``), and the step model.

    failed  why it says nothing, where it was disturbed beyond use
    """

    constants: Mapping[str, Constant] = field(default_factory=dict)
    fits: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Probe:
    """Scenarios to run one after the other, and what their records say beside a profile's constants."""

    what: str
    scenarios: Callable[[Profile], list[Scenario]]
    learn: Callable[[list[Record], Profile], Learned]


def nominal(base: Scenario) -> float:
    """Bytes/s at which the first machine's links are paced or shaped."""
    return min(base.cluster.machines[0].up, base.cluster.machines[0].down)


def alike(base: Scenario) -> Scenario:
    """``base`` on equal machines, one for each worker and each server, as its first one is.

    Such a cluster may have any number of workers; one whose machines are listed, counted or joined may not.
    """
    tree = base.to_dict()
    first = base.cluster.machines[0]
    gone = {"machines", "placement", *(one.name for kind in (Layout, Topology) for one in fields(kind))}
    kept = {name: value for name, value in tree["cluster"].items() if name not in gone | {"heterogeneity"}}
    tree["cluster"] = kept | {
        "workers": base.cluster.workers,
        "servers": {**kept["servers"], "placement": "dedicated", "bandwidth": 0.0},
        "bandwidth": nominal(base),
        "latency": 2 * first.latency,
        "local_bandwidth": first.local_bandwidth,
        "local_latency": first.local_latency,
    }
    return Scenario.from_dict(tree)


def fixed(base: Scenario) -> bool:
    """Whether machines are listed, counted or joined: they may hold no other number of workers."""
    layout = base.cluster.layout
    return layout is None or layout.machines > 0 or base.cluster.topology is not None


def probes(base: Scenario, counts: Sequence[int], kinds: Sequence[str], share: float) -> Iterator[Probe]:
    """All probes that predictions of ``base`` need, with ``counts`` workers and ``kinds`` of links."""
    make = _Maker(base, share)
    yield make.steps()
    yield make.slots(counts)
    yield make.cold(kinds)
    yield make.pacing(max(counts))
    yield make.tensors()
    for kind in kinds:
        yield make.links(kind)
    for n in counts:
        if "native" in kinds:
            yield make.allreduce(n)
        for kind in kinds:
            if kind != "native":
                yield make.ring(n, kind)
    for kind in kinds:
        if kind != "native":
            yield make.ring(max(counts), kind, slow=True)
    for kind in kinds:
        yield make.beside(kind)


def refreshing(base: Scenario, kind: str, share: float) -> Iterator[Probe]:
    """Probes of what ``base`` has native, steps or links; short ones. Emulated links do not drift."""
    make = _Maker(base, share)
    if base.run.compute == "native":
        yield make.steps()
        yield make.slots([max(2, players(base))])
        yield make.cold([kind])
    if kind == "native":
        yield make.links(kind)
    if base.run.compute == "native":
        yield make.beside(kind)


def _burst(kind: str) -> float:
    """Bytes that links of a kind save while they are idle, as the test-bed sets them."""
    if kind != "shaped":
        return 0.0
    from real.testbed import BURST

    return float(BURST)


def _slower(scenario: Scenario, kind: str) -> Scenario:
    """The same over links that carry a fraction of the rate."""
    share = Constant(1 / SLOWER, "1", 1 / SLOWER, 1 / SLOWER)
    return Profile({f"link.{kind}.efficiency": share}).apply(scenario)


def _times(seconds: float, each: float, least: int, most: int) -> int:
    """How often something that takes ``each`` fits into ``seconds``, in bounds."""
    return most if each <= 0 else max(least, min(most, int(seconds / each)))


class _Maker:
    """Makes the probes for one scenario."""

    def __init__(self, base: Scenario, share: float) -> None:
        self.base, self.share = alike(base), share
        self.bytes = 4.0 * sum(layer_sizes(base.workload))
        self.nominal = nominal(base)

    def scenario(self, name: str, n: int, repeats: int, **changes: Any) -> Scenario:
        """The scenario of probe ``name`` among ``n`` workers; ``changes``: paths with ``__`` for dots."""
        fields = {
            "name": f"probe/{name}", "algorithm.name": f"core.probes:{name}",
            "algorithm.options.repeats": repeats, "faults": [],
            "cluster.workers": n, "cluster.slowdowns": [], "cluster.compute.scale": [],
            "cluster.servers.count": 1, "cluster.network.collective": "native", "run.steps": 1,
            "run.evaluate": False, "run.spans": False, "run.links": "native", "run.compute": "native",
        }  # fmt: skip
        return self.base.override(fields | {key.replace("__", "."): value for key, value in changes.items()})

    def transfer(self, kind: str) -> float:
        """Seconds that a whole message takes, where its link's rate is told."""
        return self.bytes / (1e9 if kind == "native" else self.nominal)

    def count(self, profile: Profile, n: int, most: int, extra: float = 0.0) -> int:
        """Steps of ``n`` workers at once that fit into the share."""
        crowd = max(1.0, n / profile.value("device.slots", 1.0 if n > 2 else 2.0))
        return _times(self.share, profile.value("step_time.mean") * crowd + extra, 10, most)

    def steps(self) -> Probe:
        """Steps of a worker that is alone."""

        def learn(records: list[Record], _: Profile) -> Learned:
            fit, constants = fits.fit_steps(records[0], "step_time")
            found = {"step_time": goodness.steps(records[0], fit), "step_time.fit": asdict(fit)}
            return Learned(constants, found, fit.model)

        return Probe(
            "steps of one worker",
            lambda profile: [self.scenario("StepProbe", 1, 2, run__steps=self.count(profile, 1, 40))],
            learn,
        )

    def slots(self, counts: Sequence[int]) -> Probe:
        """Steps of several at once: how many the device serves at full speed."""

        def learn(records: list[Record], profile: Profile) -> Learned:
            alone, found = profile.constants["step_time.mean"], {}
            for n, record in zip(counts, records, strict=True):
                cores = record.manifest.get("environment", {}).get("cores", float("inf"))
                _, full = fits.fit_steps(record, "full")
                found[f"device.slots.{n}"] = fits.fit_slots(alone, full["full.mean"], n, cores)
            best = max(found.values(), key=lambda constant: constant.value)
            return Learned({"device.slots": best, **found})

        return Probe(
            f"steps of {', '.join(map(str, counts))} workers at once",
            lambda p: [self.scenario("StepProbe", n, 2, run__steps=self.count(p, n, 40)) for n in counts],
            learn,
        )

    def cold(self, kinds: Sequence[str]) -> Probe:
        """Steps after a pause: of workers that wait for each other, and of slowed ones."""
        kind = "paced" if "paced" in kinds else kinds[0]
        slowed = {"kind": "fixed", "ranks": [0, 1], "factor": 1 + PAUSE}

        def scenarios(profile: Profile) -> list[Scenario]:
            steps = self.count(profile, 1, 25, self.transfer(kind)) // 2
            few = _times(self.share, (1 + PAUSE) * profile.value("step_time.mean"), 6, 10)
            return [
                self.scenario("RelayProbe", 2, 2, run__steps=max(8, steps), run__links=kind),
                self.scenario("StepProbe", 2, 2, run__steps=few, cluster__slowdowns=[slowed]),
            ]

        def learn(records: list[Record], profile: Profile) -> Learned:
            rested = [fits.fit_steps(one, "rested")[1]["rested.mean"] for one in records]
            rested[1] = rested[1].times(1 / (1 + PAUSE))
            return Learned({"step_time.cold": fits.fit_cold(profile.constants["step_time.mean"], rested)})

        return Probe("steps after pauses", scenarios, learn)

    def pacing(self, n: int) -> Probe:
        """Paced steps: how late they end."""
        mean = self.base.cluster.compute.mean
        steps = _times(self.share, mean, 10, 40)
        paced = {"run__steps": steps, "run__compute": "paced", "cluster__compute__spread": 0.0}

        def learn(records: list[Record], _: Profile) -> Learned:
            late = fits.fit_pacing(records[0], mean)
            if late.value > OVERRUN * mean:
                why = f"they took {late.value:.3g} s longer than {mean:g} s: gradients did not end in time"
                return Learned(failed=why)
            return Learned({"pacing.overhead": late})

        return Probe(
            f"{n} workers' paced steps", lambda _: [self.scenario("StepProbe", n, 2, **paced)], learn
        )

    def tensors(self) -> Probe:
        """Tensor operations."""
        repeats = _times(self.share, 6 * 3 * self.bytes / 1e10, 4, 30)
        return Probe(
            "tensor operations",
            lambda _: [self.scenario("TensorProbe", 1, repeats)],
            lambda records, _: Learned(
                fits.fit_tensors(records[0]), {"tensor_rate": goodness.tensors(records[0])}
            ),
        )

    def links(self, kind: str) -> Probe:
        """Messages between two: pings, streams, both ways."""
        most = 20 if kind == "native" else 8
        repeats = _times(self.share, 4 * PARTS * self.transfer(kind), 3, most)
        scenarios, rate = [self.scenario("LinkProbe", 2, repeats, run__links=kind)], 0.0
        if kind != "native":
            rate = self.nominal
            part = min(1.0, LITTLE / self.bytes)
            few = {"algorithm__options__parts": [part / 2, part]}
            repeats = _times(self.share, 6 * part * SLOWER * self.transfer(kind), 2, most)
            scenarios.append(_slower(self.scenario("LinkProbe", 2, repeats, run__links=kind, **few), kind))

        def learn(records: list[Record], _: Profile) -> Learned:
            found = fits.fit_links(records[0], f"link.{kind}", rate, _burst(kind))
            for slow in records[1:]:
                cost = fits.fit_byte_cost(slow)
                if cost is not None:
                    found[f"host.{kind}.byte_cost.slow"] = cost
                found[f"link.{kind}.efficiency.slow"] = fits.fit_carried(slow, rate / SLOWER)
            return Learned(found, {f"link.{kind}": goodness.links(records[0])})

        return Probe(f"{kind} links", lambda _: scenarios, learn)

    def allreduce(self, n: int) -> Probe:
        """The native all-reduce."""
        repeats = _times(self.share, PARTS * 4 * self.transfer("native"), 5, 20)
        return Probe(
            f"native all-reduce among {n}",
            lambda _: [self.scenario("AllReduceProbe", n, repeats)],
            lambda records, _: Learned(
                fits.fit_allreduce(records[0], n), {f"allreduce.{n}": goodness.allreduce(records[0], n)}
            ),
        )

    def ring(self, n: int, kind: str, slow: bool = False) -> Probe:
        """An all-reduce by messages, against simulations of it; on ``slow`` links only the whole vector."""
        fields: dict[str, Any] = {"run__links": kind, "cluster__network__collective": "messages"}
        whole = {"algorithm__options__parts": [1.0]}
        if slow:
            fields |= whole
            repeats = _times(self.share, 2 * SLOWER * self.transfer(kind), 2, 8)
        else:
            repeats = _times(self.share, PARTS * 2 * self.transfer(kind), 3, 8)
        scenario = self.scenario("AllReduceProbe", n, repeats, **fields)
        expected = self.scenario("AllReduceProbe", n, DRAWN, **fields | whole)
        if slow:
            scenario, expected = _slower(scenario, kind), _slower(expected, kind)

        def learn(records: list[Record], profile: Profile) -> Learned:
            from sim import simulate

            calibrated = profile.apply(expected)

            def simulated(lag: float) -> Record:
                return simulate(calibrated.override({"cluster.host.ring_lag": lag}))

            name = f"ring.{kind}.lag.{n}" + (".slow" if slow else "")
            return Learned({name: fits.fit_ring_lag(records[0], simulated, n)})

        rate = "slow " if slow else ""
        return Probe(f"all-reduce by messages among {n} over {rate}{kind} links", lambda _: [scenario], learn)

    def beside(self, kind: str) -> Probe:
        """Steps while messages come and go."""

        def turns(profile: Profile) -> int:
            return 2 * PHASE * max(2, round(self.count(profile, 2, 64) / (2 * PHASE)))

        def both(steps: int) -> dict[str, Scenario]:
            fast = self.scenario("BesideProbe", 2, 2, run__steps=steps, run__links=kind)
            name = f"host.{kind}.beside"
            return {name: fast} if kind == "native" else {name: fast, f"{name}.slow": _slower(fast, kind)}

        def learn(records: list[Record], profile: Profile) -> Learned:
            from sim import simulate

            found: dict[str, Constant] = {}
            scenes = both(int(records[0].steps["step"].max()) + 1)
            for (name, scene), record in zip(scenes.items(), records, strict=True):
                calibrated = profile.apply(scene).override({"cluster.host.moving": 0.0})
                if not calibrated.cluster.host.cores:
                    return Learned()

                def simulated(cost: float, calibrated: Scenario = calibrated) -> Record:
                    return simulate(calibrated.override({"cluster.host.byte_cost": cost}))

                most = MOST_BESIDE * (SLOWER if name.endswith("slow") else 1.0)
                found[name] = fits.fit_beside(record, simulated, most)
                if found[name].value >= most:
                    return Learned(failed=f"steps lost more than {most:g} s a byte to messages: disturbed")
            return Learned(found)

        return Probe(
            f"steps beside messages over {kind} links",
            lambda profile: list(both(turns(profile)).values()),
            learn,
        )

"""The probes that measure a machine: what each runs and costs, and what a profile learns from it.

Rules this module obeys:

* Constants come from probes only (``core.probes``), also where steps or links are paced or shaped. A
  probe never runs an algorithm that its constants are to predict.
* Probes run with numbers of workers of their own, so on machines of their own: equal ones, one for each
  worker, with the NIC of the scenario's first. Who has which machine is no constant of this one.
* A probe may use the constants of earlier ones: to fit its own, and to know what is affordable.
* Each is told its ``share``, the seconds that it may measure. Where repetitions are long there are fewer,
  never so few that they cannot be fitted; and messages are cut to what moves in ``LONGEST`` seconds.
* Each says beforehand what it costs, so that a calibration can plan: its share or, if that is more, its least
  repetitions, and what starting and ending its processes takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from math import ceil, inf
from typing import Any

from aladdin.prices import crowds, nominal, times
from aladdin.probe import Learned, Probe
from aladdin.probing_links import LITTLE, SIZES, SLOWER, LinkProbes, again
from analysis import calibrate as fits
from analysis import goodness
from core.probes import TURN, fewest
from core.record import Record
from scenarios import Scenario
from scenarios.cluster import Layout
from scenarios.profile import Constant, Profile
from scenarios.topology import Topology

__all__ = ["alike", "covered", "fixed", "nominal", "probes", "refreshing", "speed"]

MOST_BESIDE = 3e-8
"""Seconds that moving a byte may cost the steps beside it; twenty times what was ever seen."""

OVERRUN = 0.1
"""Lateness of paced steps, as a share of them, that is no lateness any more: the machine cannot keep pace."""

FULL = 0.8
"""Share of a paced step that its gradient may take where they are probed."""

OUTLAST = 2
"""Steps of one worker that a message beside them may last; small ones cost more by the byte."""


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


def covered(base: Scenario, kinds: Sequence[str]) -> tuple[float, float]:
    """Smallest and largest message (bytes) that constants of ``kinds`` of links hold for.

    Those that are sent; or up to whole gradients, where more than a frame is sent of each.
    """
    make = _Maker(alike(base))
    largest = max(make.bytes * make.part(make.rate(kind)) for kind in kinds)
    return SIZES[0] * largest, make.bytes if largest >= LITTLE else largest


def probes(base: Scenario, counts: Sequence[int], kinds: Sequence[str]) -> Iterator[Probe]:
    """All probes that predictions of ``base`` need, with ``counts`` workers and ``kinds`` of links."""
    make = _Maker(alike(base))
    yield make.steps()
    yield make.slots(counts)
    yield make.pacing(counts)
    yield make.tensors()
    for kind in kinds:
        yield make.links(kind)
    for n in counts:
        if "native" in kinds:
            yield make.allreduce(n)
        for kind in kinds:
            if kind != "native":
                yield make.ring(n, kind)
    if base.run.device == "cpu":
        for kind in kinds:
            for n in crowds(max(counts)):
                yield make.beside(kind, n)
        yield make.cold(kinds)
    for kind in kinds:
        if kind != "native":
            yield replace(make.ring(max(counts), kind, SLOWER), spare=True)


def speed(base: Scenario) -> Probe:
    """The probe of how fast a worker is that has the machine to itself."""
    return _Maker(alike(base)).steps()


def refreshing(base: Scenario, kind: str, small: bool = True) -> Iterator[Probe]:
    """Probes of what ``base`` has native, steps or links; short ones. Emulated links do not drift.

    small  also of what messages and pauses cost steps
    """
    make = _Maker(alike(base))
    native = base.run.compute == "native"
    if native:
        yield make.steps(max(2, base.cluster.workers))
    if kind == "native":
        yield make.links(kind)
    if native and small and base.run.device == "cpu":
        for n in crowds(base.cluster.workers):
            yield make.beside(kind, n)
        yield make.cold([kind])


def _cores(record: Record) -> float:
    return float(record.manifest.get("environment", {}).get("cores") or inf)


def _slots(record: Record, alone: Constant, n: int) -> Constant:
    """How many workers the device serves at full speed while ``n`` compute; perhaps more, by chance."""
    return fits.fit_slots(alone, fits.fit_steps(record, "full", n)[1]["full.mean"], n)


class _Maker(LinkProbes):
    """Makes the probes for one scenario."""

    # Steps

    def steps(self, n: int = 1) -> Probe:
        """Steps of a worker that is alone; twice in turns with those of ``n`` at once, if that is more."""

        def learn(records: list[Record], _: Profile) -> Learned:
            fit, constants = fits.fit_steps(records[0], "step_time", 1)
            found = {"step_time": goodness.steps(records[0], fit, 1), "step_time.fit": asdict(fit)}
            if n > 1:
                slots = _slots(records[0], constants["step_time.mean"], n)
                constants |= {"device.slots": slots, f"device.slots.{n}": slots}
            return Learned(constants, found, fit.model)

        if n == 1:
            return self._at_once("steps of one worker", [1], learn)
        return self._at_once(f"steps of one worker and of {n} in turns", [1, n, 1, n], learn)

    def slots(self, counts: Sequence[int]) -> Probe:
        """Steps of several at once: how many the device serves at full speed."""

        def learn(records: list[Record], profile: Profile) -> Learned:
            alone = profile.constants["step_time.mean"]
            found = {
                n: fits.at_most(_slots(records[0], alone, n), min(n, _cores(records[0]))) for n in counts
            }
            best = max(found.values(), key=lambda constant: constant.value)
            return Learned({"device.slots": best, **{f"device.slots.{n}": one for n, one in found.items()}})

        return self._at_once(f"steps of {', '.join(map(str, counts))} workers at once", counts, learn)

    def _at_once(
        self, what: str, groups: Sequence[int], learn: Callable[[list[Record], Profile], Learned]
    ) -> Probe:
        """One run in which first as many workers compute as ``groups`` says first, and so on."""
        most, n, turns = 40, max(groups), groups.count(groups[0])

        def scenarios(_: Profile, share: float) -> list[Scenario]:
            options: dict[str, Any] = {"groups": list(groups), "seconds": share / turns, "most": most}
            fields = {f"algorithm__options__{name}": value for name, value in options.items()}
            return [self.scenario("StepProbe", n, run__steps=10 * most * len(groups), **fields)]

        def seconds(profile: Profile, share: float) -> float:
            each = [(self.step(profile, g), fewest(g)) for g in groups]
            long = sum(max(least * step, min(share / turns + step, most * step)) for step, least in each)
            surplus = sum(step for (step, _), g in zip(each, groups, strict=True) if g > 1)
            return self.start(n, self.step(profile, n)) + long + surplus

        return Probe(what, scenarios, learn, seconds)

    def cold(self, kinds: Sequence[str]) -> Probe:
        """Steps after a pause, beside a message, and those that follow them without one."""
        kind = "paced" if "paced" in kinds else kinds[0]

        def turn(profile: Profile) -> float:
            return 2 * TURN * self.step(profile)

        def often(profile: Profile, share: float) -> int:
            return times(share, turn(profile), 4, 20)

        def scenarios(profile: Profile, share: float) -> list[Scenario]:
            fields: dict[str, Any] = {"run__links": kind, "run__steps": TURN * often(profile, share)}
            part = self.part(self.rate(kind), self.step(profile))
            return [self.scenario("RelayProbe", 2, **fields, algorithm__options__part=part)]

        def learn(records: list[Record], profile: Profile) -> Learned:
            if (simulated := again(records[0], profile, "cold")) is None:
                return Learned()
            cold = fits.fit_cold(records[0], simulated, profile.value("step_time.mean"))
            return Learned({"step_time.cold": cold})

        return Probe(
            "steps after pauses",
            scenarios,
            learn,
            lambda p, share: self.start(2, self.step(p, 2)) + often(p, share) * turn(p),
        )

    def pacing(self, counts: Sequence[int]) -> Probe:
        """Paced steps of as many workers as keep pace: how late they end."""
        mean = self.base.cluster.compute.mean
        what = "paced steps"

        def keep(profile: Profile) -> int:
            """The largest number of workers whose gradients end in time; 0 where that of one does not."""
            return max((n for n in (1, *counts) if self.step(profile, n) <= FULL * mean), default=0)

        def steps(n: int, share: float) -> int:
            return times(share, mean, max(5, fewest(n)), 40)

        def scenarios(profile: Profile, share: float) -> list[Scenario]:
            n = keep(profile)
            paced: dict[str, Any] = {"run__compute": "paced", "cluster__compute__spread": 0.0}
            return [self.scenario("StepProbe", n, run__steps=steps(n, share), **paced)] if n else []

        def learn(records: list[Record], profile: Profile) -> Learned:
            if not records:
                why = f"a gradient takes {self.step(profile):.3g} s, too long for steps of {mean:g} s"
                return Learned(failed=why)
            late = fits.fit_pacing(records[0], mean)
            if late.value > OVERRUN * mean:
                why = f"they took {late.value:.3g} s longer than {mean:g} s: gradients did not end in time"
                return Learned(failed=why)
            return Learned({"pacing.overhead": late})

        def seconds(profile: Profile, share: float) -> float:
            n = keep(profile)
            return self.start(n, self.step(profile, n)) + steps(n, share) * mean if n else 0.0

        return Probe(what, scenarios, learn, seconds)

    def beside(self, kind: str, n: int) -> Probe:
        """Steps of ``n`` while two others exchange messages."""
        rate = self.rate(kind)

        def phase(profile: Profile) -> int:  # four times the two messages that it may begin and end late by
            late = 2 * self.part(rate, OUTLAST * self.step(profile)) * self.bytes / rate
            return fits.LEFT_OUT * max(1, ceil(late / self.step(profile, n) - 1e-6))

        def turns(profile: Profile, share: float) -> int:
            count = phase(profile)
            least = ceil(fits.FEWEST / (n * (count - count // fits.LEFT_OUT)))
            return 2 * count * times(share, 2 * count * self.step(profile, n), least, 8)

        def scenarios(profile: Profile, share: float) -> list[Scenario]:
            part = self.part(rate, OUTLAST * self.step(profile))
            fields: dict[str, Any] = {"run__steps": turns(profile, share), "run__links": kind}
            fields |= {"algorithm__options__part": part, "algorithm__options__phase": phase(profile)}
            return [self.scenario("BesideProbe", n + 2, **fields)]

        def learn(records: list[Record], profile: Profile) -> Learned:
            if n >= _cores(records[0]):
                taken = fits.fit_byte_cost(records[0], (n, n + 1))
                if "transport_seconds" not in records[0].manifest:
                    return Learned()
                if taken is None or taken.samples < fits.FEWEST:
                    return Learned(failed=f"fewer than {fits.FEWEST} messages that clocks tell of")
                return Learned({f"host.{kind}.beside.{n}": taken})
            if (simulated := again(records[0], profile, "byte_cost", moving=0.0, beside=[])) is None:
                return Learned()
            steps = records[0].manifest["scenario"]["algorithm"]["options"]["phase"]
            found = fits.fit_beside(records[0], simulated, steps, MOST_BESIDE)
            if found.value >= MOST_BESIDE:
                return Learned(failed=f"steps lost more than {MOST_BESIDE:g} s a byte to messages: disturbed")
            return Learned({f"host.{kind}.beside.{n}": found})

        return Probe(
            f"steps of {n} beside messages over {kind} links",
            scenarios,
            learn,
            lambda p, share: self.start(n + 2, self.step(p, n + 2)) + turns(p, share) * self.step(p, n),
        )

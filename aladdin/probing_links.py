"""The probes of what lies between workers: tensor operations, links, all-reduces, many senders to one.

Rules this module obeys:

* Those of ``aladdin.probing``. Emulated links are probed at their nominal rate, and where it matters at a
  lower one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from aladdin.prices import LONGEST, NATIVE, RING, Prices, times
from aladdin.probe import Learned, Probe
from analysis import calibrate as fits
from analysis import goodness
from core.probes import TALKS
from core.record import Record
from core.tensors import OPERATIONS
from scenarios import Scenario
from scenarios.profile import Constant, Profile

__all__ = ["LITTLE", "SIZES", "SLOWER", "LinkProbes", "again"]

SIZES = (0.125, 0.25, 0.5, 1.0)
"""Sizes of the messages of a probe, as shares of its largest."""

PINGS = 2
"""How many of them, the smallest, make round trips; all make streams one way and both ways."""

LITTLE = 4e6
"""Bytes of a frame of the transport, in which longer messages move: what a byte of them costs is the same."""

SLOWER = 5.0
"""How many times slower the links are over which a byte's cost is probed once more."""

WHOLE = 1.0
"""Seconds that a message may take to move where whole vectors are asked for over slow links."""

RINGS = 24
"""All-reduces of a probe of a ring, at most, and of each simulation that its lag is fitted by."""

ROUNDS = (3, 9)
"""Rounds of messages that all send to one, at least and at most."""

HANDED = 0.03
"""Seconds that these take to move, at most: what is lost between two does not depend on the size."""


def again(record: Record, profile: Profile, name: str, **blank: Any) -> Callable[[float], Record] | None:
    """Simulations of the probe that ``record`` is of, by its host's ``name``; None without a host."""
    host = {f"cluster.host.{field}": value for field, value in blank.items()}
    scene = profile.apply(Scenario.from_dict(record.manifest["scenario"])).override(host)
    if not scene.cluster.host.cores:
        return None
    return _by_host(scene, name)


def _by_host(scene: Scenario, name: str) -> Callable[[float], Record]:
    """Simulations of ``scene``, by its host's ``name``."""
    from sim import simulate

    return lambda value: simulate(scene.override({f"cluster.host.{name}": value}))


def _burst(kind: str) -> float:
    """Bytes that links of a kind save while they are idle, as the test-bed sets them."""
    if kind != "shaped":
        return 0.0
    from real.testbed import BURST

    return float(BURST)


def _slower(scenario: Scenario, kind: str, by: float = SLOWER) -> Scenario:
    """The same over links that carry a fraction of the rate."""
    share = Constant(1 / by, "1", 1 / by, 1 / by)
    return Profile({f"link.{kind}.efficiency": share}).apply(scenario)


class LinkProbes(Prices):
    """Makes these probes for one scenario."""

    def scenario(self, name: str, n: int, repeats: int = 2, **changes: Any) -> Scenario:
        """The scenario of probe ``name`` among ``n`` workers; ``changes``: paths with ``__`` for dots.

        Where no steps are measured a small batch will do for the gradient that every process computes first.
        """
        fields = {
            "name": f"probe/{name}", "algorithm.name": f"core.probes:{name}",
            "algorithm.options.repeats": repeats, "faults": [],
            "cluster.workers": n, "cluster.slowdowns": [], "cluster.compute.scale": [],
            "cluster.servers.count": 1, "cluster.network.collective": "native", "run.steps": 1,
            "run.evaluate": False, "run.spans": False, "run.links": "native", "run.compute": "native",
        }  # fmt: skip
        if "run__steps" not in changes:
            fields["workload.batch"] = min(2, self.base.workload.batch)
        return self.base.override(fields | {key.replace("__", "."): value for key, value in changes.items()})

    def tensors(self) -> Probe:
        """Tensor operations, and messages, both after steps (of a small batch) as in training."""
        batch = min(2, self.base.workload.batch)

        def each(profile: Profile) -> float:
            step = max(self.step(profile) * batch / self.base.workload.batch, self.bytes / NATIVE)
            return TALKS * step + len(OPERATIONS) * 3 * self.bytes / 1e10

        def repeats(profile: Profile, share: float) -> int:
            return times(share, each(profile), 5, 30)

        def scenarios(profile: Profile, share: float) -> list[Scenario]:
            often = repeats(profile, share)
            fields: dict[str, Any] = {"run__steps": TALKS * (1 + often), "workload__batch": batch}
            part = min(1.0, LITTLE / self.bytes)
            return [self.scenario("TensorProbe", 2, often, **fields, algorithm__options__part=part)]

        def learn(records: list[Record], _: Profile) -> Learned:
            found = fits.fit_tensors(records[0])
            if self.base.run.device == "cpu":  # elsewhere programs copy messages, and their size counts
                found["program.message"] = fits.fit_message(records[0])
            return Learned(found, {"tensor_rate": goodness.tensors(records[0])})

        return Probe(
            "tensor operations",
            scenarios,
            learn,
            lambda p, share: self.start(2) + (1 + repeats(p, share)) * each(p),
        )

    def links(self, kind: str) -> Probe:
        """Messages between two: pings, streams, both ways; fewer and smaller ones over slower links."""
        most, rate = (20, NATIVE) if kind == "native" else (8, self.nominal)
        part = self.part(rate)
        each = 2 * (sum(SIZES) + sum(SIZES[:PINGS])) * self.transfer(rate)
        slow = rate / SLOWER
        little = min(LITTLE / self.bytes, self.part(slow))
        each_slow = 2 * 2 * little * self.bytes / slow

        def probe(repeats: int, sizes: Sequence[float], pings: int) -> Scenario:
            fields = {"parts": list(sizes), "pings": pings}
            options = {f"algorithm__options__{name}": value for name, value in fields.items()}
            return self.scenario("LinkProbe", 2, repeats, run__links=kind, **options)

        def repeats(share: float) -> tuple[int, int]:
            return times(share, each, 3, most), times(share, each_slow, 2, most)

        def scenarios(_: Profile, share: float) -> list[Scenario]:
            often, slowly = repeats(share)
            one = probe(often, [part * size for size in SIZES], PINGS)
            if kind == "native":
                return [one]
            return [one, _slower(probe(slowly, (little / 2, little), 1), kind)]

        def learn(records: list[Record], _: Profile) -> Learned:
            found = fits.fit_links(
                records[0], f"link.{kind}", 0.0 if kind == "native" else rate, _burst(kind)
            )
            for other in records[1:]:
                cost = fits.fit_byte_cost(other)
                if cost is not None:
                    found[f"host.{kind}.byte_cost.slow"] = cost
                found[f"link.{kind}.efficiency.slow"] = fits.fit_carried(other, slow)
            return Learned(found, {f"link.{kind}": goodness.links(records[0])})

        def seconds(_: Profile, share: float) -> float:
            often, slowly = repeats(share)
            own = self.start(2) + (1 + often) * each
            return own if kind == "native" else own + self.start(2) + (1 + slowly) * each_slow

        return Probe(f"{kind} links", scenarios, learn, seconds)

    def allreduce(self, n: int) -> Probe:
        """The native all-reduce."""
        part = self.part(RING)

        def repeats(profile: Profile, share: float) -> tuple[int, float]:
            """How often, and the seconds of each of them."""
            rate = profile.by_workers("allreduce.bandwidth", n, RING)
            each = sum(SIZES) * 2 * (n - 1) / n * part * self.bytes / rate
            return times(share, each, 5, 20), each

        def scenarios(profile: Profile, share: float) -> list[Scenario]:
            sizes = {"algorithm__options__parts": [part * size for size in SIZES]}
            return [self.scenario("AllReduceProbe", n, repeats(profile, share)[0], **sizes)]

        def seconds(profile: Profile, share: float) -> float:
            often, each = repeats(profile, share)
            return self.start(n) + (1 + often) * each

        return Probe(
            f"native all-reduce among {n}",
            scenarios,
            lambda records, _: Learned(
                fits.fit_allreduce(records[0], n), {f"allreduce.{n}": goodness.allreduce(records[0], n)}
            ),
            seconds,
        )

    def ring(self, n: int, kind: str, slower: float = 1.0) -> Probe:
        """An all-reduce by messages, against simulations of it; perhaps over slower links.

        Then, over links of the nominal rate, messages of all to one: that takes no processes of its own.
        """
        slow, rate = slower > 1, self.nominal / slower
        part, least = self.part(rate, WHOLE if slow else LONGEST), 2 if slow else 3
        hub = 0.0 if slow or n < 3 or self.base.run.device != "cpu" else self.part(rate, HANDED)
        each = 2 * (n - 1) / n * part * self.bytes / rate
        gather = (n - 1) * hub * self.bytes / rate
        fields: dict[str, Any] = {"run__links": kind, "cluster__network__collective": "messages"}

        def scene(repeats: int, **options: Any) -> Scenario:
            options = {f"algorithm__options__{name}": value for name, value in options.items()}
            one = self.scenario("AllReduceProbe", n, repeats, **fields, **options)
            return _slower(one, kind, slower) if slow else one

        def repeats(share: float) -> tuple[int, int]:
            """How often all-reduces, and how often messages of all to one."""
            return times(share, each, least, RINGS), times(share, 2 * gather, *ROUNDS)

        def learn(records: list[Record], profile: Profile) -> Learned:
            ring = _by_host(profile.apply(scene(RINGS, parts=[part])), "ring_lag")
            name = f"ring.{kind}.lag.{n}" + (".slow" if slow else "")
            found = {name: fits.fit_ring_lag(records[0], ring, n, self.bytes)}
            star = profile.apply(scene(2, parts=[], hub=hub, rounds=ROUNDS[0]))
            if hub and star.cluster.host.cores:
                with suppress(fits.CalibrationError):  # what the ring said stands
                    handover = fits.fit_handover(records[0], _by_host(star, "handover"))
                    found[f"hub.{kind}.handover.{n - 1}"] = handover
            return Learned(found)

        def scenarios(_: Profile, share: float) -> list[Scenario]:
            often, rounds = repeats(share)
            return [scene(often, parts=[part], hub=hub, rounds=rounds)]

        def seconds(_: Profile, share: float) -> float:
            often, rounds = repeats(share)
            return self.start(n) + (1 + often) * each + (1 + rounds) * gather

        return Probe(
            f"all-reduce by messages among {n} over {'slow ' if slow else ''}{kind} links",
            scenarios,
            learn,
            seconds,
        )

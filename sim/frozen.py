"""Nodes that are stopped or cut off for a while, and go on or are taken for dead.

Rules this module obeys:

* A frozen node's programs do nothing: what ends meanwhile (a step, tensor work) ends as much later as it was
  stopped; what wakes them (news of others) is taken up when it goes on. A shared device works on.
* The time counts as what the main program was at: compute and update go on counting, a blocked program waits
  (unless a backward pass is under way: then all is compute).
* A node that is frozen or cut off is silent: its messages rest (``sim.silence``), native all-reduces too.
* Whoever is silent for longer than ``run.heartbeat_timeout``, be it by several faults, is taken for dead that
  long after it fell silent: a worker is lost for good, a server ends the run. What was to end the silence
  is forgotten then; a later life has working links.
* A crash ends a freeze (another process comes back), not a cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core.effects import Compute
from core.record import KINDS
from scenarios.faults import too_long
from scenarios.timetable import Event
from sim.errors import ServerLost
from sim.programs import ENDED, RECEIVING, Pump
from sim.silence import hush, restore

if TYPE_CHECKING:
    from core.node import Program
    from sim.driver import Driver
    from sim.faults import Faulty, FaultyHost
    from sim.host import Host

__all__ = ["ENDS", "KINDS_OF_SILENCE", "Silences", "StoppablePump", "wake_up"]

WAIT = KINDS.index("wait")

ENDS = {"freeze": "thaw", "cut": "heal"}
"""What ends a silence."""

KINDS_OF_SILENCE = frozenset({*ENDS, *ENDS.values(), "expire"})
"""Events that are dealt with here."""


class StoppablePump(Pump):
    """A program of a node that may be frozen, or moved.

    stopped  how long it had been frozen before its alarm was set
    """

    __slots__ = ("stopped",)

    host: FaultyHost

    def __init__(self, driver: Driver, host: Host, generator: Program, main: bool) -> None:
        super().__init__(driver, host, generator, main)
        self.stopped = 0.0

    @property
    def idled(self) -> float:
        return self.host.stopped

    def held(self, alarm: Any) -> bool:
        host, clock = self.host, self.driver.clock
        if host.freezes:
            host.missed.append((alarm, clock._now))
            return True
        late: float = host.stopped - alarm.stopped
        if late > 0:
            alarm.stopped = host.stopped
            clock.at(clock._now + late, alarm)
        return late > 0

    def fire(self) -> None:
        if not self.held(self):
            super().fire()

    def run(self, value: Any) -> None:
        if self.host.freezes or self.host.resting:
            self.host.postponed.append((self, value, self.driver.clock._now))
        else:
            super().run(value)

    def _pay(self, effect: Any) -> None:
        self.stopped = self.host.stopped
        super()._pay(effect)

    def _begin(self, effect: Compute) -> Any:
        self.stopped = self.host.stopped
        return self._compute(effect)


StoppablePump.handlers = {**Pump.handlers, Compute: StoppablePump._begin}


class Silences:
    """Who is silent, since when and why, in the run of ``driver``; ``log`` notes what befell whom."""

    def __init__(self, driver: Faulty, timeout: float, log: Callable[[FaultyHost, str], None]) -> None:
        self._driver, self._timeout, self._log = driver, timeout, log
        self._hosts: dict[FaultyHost, None] = {}

    @property
    def hold_up(self) -> bool:
        """Whether a silence may keep somebody who has ended from leaving, or a server from finishing."""
        if not self._hosts:
            return False
        stopped = (host for host in self._hosts if host.server and host.freezes)
        return any(host.leaving for host in self._driver.hosts) or any(
            pump.state != RECEIVING for host in stopped for pump in host.programs
        )

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def befall(self, host: FaultyHost, event: Event) -> None:
        """A silence of ``host`` begins, ends, or has lasted too long."""
        kind, now = event.kind, self._driver.clock._now
        if kind == "expire":
            if host.silent_since + self._timeout == now and host.silent:
                self._expire(host)
        elif kind in ENDS:
            assert event.back is not None
            self._begin(host, kind, now + event.back, event)
        else:
            ends = host.freezes if kind == "thaw" else host.cuts
            if now in ends:
                ends.remove(now)
                self._end(host, kind)

    def _begin(self, host: FaultyHost, kind: str, end: float, event: Event) -> None:
        driver = self._driver
        now = driver.clock._now
        if host.ended or host in driver.down:
            return
        self._log(host, kind)
        if not host.silent:
            self._hosts[host] = None
            host.silent_since, host.expires = now, False
        if kind == "freeze" and not host.freezes:
            host.frozen_since = now
        (host.freezes if kind == "freeze" else host.cuts).append(end)
        hush(host, host.callers)
        if driver.collective is not None:
            driver.collective.hush(host)
        driver.timetable.add(Event(end, ENDS[kind], host.id, None, event.fault))
        silent = event.back if host.silent_since == now else end - host.silent_since
        assert silent is not None
        if too_long(silent, self._timeout) and not host.expires:
            host.expires = True
            due = host.silent_since + self._timeout
            driver.timetable.add(Event(due, "expire", host.id, None, event.fault))

    def _end(self, host: FaultyHost, kind: str) -> None:
        """One of its silences is over."""
        self._log(host, kind)
        if not host.silent:
            self._restore(host)
        if kind == "thaw" and not host.freezes:
            self._thaw(host)

    def _restore(self, host: FaultyHost) -> None:
        self._hosts.pop(host, None)
        restore(host, host.callers)
        if self._driver.collective is not None:
            self._driver.collective.restore(host)

    def _thaw(self, host: FaultyHost) -> None:
        """Its programs go on: what has ended meanwhile ends after what was left of it."""
        clock = self._driver.clock
        now = clock._now
        host.stopped += now - host.frozen_since
        missed, host.missed = host.missed, []
        for alarm, at in missed:
            late, alarm.stopped = host.stopped - alarm.stopped, host.stopped
            clock.at(max(at + late, now), alarm)
        wake_up(host)

    def crash(self, host: FaultyHost) -> None:
        """``host`` dies: it is frozen no more; if it is cut off it stays so."""
        if not host.freezes:
            return
        host.freezes.clear()
        if host.server:  # what it was at counts as done
            self._thaw(host)
        else:
            host.missed, host.postponed = [], []
        if not host.silent:
            self._restore(host)

    def _expire(self, host: FaultyHost) -> None:
        """``host`` is taken for dead, and is."""
        driver = self._driver
        if host in driver.down or (host.ended and not host.leaving):
            return
        if host.server:
            raise ServerLost(driver.clock._now, host.id - driver.workers, host.id, self._timeout)
        if host.ended:  # it had met its budget, but not delivered everything
            host.ended = host.leaving = False
            driver.present += 1
        host.after = None
        driver.lose(host)
        host.cuts.clear()
        self._restore(host)


def wake_up(host: FaultyHost) -> None:
    """Its programs take up what they were woken by while they could not."""
    now = host.clock._now
    postponed, host.postponed = host.postponed, []
    for pump, value, since in postponed:
        if pump.state == ENDED:
            continue
        if pump.main and host.backward is None:
            host.wait += now - since
            host.span(WAIT, since, now)
        pump.run(value)

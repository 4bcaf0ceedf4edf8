"""The processor of a host that plays all nodes: who runs on which of its cores, and how fast.

Rules this module obeys:

* A job (a gradient, a tensor operation) that begins takes an idle core, where there is one, else any core at
  random; jobs on one core share it. A core that falls idle takes a job of the fullest. That is what
  operating systems do within a few milliseconds, and it is not fair: of three jobs that begin together on
  two cores one is done in two thirds of the time of the others.
* Who has slept is ahead: the first ``AHEAD`` seconds of its work are done before anybody else's on its core,
  so that short work among long is hardly held up at all.
* ``slots[k - 1]`` is what k that compute at once get done together, in units of one that is alone: they are
  in each other's way before there are fewer cores than jobs, and more so afterwards.
* A message that moves as fast as its ends get cores is no job: it takes its part of all cores, ``weight`` of
  them when nobody else is there.
* A message at a pace of its own keeps it as long as each of its ``ENDS`` gets what it asks for where cores
  are shared out max-min fairly among these and the jobs.
* What jobs lose to such messages comes in bursts that ask for ``ENDS`` cores at once: a burst's share is a
  job's, and between bursts the jobs have all. That is how they were probed; where messages are short of
  cores as well, both together get more than there is.
* Which jobs lose it depends on where the message's ends are: each is on a core of its own finding, drawn for
  every message, and who computes there loses. In the mean over the cores it is what was probed.
* ``beside[k - 1]`` is how many times as much of messages k jobs lose as these cost by themselves.
* Who dies, and what is lost or rests on its way, keeps nothing busy: its work is taken off.
* A slow-down (factor > 1) is time that a worker loses beside its core, so many times what the step took on
  it, as the real driver injects it; a speed-up shortens the work itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf

from numpy.random import Generator

from sim.alarm import Alarm
from sim.clock import Clock

__all__ = ["Cores", "Nobody"]

ENDS = 2
"""Cores that a burst of a message's work asks for: the sender's and the receiver's."""

LEFT = 0.1
"""Share of its part of a core that the job which loses most to messages keeps at least."""


AHEAD = 1e-3
"""Seconds of a core that a thread which has slept gets before others go on: about a slice of Linux's
scheduler (docs/decisions.md)."""


class _Job:
    """Work under way: rest and rate in seconds of a core; core: None for a message of ``weight``.

    paced  whether the message has a pace of its own; ends: the cores that its ends are on, then
    ahead  whether it goes before others, until no more than ``after`` of its work is left
    """

    __slots__ = (
        "after", "ahead", "alarm", "began", "core", "due", "ends", "lost", "paced", "rate", "rest", "weight",
    )  # fmt: skip

    def __init__(self, alarm: Alarm, rest: float, lost: float, began: float, core: int | None) -> None:
        self.alarm, self.rest, self.lost, self.began, self.core = alarm, rest, lost, began, core
        self.rate, self.due, self.weight, self.paced = 0.0, inf, 1.0, False
        self.ahead, self.after = False, 0.0
        self.ends: tuple[int, ...] = ()


class Cores(Alarm):
    """All cores of one host.

    cores   there are; a fraction is one that is slower than the others
    slots   see the module; none: as many as there are cores
    beside  see the module; none: once
    dice    says which core a job takes where none is idle
    """

    __slots__ = (
        "_beside", "_clock", "_cores", "_due", "_jobs", "_messages", "_on", "_since", "_slots",
        "dice",
    )  # fmt: skip

    def __init__(
        self, clock: Clock, cores: float, slots: Sequence[float], beside: Sequence[float], dice: Generator
    ) -> None:
        there = ceil(cores)
        self._beside = tuple(beside) or (1.0,)
        self._clock, self.dice = clock, dice
        self._slots = tuple(slots) or tuple(min(k, cores) for k in range(1, there + 1))
        self._on: list[list[_Job]] = [[] for _ in range(there)]
        self._jobs: list[_Job] = []
        self._messages: list[_Job] = []
        self._cores, self._since = cores, 0.0
        self._due = inf

    def run(self, alarm: Alarm, base: float, factor: float, *, slept: bool = False) -> None:
        """Fire ``alarm`` when ``base`` seconds of work are done on a core and slowed down by ``factor``.

        slept  whether whoever does it has slept before, and so goes ahead of others
        """
        self._advance()
        on, jobs = self._on, self._jobs
        if len(jobs) < len(on):
            core = next(place for place, there in enumerate(on) if not there)
        else:
            core = int(self.dice.integers(len(on))) if len(on) > 1 else 0
        work, lost = base * min(factor, 1.0), max(factor - 1.0, 0.0)
        job = _Job(alarm, work, lost, self._clock._now, core)
        job.ahead, job.after = slept, max(work - AHEAD, 0.0)
        jobs.append(job)
        on[core].append(job)
        self._schedule()

    def move(self, alarm: Alarm, seconds: float, weight: float, *, paced: bool = False) -> None:
        """Fire ``alarm`` when a message has moved that takes ``seconds`` and keeps ``weight`` cores busy.

        paced  whether that is a pace of its own, which it has as long as its ends get what they ask for
        """
        self._advance()
        message = _Job(alarm, seconds, 0.0, self._clock._now, None)
        message.weight, message.paced = weight, paced
        if paced and len(self._on) > 1:
            message.ends = tuple(self.dice.integers(len(self._on), size=ENDS).tolist())
        self._messages.append(message)
        self._schedule()

    def cancel(self, alarm: Alarm) -> float:
        """Take off what was to fire ``alarm``, and never will; seconds of work it had left, 0 if none."""
        jobs = [job for job in self._jobs if job.alarm is alarm]
        messages = [message for message in self._messages if message.alarm is alarm]
        if not jobs and not messages:
            return 0.0
        self._advance()
        self._end(jobs, messages)
        self._schedule()
        return sum(max(job.rest, 0.0) for job in (*jobs, *messages))

    @property
    def work(self) -> list[Alarm]:
        """What they work for."""
        return [job.alarm for job in (*self._jobs, *self._messages)]

    def _advance(self) -> None:
        now = self._clock._now
        passed = now - self._since
        self._since = now
        if passed > 0.0:
            for job in (*self._jobs, *self._messages):
                job.rest -= job.rate * passed

    def _schedule(self) -> None:
        """Work out how fast everything is from now on, and when the first of it is done."""
        jobs, messages, on = self._jobs, self._messages, self._on
        if not jobs and not messages:
            self._due = inf
            return
        now, due = self._clock._now, inf
        alone, lost = self._shares()
        crowded = len(jobs) / len(on) if len(jobs) > len(on) else 1.0
        for there, burden in zip(on, self._burdens(alone, lost), strict=True):
            core = crowded * (alone - burden * lost)
            ahead = [job for job in there if job.ahead]
            rate = min(1.0, core / len(ahead or there)) if there else 0.0
            for job in there:
                job.rate = rate if job.ahead or not ahead else 0.0
                left = max(job.rest - job.after * job.ahead, 0.0)
                job.due = now + left / rate if job.rate else inf
                due = min(due, job.due)
        level = self._level()
        for message in messages:
            message.rate = alone - lost
            if message.paced:
                message.rate = min(1.0, level * ENDS / message.weight) if message.weight else 1.0
            message.due = now + max(message.rest, 0.0) / message.rate
            due = min(due, message.due)
        self._due = due
        self._clock.at(due, self)

    def _level(self) -> float:
        """The most of a core that anybody gets, by max-min fairness; inf where all get what they ask for."""
        asking = [(message.weight / ENDS, ENDS) for message in self._messages if message.paced]
        if not asking:
            return inf
        left, count = self._cores, ENDS * len(asking) + len(self._jobs)
        for asked, many in sorted([*asking, (1.0, len(self._jobs))]):
            if asked * count >= left:
                return left / count
            left, count = left - asked * many, count - many
        return inf

    def _burdens(self, alone: float, lost: float) -> list[float]:
        """For each core how many times as much as the mean its jobs lose to paced messages."""
        on = len(self._on)
        found = [1.0] * on
        paced = [message for message in self._messages if message.paced]
        if lost <= 0.0 or on == 1 or not paced:
            return found
        whole = ENDS * sum(message.weight for message in paced)
        found = [0.0] * on
        for message in paced:
            for place in message.ends:
                found[place] += on * message.weight / whole
        room = max((1.0 - LEFT) * alone / lost - 1.0, 0.0)
        milder = min(1.0, room / max(max(found) - 1.0, 1e-12))
        return [1.0 + milder * (burden - 1.0) for burden in found]

    def _shares(self) -> tuple[float, float]:
        """The part of a core that a job has between bursts of messages, and what these take of it."""
        jobs = len(self._jobs)
        times = self._beside[min(jobs, len(self._beside)) - 1] if jobs else 1.0
        asked, paced = float(jobs), 0.0
        for message in self._messages:
            if message.paced:
                paced += message.weight
            else:
                asked += times * message.weight
        if asked <= 0.0:
            return 1.0, 0.0
        alone = min(1.0, self._served(asked) / asked)
        if paced <= 0.0:
            return alone, 0.0
        beside = min(1.0, self._served(asked + ENDS) / (asked + ENDS))
        bursting = min(times * paced / (ENDS * beside), 1.0)
        return alone, bursting * (alone - beside)

    def _served(self, asked: float) -> float:
        """Cores' worth of work done where ``asked`` are asked for; between whole numbers a line."""
        slots = self._slots
        if asked <= 1.0:
            return slots[0]
        if asked >= len(slots):
            return slots[-1]
        below = int(asked)
        return slots[below - 1] + (asked - below) * (slots[below] - slots[below - 1])

    def fire(self) -> None:
        """The first of the work is done, unless that has changed since."""
        now = self._clock._now
        if now != self._due:
            return
        self._advance()
        over = []
        for job in self._jobs:
            if job.due > now:
                continue
            if job.ahead and job.after:
                job.ahead, job.rest = False, job.after
            else:
                over.append(job)
        ended = [message for message in self._messages if message.due <= now]
        self._end(over, ended)
        for job in (*over, *ended):
            self._clock.at(now + job.lost * (now - job.began), job.alarm)
        self._schedule()

    def _end(self, jobs: list[_Job], messages: list[_Job]) -> None:
        """These are gone; let idle cores take jobs of the fullest ones."""
        on = self._on
        for job in jobs:
            self._jobs.remove(job)
            on[job.core].remove(job)  # type: ignore[index]
        for message in messages:
            self._messages.remove(message)
        for place, there in enumerate(on):
            if there:
                continue
            fullest = max(on, key=len)
            if len(fullest) < 2:
                return
            job = fullest.pop()
            job.core = place
            there.append(job)


class Nobody(Alarm):
    """Work whose end concerns nobody."""

    __slots__ = ()

    def fire(self) -> None:
        """Done."""

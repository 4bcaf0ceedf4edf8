"""A faulty run that is watched: what every algorithm promises whoever comes and goes, whenever it does.

Rules this module obeys:

* A gradient has a coordinate of its own, whichever life of its worker computed it (``Marks``): how often it
  was applied is read off the parameters.
* What is held all along: time does not go back; nothing is delivered that was on its way to an earlier life,
  or from one, nor to or from a server whose slice is on its way; no life is given more answers than it asked
  for; steps stay as close as the algorithm promises; whoever begins a step at which replicas agree begins it
  where the others did; weights add up.
* Nobody works for the dead: what a device has to do is all of programs, and of messages, that go on.
* A run is given up after ``BEATS``, however little happens in it, if people still come; if nobody does, it is
  the run that does not end by itself.
* What servers lose is counted where they lose it (``Watched.excused``), and nothing else may be lost by
  anybody who has not crashed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.node import GRADIENT, MODEL
from scenarios.timetable import Event
from sim.backward import Backward
from sim.faults import Faulty, FaultyHost
from sim.host import Host
from sim.network import Pair, Transfer
from sim.phases import OVER
from sim.programs import ENDED, Pump
from sim.silence import RestingPair, RestingTransfer
from tests.conformance.trials import Trial, tie_breaker

__all__ = ["BEATS", "EXACT", "Endless", "Marks", "Watched"]

EXACT = 1e-9

BEATS = 32
"""So many times ``sim.clock.BEAT`` events are the most a run may have; of 16,000 the longest had 5 times."""

ANSWERS = (MODEL, "easgd.centre")
"""Tags of what a server sends because it was asked."""


class Endless(Exception):
    """The run goes on and on: everybody dies before the budget is met, and all begins anew."""


class Marks:
    """Gradient number k of worker i is the unit vector (i, k), once per server's slice."""

    def __init__(self, workers: int, servers: int, most: int) -> None:
        self.shape = (servers, workers, most)
        self.initial = np.zeros(servers * workers * most)
        self.made: Counter[int] = Counter()

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        number = self.made[rank]
        if number == self.shape[-1]:
            raise Endless
        gradient = np.zeros(self.shape)
        gradient[:, rank, number] = 1.0
        self.made[rank] += 1
        return gradient.reshape(-1)

    def shares(self, flat: np.ndarray) -> np.ndarray:
        """(slices, workers, gradients): how much of each gradient is in ``flat``."""
        return -flat.reshape(-1, *self.shape[1:])


@dataclass(slots=True)
class Stamp:
    """From which life to which a message was sent, and whether it has been counted."""

    message: Any
    source: int
    target: int
    counted: bool = False


class _Stamped(RestingTransfer):
    """A message that is stamped when it is sent for the first time."""

    __slots__ = ("stamp",)

    def __init__(self, pair: Pair, message: Any, nbytes: float) -> None:
        super().__init__(pair, message, nbytes)
        ends: Any = pair.source, pair.target
        driver: Watched = ends[0].driver
        self.stamp = driver.stamps.setdefault(
            (id(message), ends[1].id), Stamp(message, ends[0].incarnation, getattr(ends[1], "incarnation", 0))
        )


class _Late(RestingPair):
    """A connection each of whose messages has a latency of its own."""

    __slots__ = ()

    def send(self, message: Any, nbytes: float) -> Transfer:
        late: Callable[[], float] = self.network.late  # type: ignore[attr-defined]
        a, b = self.source.nic, self.target.nic
        further, _ = self.network.delay(a, b)
        self.latency = late() + (a.local_latency if a is b else a.latency + b.latency + further)
        return super().send(message, nbytes)


class _Watched(FaultyHost):
    """A host whose deliveries are looked at."""

    __slots__ = ()

    driver: Watched

    def delivered(self, transfer: Transfer) -> None:
        self.driver.look(self, transfer)
        super().delivered(transfer)

    def take(self, want: Any) -> Any:
        found = super().take(want)
        self.driver.merged.add(id(found))
        return found


def _kind(alarm: Any) -> str:
    """What a device works at."""
    return "message" if isinstance(alarm, Transfer) else "step" if isinstance(alarm, Backward) else "program"


def _over(alarm: Any) -> bool:
    """Whether nothing comes of it."""
    if isinstance(alarm, Transfer):
        return bool(alarm.phase == OVER)
    pump = alarm._pump if isinstance(alarm, Backward) else alarm
    return isinstance(pump, Pump) and pump.state == ENDED


class Watched(Faulty):
    """A run of a trial.

    excused  by worker: gradients that a server may have lost in its crashes
    created  push-sum weight there was at the start, and that workers made up who found nobody to learn from
    former   nodes of former lives that had parameters
    deserted whether somebody has come who found nobody to learn from
    handed   weight that peers gave to joiners: (rank, life, weight)
    stamps   of all messages; merged: identities of those that were taken in; fallen_out: never were sent
    """

    kind_of_host = _Watched

    def __init__(self, plan: Any, trial: Trial, gradients: Any) -> None:
        super().__init__(plan, gradients=gradients)
        self.trial, self.marks = trial, gradients
        self.excused: Counter[int] = Counter()
        self.asked_for: Counter[tuple[int, int, int]] = Counter()
        self.former: list[Any] = []
        self.handed: list[tuple[int, int, float]] = []
        self.created = 1.0
        self.last = 0.0
        self.deserted = False
        self.stamps: dict[tuple[int, int], Stamp] = {}
        self.merged: set[int] = set()
        self.fallen_out: list[Any] = []
        self.starts: dict[int, np.ndarray] = {}
        self.beats = self.lives = 0
        self.network.carrier = _Stamped
        self.network.connect = RestingPair
        name, options = plan.algorithm.name, plan.algorithm
        self._apart = {"ssp": "s", "dssp": "s_u"}.get(name)
        self._bound = getattr(options, self._apart) + 1 if self._apart else 1 if name == "bsp" else None
        if trial.order is not None:
            self.clock._eid = tie_breaker(trial.order)
            random = np.random.default_rng(trial.order)
            if trial.delay:
                self.network.connect = _Late
                self.network.late = lambda: float(random.exponential(trial.delay))  # type: ignore[attr-defined]

    # All along

    def _beat(self) -> None:
        super()._beat()
        self.beats += 1
        before, self.lives = self.lives, sum(host.incarnation for host in self.hosts)
        if self.beats >= BEATS:
            assert self.lives > before, f"no end after {self.beats} beats, and nobody has come in the last"
            raise Endless

    def _check_devices(self) -> None:
        """What is lost is lost to the devices, too."""
        for device in {self.processor, *(host.device for host in self.hosts)}:
            for alarm in [] if device is None else device.work:
                assert not _over(alarm), f"a device still works at a {_kind(alarm)} that is over"

    def lose(self, host: Host) -> None:
        super().lose(host)
        self._check_devices()

    def look(self, host: FaultyHost, transfer: Transfer) -> None:
        """A message is delivered to ``host``."""
        now, source = self.clock._now, self.hosts[transfer.pair.source.id]
        assert now >= self.last, f"time goes back from {self.last} to {now}"
        self.last = now
        message = transfer.message
        what = f"{message.tag} of step {message.step} from node {source.id} to node {host.id}"
        moving = source.resting or host.resting
        assert not moving, f"{what}, and the slice of one of them is on its way"
        stamp: Stamp = transfer.stamp  # type: ignore[attr-defined]
        if not source.server:
            assert stamp.source == source.incarnation, f"{what} is of a former life"
        if not host.server:
            assert stamp.target == host.incarnation, f"{what} was sent to a former life"
            assert not host.crashed, f"{what}, which is dead"
            if message.tag in ANSWERS and not stamp.counted:
                key = host.id, host.incarnation, source.id
                self.asked_for[key] -= 1
                assert self.asked_for[key] >= 0, f"{what}, which its present life has not asked for"
        elif message.tag != "join.request" and not stamp.counted:
            self.asked_for[source.id, source.incarnation, host.id] += 1
        stamp.counted = True

    def exhausted(self, host: Host) -> bool:
        assert self.clock._now >= self.last, "time goes back"
        self.last = self.clock._now
        if super().exhausted(host):
            return True
        if self._bound is not None:
            self._check_apart(host)
        if self._agrees(host.node.step):
            first = self.starts.setdefault(host.node.step, host.node.params.copy())
            same = np.array_equal(first, host.node.params)
            assert same, f"worker {host.id} begins step {host.node.step} where nobody else did"
        return False

    def _check_apart(self, host: Host) -> None:
        steps = [h.node.step for h in self.hosts[: self.workers] if not (h.ended or h.crashed or h.entering)]
        apart = host.node.step - min(steps, default=host.node.step)
        assert apart <= self._bound, f"worker {host.id} begins a step {apart} ahead, not {self._bound}"

    def _agrees(self, step: int) -> bool:
        """Whether whoever begins that step must do so where all others did."""
        algorithm = self.plan.algorithm
        ended = any(host.ended and not host.going for host in self.hosts[: self.workers])
        if not algorithm.collective and algorithm.name != "bsp":
            return False
        if ended or self.deserted:
            return False
        if algorithm.name in ("bsp", "arsgd"):
            return True
        return algorithm.name in ("local_sgd", "diloco") and step % algorithm.h == 0

    # Who goes and who comes

    def _come(self, host: FaultyHost) -> None:
        if host.incarnation >= 0 and not host.entering:
            self.former.append(host.node)
        super()._come(host)
        self._check_devices()

    def note(self, host: FaultyHost, event: str) -> None:
        super().note(host, event)
        if event == "ready" and not self.plan.algorithm.centralized:
            mine = (host.id, host.incarnation, host.node.weight)
            if mine in self.handed:
                self.handed.remove(mine)
            else:
                self.deserted = True
                self.created += host.node.weight

    def _reply(self, host: FaultyHost, joiner: FaultyHost, message: Any) -> None:
        if message.tensor is not None:
            self.handed.append((joiner.id, joiner.incarnation, message.number))
        super()._reply(host, joiner, message)

    def dropped(self, host: Host, addressed: Any, found: Any) -> None:  # type: ignore[override]
        super().dropped(host, addressed, found)
        taken = {id(message) for _, message in found}
        self.fallen_out += [message for _, message in addressed if id(message) not in taken]

    @property
    def weight(self) -> float:
        """GoSGD's, of all nodes of all lives and all messages."""
        nodes = [*self.former, *(h.node for h in self.hosts if h.incarnation >= 0 and not h.entering)]
        sent = (stamp.message for stamp in self.stamps.values() if stamp.message is not None)
        astray = (m for m in (*sent, *self.fallen_out) if m.tag == "gosgd.share" and id(m) not in self.merged)
        shares = sum(message.number for message in astray)
        return sum(node.weight for node in nodes) + shares + sum(weight for _, _, weight in self.handed)

    def _gone(self, rank: int, sequence: int) -> bool:
        """Whether the life of ``rank`` that a message of that number is of is over."""
        known = self.roster.back.get(rank, 0)
        return rank in self.roster.departed or sequence <= (self.roster.log[known - 1][0] if known else 0)

    def _befall_server(self, host: FaultyHost, event: Event) -> None:
        strikes = event.kind == "crash" and host not in self.down and event.back is not None
        if strikes:
            for queue in host.inbox.values():
                for sequence, message, pair in queue:
                    if pair is not None and message.tag == GRADIENT and self._gone(pair.source.id, sequence):
                        self.excused[pair.source.id] += message.count
        frozen = bool(host.freezes)  # what it was at then counts as done
        before = host.node.params.copy(), dict(host.node.ledger.applied)
        super()._befall_server(host, event)
        self._check_devices()
        after = host.node.params, host.node.ledger.applied
        same = np.array_equal(before[0], after[0]) and before[1] == after[1]
        assert same or frozen or not strikes, f"server {host.id} has forgotten or made up something"

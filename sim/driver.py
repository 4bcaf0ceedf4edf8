"""Runs a plan's programs in virtual time.

Rules this module obeys:

* All time is the clock's, all order the event queue's: the same plan gives the same record, byte for
  byte.
* A worker's budget is steps, seconds or samples of all workers together; the ``Compute`` beyond it
  raises ``Finished`` in the program. When the worker's program has returned and its last message is
  delivered, everybody is told that it has left.
* What is made before the run lives as long as the run: the garbage collector need not look at it.
* The run is over when no event is left. Then all workers' programs must have returned and nobody may
  be held up in a send: else ``Deadlock`` says who waits for what. Servers and companions are closed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from core.node import GRADIENT, Joined, Left, Message, Node
from core.record import KINDS, Ledger, Record, StepLog
from core.tensors import Phantom, Tensors
from scenarios.errors import ScenarioError
from scenarios.plan import Plan
from scenarios.steptime import StepTimes
from scenarios.streams import RUN, another, stream
from sim.alarm import Alarm
from sim.checkpoint import Checkpoints, Registered, Registry
from sim.clock import Clock
from sim.collectives import NativeAllReduce
from sim.compute import devices
from sim.cores import Cores, Nobody
from sim.endpoint import Endpoint
from sim.errors import Deadlock, Diverged, ServerLost
from sim.fast import FastPump, fast_pair
from sim.host import Host, Roster
from sim.interrupts import Interrupted, Stop
from sim.memory import seldom, undisturbed
from sim.network import Network, Pair, Transfer
from sim.numerics import Gradients, Numerics
from sim.programs import COMPUTING, ENDED, PAYING, RECEIVING, REDUCING, Metered, Pump
from sim.routes import routes
from sim.sampling import Sampling
from sim.tables import length, record

if TYPE_CHECKING:
    from sim.moving import Past

__all__ = ["Driver"]

COMPUTE, UPDATE, TRANSFER = (KINDS.index(name) for name in ("compute", "update", "transfer"))

STRIDE = 2048
"""Progress is told after so many steps at the latest."""

NAMED = 20
"""At most so many waiting programs are named by a ``Deadlock``."""


class Driver:
    """One run. ``run()`` once; ``crash(rank, at)`` before it. Faults of a scenario: ``sim.faults.Faulty``.

    late       ranks that are not there at the start
    past       what connections carried that have taken another way since; None where none has
    shortcuts  ``sim.fast``'s; without them the record is the same and takes longer
    """

    events: StepLog | None = None
    past: Past | None = None
    kind_of_host: type[Host] = Host
    kind_of_pump: type[Pump] = Pump
    late: frozenset[int] = frozenset()

    @undisturbed()
    def __init__(
        self,
        plan: Plan,
        *,
        gradients: Gradients | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        on_clock: Callable[[float, int], None] | None = None,
        tensors: Callable[[int], Tensors] | None = None,
        checkpoints: Checkpoints | None = None,
        stop: Stop | None = None,
        shortcuts: bool = True,
    ) -> None:
        self._stop = stop or Stop()
        self.plan, self.gradients, self.on_progress, self._on_clock = plan, gradients, on_progress, on_clock
        scenario = plan.scenario
        cluster, run = scenario.cluster, scenario.run
        settings = cluster.network
        self.clock = Clock()
        own = cluster.host
        self.dice = another(run.seed, own.draw)
        dice = stream(self.dice, RUN, "cores")
        self.processor = Cores(self.clock, own.cores, own.slots, own.beside, dice) if own.cores else None
        self.ring_lag = own.ring_lag
        self.cold, self.pause = own.cold, own.pause
        self.message = own.message if self.processor is not None else 0.0
        self.passes: defaultdict[Host, Nobody] = defaultdict(Nobody)
        self.paced_gradient = own.gradient if self.processor is not None else 0.0
        self.network = Network(
            self.clock,
            cluster.machines,
            admission=settings.admission,
            inbox=settings.inbox,
            overhead=settings.overhead,
            burst=settings.burst,
            routes=routes(cluster),
        )
        if self.processor is not None:
            self.network.host = self.processor
            self.network.byte_cost, self.network.moving = own.byte_cost, own.moving
            self.network.handover = own.handover
            self.network.elastic = run.links == "native"
        self.window, self.checkpoints = settings.window, checkpoints
        self.shortcuts = shortcuts and self.kind_of_host is Host  # who may come back goes the long way
        if self.shortcuts:
            self.network.connect = fast_pair
        self.draw = StepTimes(cluster, run.seed, self.dice if run.compute == "native" else None).draw
        self.roster = Roster()
        self.logs = Sampling(run, cluster.workers)
        if self.logs.spans is not None:
            self.network.observer = self._transferred
        self._time = lambda: self.clock._now
        self._budget(run.steps, run.seconds, run.samples)
        self._costs = (dict(cluster.tensor_rates), dict(cluster.tensor_seconds))
        copies = self.processor is not None and run.compute == "native"
        one = Metered(*self._costs)
        self.copying = one.cost("snapshot", 4.0 * plan.parameters) if copies else 0.0
        registry = self._resume(checkpoints) if checkpoints is not None else None
        made = (lambda _: Registered(registry, *self._costs)) if registry else (lambda _: one.twin())
        self._tensors = tensors or made
        self.numerics = Numerics(self, gradients, registry) if gradients is not None else None
        workers = len(plan.machine_of) - len(plan.servers)
        self.workers = workers
        shared = devices(self.clock, workers, cluster.workers_per_device, cluster.device_slots)
        self._everybody, self._live = set(range(workers)) - self.late, set(range(workers)) - self.late
        self.hosts = [self._host(id) for id in range(len(plan.machine_of))]
        self.active = dict.fromkeys(self.hosts[:workers])
        for host, device in zip(self.hosts, shared, strict=False):
            host.device = self.processor if self.processor is not None and run.compute == "native" else device
        native = settings.collective == "native"
        self.collective = (
            NativeAllReduce(self.network, settings, plan.reduction, self.active.keys()) if native else None
        )
        if self.collective is not None and registry is not None:
            self.collective.registry = registry

    def _resume(self, checkpoints: Checkpoints) -> Registry:
        """Maker of the tensors of a run with checkpoints; hollow until the saved one is caught up with."""
        gradients = self.gradients
        if gradients is None:
            raise ScenarioError("run.numerics", False, "true where checkpoints are taken")
        choice = checkpoints.open(self.plan.scenario.to_dict())
        if choice is not None and hasattr(gradients, "use"):
            gradients.use(choice)
        registry = Registry(gradients.adopt) if hasattr(gradients, "adopt") else Registry()
        registry.hollow = checkpoints.resuming
        return registry

    def _budget(self, steps: int, seconds: float, samples: int) -> None:
        self._steps: float = steps or inf
        self._seconds, self._samples = seconds or inf, samples or inf
        self._started = 0
        batch = self.plan.scenario.workload.batch
        n = self.plan.scenario.cluster.workers
        self._total = steps * n or -(-samples // batch) or max(1, round(seconds * 1000))
        self._unit = batch if samples else 1
        self._stride = self._unit * min(max(1, self._total // 200), STRIDE)
        self._watched = self.on_progress is not None or self._on_clock is not None
        self._told = False

    def _host(self, id: int) -> Host:
        """Node ``id``, without programs yet.

        Workers of centralized algorithms share one set of who is live: n sets of n would fill the memory. A
        server has its own and edits it: it reads of n departures one by one.
        """
        plan = self.plan
        server = id in plan.servers
        logs = self.logs
        steps, spans = logs.steps_of(id, server), logs.spans_of(id, server)
        host = self.kind_of_host(id, server, self.clock, self.roster, steps, spans)
        if self.ring_lag:
            host.lags = stream(self.dice, id, "lag")
        self.network.attach(host, plan.machine_of[id])
        shared = plan.algorithm.centralized and not server
        host.told = inf if shared else 0
        host.own_live = server
        self._seat(host, self._live if shared else set(self._everybody) if server else self._everybody)
        return host

    def _seat(self, host: Host, live: set[int]) -> None:
        """A node for ``host``, as it is at its beginning."""
        host.tensors = self._tensors(host.id)
        ledger = Ledger(host.id, self.logs.accounts, self._time)
        host.node = self.plan.node(host.id, self._params(host.id, host.server), host.tensors, ledger, live)
        host.gradient = Phantom(self.plan.parameters)

    def _params(self, id: int, server: bool) -> Any:
        plan = self.plan
        if server:
            shard = plan.shards[plan.servers.index(id)]
            if self.gradients is None:
                return Phantom(shard.stop - shard.start)
            initial = shard.of(self.gradients.initial)
        elif self.gradients is None:
            return Phantom(plan.parameters)
        else:
            initial = self.gradients.initial
        assert self.numerics is not None
        return self.numerics.copy(initial)

    def crash(self, rank: int, at: float) -> None:
        """Let node ``rank`` die at ``at`` seconds: its messages in flight are lost, others are told."""
        self.clock.at(at, _Crash(self, self.hosts[rank]))

    def run(self) -> Record:
        """All programs to their end; what the run leaves behind."""
        algorithm = self.plan.algorithm
        pump = FastPump if self.shortcuts and not self.message else self.kind_of_pump
        with undisturbed():
            for host in self.hosts:
                if host.id in self.late:
                    continue
                main = algorithm.server(host.node) if host.server else algorithm.worker(host.node)
                more = () if host.server else algorithm.companions(host.node)
                host.programs = [pump(self, host, main, True), *(pump(self, host, c, False) for c in more)]
        try:
            with undisturbed():
                for host in self.hosts[self.workers :] + self.hosts[: self.workers]:
                    for program in host.programs:
                        program.run(None)
            with seldom():
                self.clock.drain(self._beat)
            self._check()
            if self.numerics is not None and self.plan.scenario.run.evaluate:
                self.numerics.evaluate(length(self))
        except (Diverged, Interrupted, ServerLost) as stop:
            self._halt()
            stop.record = record(self)
            stop.record.manifest["flags"].insert(0, f"incomplete: {stop}")
            raise
        self._close()
        if self.checkpoints is not None:
            self.checkpoints.finished()
        if self.on_progress is not None:
            self.on_progress(self._total, self._total)
        return record(self)

    def _close(self) -> None:
        """Stop the programs that never end by themselves."""
        for host in self.hosts:
            for pump in host.programs:
                if pump.state != ENDED:
                    pump.stop()

    def _halt(self) -> None:
        """The run is stopped in its midst: book what was under way until now."""
        now = self.clock._now
        if self.collective is not None:
            self.collective.halt()
        for host in self.hosts:
            if host.ended:
                continue
            main = host.programs[0]
            if host.backward is not None:
                host.backward.stop(now)
                host.end = now
                continue
            if main.state == COMPUTING:
                host.compute += now - main.since
                host.span(COMPUTE, main.since, now)
            elif main.state == PAYING:
                host.update += now - main.since
                host.span(UPDATE, main.since, now)
            elif host.blocked:
                host.unblock()
            if main.state != COMPUTING and host.node.step > host.base and not (host.server or host.absent):
                host.close_row(now)
            host.end = now
        self._close()

    def _check(self) -> None:
        """Raise ``Deadlock`` if anybody waits who should not."""
        pumps = [pump for host in self.hosts for pump in host.programs if pump.state != ENDED]
        stuck = [p for p in pumps if p.state != RECEIVING or (p.main and not p.host.server)]
        held = [host for host in self.hosts if host.leaving]
        if not stuck and not held:
            return
        lines = [p.describe() for p in stuck]
        lines += [
            f"messages of node {host.id}, which has ended, are not accepted by their receivers"
            for host in held
        ]
        lines += [p.describe() for p in pumps if p not in stuck and p.main]
        more = [f"... and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
        raise Deadlock(self.clock.now, lines[:NAMED] + more)

    def exhausted(self, host: Host) -> bool:
        """Whether the worker has met its budget; if not, one more step is begun."""
        if (
            host.node.step >= self._steps
            or self._started >= self._samples
            or self.clock._now >= self._seconds
        ):
            return True
        if self._stop.asked:
            raise Interrupted(self.clock._now, self.begun)
        self._started += self._unit
        if self.checkpoints is not None:
            self.checkpoints.step(self)
        if self._watched and self._started % self._stride == 0:
            self._progress()
        return False

    @property
    def begun(self) -> int:
        """Steps that workers have begun, all together."""
        batch = self.plan.scenario.workload.batch
        return self._started // batch if self._samples != inf else self._started

    def _beat(self) -> None:
        """Between two events, now and then: a step may last long, for whoever waits for the run, too."""
        if self._stop.asked:
            raise Interrupted(self.clock._now, self.begun)
        if self._watched and not self._told:
            self._progress()
        self._told = False

    def _progress(self) -> None:
        self._told = True
        done = self.begun if self._seconds == inf else round(self.clock._now * 1000)
        if self.on_progress is not None:
            self.on_progress(min(done, self._total), self._total)
        if self._on_clock is not None:
            self._on_clock(self.clock._now, self.begun)

    def _transferred(self, transfer: Transfer) -> None:
        source = self.hosts[transfer.pair.source.id]
        if source.spans is not None:
            source.spans.append((source.id, TRANSFER, transfer.began, self.clock._now))

    def pairs(self, host: Host, addressed: Sequence[tuple[int, Message]]) -> list[tuple[Pair, Message]]:
        """The connections of messages; those to nodes that have left, as far as ``host`` knows, fall out.

        Once the others are taken, ``dropped`` counts the gradients in what fell out.
        """
        found, known, departed, back = [], host.pairs, self.roster.departed, self.roster.back
        for to, message in addressed:
            pair = known.get(to)
            if pair is None:
                pair = self.network.pair(host, self.hosts[to])
            message.source = host.id
            if departed and to in departed and (self.hosts[to].deaf or to not in host.node.live):
                continue
            if back and host.told < back.get(to, 0):
                continue
            found.append((pair, message))
        return found

    @staticmethod
    def dropped(host: Host, addressed: Sequence[tuple[int, Message]], found: Sequence[Any]) -> None:
        """Count the gradients among the messages of ``addressed`` that are not in ``found`` as lost."""
        taken = {id(message) for _, message in found}
        host.lost += sum(m.count for _, m in addressed if m.tag == GRADIENT and id(m) not in taken)

    def ended(self, pump: Pump) -> None:
        """A program has returned."""
        host = pump.host
        if not pump.main:
            return
        now = self.clock._now
        host.ended, host.end = True, now
        if not host.server and host.node.step > host.base:
            host.close_row(now)
        self.active.pop(host, None)
        if self.collective is not None:
            self.collective.leave(host)
        self._discard_unread(host)
        host.leaving = host.watching = True
        pump.depart_when_clear()

    def _discard_unread(self, host: Host) -> None:
        """Nobody reads this inbox any more: what it holds must not hold up others."""
        if len(host.programs) > 1:
            return
        for queue in host.inbox.values():
            for _, _, pair in queue:
                if pair is not None:
                    pair.read()
        host.inbox.clear()

    def depart(self, host: Host) -> None:
        """Tell everybody that ``host`` has left."""
        self._live.discard(host.id)
        self.tell(self.roster.leave(host.id))

    def tell(self, news: Left | Joined) -> None:
        """Wake whoever waits to hear of it."""
        for pump in tuple(self.roster.listening):
            if pump in self.roster.listening:
                pump.hear(news)

    def others(self, host: Host) -> Sequence[Endpoint]:
        """Nodes among which are all that have a connection to ``host``."""
        return self.hosts

    def lose(self, host: Host) -> None:
        """``host`` dies now."""
        if host.ended:
            return
        now = self.clock._now
        if host.spans is not None:
            self._break_off(host, now)
        for pump in host.programs:
            pump.stop()
            self.roster.listening.pop(pump, None)
        self.relieve(host)
        host.ended, host.crashed, host.end, host.blocked = True, True, now, False
        host.waiting.clear()
        host.senders.clear()
        if self.numerics is not None:
            self.numerics.drop(host.gradient)
        self.active.pop(host, None)
        self.roster.quiet = False
        self.roster.departed.add(host.id)  # now: who gets room by what is dropped must not send to it again
        for transfer in self.network.drop(host, self.others(host)):
            if transfer.message.tag == GRADIENT:
                self.hosts[transfer.pair.source.id].lost += transfer.message.count
        if self.collective is not None:
            self.collective.leave(host)
        self.depart(host)

    def _break_off(self, host: Host, now: float) -> None:
        """Note what a node that dies was about; its parts of the step are lost with it."""
        main = host.programs[0]
        if host.backward is not None:
            host.span(COMPUTE, host.backward.start, now)
        elif main.state == COMPUTING:
            host.span(COMPUTE, main.since, now)
        elif main.state == PAYING:
            host.span(UPDATE, main.since, now)
        elif main.state == REDUCING and self.collective is not None:
            host.span(self.collective.kind, host.mark, now)
        elif host.blocked:
            host.span(host.blocked_in, host.mark, now)

    def relieve(self, host: Host) -> None:
        """What ``host``, a life of which is over, was at keeps no device busy any more."""
        at = [*host.programs, host.backward, self.passes.get(host)]
        for device in dict.fromkeys((host.device, self.processor)):
            for alarm in at:
                if device is not None and alarm is not None:
                    device.cancel(alarm)

    @property
    def nodes(self) -> list[Node]:
        """All nodes, as their programs see them."""
        return [host.node for host in self.hosts]

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What was run; nothing in it but ``environment`` depends on the machine."""
        scenario = self.plan.scenario
        environment = self.numerics.environment() if self.numerics is not None else {}
        found: dict[str, Any] = {"driver": "sim", "seed": scenario.run.seed, "scenario": scenario.to_dict()}
        found |= {"flags": self.logs.flags(), **self.logs.manifest()}
        return {**found, **({"environment": environment} if environment else {})}


class _Crash(Alarm):
    __slots__ = ("_driver", "_host")

    def __init__(self, driver: Driver, host: Host) -> None:
        self._driver, self._host = driver, host

    def fire(self) -> None:
        self._driver.lose(self._host)

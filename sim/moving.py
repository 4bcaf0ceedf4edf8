"""Servers that leave and join while a run is under way: their slices move from machine to machine.

Rules this module obeys:

* A server that leaves takes its machine along. Every slice that lives there is handed over to the machine of
  a server that is there (``scenarios.server_churn.keeper`` says which); its program goes on under its own id.
  Who comes gets its own slice back, from wherever that is, and no other.
* A hand-over begins at once: nothing moves to or from the slice any more (``sim.outages``); its program
  finishes what it is at, without what those can send again who are there, and rests until all is over. What
  it is told meanwhile (who left, who joined) it takes up afterwards.
* All that the slice needs goes as one message along the network's own path from the old machine to the new
  one: parameters, velocity where there is momentum, gathered gradients that are not applied, and messages
  that nobody else has. Replies that are not out are copies of parameters, and made again there.
* A crash, a freeze or a cut befalls the slice, wherever it is. A crash ends the hand-over; when the slice is
  back, on the old machine, it begins anew. A machine stays until all slices have left it.
* Where nobody is left to serve nothing moves any more.
* Bytes that a connection carried count where it led then (``Past``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.node import Message
from scenarios.server_churn import keeper
from scenarios.timetable import Event
from sim.alarm import Alarm
from sim.endpoint import Endpoint
from sim.outages import Outage, size, taken_out
from sim.programs import FLUSHING, RECEIVING, SENDING

if TYPE_CHECKING:
    from sim.faults import Faulty, FaultyHost
    from sim.link import Link
    from sim.network import Network, Pair, Transfer

__all__ = ["Move", "Moves", "Past"]

SLICE = "server.slice"
"""Tag of a hand-over."""

AT_REST = (RECEIVING, SENDING, FLUSHING)

ROUTE = ("ahead", "busy", "direct", "latency", "lead", "overhead", "path", "rate")
"""What a connection knows of the way between its ends."""


class Past:
    """What connections have carried on paths that they no longer take.

    links  bytes by link; nodes: (messages out, messages in, bytes out, bytes in) by node
    """

    def __init__(self) -> None:
        self.links: dict[Link, float] = defaultdict(float)
        self.nodes: dict[int, list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])

    def note(self, pair: Pair) -> None:
        """``pair`` begins anew."""
        if not (pair.messages or pair.bytes):
            return
        for link in pair.path:
            self.links[link] += pair.bytes
        for i, node in enumerate((pair.source.id, pair.target.id)):
            self.nodes[node][i] += pair.messages
            self.nodes[node][2 + i] += pair.bytes
        pair.messages, pair.bytes = 0, 0.0


class Moves:
    """Which servers are there, and where every slice lives, in the run of ``driver``.

    there   numbers of the servers that are there
    places  by slice: the server on whose machine it lives
    """

    def __init__(self, driver: Faulty, late: frozenset[int]) -> None:
        self._driver = driver
        self._hosts = driver.hosts[driver.workers :]
        self.past = Past()
        self.there = set(range(len(self._hosts))) - late
        self.places = list(range(len(self._hosts)))
        for server in sorted(late):
            self.places[server] = self._keeper(server)
            driver.network.attach(self._hosts[server], self.machine(self.places[server]))

    def machine(self, server: int) -> int:
        """The machine of that server."""
        return self._driver.plan.machine_of[self._driver.workers + server]

    def befall(self, host: FaultyHost, event: Event) -> None:
        """Server ``host`` leaves, joins or returns; nothing happens where it cannot."""
        driver, server = self._driver, host.id - self._driver.workers
        if event.kind == "leave":
            if server not in self.there or host in driver.down or len(self.there) == 1:
                return
            self.there.discard(server)
            driver.note(host, "leave")
            if event.back is not None:
                now = driver.clock._now
                driver.timetable.add(Event(now + event.back, "return", host.id, None, event.fault))
            for other in self._hosts:
                self.settle(other)
        elif server not in self.there:
            self.there.add(server)
            host.incarnation += 1
            driver.note(host, "join")
            self.settle(host)

    def settle(self, host: FaultyHost) -> None:
        """Let the slice of ``host`` set out for where it is to be, if that is elsewhere."""
        driver = self._driver
        if host.move is not None or host in driver.down or not driver.lasts:
            return
        goal = self._goal(host)
        if goal is not None:
            outage = Outage(driver.network, host, driver.hosts[: driver.workers], orderly=True)
            host.move = Move(self, host, goal, outage)
            host.move.rest()

    def go_on(self, host: FaultyHost, outage: Outage) -> None:
        """``host`` is back, or has arrived, and ``outage`` over, unless it has to move (on)."""
        goal = self._goal(host)
        if goal is None or not self._driver.lasts:
            outage.end(self._driver.clock._now)
            host.resume()
            return
        host.move = Move(self, host, goal, outage)
        host.move.rest()

    def finish(self) -> None:
        """Nobody is left to serve: slices stay where they are."""
        for host in self._hosts:
            move, host.move = host.move, None
            if move is not None:
                move.stop()
                move.outage.end(self._driver.clock._now)
                host.resume()

    def crash(self, host: FaultyHost) -> Outage | None:
        """``host`` dies: its hand-over, if any, comes to nothing, and what was held up by it still is."""
        move, host.move = host.move, None
        if move is None:
            return None
        move.stop()
        move.outage.crash()
        return move.outage

    def arrived(self, host: FaultyHost, move: Move) -> None:
        """The last byte of a slice is there."""
        driver, server = self._driver, host.id - self._driver.workers
        host.move, self.places[server] = None, move.goal
        driver.network.attach(host, self.machine(move.goal))
        for pair in move.outage.pairs:
            _lead_anew(driver.network, pair, self.past)
        if self._goal(host) is None:
            driver.note(host, "ready")
        self.go_on(host, move.outage)

    def _goal(self, host: FaultyHost) -> int | None:
        """The server to whose machine its slice has to move."""
        server = host.id - self._driver.workers
        place = self.places[server]
        if server in self.there:
            return server if place != server else None
        return None if place in self.there else self._keeper(server)

    def _keeper(self, server: int) -> int:
        return keeper(server, self.there, self._others(server))

    def _others(self, server: int) -> Iterator[int]:
        """Where all other slices live, or are on their way to."""
        for other, host in enumerate(self._hosts):
            if other != server:
                yield self.places[other] if host.move is None else host.move.goal


class Move(Alarm):
    """The slice of ``host`` is on its way, or about to be, to the machine of server ``goal``."""

    __slots__ = ("_connection", "_host", "_moves", "goal", "outage")

    def __init__(self, moves: Moves, host: FaultyHost, goal: int, outage: Outage) -> None:
        self._moves, self._host, self.goal, self.outage = moves, host, goal, outage
        self._connection: Pair | None = None

    def rest(self) -> None:
        """Set out if the program has finished what it was at."""
        host = self._host
        if self._connection is not None:
            return
        if not host.resting and any(pump.state not in AT_REST for pump in host.programs):
            return
        host.resting = True
        network = host.driver.network
        arrival = _Arrival(host.id, self)
        network.attach(arrival, self._moves.machine(self.goal))
        self._connection = host.pairs[host.id] = network.connect(network, host, arrival)
        message = Message(SLICE, count=0)
        message.source = host.id
        self._connection.send(message, _state(host))

    def fire(self) -> None:
        """The message is delivered, and everything else about it has been seen to."""
        if self._host.move is self:
            self._leave_off()
            self._moves.arrived(self._host, self)

    def stop(self) -> None:
        """It comes to nothing."""
        if self._connection is not None:
            if self._connection.current is not None:
                self._host.driver.network.stop(self._connection.current)
            self._leave_off()

    def _leave_off(self) -> None:
        assert self._connection is not None
        self._moves.past.note(self._connection)
        for link in self._connection.path:
            link.users -= 1
        del self._host.pairs[self._host.id]


class _Arrival(Endpoint):
    """Where a slice arrives."""

    __slots__ = ("_move",)

    silent = False

    def __init__(self, id: int, move: Move) -> None:
        super().__init__(id)
        self._move = move

    def delivered(self, transfer: Transfer) -> None:
        clock = transfer.pair.network.clock
        clock.at(clock._now, self._move)


def _state(host: FaultyHost) -> float:
    """Bytes of all that the slice of ``host`` needs elsewhere."""
    node = host.node
    tensors = 1 + bool(node.optimizer.momentum) + bool(node.ledger.held)
    unread = (size(message) for queue in host.inbox.values() for _, message, _ in queue)
    return tensors * float(node.params.nbytes) + sum(unread)


def _lead_anew(network: Network, pair: Pair, past: Past) -> None:
    """``pair``, of which nothing moves, takes the way between the machines on which its ends now are."""
    past.note(pair)
    for link in pair.path:
        link.users -= 1
    fresh = network.connect(network, pair.source, pair.target)
    for name in ROUTE:
        setattr(pair, name, getattr(fresh, name))
    pair.behind.extend(taken_out(pair))  # what did not ask for grants may have to now, or the other way round
    for transfer in pair.behind:
        transfer.path = pair.path

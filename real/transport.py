"""Frames between processes: pyzmq sockets, and the thread that moves what goes through them.

Rules this module obeys:

* One ROUTER per node takes what comes (``real.door``; in a test-bed, in its namespace); one DEALER per
  peer sends. Grants for a connection's data travel against it, so they never queue behind data.
  Signs of life are asked for on a connection of their own, which data never block (``real.pulse``).
* Sockets are touched by this thread alone. It sleeps in ``select`` until a frame comes, another
  thread kicks it, or the endpoint's next deadline; there is no polling.
* Whoever does not know the run's token is a stranger. A stranger's frame is dropped and counted, and
  its connection is cut off: nothing more of it is looked at. Other connections are not affected:
  frames are taken from all in turn, a bounded number between two looks at what this node itself has
  to do, and what a connection sends faster than that waits at its own end.
* A node of this run is known by its connection's identity, which holds the token (the first connection of an
  identity counts, so nobody dials a second time), and on connections that this node opened by the token in
  the frame. A frame of such a node that was handled before is dropped and counted. One that does not fit
  what was agreed makes it a stranger, which the launcher is told (``Refused``): to drop the frame alone
  would leave both sides waiting for ever.
* A node that comes back has a new address and, as its connections have its life in their identities, new
  connections. Those of its former life are known as such: their frames are dropped and counted.
* Every queue is bounded: by the protocol what a node sends, by ``_BATCH`` messages what waits here from one
  connection, by ``_MOST_ANSWERS`` what waits for a peer that does not read. For the parts of one message
  libzmq has no bound: who sends ever more of them is cut off (``real.unfinished``).
* Whose process has ended is not dialled any more: its port may be anybody's by now, and who is dialled is
  told the token.
* libzmq itself closes connections that announce frames larger than the largest agreed one.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import zmq

from real import wire
from real.door import Door
from real.endpoint import Endpoint
from real.errors import Refused, Replayed, WireError
from real.keys import FRAMING, Keys
from real.outage import Outages, postpone
from real.pulse import MOST_PINGS, Pulse
from real.wire import Header
from scenarios.addresses import LOOPBACK

__all__ = ["ZmqTransport"]

_EACH, _SPARE = 4, 32
"""Connections that a node may have: so many for each one of the run, and so many more."""

_MOST_BANNED = 10_000
_MOST_REASONS = 100
_BATCH = 64
"""Frames that are taken at a time, and that one connection may have waiting here."""

_MOST_ANSWERS = 1024
"""Answers that may wait for a peer that does not read them; honest ones have a few under way."""

_SIGN = 1
"""``step`` of pings and pongs that are signs of life: no node gets any further by them."""

_PULSE = b"p"
"""First byte of the identities of connections that only ask for signs of life; of others it is "n"."""

_LONGEST_SLEEP = 3600.0
_LOW_DELAY = 0x10
"""Type of service of answers: grants need not queue behind data, where links have queues."""


class ZmqTransport:
    """Moves an endpoint's frames; ``address`` is where this node listens.

    host        IPv4 address to listen at: loopback; another one with keys, or in a namespace of ours
    keys        with them connections are encrypted, and only holders of keys have one
    dropped     frames and connections dropped, by reason
    on_failure  called with ``Refused`` for a node that is not listened to any more, and with another
                exception if the thread cannot go on
    outages     when this node's links are cut; pulse: who of the others is alive
    """

    def __init__(
        self, endpoint: Endpoint, on_failure: Callable[[BaseException], None], host: str = LOOPBACK,
        keys: Keys | None = None,
    ) -> None:  # fmt: skip
        self.endpoint, self._on_failure, self._keys = endpoint, on_failure, keys
        self.dropped: dict[str, int] = {}
        self.outages = Outages()
        self._banned: set[bytes] = set()
        self._refused: set[int] = set()
        self._context = zmq.Context(io_threads=1)
        self._router = self._context.socket(zmq.ROUTER)
        self._prepare(self._router)
        largest = max(wire.CHUNK, wire.HEADER_BYTES) + (0 if keys is None else FRAMING)
        self._router.setsockopt(zmq.MAXMSGSIZE, largest)
        self._router.setsockopt(zmq.RCVHWM, _BATCH)
        self._router.setsockopt(zmq.SNDHWM, _MOST_ANSWERS)
        self._router.setsockopt(zmq.TOS, _LOW_DELAY)
        most = _SPARE + _EACH * endpoint.agreed.nodes
        self._door = Door(self._context, self._router, host, most, largest, keys, self._drop)
        self.address = self._door.address
        ping, self._pong = (
            wire.pack(Header(kind, endpoint.me, incarnation=endpoint.life, step=_SIGN), endpoint.agreed.token)
            for kind in (wire.PING, wire.PONG)
        )
        self.pulse = Pulse(lambda peer: self._dial(peer, _PULSE, MOST_PINGS), ping, endpoint.clock)
        self.pulse.kick = self.kick
        self._addresses: dict[int, str] = {}
        self._dealers: dict[int, Any] = {}
        self._identities: dict[int, bytes] = {}
        self._nodes: dict[bytes, int] = {}
        self._former: set[bytes] = set()
        self._orders: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = False
        self._waking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mover", daemon=True)
        endpoint.kick = self.kick

    def start(self, addresses: dict[int, str]) -> None:
        """Connect to the other nodes, in the lives that the endpoint knows of, and start moving frames."""
        for peer, address in addresses.items():
            if peer != self.endpoint.me:
                self._connect(peer, address, self.endpoint.lives.of[peer])
        self._thread.start()

    def meet(self, peer: int, address: str, life: int, met: Callable[[], None]) -> None:
        """``peer`` is there (again), at a new address; ``met`` is called once its frames are taken."""
        self._order(partial(self._meet, peer, address, life, met))

    def depart(self, peer: int, *, later: bool = False) -> None:
        """``peer`` is gone, or does not come: once all that was said of it before has been done.

        Its port is free from then on: nobody dials there any more, whoever may listen now. ``later``: it was
        met and comes in the same life, but not now; the connection to it is kept until then.
        """
        self._order(partial(self.endpoint.depart if later else self._depart, peer))

    def hang_up(self, peer: int) -> None:
        """``peer`` has ended, and with it its port is free: dial there no more, whoever may listen now."""
        self._order(partial(self._leave, peer))

    def _order(self, work: Callable[[], None]) -> None:
        self._orders.append(work)
        self.kick()

    def _meet(self, peer: int, address: str, life: int, met: Callable[[], None]) -> None:
        self.endpoint.meet(peer, life)
        self._connect(peer, address, life)
        met()

    def _depart(self, peer: int) -> None:
        self.endpoint.depart(peer)
        self._leave(peer)

    def _leave(self, peer: int) -> None:
        """Close the connections that were opened to ``peer``."""
        dealer = self._dealers.pop(peer, None)
        if dealer is not None:
            dealer.close(linger=0)
        self.pulse.leave(peer)

    def _connect(self, peer: int, address: str, life: int) -> None:
        """Open the connection to a life of ``peer``, in place of the one to its former life."""
        token = self.endpoint.agreed.token
        known = self._addresses.get(peer), self._identities.get(peer)
        if peer in self._dealers and known == (address, self._identity(token, peer, life)):
            return  # it was put off
        self._leave(peer)
        self._addresses[peer] = address
        self._dealers[peer] = self._dial(peer)
        former = [identity for identity, node in self._nodes.items() if node == peer]
        for identity in former:
            del self._nodes[identity]
        self._former.update(former)
        self._refused.discard(peer)
        self._identities[peer] = self._identity(token, peer, life)
        pulse = self._identity(token, peer, life, _PULSE)
        self._former -= {self._identities[peer], pulse}
        self._nodes[self._identities[peer]] = self._nodes[pulse] = peer

    def cut(self, seconds: float) -> None:
        """From now on, for so long, let no frame of this node leave or enter."""
        now = self.endpoint.clock()
        self.outages.add(now, now + seconds)

    def kick(self) -> None:
        """Wake the thread: there are frames to send or new deadlines."""
        if threading.current_thread() is not self._thread:
            with self._waking:
                if not self._closing:
                    os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Stop the thread and drop what was not sent; waits at most two seconds."""
        with self._waking:
            if self._closing:
                return
            self._closing = True
            os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(2.0)
        if not self._thread.is_alive():
            self._door.close()
            self.pulse.close()
            for socket in (self._router, *self._dealers.values()):
                socket.close(linger=0)
            self._context.term()
            os.close(self._wake)

    def _dial(self, peer: int, kind: bytes = b"n", most: int = 0) -> Any:
        """A connection to ``peer`` on which at most ``most`` frames wait (0: as many as there are)."""
        dealer, own = self._context.socket(zmq.DEALER), self.endpoint
        self._prepare(dealer)
        dealer.setsockopt(zmq.SNDHWM, most)
        dealer.setsockopt(zmq.RCVHWM, _BATCH)
        dealer.setsockopt(zmq.MAXMSGSIZE, wire.HEADER_BYTES if self._keys is None else FRAMING)
        dealer.setsockopt(zmq.IDENTITY, self._identity(own.agreed.token, own.me, own.life, kind))
        if self._keys is not None:
            self._keys.dial(dealer)
        dealer.connect(self._addresses[peer])
        return dealer

    @staticmethod
    def _identity(token: bytes, node: int, life: int = 0, kind: bytes = b"n") -> bytes:
        return kind + token + node.to_bytes(4, "little") + life.to_bytes(4, "little")

    @staticmethod
    def _prepare(socket: Any) -> None:
        for option in (zmq.SNDHWM, zmq.RCVHWM, zmq.LINGER):
            socket.setsockopt(option, 0)
        socket.setsockopt(zmq.IMMEDIATE, 0)

    # ---- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except BaseException as error:
            if not self._closing:
                self._on_failure(error)

    def _turn(self) -> None:
        """Send what is due, take what has come, sleep until there is more."""
        while self._orders:
            self._orders.popleft()()
        busy = self._door.look()
        now = self.endpoint.clock()
        cut = self.outages.until(now) if self.outages.planned else None
        if cut is not None:
            self._look(cut=True)
            self._sleep(min(cut, self.pulse.due) - now, ())
            return
        if self.outages.planned:
            postpone(self.endpoint, self.outages.over(now))
        frames = self.endpoint.tick()
        for to, header, payload in frames:
            self._send(to, header, payload)
        self._door.unfinished.measure(now)
        heard = self._drain(self._router, None)
        for peer, dealer in self._dealers.items():
            heard |= self._drain(dealer, peer)
        self._look(cut=False)
        if not (heard or frames or busy):
            due = min(self.endpoint.deadline(), self.pulse.due, self._door.unfinished.due)
            self._sleep(due - self.endpoint.clock(), (self._router, *self._dealers.values()))

    def _look(self, *, cut: bool) -> None:
        """See who is silent, if that is due: after what has come was taken, for it is a sign of life."""
        now = self.endpoint.clock()
        if now >= self.pulse.due:
            self.pulse.look(now, self._dealers.keys() - self.endpoint.gone, cut)

    def _sleep(self, seconds: float, sockets: Iterable[Any]) -> None:
        """Until something comes on ``sockets`` or at the door, another thread kicks, or so long."""
        if seconds > 0:
            descriptors = [self._wake, *self._door.descriptors, *(socket.FD for socket in sockets)]
            readable, _, _ = select.select(descriptors, (), (), min(seconds, _LONGEST_SLEEP))
            if self._wake in readable:
                os.eventfd_read(self._wake)

    def _send(self, to: int, header: bytes, payload: memoryview | None) -> None:
        """Out of the connection that fits: answers go back on the peer's own; nowhere to who has ended."""
        dealer = self._dealers.get(to)
        if dealer is None:
            return
        if header[wire.KIND_AT] in wire.ANSWERS:
            self._router.send_multipart((self._identities[to], header), flags=zmq.NOBLOCK, copy=True)
        elif payload is None:
            dealer.send(header, flags=zmq.NOBLOCK)
        else:
            dealer.send(header, flags=zmq.NOBLOCK | zmq.SNDMORE)
            dealer.send(payload, flags=zmq.NOBLOCK, copy=len(payload) < 1 << 16)

    def _drain(self, socket: Any, opened_to: int | None) -> bool:
        """Take the frames that a socket holds, at most ``_BATCH`` of them; True if there were any.

        ``opened_to``: the node that this one opened the connection to, None for those of others.
        """
        for taken in range(_BATCH):
            try:
                parts = socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
            except zmq.Again:
                if opened_to is None:
                    self._door.unfinished.drained()
                return taken > 0
            if opened_to is None:
                self._door.unfinished.heard(_connection(parts[-1]))
            identity = parts.pop(0).bytes if opened_to is None else b""
            peer = self._nodes.get(identity) if opened_to is None else opened_to
            if identity in self._former:
                self._drop("of a former life")
                continue
            if identity in self._banned or peer in self._refused:
                self._drop("cut off")
                continue
            try:
                self._handle(peer, parts)
            except Replayed as error:
                self._drop(str(error))
            except WireError as error:
                self._drop(str(error))
                if identity in self._nodes or (opened_to is not None and self._ours(parts)):
                    self._refuse(peer, error)
                elif opened_to is None and len(self._banned) < _MOST_BANNED:
                    self._banned.add(identity)
        return True

    def _refuse(self, peer: int | None, error: WireError) -> None:
        """A node of this run and this one do not understand each other: they cannot both go on."""
        if peer is not None and peer not in self.endpoint.gone:
            self._refused.add(peer)
            self._on_failure(Refused(self.endpoint.me, peer, str(error)))

    def _ours(self, parts: list[Any]) -> bool:
        """Whether a frame knows the run's token, however wrong it is otherwise."""
        return bool(parts) and wire.token_of(parts[0].buffer) == self.endpoint.agreed.token

    def _handle(self, peer: int | None, parts: list[Any]) -> None:
        """Check a frame of node ``peer`` (None for a stranger's) and hand it on."""
        if not 1 <= len(parts) <= 2:
            raise WireError(f"{len(parts)} parts; expected a header and at most one payload")
        payload = parts[1].buffer if len(parts) == 2 else None
        header = wire.unpack(
            parts[0].buffer, self.endpoint.agreed, len(payload) if payload is not None else 0
        )
        if header.source != peer:
            raise WireError(f"a frame of node {header.source} from another connection")
        self.pulse.heard(header.source)
        if header.step != _SIGN or header.kind not in (wire.PING, wire.PONG):
            self.endpoint.on_frame(header, payload)
        elif header.kind == wire.PING:
            self._send(header.source, self._pong, None)

    def _drop(self, reason: str) -> None:
        if reason not in self.dropped and len(self.dropped) >= _MOST_REASONS:
            reason = "other"
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def _connection(frame: Any) -> int:
    """The descriptor of the connection that a frame came on; -1 where libzmq does not say."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1

"""The test-bed: a namespace per machine, a cable from each to a bridge in a namespace of its own.

Rules this module obeys:

* Nothing is made outside the test-bed's own namespaces: no interface, address, route or rule of this
  machine is seen from inside them or changed by them, and all of it goes when they do.
* Both directions of a cable are shaped: what a machine sends where it leaves the machine, what it
  receives where it leaves the bridge.
* Whatever way a test-bed ends, it is removed: at the end of its block, on errors, Ctrl-C, SIGTERM and
  SIGHUP. If its process is killed, the next test-bed (or ``clean``) removes what is left of it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from real.errors import TransportError
from real.testbed import names, spaces
from real.testbed.places import DEVICE, Place, within
from real.testbed.shaping import DESTINATION, HIGHEST, LOWEST, MTU, SOURCE, shape
from scenarios.errors import ScenarioError

__all__ = ["MOST", "Nic", "Testbed", "check_nics", "clean"]

MOST = 128
"""Machines of a test-bed."""

_BRIDGE, _NETWORK = "bridge", "10.77.0.0/16"


@dataclass(frozen=True, slots=True)
class Nic:
    """A machine's link: wire rates in bytes/s; infinite: not shaped."""

    up: float
    down: float


def check_nics(nics: Sequence[Nic], machines: Sequence[int] = ()) -> None:
    """Raise ``ScenarioError`` for rates or numbers that no test-bed can play.

    machines  which of the scenario's the NICs are of, for the error; without any: all, in order
    """
    if not 1 <= len(nics) <= MOST:
        raise ScenarioError("cluster.machines", len(nics), f"1 to {MOST} machines in a test-bed")
    for i, nic in zip(machines or range(len(nics)), nics, strict=True):
        for direction, rate in (("up", nic.up), ("down", nic.down)):
            if rate != float("inf") and not LOWEST <= rate <= HIGHEST:
                valid = "from 1 Mbit/s to 32 Gbit/s in a test-bed, or unlimited"
                raise ScenarioError(f"cluster.machines[{i}].{direction}", rate, valid)


def clean() -> list[str]:
    """Remove what test-beds left whose process is certainly gone; returns the names."""
    found = names.leftovers()
    for name in found:
        spaces.remove(name)
    return found


class Testbed:
    """Namespaces with shaped links, for use in a ``with`` block.

    nics    one per machine; machine i has the address ``places[i].address``
    fair    share every link fairly among peers, not first come, first served

    Leftovers of others that are gone are removed first. Raises ``ScenarioError`` for what cannot be
    played, and ``TransportError`` where the kernel refuses (``real.testbed.unavailable`` says why).
    """

    __test__ = False
    places: tuple[Place, ...]

    def __init__(self, nics: Sequence[Nic], *, fair: bool = False) -> None:
        check_nics(nics)
        self.nics, self.fair = tuple(nics), fair
        self.places = ()
        self.removed = clean()
        self._prefix = names.prefix()
        self._bridge, self._ports = 0, list[int]()
        self._handlers: dict[int, Any] = {}
        self._heed_signals()
        try:
            self._build()
        except BaseException as error:
            self.close()
            if isinstance(error, (ScenarioError, TransportError)) or not isinstance(error, Exception):
                raise
            raise TransportError(f"the test-bed cannot be built: {error}") from error

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove it all; whatever still runs inside is ended. Closing twice is nothing.

        A signal that comes meanwhile ends this process afterwards. Raises ``OSError`` where the kernel keeps
        a name; all others are removed first.
        """
        came: list[int] = []
        for number in self._handlers:
            signal.signal(number, lambda number, _: came.append(number))
        with ExitStack() as left:
            left.callback(self._give_back_signals, came)
            for name in os.listdir(names.FOLDER) if names.FOLDER.is_dir() else ():
                if name.startswith(self._prefix):
                    left.callback(spaces.remove, name)

    def _heed_signals(self) -> None:
        """From now on leave blocks in order where a signal would end this process at once.

        A handler of the caller's stays, but while all is removed.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                handler = signal.getsignal(number)
                if handler not in (signal.SIG_IGN, None):
                    self._handlers[number] = handler
                if handler is signal.SIG_DFL:
                    signal.signal(number, _end)

    def _give_back_signals(self, came: Sequence[int]) -> None:
        end = _end
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)
            if came and number == came[0] and callable(handler):
                end = handler
        if came:
            end(came[0], None)

    # ---- links --------------------------------------------------------------------------------

    def cut(self, machine: int) -> None:
        """Silence all links of ``machine`` in both directions: packets vanish, no end is told."""
        self._plug(machine, None)

    def restore(self, machine: int) -> None:
        """Undo ``cut``: what TCP still holds is sent again within a second or two.

        Before Linux 6.15, where its pauses cannot be bounded, within as long again as the cut.
        """
        self._plug(machine, self._bridge)

    def _plug(self, machine: int, bridge: int | None) -> None:
        """Into the bridge or out of it; the cable itself stays up, so that nobody is told."""

        def work() -> None:
            with _kernel() as kernel:
                kernel.link("set", index=self._ports[machine], master=bridge or 0)

        within(str(names.FOLDER / f"{self._prefix}{_BRIDGE}"), work)

    # ---- building -----------------------------------------------------------------------------

    def _build(self) -> None:
        labels = [str(i) for i in range(len(self.nics))]
        for label in (_BRIDGE, *labels):
            spaces.create(self._prefix + label)
        paths = [names.FOLDER / (self._prefix + label) for label in labels]
        addresses = [f"10.77.{(i + 1) >> 8}.{(i + 1) & 255}" for i in range(len(self.nics))]
        self.places = tuple(
            Place(
                path.name,
                str(path),
                os.stat(path).st_ino,
                address,
                tuple(a for a in addresses if a != address),
            )
            for path, address in zip(paths, addresses, strict=True)
        )
        within(str(names.FOLDER / f"{self._prefix}{_BRIDGE}"), self._build_bridge)
        for place, nic in zip(self.places, self.nics, strict=True):
            within(place.path, lambda place=place, nic=nic: self._build_machine(place, nic))  # type: ignore[misc]

    def _build_bridge(self) -> None:
        """The bridge, the cables, and what machines receive."""
        spaces.set_kernel()
        with _kernel() as kernel:
            kernel.link("add", ifname=_BRIDGE, kind="bridge", mtu=MTU, br_mcast_snooping=0)
            [self._bridge] = kernel.link_lookup(ifname=_BRIDGE)
            kernel.link("set", index=self._bridge, state="up")
            for i, (place, nic) in enumerate(zip(self.places, self.nics, strict=True)):
                space = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    end = {"ifname": DEVICE, "net_ns_fd": space, "mtu": MTU}
                    kernel.link("add", ifname=f"port{i}", kind="veth", mtu=MTU, peer=end)
                finally:
                    os.close(space)
                [port] = kernel.link_lookup(ifname=f"port{i}")
                kernel.link("set", index=port, master=self._bridge, state="up")
                self._ports.append(port)
                shape(kernel, port, nic.down, peers=place.peers if self.fair else (), field=SOURCE)

    def _build_machine(self, place: Place, nic: Nic) -> None:
        """Addresses, the one route, and what the machine sends."""
        spaces.set_kernel()
        with _kernel() as kernel:
            kernel.link("set", index=1, state="up")
            [device] = kernel.link_lookup(ifname=DEVICE)
            kernel.link("set", index=device, state="up")
            kernel.addr("add", index=device, address=place.address, prefixlen=32)
            cubic = {"attrs": [("RTAX_CC_ALGO", "cubic")]}
            kernel.route("add", dst=_NETWORK, oif=device, scope="link", prefsrc=place.address, metrics=cubic)
            shape(kernel, device, nic.up, peers=place.peers if self.fair else (), field=DESTINATION)


@contextmanager
def _kernel() -> Iterator[Any]:
    """Netlink in the calling thread's namespace."""
    from pyroute2 import IPRoute

    kernel = IPRoute()
    try:
        yield kernel
    finally:
        with suppress(OSError):
            kernel.close()


def _end(number: int, _: object) -> None:
    """End this process the way an exception does, so that blocks are left in order."""
    raise SystemExit(128 + number)

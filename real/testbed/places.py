"""A place in a test-bed: what a process must know to get into its namespace and to be sure that it is there.

Rules this module obeys:

* A namespace belongs to a thread: threads and sockets made before ``enter`` stay outside. So a node
  enters before it has any (``alone`` is checked), and everything it makes later is inside.
* Being inside is never taken for granted: an address of a test-bed, dialled from outside, leaves by the
  default route. ``verify`` asks the kernel which namespace this is and by which device every peer
  would be reached; who fails that must not bind or dial.
* Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from real.errors import TransportError

__all__ = ["CLONE_NEWNET", "DEVICE", "Place", "enter", "libc", "switch", "verify", "within"]

DEVICE = "aladdin0"
"""The node's end of its cable, the same in every namespace and found nowhere else."""

CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_GETROUTE, _ERROR, _REQUEST = 26, 2, 1
_RTA_DST, _RTA_OIF = 1, 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """One namespace of a test-bed.

    name, path  in the folder of ``ip netns``
    inode       of the namespace
    address     its IPv4 address; device: the interface that leads to the others
    peers       the addresses of the other places
    """

    name: str
    path: str
    inode: int
    address: str
    peers: tuple[str, ...] = ()
    device: str = DEVICE


def libc() -> Any:
    """The C library, which keeps ``errno``."""
    return ctypes.CDLL(None, use_errno=True)


def switch(path: str) -> None:
    """Take the calling thread into the namespace at ``path``; ``OSError`` where that cannot be done."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc().setns(descriptor, CLONE_NEWNET):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
    finally:
        os.close(descriptor)


def enter(place: Place, *, alone: bool = True) -> None:
    """Take this process into ``place`` and verify that it is there.

    alone  refuse where the process has further threads, which would stay outside

    Raises ``TransportError``.
    """
    threads = len(os.listdir("/proc/self/task"))
    if alone and threads > 1:
        raise TransportError(f"{threads} threads run already; they would stay outside namespace {place.name}")
    try:
        switch(place.path)
    except OSError as error:
        raise TransportError(f"namespace {place.name} cannot be entered: {error}") from error
    verify(place)


def verify(place: Place) -> None:
    """Raise ``TransportError`` unless the calling thread is in ``place`` and its cable leads to all peers."""
    inode = os.stat(_OWN).st_ino
    if inode != place.inode:
        raise TransportError(
            f"not inside namespace {place.name}: this is network namespace {inode}, expected {place.inode}; "
            f"dialling from here would leave by this machine's own routes"
        )
    for address, device in ((place.address, "lo"), *((peer, place.device) for peer in place.peers)):
        found = leaves_by(address)
        if found != device:
            way = f"by {found}" if found else "nowhere"
            raise TransportError(
                f"in namespace {place.name} packets to {address} would leave {way}, expected {device}"
            )


def leaves_by(address: str) -> str:
    """The device by which packets to an IPv4 ``address`` would leave; empty where there is no route."""
    target = struct.pack("HH4s", 8, _RTA_DST, socket.inet_aton(address))
    body = struct.pack("BBBBBBBBI", socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0) + target
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(10.0)
        kernel.bind((0, 0))
        kernel.send(struct.pack("IHHII", 16 + len(body), _GETROUTE, _REQUEST, 1, 0) + body)
        reply = kernel.recv(65536)
    if struct.unpack_from("H", reply, 4)[0] == _ERROR:
        return ""
    at, end = 28, struct.unpack_from("I", reply)[0]
    while at + 4 <= end:
        length, kind = struct.unpack_from("HH", reply, at)
        if kind == _RTA_OIF:
            return socket.if_indextoname(struct.unpack_from("I", reply, at + 4)[0])
        at += max(4, (length + 3) & ~3)
    return ""


def within(path: str | None, work: Callable[[], T]) -> T:
    """What ``work`` returns (or raises) in a thread inside the namespace at ``path``; None: in no other.

    The caller's own thread stays where it is.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if path is not None:
                switch(path)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

"""Named network namespaces: made, listed and removed as ``ip netns`` does, and their settings.

Rules this module obeys:

* A name is there before the namespace is, so that whatever is made can be found again by it.
* Who is still inside a namespace that is removed is ended (SIGKILL): it was started there, by us or
  by what we started, and has lost its network anyway.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from real.testbed import names
from real.testbed.places import CLONE_NEWNET, libc, within

__all__ = ["create", "inside", "remove", "set_kernel"]

_MS_BIND, _MS_REC, _MS_SHARED, _MNT_DETACH = 4096, 16384, 1 << 20, 2

_SETTINGS = {
    "net/ipv4/tcp_slow_start_after_idle": "0",
    "net/ipv4/tcp_wmem": "4096 131072 524288",
    "net/ipv4/tcp_no_metrics_save": "1",
    "net/ipv4/tcp_rto_max_ms": "1000",
    "net/ipv4/tcp_retries2": "255",
    "net/ipv6/conf/all/disable_ipv6": "1",
}
"""Of each namespace. Short send buffers keep queues short; a link that comes back is noticed in a second
(``tcp_rto_max_ms``: Linux 6.15 or newer), and no connection gives up within four minutes."""

_NEEDED = ("net/ipv4/tcp_slow_start_after_idle", "net/ipv4/tcp_wmem")

_PASSES, _PAUSE = 200, 0.01
"""How often, and seconds apart, it is looked whether anything still runs in a namespace that goes."""


def create(name: str) -> None:
    """Make a namespace under ``name``; ``OSError`` where the kernel refuses."""
    folder, path = names.FOLDER, names.FOLDER / name
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    _share(folder)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))

    def make() -> None:
        if libc().unshare(CLONE_NEWNET):
            raise _failed("unshare")
        _mount("/proc/thread-self/ns/net", str(path), _MS_BIND)

    within(None, make)


def _share(folder: Path) -> None:
    """Let names be seen from other mount namespaces, as `ip netns` does: a mount of its own, once."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            _mount("", str(folder), _MS_SHARED | _MS_REC)
        except OSError:  # no mount yet
            _mount(str(folder), str(folder), _MS_BIND | _MS_REC)
            _mount("", str(folder), _MS_SHARED | _MS_REC)
    finally:
        os.close(descriptor)


def remove(name: str) -> None:
    """Remove the namespace ``name`` and end what runs in it, children of the moment included.

    Nothing where there is none. What the kernel does not let go within two seconds is ended all the same,
    later.
    """
    path = names.FOLDER / name
    for _ in range(_PASSES):
        running = inside(name)
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not running:
            break
        time.sleep(_PAUSE)
    libc().umount2(os.fsencode(path), _MNT_DETACH)
    path.unlink(missing_ok=True)


def inside(name: str) -> list[int]:
    """Processes in the namespace ``name``, this one left out."""
    try:
        wanted = os.stat(names.FOLDER / name)
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                its = os.stat(entry / "ns/net")
                if (its.st_dev, its.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(entry.name))
    return found


def set_kernel() -> None:
    """The settings of TCP in the calling thread's namespace; ``OSError`` where a needed one is refused."""
    for name, value in _SETTINGS.items():
        try:
            Path("/proc/sys", name).write_text(value, encoding="ascii")
        except OSError:
            if name in _NEEDED:
                raise


def _mount(source: str, target: str, flags: int) -> None:
    if libc().mount(source.encode(), target.encode(), b"none", ctypes.c_ulong(flags), None):
        raise _failed(f"mount on {target}")


def _failed(what: str) -> OSError:
    error = ctypes.get_errno()
    return OSError(error, f"{what}: {os.strerror(error)}")

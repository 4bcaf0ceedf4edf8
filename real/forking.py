"""The fork server: the process that all nodes' processes are forked from.

Rules this module obeys:

* It outlives the runs, on purpose: it has imported torch, and the next run need not do so again. It ends with
  the process that started it.
* It and its children leave Ctrl-C, SIGTERM and SIGHUP, which terminals and schedulers send to all processes
  of a group, to that process: what they have is kept then. It kills them, at the latest when it ends in
  order; where it does not the kernel does (``real.process``).
* Nodes know nothing of the program that runs them: unlike other processes of ``multiprocessing`` they do not
  import its main module again, so a script that trains needs no ``if __name__ == "__main__":``. Only where
  their algorithm is defined in it do they, and then it does.
* It is the only module that reads or sets environment variables.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import socket
import sys
import threading
import weakref
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from real.pipe import End
from real.testbed.places import Place

__all__ = ["fork", "start"]

_PRELOADED = ("torch", "sklearn.datasets", "real.process", "scenarios.workloads.task")

_NAMED = ("__file__", "__spec__")
"""By which a child is told of the main module."""

_THE_PARENTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are for the process whose fork server it is."""

_STARTING = threading.Lock()
_CHILDREN: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


def start() -> None:
    """Start the fork server, if it does not run yet, deaf to ``_THE_PARENTS`` like its children will be.

    It would otherwise hear Ctrl-C until it has imported everything. The tracker of resources has to
    run by then: starting it unblocks signals.
    """
    _context().set_forkserver_preload(list(_PRELOADED))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _THE_PARENTS)
    try:
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _THE_PARENTS)
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork(end: socket.socket, place: Place | None, name: str, *, main: bool = False) -> BaseProcess:
    """Start a process that runs a node at the other end of ``end``, in ``place`` if it is to have one.

    main  whether it needs what this program's main module defines

    Without ``main`` the ``__file__`` and ``__spec__`` of the main module are None while it starts: seconds,
    for the first one. Other threads see that meanwhile, and so do processes that they start.
    """
    process = _context().Process(target=_child, args=(end, place), name=name, daemon=True)
    with _STARTING:
        names = vars(sys.modules["__main__"])
        hidden: dict[str, Any] = {} if main else {key: names[key] for key in _NAMED if key in names}
        try:
            for key in hidden:
                names[key] = None
            process.start()
            _CHILDREN.add(process)
        finally:
            names.update(hidden)
    return process


@atexit.register  # after that of multiprocessing, which asks by SIGTERM and waits: this comes first
def _kill() -> None:
    for process in [*_CHILDREN]:
        with suppress(ValueError, AssertionError):  # it was closed, or is another process's child
            if process.is_alive():
                process.kill()


def _context() -> Any:
    return multiprocessing.get_context("forkserver")


def _child(end: socket.socket, place: Place | None) -> None:
    """Entry of every node's process."""
    for number in _THE_PARENTS:
        signal.signal(number, signal.SIG_IGN)
    _let_the_fork_server_go()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if place is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = place.device
    from real.process import main

    main(End(end), place)


def _let_the_fork_server_go() -> None:
    """Close what keeps it alive beyond its launcher: it ends then, and this process too, even if stopped."""
    server: Any = forkserver._forkserver
    held, server._forkserver_alive_fd = getattr(server, "_forkserver_alive_fd", None), None
    if held is not None:
        os.close(held)

"""All-reduce by ``torch.distributed``: gloo between CPUs, NCCL where every rank has a GPU of its own.

Rules this module obeys:

* A round works on a copy, so the caller's tensor stays intact until the round has succeeded.
* The collective call runs on a thread of its own: when a peer dies, gloo may neither return nor
  fail, and the group is abandoned together with that thread; the driver then goes on with the
  message program (``core.collectives``).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["NativeGroup", "Round"]


class Round:
    """One all-reduce under way: ``total`` holds the sum once it is there, or ``error`` says why not."""

    __slots__ = ("error", "failed", "number", "tensor", "total", "workers")

    def __init__(self, tensor: Any, number: int, workers: int) -> None:
        self.tensor, self.number, self.workers = tensor, number, workers
        self.total: Any = None
        self.error: BaseException | None = None
        self.failed = 0.0

    def finish(self) -> None:
        """Put the mean into the caller's tensor (on the caller's thread: an abandoned round never does)."""
        torch.div(self.total.to(self.tensor.device), self.workers, out=self.tensor)


class NativeGroup:
    """The group of all workers. ``path``: a file that all share, for the rendezvous."""

    def __init__(self, rank: int, workers: int, path: str, *, nccl: bool, done: Callable[[], None]) -> None:
        self._rank, self._workers, self._nccl, self._done = rank, workers, nccl, done
        self.rounds = 0
        dist.init_process_group(
            "nccl" if nccl else "gloo",
            init_method=f"file://{path}",
            rank=rank,
            world_size=workers,
            timeout=timedelta(minutes=30),
        )
        self._jobs: queue.SimpleQueue[Round] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="collective", daemon=True).start()

    def warm(self, like: Any) -> None:
        """One round before the clock starts: connections are made at first use."""
        ready = threading.Event()
        done, self._done = self._done, ready.set
        round_ = self.start(torch.zeros_like(like))
        ready.wait()
        self._done = done
        self.rounds = 0
        if round_.error is not None:
            raise round_.error

    def start(self, tensor: Any) -> Round:
        """Begin the next round on ``tensor`` (flat, alike in length everywhere)."""
        self.rounds += 1
        job = Round(tensor, self.rounds, self._workers)
        self._jobs.put(job)
        return job

    def _run(self) -> None:
        torch.set_num_threads(1)
        if self._nccl:
            torch.cuda.set_device(self._rank)
        while True:
            job = self._jobs.get()
            try:
                tensor = job.tensor
                work = tensor.clone() if self._nccl or not tensor.is_cuda else tensor.cpu()
                dist.all_reduce(work)
                if self._nccl:
                    torch.cuda.synchronize(self._rank)
                job.total = work
            except BaseException as error:
                job.error, job.failed = error, time.monotonic()
            self._done()

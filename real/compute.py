"""The thread that computes gradients, and how long a step is held.

Rules this module obeys:

* One gradient at a time, at the parameters as they were when it was asked for.
* ``paced``: a step lasts what the scenario's compute model draws, real gradient included; a
  gradient that takes longer than that is an overrun, and counted. ``native``: a step lasts as long
  as its gradient, times the slow-down drawn for it; the host's lateness in starting it is no part
  of that, and is not multiplied.
* Sleeping is the program thread's business (it waits for the step's absolute end); this thread
  only computes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scenarios.steptime import StepTimes

__all__ = ["Computer", "Step"]


class Step:
    """One gradient under way. ``end`` is when the step may end (monotonic), None until it is known.

    Of its pieces, which are there after the shares ``ready`` of a paced step, ``taken`` were asked for.
    """

    __slots__ = (
        "base", "end", "error", "factor", "gradient", "loss", "number", "params", "ready", "start", "taken",
    )  # fmt: skip

    def __init__(
        self, number: int, params: Any, start: float, base: float, factor: float,
        ready: tuple[float, ...] = (),
    ) -> None:  # fmt: skip
        self.ready, self.taken = ready or (1.0,), 1
        self.number, self.params, self.start, self.base, self.factor = number, params, start, base, factor
        self.gradient: Any = None
        self.loss = float("nan")
        self.end: float | None = None
        self.error: BaseException | None = None

    @property
    def due(self) -> float | None:
        """When the piece asked for last may be handed out; None until that is known."""
        if self.end is None or self.taken == len(self.ready):
            return self.end
        return self.start + (self.end - self.start) * self.ready[self.taken - 1]


class Computer:
    """Evaluates ``task.gradient(params, rank, step)`` on a thread of its own.

    done      called (from that thread) when a step's gradient is there
    seconds   time that gradients themselves took, all steps together; overruns: paced steps whose
              gradient took longer than the step
    """

    def __init__(
        self, task: Any, rank: int, times: StepTimes, *, paced: bool, device: str, done: Callable[[], None]
    ) -> None:
        self._task, self._rank, self._times, self.paced = task, rank, times, paced
        self._synchronize = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else None
        self._done = done
        self.seconds, self.overruns, self.steps = 0.0, 0, 0
        self._jobs: queue.SimpleQueue[Step] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="computer", daemon=True).start()

    def start(self, params: Any, step: int, now: float, zero: float, ready: tuple[float, ...] = ()) -> Step:
        """Begin step ``step``; ``now`` and ``zero`` (the run's start) are monotonic seconds."""
        base, factor = self._times.draw(self._rank, step, now - zero)
        job = Step(step, params, now, base, factor, ready)
        self._jobs.put(job)
        return job

    def warm(self, params: Any) -> None:
        """Compute one gradient on that thread before the clock starts (first calls are slow)."""
        ready = threading.Event()
        done, self._done = self._done, ready.set
        job = Step(0, params, time.monotonic(), 0.0, 1.0)
        self._jobs.put(job)
        ready.wait()
        self._done = done
        if job.error is not None:
            raise job.error
        self.seconds, self.overruns, self.steps = 0.0, 0, 0

    def _run(self) -> None:
        torch.set_num_threads(1)
        with suppress(OSError):  # so that tools that watch the kernel know it
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("computer")
        while True:
            job = self._jobs.get()
            try:
                begin = time.monotonic()
                job.gradient, job.loss = self._task.gradient(job.params, self._rank, job.number)
                if self._synchronize is not None:
                    self._synchronize()
                finish = time.monotonic()
            except BaseException as error:
                job.error, job.end = error, job.start
            else:
                self.steps += 1
                self.seconds += finish - begin
                if self.paced:
                    job.end = job.start + job.base * job.factor
                    self.overruns += finish > job.end
                else:
                    job.end = finish + (job.factor - 1) * (finish - begin)
            self._done()

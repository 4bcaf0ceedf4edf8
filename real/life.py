"""One life of a worker: how it begins in the midst of a run, ends before its time, and helps others to begin.

Rules this module obeys:

* A joiner does what ``core.joining`` says before its algorithm's program. Without servers it then waits
  until everybody knows that it is there (``WELCOME``, from its launcher): else replies to it would be
  dropped as replies to one that has gone.
* Peers answer joiners between two effects of their programs, which know nothing of it.
* Where an all-reduce takes in who comes, workers stand still meanwhile (``real.halts``).
* What is due by step happens before that step begins; the launcher is told first, then it happens.

Source: ``sim.faults``, which plays the same in virtual time.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Any

from core.effects import Receive
from core.joining import STATE, enter, state
from core.node import Algorithm, Message, Node, Program
from real.endpoint import Endpoint
from real.halts import GO_ON, Halts

__all__ = ["WELCOME", "Life"]

WELCOME = "join.welcome"
"""Tag of the message by which a joiner hears that everybody knows of it."""

Due = tuple[int, str, float | None]
"""(steps completed, kind, seconds until it comes back)."""


class Life:
    """Life number ``number`` of worker ``node``.

    entering  it is there, but has no parameters yet; base: the step that it began with
    going     it leaves at its next ``Compute``; ended: its program is over
    due       what befalls it by step; thawed: set when a freeze is over
    halts     where it stops to let others come, if it has to
    tell      sends the launcher a message; clock: seconds since the start of the run
    """

    def __init__(
        self, number: int, joining: bool, due: Sequence[Due], tell: Callable[..., None],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.number, self.entering = number, joining
        self.base = 0
        self.going = self.ended = False
        self.thawed = threading.Event()
        self.halts: Halts | None = None
        self._remind: Callable[[str], None] = lambda _: None
        self._due = sorted(due, key=lambda entry: entry[0], reverse=True)
        self._tell, self._clock = tell, clock
        self._answer: Callable[[int, bool], None] = lambda *_: None

    def goes_on(self, step: int) -> bool:
        """Whether faults let the worker, which has completed ``step`` steps, begin another."""
        while self._due and self._due[-1][0] <= step:
            _, kind, back = self._due.pop()
            self.thawed.clear()
            self._tell(**{"is": "struck"}, kind=kind, back=back, now=self._clock())
            if kind == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "leave":
                self.going = True
            else:  # the launcher stops this process, now or in a moment, and says when that is over
                self.thawed.wait()
        return not self.going

    def heed(self, do: str, **order: Any) -> None:
        """The launcher's orders where others come, or this one does."""
        if self.halts is not None and do != "welcome":
            getattr(self.halts, do)(**order)
        elif self.halts is not None and order:
            self.halts.resume(**order)
        if do == "welcome":
            self._remind(WELCOME)

    def program(
        self, node: Node, algorithm: Algorithm, endpoint: Endpoint, regroup: Callable[[], None] | None = None
    ) -> Program:
        """The worker's main program in this life; ``regroup``: an all-reduce may take others in."""
        self._remind = partial(_remind, endpoint)
        if regroup is not None:
            self.halts = Halts(self._tell, partial(_remind, endpoint, GO_ON), regroup)
        if not algorithm.centralized:
            self._answer = lambda rank, empty: _hand_over(node, algorithm, endpoint, rank, empty)
        return self._join(node, algorithm, endpoint) if self.entering else self._worker(node, algorithm)

    def _worker(self, node: Node, algorithm: Algorithm) -> Program:
        program = algorithm.worker(node)
        return program if self.halts is None else self.halts.program(node, program)

    def _join(self, node: Node, algorithm: Algorithm, endpoint: Endpoint) -> Program:
        own = getattr(algorithm, "enter", None)
        while not (yield from enter(node, own)) and node.live - {node.id}:
            pass  # whom it asked has left, and others have come meanwhile
        if endpoint.lives.finished and not algorithm.centralized and not node.live - {node.id}:
            node.weight = 0.0
            return  # the others are done, and nobody is left to learn from
        self.base = node.step
        self.entering = False
        self._tell(**{"is": "entered"}, now=self._clock())
        if not algorithm.centralized:
            yield Receive(WELCOME)
        yield from self._worker(node, algorithm)

    def answered(self, node: Node, rank: int) -> bool:
        """Answer joiner ``rank``, which asks worker ``node``; False: not yet."""
        if self.entering and rank > node.id:
            return False
        if not self.ended:
            self._answer(rank, self.entering)
        return True


def _remind(endpoint: Endpoint, tag: str) -> None:
    """Put a message of this node to itself into its mailbox."""
    with endpoint.changed:
        endpoint.mailbox.deliver(Message(tag, source=endpoint.me), endpoint.clock())
        endpoint.notify()


def _hand_over(node: Node, algorithm: Algorithm, endpoint: Endpoint, rank: int, empty: bool) -> None:
    """Send a joiner this worker's parameters as they are now; ``empty``: say that it has none."""
    if empty:
        endpoint.submit([(rank, Message(STATE))], inf, unknown=True)
        return
    tensors: list[Any] = state(node, algorithm.collective)
    share = getattr(algorithm, "share", None)
    weight = share(node) if share is not None else 1.0
    for tensor in tensors:
        copy = node.tensors.snapshot(tensor).cpu()
        message = Message(STATE, copy, node.step, len(tensors), number=weight)
        endpoint.submit([(rank, message)], inf, unknown=True)

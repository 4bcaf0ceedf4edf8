"""A worker of an all-reduce stops before a step so that another one can come: its side of ``real.intake``.

Rules this module obeys:

* It says how many all-reduces it has completed, begins no further step until it hears after how many all
  stop, stops before the next step then, and says so. By then everybody's are complete.
* It goes on when it is told to, with those who are there by then; where nobody came, as if nothing had been.
* The algorithm's program knows nothing of this: it is stopped at its ``Compute``.
* Orders come on the thread that hears the launcher, the program runs on another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from core import collectives
from core.effects import Compute, Poll, Receive
from core.node import Node, Program

__all__ = ["GO_ON", "Halts"]

GO_ON = "join.go_on"
"""Tag of the message that has a program which stands look again."""

_NOTHING = "join.nothing"


class Halts:
    """Where a worker stops.

    tell    sends the launcher a message
    wake    puts a message with the tag ``GO_ON`` into the worker's own mailbox
    regroup called on the program's thread when others are there than before
    """

    def __init__(
        self, tell: Callable[..., None], wake: Callable[[], None], regroup: Callable[[], None]
    ) -> None:
        self._tell, self._wake, self._regroup = tell, wake, regroup
        self._lock = threading.Lock()
        self._number = 0
        self._after: int | None = None
        self._stands = False
        self._node: Node | None = None
        self._news: tuple[int, list[int], int] | None = None

    # ---- the launcher's orders ----------------------------------------------------------------

    def pause(self, number: int) -> None:
        """Begin no further step until the launcher says after how many all-reduces to stop."""
        with self._lock:
            self._number, self._after, self._stands = number, None, False
            done = 0 if self._node is None else collectives.rounds(self._node)
        self._tell(**{"is": "paused"}, number=number, rounds=done)

    def until(self, number: int, rounds: int) -> None:
        """Stop before the first step for which so many all-reduces are complete."""
        with self._lock:
            if number == self._number:
                self._after = rounds
        self._wake()

    def resume(self, number: int = 0, members: list[int] | None = None, rounds: int = 0) -> None:
        """Go on: where somebody came, as ``members``, who have completed so many all-reduces."""
        with self._lock:
            self._number = 0
            if members is not None:
                self._news = (number, members, rounds)
        self._wake()

    # ---- the program's side -------------------------------------------------------------------

    def program(self, node: Node, inner: Program) -> Program:
        """``inner`` as the driver is to run it."""
        answer: Any = None
        failed: Exception | None = None
        self._node = node
        try:
            while True:
                effect = inner.send(answer) if failed is None else inner.throw(failed)
                answer = failed = None
                if type(effect) is Compute:
                    yield from self._stand(node)
                try:
                    answer = yield effect
                except Exception as error:
                    failed = error
        except StopIteration:
            return
        finally:
            inner.close()

    def _stand(self, node: Node) -> Program:
        """Stand before the step for as long as that is wanted; then be one of who is there by then."""
        while not self._goes_on(node):
            yield Receive(GO_ON)
        if self._news is not None:
            yield Poll(_NOTHING)  # from now on the program knows of all who came and went
            with self._lock:
                (number, members, rounds), self._news = self._news, None
            gone = set(members) - node.live
            node.live.update(members)
            node.live.intersection_update(members)
            collectives.renew(node, number, rounds)
            node.live -= gone  # since then: on that they agree as on any departure
            self._regroup()

    def _goes_on(self, node: Node) -> bool:
        """Whether ``node`` may begin its next step now; says so when it stands where it should."""
        with self._lock:
            if not self._number or (self._after is not None and collectives.rounds(node) < self._after):
                return True
            says = self._after is not None and not self._stands
            self._stands |= says
            number = self._number
        if says:
            self._tell(**{"is": "stands"}, number=number, rounds=collectives.rounds(node))
        return False

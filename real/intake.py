"""How an all-reduce takes somebody in: the launcher's side. All stop before one step, and go on together.

Rules this module obeys:

* All workers are asked how many all-reduces they have completed, and begin no further step meanwhile; then
  they are told to complete two more than who has most, and to stop before the next step. All take part in
  each, at the same steps, so all stop before the same one.
* Nobody can complete the second one while somebody still needs help with an earlier one, because of a
  departure that was known before. Where anybody dies or ends later, before all stand, all go on, and are
  asked anew. So where all stand no message of an all-reduce is under way, and replicas agree that must.
* Then the one that comes is told where the others are, and gets its parameters from one that stands. When it
  has them, all hear who is there from now on, under a new number, and go on: there is nothing to agree on.
  Where it dies before that, all go on without it.
* One comes at a time.

Source: ``sim.faults``, where all know at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from real.member import Member

__all__ = ["Intake"]

_MORE = 2
"""All-reduces until all stop: one may be under way, with a part of the workers done, and one after it."""


class Intake:
    """Takes in one after the other.

    workers  the members that are workers, as they are now
    come     tells a joiner where the others are, once all of them stand
    """

    def __init__(self, workers: Callable[[], list[Member]], come: Callable[[Member], None]) -> None:
        self._workers, self._come = workers, come
        self._number = self._rounds = 0
        self._joiner: Member | None = None
        self._others: list[Member] = []
        self._done: dict[int, int] = {}
        self._standing: set[int] = set()
        self._here = False

    @property
    def busy(self) -> bool:
        """Whether workers are asked, or stand, or are about to."""
        return self._joiner is not None

    def begin(self, joiner: Member) -> None:
        """``joiner`` is known to all others."""
        self._joiner, self._here, self._rounds = joiner, False, 0
        self._number += 1
        self._others = [m for m in self._workers() if m.state == "running" and m is not joiner]
        self._done, self._standing = {}, set()
        for member in self._others:
            member.tell(do="pause", number=self._number)
        self._all_stand()

    def heed(self, member: Member, message: dict[str, Any]) -> None:
        """A worker says what it has completed, or that it stands."""
        if message["number"] != self._number or not self.busy or member not in self._others:
            return
        if message["is"] == "paused":
            self._done[member.node] = message["rounds"]
            if len(self._done) == len(self._others):
                for other in self._others:
                    other.tell(do="until", number=self._number, rounds=max(self._done.values()) + _MORE)
        else:
            self._standing.add(member.node)
            self._rounds = max(self._rounds, message["rounds"])
            self._all_stand()

    def gone(self, member: Member) -> None:
        """``member`` has died or ended."""
        joiner = self._joiner
        if joiner is None:
            return
        if member is joiner:
            self._go_on()
        elif member in self._others and not self._here:
            self._go_on()
            self.begin(joiner)

    def entered(self) -> dict[str, Any]:
        """The joiner has its parameters: with what all are to go on."""
        self._joiner = None
        members = [m.node for m in self._workers() if m.state == "running"]
        return {"number": self._number, "members": members, "rounds": self._rounds}

    def _all_stand(self) -> None:
        if self._joiner is not None and len(self._standing) == len(self._others):
            self._here = True
            self._come(self._joiner)

    def _go_on(self) -> None:
        """As if nothing had been."""
        self._joiner = None
        for member in self._others:
            member.tell(do="resume")

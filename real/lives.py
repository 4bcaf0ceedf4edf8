"""Which lives of the other nodes a node deals with: it takes frames of one life of each, or of none.

Rules this module obeys:

* No I/O, no clock, no locks (``real.endpoint`` holds its lock around it).
* A node's first life is number 0; whenever it comes back that is one more.
* What programs know lags behind: they know of a life, or of a departure, once they have taken what came
  before the news of it (``real.mailbox``). What they send goes to the life that they know of, or nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from real.mailbox import GONE
from real.wire import Header

__all__ = ["Lives"]


class Lives:
    """As seen by one node.

    gone      nodes of which nothing is taken; of: the others' lives
    known     the life of each that the programs know of; ``GONE``: they know that it is not there
    former    frames that were dropped because they were of another life
    finished  whether anybody has said that it has met its budget
    """

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.of, self.known = Counter[int](), Counter[int]()
        self.former, self.finished = 0, False
        self._over: set[tuple[int, int]] = set()

    def introduce(self, others: Collection[int], lives: Mapping[int, int], live: Collection[int]) -> None:
        """Before anything moves: those of ``others`` that can be reached, and those that are there."""
        for node in others:
            self.of[node] = lives.get(node, 0)
            self.known[node] = self.of[node] if node in live else GONE
            if node not in lives:
                self.gone.add(node)

    def there(self, rank: int) -> bool:
        """Whether ``rank`` is there in the life that the programs know of."""
        return rank not in self.gone and self.known[rank] == self.of[rank]

    def learn(self, rank: int, life: int) -> None:
        """The programs know of that life of ``rank``; of a departure (``GONE``) that its process has gone, if
        it has: companions of a node that has ended go on answering."""
        if life != GONE or rank in self.gone:
            self.known[rank] = life

    def takes(self, header: Header) -> bool:
        """Whether a frame is of the life that is dealt with; counts those of others."""
        if header.source in self.gone:
            return False
        current = header.incarnation == self.of[header.source]
        self.former += not current
        return current

    def ended(self, header: Header) -> None:
        """A node has said goodbye: its program has ended, by its budget where ``number`` is above 0."""
        self._over.add((header.source, header.incarnation))
        self.finished |= header.number > 0

    def goes_on(self, rank: int, life: int) -> bool:
        """Whether that life of ``rank`` is under way."""
        return rank not in self.gone and self.of[rank] == life and (rank, life) not in self._over

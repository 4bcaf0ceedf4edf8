"""The closed set of effects that a node program may yield.

Rules this module obeys:

* An effect is a value: frozen, validated when made, without behaviour. What it does is up to the
  driver that receives it (``sim.driver`` in virtual time, ``real.driver`` on real processes,
  ``tests.conformance.scripted`` under a test's thumb).
* A program never learns which driver runs it.
* The set is closed. An algorithm that seems to need another effect needs a design note first
  (``docs/decisions.md`` holds those for ``Flush`` and ``Produced``).

========================  ==============================================  ===========================
effect                    result sent back into the program               blocks
========================  ==============================================  ===========================
``Compute()``             flat gradient at the node's parameters as they  for the step time
                          were when the step began, a fresh tensor
``Compute(ready)``        the same, as soon as its first piece is there   until the first piece
``Produced()``            ``None``                                        until the next piece is there
``Send((to, msg), ...)``  ``None`` once every message is taken            until every window has room
``TrySend((to, msg)..)``  ``True`` if all are taken, else ``False``       never
``Flush(to, ...)``        ``None``                                        until all sent is delivered
``Receive(tag, ...)``     the next matching ``Message`` (or ``Left``)     until there is one
``Poll(tag, ...)``        a ``Message``, or ``None``                      never
``AllReduce(tensor)``     ``None``; ``tensor`` holds the workers' mean    until all joined and done
``Now()``                 seconds since the start of the run              never
========================  ==============================================  ===========================

A failure is thrown into the program at the yield: ``Finished`` at a ``Compute`` beyond the
worker's budget, nothing else in ordinary operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.node import Message

__all__ = ["AllReduce", "Compute", "Effect", "Flush", "Now", "Poll", "Produced", "Receive", "Send", "TrySend"]


@dataclass(frozen=True, slots=True)
class Compute:
    """One mini-batch gradient at the node's parameters as they are now; raises ``Finished``.

    With ``ready`` given it comes in pieces: the k-th is there after the share ``ready[k]`` of the step's
    time. The result is the whole tensor when its first piece is there; the others may be used after as
    many ``Produced``, all of which must come before the next ``Compute``. The step counts with the last.
    """

    ready: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        shares = (0.0, *self.ready)
        if self.ready and not (self.ready[-1] == 1.0 and all(a <= b for a, b in pairwise(shares))):
            raise ValueError(f"Compute(ready={self.ready}): shares of the step must rise, the last be 1")


@dataclass(frozen=True, slots=True)
class Produced:
    """Block until the next piece of the gradient that ``Compute(ready)`` began is there."""


@dataclass(slots=True, init=False, unsafe_hash=True)
class Send:
    """Hand messages to the transport; blocks until every (sender, receiver) window has room.

    All of them are taken at the same instant, so a gradient that is split over shards is counted
    alike by all of its servers. A sent tensor belongs to the transport: the program must not
    change it afterwards. ``window`` overrides the scenario's window for this send (``math.inf``:
    queue without bound). What is sent to a node that has left is dropped.
    """

    pairs: tuple[tuple[int, Message], ...]
    window: float | None = None

    def __init__(self, *pairs: tuple[int, Message], window: float | None = None) -> None:
        if not pairs:
            raise ValueError("Send() needs at least one (receiver, message) pair")
        self.pairs, self.window = pairs, window


@dataclass(slots=True, init=False, unsafe_hash=True)
class TrySend:
    """Hand all messages to the transport, or none: never blocks, says which by ``True``/``False``."""

    pairs: tuple[tuple[int, Message], ...]

    def __init__(self, *pairs: tuple[int, Message]) -> None:
        if not pairs:
            raise ValueError("TrySend() needs at least one (receiver, message) pair")
        self.pairs = pairs


@dataclass(frozen=True, slots=True, init=False)
class Flush:
    """Block until everything sent to the named nodes is delivered (or they have left).

    The one addition to the original vocabulary: a collective sends views of its caller's tensor,
    so it must know that the transport is done with them before it hands the tensor back.
    """

    to: tuple[int, ...]

    def __init__(self, *to: int) -> None:
        if not to:
            raise ValueError("Flush() needs at least one receiver")
        object.__setattr__(self, "to", to)


@dataclass(frozen=True, slots=True)
class Receive:
    """The next message that matches; blocks until there is one.

    ``tag`` is one tag or a tuple of tags (the message that arrived first wins). With ``source``
    given, ``Left(source)`` is returned instead once that node has left and no matching message
    of it is to come; with the tag ``LEFT`` among the tags, any departure is returned in order.
    """

    tag: str | tuple[str, ...]
    source: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """Like ``Receive``, but returns ``None`` at once where ``Receive`` would block."""

    tag: str | tuple[str, ...]
    source: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Replace ``tensor`` (flat, the same length everywhere) by its mean over the live workers."""

    tensor: Any


@dataclass(frozen=True, slots=True)
class Now:
    """Seconds since the start of the run."""


Effect = Compute | Produced | Send | TrySend | Flush | Receive | Poll | AllReduce | Now

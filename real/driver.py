"""Runs one node's programs on the wall clock: effects in, results back.

Rules this module obeys:

* One thread (the caller of ``run``) runs all programs of the node; between two yields a program
  runs alone. Gradients, transfers and native all-reduces happen on other threads, which report by
  the endpoint's condition.
* A blocked effect is tried again whenever anything happened; nothing is ever polled.
* The time of the main program is booked as ``real.booking`` says; companions cost it nothing but
  the thread.
* The driver, not the program, keeps ``node.step`` and ``node.live``: who has left and joined is known once
  a program has taken what came before, or has found nothing to take.
* Joiners' requests to a worker are no program's business: ``hooks.answered`` deals with them between two
  effects.
* What a program yields that cannot be done (no effect, a message that no receiver would take) is
  thrown back at its yield, so the traceback shows the line that is to blame.
* On paced links and steps the host's own lateness is no part of what is emulated: a program that
  is resumed late, or did not get a core while it ran (``lag``), starts its next step or message as
  if it had been in time, within bounds. What is booked is real time all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, cast

from core import collectives
from core.effects import AllReduce, Compute, Effect, Flush, Now, Poll, Produced, Receive, Send, TrySend
from core.node import Finished, Joined, Left, Message, Node
from real.booking import Booker
from real.compute import Computer, Step
from real.endpoint import Endpoint
from real.native import NativeGroup, Round

__all__ = ["Driver", "Hooks", "Stopped"]

_AGAIN = object()
"""An effect that cannot be answered yet."""

_MOST_LAG = 5e-3
"""Seconds of the host's lateness that are made up for at most."""

_GRACE = 10.0
"""Seconds that a failed native all-reduce waits to hear which peer has left."""


class Stopped(Exception):
    """The run was stopped from outside while programs were running."""


@dataclass
class Hooks:
    """What the process around a node decides.

    more     whether the worker may begin a step: (step, seconds since start) -> bool
    strike   called before step ``k`` (workers) or after the ``k``-th message (servers): faults
    diverged called with (step, loss, seconds since start) where a loss is no finite number
    stepped  called with the steps completed when one is
    answered whether joiner ``rank``, which asks for this node's parameters, has just been answered
    """

    more: Callable[[int, float], bool]
    strike: Callable[[int], None] = lambda _: None
    diverged: Callable[[int, float, float], None] = lambda *_: None
    stepped: Callable[[int], None] = lambda _: None
    answered: Callable[[int], bool] = lambda _: True


@dataclass(eq=False)
class _Running:
    """One program: a stack of generators (an all-reduce runs on top of what yielded it)."""

    stack: list[Generator[Effect, Any, None]]
    main: bool = False
    effect: Effect | None = None
    step: Step | None = None
    round: Round | None = None
    thrown: BaseException | None = None
    due: float = 0.0
    lag: float = 0.0
    since: float = 0.0


class Driver:
    """Node ``node``'s programs on its endpoint.

    computer  for workers; group: the native all-reduce, or None for the message program
    """

    def __init__(
        self, node: Node, endpoint: Endpoint, booker: Booker, hooks: Hooks,
        computer: Computer | None = None, group: NativeGroup | None = None, device: str = "cpu",
    ) -> None:  # fmt: skip
        self.node, self.endpoint, self.booker, self.hooks = node, endpoint, booker, hooks
        self.computer, self.group, self.device = computer, group, device
        self.changed: threading.Condition = endpoint.changed
        self.emulates = endpoint.links.paced and device == "cpu"
        self.losses: list[tuple[float, int, float]] = []
        self.reduced = 0
        self.read = 0
        self._stop = self._finish = False
        self._programs: list[_Running] = []
        self._draining: list[int] = []
        self._open: Step | None = None
        endpoint.told = self._told

    # ---- from other threads -------------------------------------------------------------------

    def stop(self) -> None:
        """End now; ``run`` raises ``Stopped`` at the next effect."""
        self._stop = True
        self.endpoint.notify()

    def finish(self) -> None:
        """All workers have ended: companions and servers end when nothing is left to do."""
        self._finish = True
        self.endpoint.notify()

    def regroup(self) -> None:
        """Others are there than before: there is no native group of them."""
        self.group = None

    def waiting(self) -> str:
        """What the blocked programs wait for; empty while one runs, or something is due to move by itself."""
        with self.changed:
            running = any(
                p.effect is None or p.step is not None or p.round is not None for p in self._programs
            )
            if running or self.endpoint.timed():
                return ""
            waits = [_describe(p.effect) for p in self._programs if p.effect is not None]
            drains = [to for to in self._draining if self.endpoint.undelivered[to]]
            return "; ".join(waits + ([_describe(Flush(*drains))] if drains else []))

    def awaited(self) -> set[int]:
        """Nodes that this one cannot go on without: they owe it a confirmation, a message or a round."""
        everyone, found = set(range(self.endpoint.agreed.nodes)), set[int]()
        with self.changed:
            found |= {to for to, left in self.endpoint.undelivered.items() if left}
            for program in self._programs:
                if isinstance(program.effect, Receive):
                    source = program.effect.source
                    found |= everyone if source is None else {source}
                elif program.round is not None:
                    found |= set(range(self.node.workers))
        return found

    # ---- the programs' thread -----------------------------------------------------------------

    def run(self, main: Generator[Effect, Any, None], *companions: Generator[Effect, Any, None]) -> None:
        """Run until the main program ends (workers) or ``finish`` finds everything done (servers)."""
        self.booker.begin(time.monotonic())
        leader = _Running([main], main=True)
        self._programs = [leader, *(_Running([program]) for program in companions)]
        for program in tuple(self._programs):  # a worker that comes back at the end ends as it begins
            self._advance(program, None)
        self._loop(lambda: leader not in self._programs, finishing=True)
        if leader in self._programs:
            self._end(leader)

    def drain(self) -> None:
        """After the main program: wait until all that was sent is delivered; companions go on meanwhile."""
        self._draining = [to for to, left in self.endpoint.undelivered.items() if left]
        self._loop(lambda: self.endpoint.delivered(self._draining))

    def serve(self) -> None:
        """Go on with the companions until the run is over and they have nothing left to do."""
        self._loop(lambda: False, finishing=True)

    def _loop(self, over: Callable[[], bool], *, finishing: bool = False) -> None:
        """Advance whatever can be advanced until ``over``, sleeping when nothing can.

        ``finishing``: also until the run is over and, with all messages read, nothing is left to do.
        """
        while not over():
            if self._stop:
                raise Stopped
            with self.changed:
                self.endpoint.asking -= {rank for rank in self.endpoint.asking if self.hooks.answered(rank)}
                program, answer = self._ready()
                if program is None:
                    if over() or (finishing and self._finish and self._nothing_left()):
                        return
                    self.changed.wait(self._patience())
                    continue
            self._resume(program, answer)

    def _ready(self) -> tuple[_Running | None, Any]:
        """A blocked program that can go on, with its answer."""
        for program in self._programs:
            answer = self._attempt(program)
            if answer is not _AGAIN:
                return program, answer
        return None, None

    def _nothing_left(self) -> bool:
        """Whether all workers have left, no program can receive more, and what was sent is confirmed.

        A worker's farewell may overtake its confirmation of the last message.
        """
        others = set(range(self.node.workers)) - {self.node.id}
        return (
            others <= self.endpoint.mailbox.left
            and all(isinstance(p.effect, Receive) for p in self._programs)
            and self.endpoint.delivered(list(self.endpoint.undelivered))
        )

    def _patience(self) -> float | None:
        """Seconds until a step may end; None if only an event can help."""
        ends = [p.step.due for p in self._programs if p.step is not None and p.step.due is not None]
        ends += [p.round.failed + _GRACE for p in self._programs if p.round is not None and p.round.failed]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    # ---- one program --------------------------------------------------------------------------

    def _resume(self, program: _Running, answer: Any) -> None:
        """Book the time that the program was blocked, hand it the answer and let it run."""
        now = time.monotonic()
        if program.main:
            self._book(program, now)
        program.lag = min(max(now - max(self._due(program, now), program.since), 0.0), _MOST_LAG)
        self._settle(program, now)
        program.effect = None
        self._advance(program, self._hand_over(answer))

    def _advance(self, program: _Running, answer: Any) -> None:
        """Run the program until it blocks: effects that can be answered at once are."""
        while True:
            began, worked = time.monotonic(), time.thread_time()
            try:
                thrown, program.thrown = program.thrown, None
                top = program.stack[-1]
                effect = top.throw(thrown) if thrown is not None else top.send(answer)
            except StopIteration:
                program.stack.pop()
                if not program.stack:
                    self._end(program)
                    return
                answer = None
                self.reduced += 1
                continue
            if self._stop:
                raise Stopped
            program.effect = effect
            now = time.monotonic()
            if self.emulates:
                deprived = (now - began) - (time.thread_time() - worked)
                program.lag = min(program.lag + max(deprived, 0.0), _MOST_LAG)
            if program.main:
                self.booker.active(now)
            self._begin(program, effect)
            with self.changed:
                answer = self._attempt(program)
            if answer is _AGAIN or program.step is not None or program.round is not None:
                program.since = time.monotonic() - program.lag
                return
            program.effect = None
            answer = self._hand_over(answer)

    def _end(self, program: _Running) -> None:
        if program.main:
            blocked = program.effect is not None
            self.booker.finish(self.booker.mark if blocked else time.monotonic(), self.node.blends)
        for generator in reversed(program.stack):
            generator.close()
        self._programs.remove(program)

    def abandon(self) -> None:
        """After ``Stopped``: book what was under way and end all programs."""
        for program in list(self._programs):
            if program.main and program.effect is not None:
                self._book(program, time.monotonic())
            self._end(program)

    def _begin(self, program: _Running, effect: Effect) -> None:
        """Start what an effect sets in motion (once; ``_attempt`` then asks whether it is done)."""
        if isinstance(effect, Compute):
            self._begin_step(program, effect)
        elif isinstance(effect, Produced):
            self._begin_piece(program)
        elif isinstance(effect, AllReduce):
            self._begin_round(program, effect)
        elif self.device != "cpu" and isinstance(effect, Send | TrySend):
            bound_to_fail = isinstance(effect, TrySend) and not self.endpoint.room(effect.pairs)
            program.effect = effect if bound_to_fail else _on_host(effect)
            if program.main:
                self.booker.active(time.monotonic())  # copying is the program's own work

    def _begin_step(self, program: _Running, effect: Compute) -> None:
        now, node = time.monotonic(), self.node
        if self.computer is None:
            program.thrown = TypeError(f"node {node.id} is a server: it cannot Compute")
            return
        if self._open is not None:
            program.thrown = TypeError("Compute before all pieces of the last gradient were asked for")
            return
        if not self.hooks.more(node.step, now - self.booker.zero):
            program.thrown = Finished(
                "no steps are left: a worker's program catches this at Compute and returns"
            )
            return
        self.hooks.strike(node.step)
        if program.main:
            self.booker.row(node.step, now, node.blends)
        alone = len(self._programs) == 1
        params = node.params if alone else node.params.clone()
        program.step = self.computer.start(
            params, node.step, now - program.lag, self.booker.zero, effect.ready
        )

    def _begin_piece(self, program: _Running) -> None:
        if self._open is None:
            program.thrown = TypeError("Produced, but no piece of a gradient is to come")
            return
        program.step = self._open
        self._open.taken += 1

    def _begin_round(self, program: _Running, effect: AllReduce) -> None:
        if self.group is None or self.node.workers == 1:
            program.stack.append(collectives.all_reduce(self.node, effect.tensor))
        else:
            program.round = self.group.start(effect.tensor)

    def _attempt(self, program: _Running) -> Any:
        """The answer to the program's effect, or ``_AGAIN``; what cannot be done is put into ``thrown``."""
        if program.thrown is not None:
            return None
        if isinstance(program.effect, AllReduce):
            return self._attempt_round(program)
        try:
            return self._answer(program)
        except (TypeError, ValueError) as error:
            program.thrown = error
            return None

    def _answer(self, program: _Running) -> Any:
        effect, endpoint = program.effect, self.endpoint
        if isinstance(effect, Compute | Produced):
            step = cast(Step, program.step)
            ready = step.due is not None and (step.error is not None or time.monotonic() >= step.due)
            return (step.gradient if isinstance(effect, Compute) else None) if ready else _AGAIN
        if isinstance(effect, Send):
            return None if endpoint.submit(effect.pairs, effect.window, program.lag) else _AGAIN
        if isinstance(effect, TrySend):
            return endpoint.submit(effect.pairs, lag=program.lag)
        if isinstance(effect, Flush):
            return None if endpoint.delivered(effect.to) else _AGAIN
        if isinstance(effect, Receive | Poll):
            tags = (effect.tag,) if isinstance(effect.tag, str) else effect.tag
            item, program.due = endpoint.take(tags, effect.source, effect.step)
            return _AGAIN if item is None and isinstance(effect, Receive) else item
        if isinstance(effect, Now):
            return time.monotonic() - self.booker.zero
        raise TypeError(f"a program yielded {effect!r}, which is no effect")

    def _attempt_round(self, program: _Running) -> Any:
        """A native round: done, still under way, or lost with a peer (and then done by messages)."""
        round_ = program.round
        if round_ is None or round_.total is not None or self._absentees(round_.number):
            return None
        if round_.error is not None and time.monotonic() >= round_.failed + _GRACE:
            raise round_.error
        return _AGAIN

    def _absentees(self, number: int) -> set[int]:
        """Peers that left without taking part in round ``number``."""
        ended, workers = self.endpoint.ended, self.node.workers
        return {
            rank for rank in self.endpoint.mailbox.left if rank < workers and ended.get(rank, -1) < number
        }

    def _due(self, program: _Running, now: float) -> float:
        """When a punctual host would have resumed the blocked program; now where nothing is emulated."""
        if program.step is not None:
            assert self.computer is not None
            return min(program.step.due or now, now) if self.computer.paced else now
        if not self.endpoint.links.paced or program.round is not None:
            return now
        return program.due if isinstance(program.effect, Receive) else self.endpoint.confirmed

    def _settle(self, program: _Running, now: float) -> None:
        """Close what a finished effect had in motion."""
        step, round_ = program.step, program.round
        program.step = program.round = None
        if step is not None:
            if step.error is not None:
                raise step.error
            self._open = step if step.taken < len(step.ready) else None
            self.booker.computing = cast(float, step.end)
        if step is not None and self._open is None:
            self.node.step += 1
            self.hooks.stepped(self.node.step)
            self.losses.append((now - self.booker.zero, step.number, step.loss))
            if not isfinite(step.loss):
                self.hooks.diverged(step.number, step.loss, now - self.booker.zero)
        if round_ is not None:
            if round_.total is not None:
                round_.finish()
                collectives.completed(self.node, round_.tensor)
                self.reduced += 1
            else:
                self.group = None
                self.node.live -= self._absentees(round_.number)
                program.stack.append(collectives.all_reduce(self.node, round_.tensor))

    def _book(self, program: _Running, now: float) -> None:
        """Book the blocked stretch that ends now."""
        effect = program.effect
        if isinstance(effect, Compute | Produced):
            self.booker.compute(now)
            self.endpoint.forget(now)
        elif program.round is not None:
            self.booker.reduce(program.round.number, now)
        else:
            endpoint, awaited = self.endpoint, []
            with self.changed:
                if self.booker.server:
                    awaited = endpoint.moving_in.motions
                elif isinstance(effect, Receive):
                    tags = (effect.tag,) if isinstance(effect.tag, str) else effect.tag
                    awaited = [
                        m for m in endpoint.moving_in.motions if m.matches(tags, effect.source, effect.step)
                    ]
                self.booker.blocked(now, endpoint.moving_in, endpoint.moving_out, awaited)

    def _told(self, news: Left | Joined) -> None:
        """The programs know of a departure or an arrival from now on."""
        (self.node.live.discard if type(news) is Left else self.node.live.add)(news.rank)

    def _hand_over(self, answer: Any) -> Any:
        """What a program is given: messages with their tensors on the node's device."""
        if type(answer) is Message:
            if self.device != "cpu" and answer.tensor is not None:
                answer.tensor = answer.tensor.to(self.device)
            self.read += 1
            if self.booker.server:
                self.hooks.strike(self.read)
        return answer


def _on_host(effect: Send | TrySend) -> Send | TrySend:
    """The same messages with their tensors copied to the host, each once."""
    copies: dict[int, Any] = {}
    pairs = []
    for to, message in effect.pairs:
        tensor = message.tensor
        if tensor is not None and id(tensor) not in copies:
            copies[id(tensor)] = tensor.cpu()
        pairs.append((to, replace(message, tensor=copies.get(id(tensor)))))
    return Send(*pairs, window=effect.window) if isinstance(effect, Send) else TrySend(*pairs)


def _describe(effect: Effect) -> str:
    """A blocked effect in words, without its tensors."""
    if isinstance(effect, Receive):
        tags = effect.tag if isinstance(effect.tag, str) else " or ".join(effect.tag)
        source = "" if effect.source is None else f" from node {effect.source}"
        return f"{tags}{source}"
    if isinstance(effect, Send):
        return f"room to send to {', '.join(str(to) for to, _ in effect.pairs)}"
    if isinstance(effect, Flush):
        return f"delivery to {', '.join(map(str, effect.to))}"
    return type(effect).__name__

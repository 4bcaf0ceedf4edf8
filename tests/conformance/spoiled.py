"""Spoiled algorithms: each breaks one promise, so the checks that ought to notice can be seen to.

Rules this module obeys:

* What is spoiled is one message, weight or wait at a time, of an algorithm that otherwise runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from core.algorithms.dpsgd import DPSGD
from core.algorithms.dssp import DSSP, ForecastingGate
from core.algorithms.ssp import SSP, Gate, serve
from core.effects import AllReduce, Compute, Effect, Now, Send, TrySend
from core.node import Finished, Message, Node, Program

__all__ = ["SPOILED"]

Change = Callable[[Node, Effect], Effect]


class _Changed:
    """``algorithm`` with every effect of every program put through ``change``."""

    def __init__(self, algorithm: Any, change: Change) -> None:
        self._algorithm, self._change = algorithm, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._algorithm, name)

    def worker(self, node: Node) -> Program:
        return self._run(node, self._algorithm.worker(node))

    def server(self, node: Node) -> Program:
        return self._run(node, self._algorithm.server(node))

    def companions(self, node: Node) -> Iterable[Program]:
        return [self._run(node, program) for program in self._algorithm.companions(node)]

    def _run(self, node: Node, program: Program) -> Program:
        value: Any = None
        failure: Exception | None = None
        while True:
            try:
                effect = program.send(value) if failure is None else program.throw(failure)
            except StopIteration:
                return
            value, failure = None, None
            try:
                value = yield self._change(node, effect)
            except Exception as raised:
                failure = raised


def _message(tag: str, **change: Callable[[Message], Any]) -> Change:
    """Messages of ``tag``, those of step 1 and later, with fields set anew."""

    def apply(node: Node, effect: Effect) -> Effect:
        if not isinstance(effect, Send | TrySend):
            return effect
        pairs = [
            (
                to,
                replace(m, **{name: new(m) for name, new in change.items()})
                if m.tag == tag and m.step
                else m,
            )
            for to, m in effect.pairs
        ]
        return Send(*pairs, window=effect.window) if isinstance(effect, Send) else TrySend(*pairs)

    return apply


def _absent(node: Node, effect: Effect) -> Effect:
    """Worker 0 stays away from its second all-reduce on."""
    return Now() if isinstance(effect, AllReduce) and node.id == 0 and node.step > 1 else effect


def _changed(change: Change) -> Callable[[Any], Any]:
    return lambda algorithm: _Changed(algorithm, change)


class _LooseSSP(SSP):
    def server(self, node: Node) -> Program:
        return serve(node, Gate(node.workers, self.s + 1))


class _LooseDSSP(DSSP):
    def server(self, node: Node) -> Program:
        return serve(node, ForecastingGate(node.workers, self.s_u + 1, self.s_u + 1))


class _LonelyDPSGD(DPSGD):
    def worker(self, node: Node) -> Program:
        try:
            while True:
                gradient = yield Compute()
                node.optimizer.apply(node.tensors, node.params, gradient, node.lr())
        except Finished:
            return


_TWICE = _changed(_message("gradient", tensor=lambda m: 2 * m.tensor))
_LOST = _changed(_message("gradient", tensor=lambda m: 0 * m.tensor))
_HALF = {"tensor": lambda m: m.tensor / 2}

_APART = ("one step too far", "absent")
"""What can only be seen of a worker that is not alone."""

_SPOILED: list[tuple[str, str, Callable[[Any], Any]]] = [
    *((name, "a gradient twice", _TWICE) for name in ("bsp", "asp", "ssp", "dssp", "aladdin", "aladdin_l2")),
    *((name, "a gradient lost", _LOST) for name in ("bsp", "asp", "ssp", "dssp", "aladdin", "aladdin_l1")),
    ("ssp", "one step too far", lambda a: _LooseSSP(a.s)),
    ("dssp", "one step too far", lambda a: _LooseDSSP(a.s_l, a.s_u)),
    ("easgd", "half a centre", _changed(_message("easgd.centre", **_HALF))),
    *((name, "absent", _changed(_absent)) for name in ("arsgd", "local_sgd", "post_local_sgd", "diloco")),
    ("dpsgd", "nobody waits", lambda a: _LonelyDPSGD(a.graph)),
    ("dpsgd", "half a model", _changed(_message("dpsgd.parameters", **_HALF))),
    ("adpsgd", "half a model", _changed(_message("adpsgd.request", **_HALF))),
    ("sgp", "no weight", _changed(_message("sgp.share", number=lambda m: 0.9 * m.number))),
    ("sgp", "half a model", _changed(_message("sgp.share", **_HALF))),
    ("gosgd", "no weight", _changed(_message("gosgd.share", number=lambda m: 0.9 * m.number))),
    ("gosgd", "half a model", _changed(_message("gosgd.share", **_HALF))),
]

SPOILED: list[tuple[str, str, int, Callable[[Any], Any]]] = [
    (name, how, 2 if how in _APART else 1, spoil) for name, how, spoil in _SPOILED
]
"""(name, what is broken, workers from which on it shows, spoil)."""

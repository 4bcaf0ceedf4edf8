"""A run's numerics on a tape: the same tensor work again, in the same order, without the simulator.

What it plays is a trainer that has nothing but a loop: every batch of gradients and every tensor operation
of the recorded run at its turn, on as many tensors, each dropped where the run dropped it. What a run
takes longer than that is what the simulator costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

from core.tensors import OPERATIONS, Tensors
from sim import collectives
from sim.programs import Metered

__all__ = ["Tape"]

Slot = int
View = tuple[Slot, int, int]
"""A tensor on the tape and the elements of it that are meant."""


class Tape:
    """Records a run whose driver gets ``gradients`` and ``tensors()`` from here; ``play()`` afterwards."""

    def __init__(self, gradients: Any) -> None:
        self._gradients, self.initial, self.chunk = gradients, gradients.initial, gradients.chunk
        self.shares = gradients.shares
        self._slots: dict[int, Slot] = {}
        self._watched: dict[Slot, ref[Any]] = {}
        self._before: dict[Slot, Any] = {}
        self._made = 0
        self._tape: list[tuple[Any, ...]] = []

    # Recording

    def __call__(self, params: Any, rank: int, step: int) -> Any:
        """One gradient; a run asks for ``several``."""
        raise NotImplementedError

    def several(self, params: Sequence[Any], keys: Sequence[tuple[int, int]]) -> Any:
        """As the recorded gradients; on the tape."""
        points = [self._view(x) for x in params]
        gradients, losses = self._gradients.several(params, keys)
        self._tape.append((self._again_several, points, list(keys), [self._new(g) for g in gradients]))
        return gradients, losses

    def tensors(self) -> Any:
        """Tensor operations that do as they are told, on the tape."""
        return type("Taped", (Metered,), {name: self._taped(name) for name in OPERATIONS})({}, {})

    def record(self, run: Callable[[], Any]) -> None:
        """Call ``run`` with the closed-form all-reduce on the tape too."""
        average = collectives._average

        def averaged(tensors: list[Any]) -> None:
            self._tape.append((self._again_average, [self._view(x) for x in tensors]))
            average(tensors)

        collectives._average = averaged
        try:
            run()
        finally:
            collectives._average = average
        self._watched.clear()

    def _taped(self, name: str) -> Callable[..., Any]:
        operation = getattr(Tensors, name)

        def call(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            known = [self._view(x) if hasattr(x, "nbytes") else x for x in args]
            marks = [i for i, x in enumerate(args) if hasattr(x, "nbytes")]
            named = {k: self._view(x) if hasattr(x, "nbytes") else x for k, x in kwargs.items()}
            result = operation(tensors, *args, **kwargs)
            made = self._new(result) if name == "snapshot" else None
            self._tape.append((self._again, getattr(_PLAIN, name), known, marks, named, made))
            return result

        return call

    def _view(self, x: Any) -> View:
        """Where ``x`` is on the tape; a tensor from before the run is put there as it is now."""
        if id(x) in self._slots:
            return self._slots[id(x)], 0, len(x)
        base = x._base if x._base is not None and id(x._base) in self._slots else None
        if base is not None:
            start = (x.data_ptr() - base.data_ptr()) // x.element_size()
            return self._slots[id(base)], start, start + len(x)
        slot = self._new(x)
        self._before[slot] = x.clone()
        return slot, 0, len(x)

    def _new(self, x: Any) -> Slot:
        slot, key = self._made, id(x)
        self._made += 1
        self._slots[key] = slot

        def dropped(_: Any) -> None:
            del self._slots[key]
            self._tape.append((self._again_drop, slot))

        self._watched[slot] = ref(x, dropped)
        return slot

    # Playing

    def play(self) -> None:
        """Everything again."""
        self._held = [None] * self._made
        for slot, x in self._before.items():
            self._held[slot] = x
        for entry in self._tape:
            entry[0](*entry[1:])

    def _at(self, view: View) -> Any:
        x = self._held[view[0]]
        return x if view[2] - view[1] == len(x) else x[view[1] : view[2]]

    def _again_several(self, points: list[View], keys: list[Any], slots: list[Slot]) -> None:
        gradients, _ = self._gradients.several([self._at(x) for x in points], keys)
        for slot, gradient in zip(slots, gradients, strict=True):
            self._held[slot] = gradient

    def _again(
        self, operation: Any, args: list[Any], marks: list[int], named: dict[str, Any], made: Slot | None
    ) -> None:
        args = list(args)
        for i in marks:
            args[i] = self._at(args[i])
        result = operation(*args, **{k: self._at(x) if type(x) is tuple else x for k, x in named.items()})
        if made is not None:
            self._held[made] = result

    def _again_average(self, views: list[View]) -> None:
        collectives._average([self._at(x) for x in views])

    def _again_drop(self, slot: Slot) -> None:
        self._held[slot] = None


_PLAIN = Tensors()

"""Checkpoints of simulations with numerics: saved values now, replayed control flow later.

Rules this module obeys:

* Nothing that programs do depends on the value of a tensor. So a resumed run plays the same events
  again with tensors that are hollow (allocated, never computed with), which costs next to nothing,
  up to the step at which the checkpoint was taken. There every live tensor is filled with its saved
  value, and numerics go on. The resumed record equals the uninterrupted one byte for byte.
* Tensors are known by the order in which they were made: all are made by one ``Registry``.
* A checkpoint is taken when a worker begins a step, between two effects of all programs.
* A checkpoint is written to a new file and renamed. Nothing in it is executed; one of another scenario,
  of other versions, or one that is damaged, is refused before the run starts.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from core.record import CURVE_COLUMNS, LOSS_COLUMNS, SCHEMA_VERSION
from core.tensors import Phantom
from scenarios.errors import ScenarioError
from sim.programs import Metered

if TYPE_CHECKING:
    from sim.driver import Driver
    from sim.numerics import Numerics

__all__ = ["CheckpointError", "Checkpoints", "Registered", "Registry"]

FORMAT = "aladdin-checkpoint-1"
ALIGNMENT = 64
"""Bytes: as torch aligns its own tensors, for products may be summed in another order elsewhere."""

CURVES, LOSSES, IN_FLIGHT = "curves", "losses", "losses in flight"


class CheckpointError(ScenarioError):
    """A checkpoint that cannot be used for this run."""


class Registry:
    """Makes all tensors of a run, and knows those that are still alive by the order of their making."""

    def __init__(self, adopt: Callable[[np.ndarray], Any] = lambda array: array) -> None:
        self.hollow = False
        self._adopt = adopt
        self._made = 0
        self._alive: dict[int, tuple[ref[np.ndarray], int, int]] = {}

    def empty(self, x: Any) -> Any:
        """A new tensor of the size and type of ``x``, without values."""
        kind = np.dtype(str(x.dtype).rpartition(".")[2])
        memory = np.empty(x.nbytes + ALIGNMENT, dtype=np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        array = memory[start : start + x.nbytes].view(kind)
        self._made += 1
        number, alive = self._made, self._alive
        alive[number] = (ref(memory, lambda _: alive.pop(number)), start, start + x.nbytes)
        return self._adopt(array)

    def copy(self, x: Any) -> Any:
        """A new tensor with the values of ``x``."""
        made = self.empty(x)
        if not self.hollow:
            made[:] = x
        return made

    def zeros(self, x: Any) -> Any:
        """A new tensor of zeros."""
        made = self.empty(x)
        if not self.hollow:
            made[:] = 0
        return made

    def arrays(self) -> dict[str, np.ndarray]:
        """The bytes of every live tensor, by its number; writing to them changes it."""
        gc.collect()
        found = {}
        for number, (memory, start, end) in sorted(self._alive.items()):
            held = memory()
            if held is not None:
                found[str(number)] = held[start:end]
        return found


class Registered(Metered):
    """Metered operations on the tensors of a registry; while that is hollow they only cost time."""

    __slots__ = ("_registry",)

    def __init__(self, registry: Registry, rates: dict[str, float], seconds: dict[str, float]) -> None:
        super().__init__(rates, seconds)
        self._registry = registry

    def accumulate(self, acc: Any, g: Any, a: float = 1.0) -> None:
        if self._registry.hollow:
            self.charge("accumulate", g.nbytes)
        else:
            super().accumulate(acc, g, a)

    def apply(self, x: Any, g: Any, lr: float, momentum: float = 0.0, velocity: Any = None) -> None:
        if self._registry.hollow:
            self.charge("apply", x.nbytes)
        else:
            super().apply(x, g, lr, momentum, velocity)

    def mix(self, x: Any, y: Any, a: float) -> None:
        if self._registry.hollow:
            self.charge("mix", x.nbytes)
        else:
            super().mix(x, y, a)

    def assign(self, x: Any, y: Any) -> None:
        if self._registry.hollow:
            self.charge("assign", x.nbytes)
        else:
            super().assign(x, y)

    def scale(self, x: Any, c: float) -> None:
        if self._registry.hollow:
            self.charge("scale", x.nbytes)
        else:
            super().scale(x, c)

    def snapshot(self, x: Any) -> Any:
        self.charge("snapshot", x.nbytes)
        return Phantom(x.size) if type(x) is Phantom else self._registry.copy(x)

    def zeros_like(self, x: Any) -> Any:  # type: ignore[override]
        return Phantom(x.size) if type(x) is Phantom else self._registry.zeros(x)


class Checkpoints:
    """Takes the checkpoints of one run at ``path``, and resumes from there if the file exists.

    due   asked whenever a worker begins a step: whether to take one now
    stop  asked likewise: whether to take one and end the run by ``KeyboardInterrupt``, whose ``path``
          names the file, and whose ``reached`` says in words how far the run had come
    told  called once, with such words, where the run goes on from what was saved
    """

    def __init__(
        self,
        path: str | Path,
        *,
        due: Callable[[], bool] = lambda: False,
        stop: Callable[[], bool] = lambda: False,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = Path(path)
        self._due, self._stop, self._told = due, stop, told
        self._steps, self._target = 0, 0
        self._saved: dict[str, np.ndarray] = {}
        self._manifest: dict[str, Any] = {}
        self._identity: dict[str, Any] = {}
        self.taken = 0

    def open(self, scenario: Mapping[str, Any]) -> dict[str, Any] | None:
        """Read the file, if there is one; how gradients were evaluated. Raises ``CheckpointError``.

        A folder that is not there yet is made.
        """
        self._identity = _identity(scenario)
        if self.path.is_dir():
            raise CheckpointError(f"checkpoint {self.path}: it is a folder; give a file")
        if not self.path.exists():
            probe = self.path.with_name(f".{self.path.name}.probe")
            try:
                probe.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointError(f"checkpoint {self.path}: cannot be written ({error})") from error
            _write(probe, {}, {}, named=self.path)
            probe.unlink()
            return None
        self._manifest, self._saved = _read(self.path)
        _agrees(self.path, self._manifest["identity"], self._identity)
        self._target = int(self._manifest["steps"])
        self._told(_reached(self._manifest["time"], self._target))
        choice: dict[str, Any] | None = self._manifest.get("evaluation")
        return choice

    @property
    def resuming(self) -> bool:
        """Whether the saved values are still to come."""
        return self._steps < self._target

    def step(self, driver: Driver) -> None:
        """A worker begins a step."""
        self._steps += 1
        if self._steps < self._target:
            return
        if self._steps == self._target:
            self._restore(driver)
        elif self._stop():
            self._save(driver)
            stopped = KeyboardInterrupt("stopped; the checkpoint is written")
            stopped.path, stopped.reached = self.path, _reached(driver.clock.now, self._steps)  # type: ignore[attr-defined]
            raise stopped
        elif self._due():
            self._save(driver)

    def finished(self) -> None:
        """The run is complete. Raises ``CheckpointError`` if it never came to the saved step."""
        if self.resuming:
            raise _foreign(self.path, f"was taken at step {self._target}, this run has {self._steps}")
        self.path.unlink(missing_ok=True)

    def _save(self, driver: Driver) -> None:
        numerics, registry = _parts(driver)
        arrays = registry.arrays()
        arrays |= {
            CURVES: np.array(numerics.curve_log.values),
            LOSSES: np.array(numerics.loss_log.values),
            IN_FLIGHT: np.array([flight.loss for flight in _flights(driver)]),
        }
        manifest = {
            "identity": self._identity,
            "steps": self._steps,
            "time": driver.clock.now,
            "evaluation": numerics.environment().get("numerics"),
        }
        _write(self.path, manifest, arrays)
        self.taken += 1

    def _restore(self, driver: Driver) -> None:
        """Fill every live tensor; from here on the run is no longer hollow."""
        (numerics, registry), saved = _parts(driver), self._saved
        if driver.clock.now != self._manifest["time"]:
            raise _foreign(self.path, f"was taken at {self._manifest['time']} s, not at {driver.clock.now} s")
        for name, memory in registry.arrays().items():
            if name not in saved or saved[name].nbytes != memory.nbytes:
                raise _foreign(self.path, f"lacks tensor {name} of {memory.nbytes} bytes")
            memory[:] = saved[name]
        curves, losses = numerics.curve_log, numerics.loss_log
        flights = _flights(driver)
        if (saved[CURVES].size, saved[LOSSES].size, saved[IN_FLIGHT].size) != (
            len(curves) * len(CURVE_COLUMNS), len(losses) * len(LOSS_COLUMNS), len(flights)
        ):  # fmt: skip
            raise _foreign(self.path, "holds other curves and losses")
        for log, name in ((curves, CURVES), (losses, LOSSES)):
            del log.values[:]
            log.values.frombytes(saved[name].tobytes())
        for flight, loss in zip(flights, saved[IN_FLIGHT].tolist(), strict=True):
            flight.loss = loss
        registry.hollow, self._saved = False, {}


def _reached(now: float, steps: int) -> str:
    return f"{now:.6g} simulated seconds, {steps:,} steps begun"


def _parts(driver: Driver) -> tuple[Numerics, Registry]:
    numerics = driver.numerics
    if numerics is None or numerics.registry is None:
        raise TypeError("checkpoints are of runs with numerics")
    return numerics, numerics.registry


def _flights(driver: Driver) -> list[Any]:
    """The steps under way, in order of rank."""
    return [host.gradient for host in driver.hosts[: driver.workers] if hasattr(host.gradient, "loss")]


def _identity(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """What a resumed run must have in common with the one that was saved."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("aladdin", "numpy", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    identity = {"format": FORMAT, "schema": SCHEMA_VERSION, "versions": versions, "scenario": scenario}
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def _agrees(path: Path, saved: Any, own: Any) -> None:
    """Raise ``CheckpointError`` that names the first differences."""
    differences = list(_differences(saved, own, ""))
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise _foreign(path, f"is of another run: {'; '.join(differences[:3])}{more}")


def _differences(saved: Any, own: Any, where: str) -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(own, dict):
        for name in sorted({*saved, *own}):
            yield from _differences(saved.get(name), own.get(name), f"{where}.{name}" if where else name)
    elif saved != own:
        yield f"{where} is {saved!r} there and {own!r} here"


def _foreign(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {path}: it {what}; remove it to start afresh, or give another file")


def _digest(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    digest = sha256(json.dumps(manifest, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _write(path: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray],
           named: Path | None = None) -> None:  # fmt: skip
    """One safetensors file with the manifest in its header; never half-written under its own name.

    An error names the file ``named``, or ``path`` without one.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        header = {"manifest": json.dumps(manifest), "digest": _digest(manifest, arrays)}
        save_file(whole, partial, metadata=header)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {named or path}: cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            manifest, digest = json.loads(header["manifest"]), header["digest"]
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise _foreign(path, f"is damaged, truncated or no checkpoint at all ({error})") from error
    if digest != _digest(manifest, arrays):
        raise _foreign(path, "is damaged: its contents are not what was written")
    return manifest, arrays

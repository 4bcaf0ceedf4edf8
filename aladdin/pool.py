"""Simulations in several processes at once: jobs in, outcomes out, one by one as they are finished.

Rules this module obeys:

* A job and its outcome are JSON: a scenario's tree goes in, a summary and curves come out; the record
  itself goes into its run directory.
* Processes are started afresh (not forked) with this process's module path, and need no guarded main
  module of the caller's.
* A run that fails is an outcome that says how; so is a process that dies. Nothing else is disturbed.
* However the loop over ``outcomes`` ends, no process is left behind: they are in a session of their
  own, so Ctrl-C reaches the parent alone, which ends them; and when the parent dies, they find their
  pipe closed, and end at once, whatever they are about.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from core.algorithms import in_main_module

if TYPE_CHECKING:
    from scenarios import Scenario

__all__ = ["Advance", "outcomes", "perform", "profile", "serve", "size"]

Advance = Callable[[int, float], None]
"""Called now and then with a job's index and the share of it that is done, 0 .. 1."""

ENDINGS = {"ScenarioError": "refused", "OptionError": "refused", "Diverged": "diverged"}
"""Outcome by the class name of what a run raised, its bases' included; all else is ``failed``."""

PATIENCE = 5.0
"""Seconds that a process gets to end by itself."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from aladdin.pool import serve; serve()"


def size(jobs: int | None, chosen: Sequence[Scenario]) -> int:
    """How many processes ``chosen`` may run in: ``jobs``, or as many as there are cores.

    One where an algorithm lives in the running script or notebook, in which other processes find none.
    Raises ``ScenarioError`` for a number below 1.
    """
    from scenarios.errors import ScenarioError
    from scenarios.hardware import hardware

    if jobs is not None and (not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1):
        raise ScenarioError("jobs", jobs, "a number of processes of at least 1")
    if any(in_main_module(one.algorithm.name) for one in chosen):
        return 1
    return jobs or int(hardware()["cores"] or 1)


def profile(given: Any) -> dict[str, Any] | None:
    """A profile's tree, read once; raises ``ScenarioError`` before the first run if it is none."""
    if given is None:
        return None
    from scenarios.profile import Profile

    tree: dict[str, Any] = (given if isinstance(given, Profile) else Profile.read(given)).to_dict()
    return tree


def outcomes(
    jobs: Sequence[dict[str, Any]], processes: int, advance: Advance | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Perform ``jobs`` (see ``perform``) in so many processes; yields (index, outcome) as they finish.

    With one process (or one job) everything happens in this one.
    """
    if processes <= 1 or len(jobs) <= 1:
        for index, job in enumerate(jobs):
            yield index, perform(job, _share(index, advance))
        return
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(jobs)):
        waiting.put(index)
    events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    crew = [_Worker(jobs, waiting, events) for _ in range(min(processes, len(jobs)))]
    try:
        missing = len(jobs)
        while missing:
            index, what = events.get()
            if isinstance(what, dict):
                missing -= 1
                yield index, what
            elif advance is not None:
                advance(index, what)
    finally:
        for worker in crew:
            worker.stop()
        for worker in crew:
            worker.join()


def perform(job: dict[str, Any], on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Simulate ``job``: ``scenario`` (its tree), ``profile`` (its tree or None), ``path`` (or None).

    Returns ``outcome`` (done, refused, diverged or failed), ``message``, and what there is of
    ``summary``, ``curves`` (lists by column) and ``path``.
    """
    from aladdin import api
    from scenarios import Scenario
    from scenarios.profile import Profile

    path = job["path"]
    try:
        scenario = Scenario.from_dict(job["scenario"])
        profile = None if job["profile"] is None else Profile.from_dict(job["profile"])
        result = api.execute("sim", scenario, profile, path, on_progress)
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        outcome = next((ENDINGS[kind] for kind in kinds if kind in ENDINGS), "")
        known = outcome or hasattr(error, "record") or "Deadlock" in kinds
        message = str(error) if known else f"{type(error).__name__}: {error}"
        record, kept = getattr(error, "record", None), getattr(error, "path", None)
        found = {"summary": None, "curves": None} if record is None else _condensed(api.Result(record))
        return {"outcome": outcome or "failed", "message": message, **found,
                "path": str(kept) if kept and record is not None else None}  # fmt: skip
    return {"outcome": "done", "message": "", **_condensed(result), "path": path}


def serve() -> None:
    """What a process does: a job per line of stdin, its progress and outcome as lines on stdout.

    It never returns: where a thread reads stdin, Python's own end may abort.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _serve()
    except SystemExit:
        os._exit(1)
    os._exit(0)


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever an algorithm prints goes to stderr

    def say(what: Any) -> None:
        try:
            print(json.dumps(what), file=answers, flush=True)
        except BrokenPipeError:
            os._exit(1)

    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    busy = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            busy.set()
            lines.put(line)
        if busy.is_set():  # the parent closes the pipe once there is nothing to do: it has died
            os._exit(1)
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    while line := lines.get():
        last = -1.0

        def on_progress(done: int, total: int) -> None:
            nonlocal last
            share = done / total if total else 0.0
            if share >= last + 0.01 or not total:
                last = share
                say(share)

        found = perform(json.loads(line), on_progress)
        busy.clear()
        say(found)


class _Worker:
    """A process and the thread that feeds it: takes indices of jobs, puts (index, share or outcome)."""

    def __init__(self, jobs: Sequence[dict[str, Any]], waiting: queue.SimpleQueue[int],
                 events: queue.SimpleQueue[tuple[int, Any]]) -> None:  # fmt: skip
        self._jobs, self._waiting, self._events = jobs, waiting, events
        self._process: subprocess.Popen[str] | None = None
        self._lock, self._stopped, self._busy = threading.Lock(), False, False
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begin no job, end the one under way."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._busy:
                self._process.terminate()

    def join(self) -> None:
        """Wait until the process is gone."""
        process = self._process
        if process is not None:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _feed(self) -> None:
        while not self._stopped:
            try:
                index = self._waiting.get_nowait()
            except queue.Empty:
                break
            try:
                found = self._one(index)
            except Exception as error:  # no process can be started: the job's failure, not the comparison's
                found = _ended("failed", f"{type(error).__name__}: {error}")
            self._events.put((index, found))
        with self._lock:
            self._close()

    def _close(self) -> None:
        """Close the pipes of the process, if there is one: it ends once it has nothing to do."""
        for pipe in (self._process.stdin, self._process.stdout) if self._process is not None else ():
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _one(self, index: int) -> dict[str, Any]:
        """Have the process perform one job; a process that dies is the job's outcome."""
        process = self._started()
        if process is None:
            return _ended("stopped", "not begun")
        found = self._answer(process, index)
        with self._lock:
            self._busy = False
        return found or _ended("stopped" if self._stopped else "failed", _death(process.wait()))

    def _answer(self, process: subprocess.Popen[str], index: int) -> dict[str, Any] | None:
        """The job's outcome as the process tells it; None if it dies first."""
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):
            print(json.dumps(self._jobs[index]), file=process.stdin, flush=True)
        for line in process.stdout:
            what = json.loads(line)
            if isinstance(what, dict):
                return what
            self._events.put((index, what))
        return None

    def _started(self) -> subprocess.Popen[str] | None:
        """The process, started if there is none (any more); None once all is to stop."""
        with self._lock:
            if self._stopped:
                return None
            if self._process is None or self._process.poll() is not None:
                self._close()
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, json.dumps([*map(str, sys.path)])], stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
                )  # fmt: skip
            self._busy = True
            return self._process


def _ended(outcome: str, message: str) -> dict[str, Any]:
    return {"outcome": outcome, "message": message, "summary": None, "curves": None, "path": None}


def _death(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"its process was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")


def _condensed(result: Any) -> dict[str, Any]:
    """Summary and curves of a run as JSON has them; NaN stays (Python's json can)."""
    curves = {name: values.tolist() for name, values in result.record.curves.items()}
    return {"summary": result.summary, "curves": curves}


def _share(index: int, advance: Advance | None) -> Callable[[int, int], None] | None:
    if advance is None:
        return None
    return lambda done, total: advance(index, done / total if total else 0.0)

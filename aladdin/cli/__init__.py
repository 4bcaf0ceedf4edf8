"""The command ``aladdin``: parse, call ``aladdin.api``, print.

Rules this package obeys:

* One file per command; each defines one function ``command`` whose docstring is its help. It is
  registered by being listed in ``COMMANDS``. A command of several verbs lists them in ``ACTIONS``.
* Importing a command's file is cheap: whatever is heavy is imported when the command runs.
* Results go to stdout, progress, warnings and errors to stderr.

Exit codes: 0 done; 1 a check failed (``verify``); 2 bad input or output that cannot be written,
one message; 3 the run failed (a dead server, a deadlock, a diverged loss); 130 stopped by Ctrl-C, 143 by
SIGTERM, 129 by SIGHUP: all three keep what is finished.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from inspect import cleandoc
from io import TextIOWrapper
from pathlib import Path
from typing import Any

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    "demo", "simulate", "compare", "plan-servers", "train", "calibrate", "crosscheck", "verify", "mixing",
    "plot", "trace", "testbed", "keys", "paper", "list",
)  # fmt: skip

ABOUT = """
What will distributed training cost, before you pay for it? aladdin predicts throughput, where the
time goes and how soon a model is accurate, with parameter servers, all-reduce or gossip, on any
cluster; it trains with them for real, and says how well the prediction was.

A [bold]scenario[/bold] says what to run: a cluster, a model and its data, an algorithm. Some come
with the program ([bold]aladdin list scenarios[/bold]); others are YAML files of your own.

    aladdin simulate paper/vgg16 --algorithm all

    aladdin compare demo --seeds 5 --accuracy 0.95

    aladdin demo
"""

STOPPED, UNWRITTEN = 130, 2

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What says that a file, which stdout may be, takes no more."""

CODES = {
    "ScenarioError": 2, "OptionError": 2, "CalibrationError": 3, "TransportError": 3, "Deadlock": 3,
    "Diverged": 3, "Unfinished": 3, "Interrupted": STOPPED,
}  # fmt: skip
"""Exit code by an exception's class name, its bases' included: no driver is imported to ask it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own); returns the exit code."""
    if isinstance(sys.stdout, TextIOWrapper):  # names of files and scenarios hold what cannot be encoded
        sys.stdout.reconfigure(errors="backslashreplace")
    with _endings() as came:
        try:
            code = _run(argv, came)
        except KeyboardInterrupt:  # while something was imported, before or after the command itself
            print(f"stopped: by {_who(came)}", file=sys.stderr)
            code = STOPPED
    return 128 + came[0] if came and code == STOPPED else code


@contextmanager
def _endings() -> Iterator[list[int]]:
    """SIGTERM and SIGHUP do once what Ctrl-C does, where they would end this process at once.

    They do so, too, where Ctrl-C itself is ignored (shells see to that in what they start with ``&``): its
    handlers tell by the number. Yields the number of the one that came, if one has.
    """
    came: list[int] = []

    def end(number: int, frame: Any) -> None:
        if came:
            return
        came.append(number)
        pressed = signal.getsignal(signal.SIGINT)
        if not callable(pressed):
            raise KeyboardInterrupt
        pressed(number, frame)

    ours = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if ours]
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield came
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _who(came: Sequence[int]) -> str:
    """By what a command was stopped."""
    return signal.Signals(came[0]).name if came else "Ctrl-C"


def _run(argv: Sequence[str] | None, came: Sequence[int]) -> int:
    import typer

    from aladdin.cli.common import top

    if sys.stdout is None:
        return UNWRITTEN  # closed by the caller: nobody would ever see the results
    app = typer.Typer(
        name="aladdin", help=_paragraphs(ABOUT), no_args_is_help=True, add_completion=False,
        rich_markup_mode="rich", pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    app.callback()(top)
    for name in COMMANDS:
        _add(app, name, import_module(f"aladdin.cli.{name.replace('-', '_')}"))
    code = 0
    try:
        app(args=None if argv is None else [*argv], prog_name="aladdin")  # `list` is our submodule here
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return _unprinted(error)
        found = next((CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in CODES), None)
        if found is None:
            raise
        code = found
        _complain(error, code, came)
    try:
        sys.stdout.flush()
    except OSError as error:
        return _unprinted(error)
    return code


def _add(app: Any, name: str, module: Any) -> None:
    """Register a command, or the verbs of one that has several."""
    if not hasattr(module, "ACTIONS"):
        app.command(name, help=_paragraphs(module.command.__doc__))(_interruptible(module.command))
        return
    import typer

    group = typer.Typer(
        name=name, help=_paragraphs(module.command.__doc__), no_args_is_help=True, rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip
    for verb, action in module.ACTIONS.items():
        group.command(verb, help=_paragraphs(action.__doc__))(_interruptible(action))
    app.add_typer(group)


def _unprinted(error: OSError) -> int:
    """Say that stdout takes no more, and keep Python from trying again at its exit."""
    from aladdin.cli.common import say

    say("error", f"the results cannot be printed: {error.strerror or error}")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UNWRITTEN


class Interrupted(Exception):
    """Ctrl-C, or a signal that does the same; carried past Typer, which would end the program without a word.

    path  what was kept; reached: how far a run that was saved had come, in words
    """

    def __init__(self, message: str, path: Path | None = None, reached: str = "") -> None:
        super().__init__(message)
        self.path, self.reached = path, reached


def _interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with Ctrl-C turned into ``Interrupted``."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            kept, reached = getattr(stop, "path", None), getattr(stop, "reached", "")
            raise Interrupted("stopped by Ctrl-C", kept, reached) from None

    return run


def _paragraphs(text: str) -> str:
    """Help text with its paragraphs unwrapped, so that they fill any terminal; indented ones stay."""
    return "\n\n".join(
        paragraph if paragraph.startswith(" ") else " ".join(paragraph.split("\n"))
        for paragraph in cleandoc(text).split("\n\n")
    )


def _complain(error: Exception, code: int, came: Sequence[int]) -> None:
    """One message on stderr; where a command was stopped, with what was kept."""
    from aladdin.cli.common import say

    kept = getattr(error, "path", None)
    kept = kept if isinstance(kept, Path) else None
    if code != STOPPED:
        say("error", f"{error}; what was recorded is in {kept}" if kept else str(error))
        return
    reached = f", at {error.reached}" if isinstance(error, Interrupted) and error.reached else ""
    say(
        "stopped", f"by {_who(came)}{reached}" + ("" if kept is None else f"; what was finished is in {kept}")
    )

"""What commands share: their options, where they write, progress, warnings.

Rules this module obeys:

* stdout is for results alone: a table for people, or one JSON document.
* Progress bars appear on stderr, only where that is a terminal, and only if it takes a while.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = [
    "Algorithm", "Force", "Jobs", "Json", "Out", "ProfileFile", "Runs", "ScenarioName", "Set", "Spans",
    "check", "console", "emit", "given", "kept_in", "progress", "say", "spinner", "top", "warn", "written",
]  # fmt: skip

ScenarioName = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO", help="A bundled scenario ([bold]aladdin list scenarios[/]) or a YAML file."
    ),
]


def given(context: typer.Context, name: str) -> bool:
    """Whether the parameter ``name`` stands on the command line, be it empty."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _some(context: typer.Context, value: str) -> str:
    """Refuse an ``--algorithm`` that is given but empty: it would mean the scenario's own."""
    if given(context, "algorithm") and not value.strip(" ,"):
        from scenarios.errors import ScenarioError

        raise ScenarioError(
            "--algorithm", value, "names such as asp,bsp, or all; left out: the scenario's own"
        )
    return value


Algorithm = Annotated[
    str,
    typer.Option(
        "--algorithm", "-a", metavar="A,B|all", callback=_some,
        help="Run these algorithms instead of the scenario's own, and compare them.",
    ),
]  # fmt: skip

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="PATH=VALUE",
        help="Change a field of the scenario: [bold]cluster.workers=16[/], "
        "[bold]cluster.bandwidth='1 Gbit/s'[/]. May be repeated.",
    ),
]  # fmt: skip

ProfileFile = Annotated[
    Path | None,
    typer.Option(
        "--profile", metavar="FILE", help="Use the constants that [bold]aladdin calibrate[/] measured."
    ),
]

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR",
        help="Write a run directory (several algorithms: one below it for each). Never overwrites one.",
    ),
]  # fmt: skip

Force = Annotated[bool, typer.Option("--force", "-f", metavar="", help="Replace what is there.")]

Spans = Annotated[
    bool,
    typer.Option(
        "--spans",
        metavar="",
        help="Also record who did what when, for timelines and [bold]aladdin trace[/].",
    ),
]

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", metavar="N", help="Processes. Default: as many as there are cores."),
]

Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead of a table.")]

Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, or folders of them.")]

AFTER = 2.0
"""Seconds after which a bar appears."""

WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""


def _show_version(wanted: bool) -> None:
    if wanted:
        from aladdin import __version__

        print(f"aladdin {__version__}")
        raise typer.Exit


def top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


def console() -> Console:
    """Where results go: stdout, wide enough for a table if that is no terminal."""
    from analysis import report

    return report.console(None if sys.stdout.isatty() else WIDTH)


def say(kind: str, text: str) -> None:
    """One message on stderr: ``error: ...``, ``warning: ...``, never wrapped, never marked up."""
    from rich.console import Console
    from rich.text import Text

    colour = {"error": "bold red", "warning": "bold yellow"}.get(kind, "bold")
    Console(stderr=True).print(Text.assemble((f"{kind}: ", colour), text), soft_wrap=True)


def warn(flags: Sequence[str]) -> None:
    """Every flag once, as a warning."""
    for flag in dict.fromkeys(flags):
        say("warning", flag)


def warn_of(flags: Sequence[tuple[str, Sequence[str]]], most: int = 0) -> None:
    """Every flag of (run's name, its flags) once, as a warning, with the runs that have it if not all do.

    Of more than ``most`` runs (0: any number) the first ones are named, the others counted.
    """
    for flag in dict.fromkeys(flag for _, some in flags for flag in some):
        names = [name for name, some in flags if flag in some]
        if len(names) == len(flags):
            say("warning", flag)
        elif 0 < most < len(names):
            others = len(names) - most
            names[most:] = [f"{others} other{'s'[: others > 1]}"]
            say("warning", f"{', '.join(names[:-1])} and {names[-1]}: {flag}")
        else:
            say("warning", f"{', '.join(names)}: {flag}")


def emit(document: Any) -> None:
    """One JSON document on stdout; NaN and infinity are null."""
    from analysis.store import plain

    print(json.dumps(plain(document), indent=2))


def written(folder: Path, pictures: Sequence[Path] = ()) -> None:
    """Say which directory was written, and the pictures in it."""
    names = f" ({', '.join(file.name for file in pictures)})" if pictures else ""
    console().print(f"written to {folder}{names}", soft_wrap=True)


def check(scenario: str, sets: Sequence[str] | None, out: Path | None, profile: Path | None = None) -> None:
    """Raise ``ScenarioError`` for bad input of a long command, before what it needs is even imported."""
    import scenarios
    from analysis.store import reserve
    from scenarios.overrides import parse
    from scenarios.profile import Profile

    scenarios.load(scenario, parse([*(sets or [])]))
    if profile is not None:
        Profile.read(profile)
    if out is not None:
        reserve(out)


@contextmanager
def kept_in(path: Path | None) -> Iterator[None]:
    """Ctrl-C inside says, as its ``path``, where that is which was finished by then, if anything was."""
    try:
        yield
    except BaseException as stop:
        stopped = isinstance(stop, KeyboardInterrupt) or hasattr(stop, "record")
        if stopped and path is not None and path.is_dir():
            stop.path = path  # type: ignore[attr-defined]
        raise


class Bars:
    """A bar per name: call with (name, done, total); a total of 0 is unknown.

    Bars appear ``AFTER`` so many seconds: what is over sooner needs none. ``timer`` counts them.
    """

    def __init__(self, bars: Progress, unit: str, timer: Callable[[], float] = time.monotonic) -> None:
        self._bars, self._unit, self._timer = bars, unit, timer
        self._tasks: dict[str, TaskID] = {}
        self._clocks: dict[str, tuple[float, int]] = {}
        self._begun, self._shown = timer(), False

    def __call__(self, name: str, done: float, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=total or None, told="")
        self._bars.update(self._tasks[name], completed=done, total=total or None)
        if name not in self._clocks:
            of = f" of {total:,}" if total else ""
            self._bars.update(self._tasks[name], told=f"{done:,.0f}{of} {self._unit}")
        if not self._shown and self._timer() - self._begun >= AFTER:
            self._shown = True
            self._bars.start()

    def clock(self, name: str, now: float, steps: int) -> None:
        """How far a simulation is: simulated seconds, steps, and steps per second since the first call."""
        if name not in self._tasks:
            return
        since, before = self._clocks.setdefault(name, (self._timer(), steps))
        passed = self._timer() - since
        rate = f", {(steps - before) / passed:,.0f} steps/s" if passed > 0 else ""
        self._bars.update(self._tasks[name], told=f"{now:,.4g} s simulated, {steps:,} steps{rate}")


@contextmanager
def progress(unit: str = "steps") -> Iterator[Bars]:
    """Bars on stderr, as long as the context lasts."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    from analysis import report

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[told]}"), TimeElapsedColumn(), TextColumn("left"), Remaining(),
    )  # fmt: skip
    shown = report.console(stderr=True)
    bars = Progress(*columns, console=shown, transient=True, disable=not sys.stderr.isatty())
    try:
        yield Bars(bars, unit)
    finally:
        bars.stop()


@contextmanager
def spinner(text: str) -> Iterator[None]:
    """Says what is going on where nothing can be counted."""
    if not sys.stderr.isatty():
        yield
        return
    from analysis import report

    with report.console(stderr=True).status(text):
        yield

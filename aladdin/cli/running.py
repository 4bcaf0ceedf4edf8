"""What ``simulate`` and ``train`` have in common: run one algorithm after the other, print a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aladdin.cli import common

__all__ = ["run"]


def run(driver: str, scenario: str, names: str, sets: list[str] | None, *, spans: bool, as_json: bool,
        **options: Any) -> None:  # fmt: skip
    """Run, print what is finished, and raise whatever stopped it."""
    from aladdin import api
    from scenarios.overrides import parse

    overrides: dict[str, Any] = dict(parse(sets or []))
    if spans:
        overrides["run.spans"] = True
    common.warn(api.refusals(scenario, names, overrides))
    results: list[api.Result] = []
    stop: BaseException | None = None
    try:
        with common.progress() as advance:
            if driver == "sim":
                options["on_clock"] = advance.clock
                options["on_resume"] = lambda at: common.say(
                    "resumed", f"from {options['checkpoint']}, at {at}"
                )
            for result in api.runs(
                scenario, names, driver=driver, overrides=overrides, on_progress=advance, **options
            ):
                results.append(result)  # noqa: PERF402 (kept one by one: a later one may fail)
    except BaseException as error:
        stop = error
        kept = getattr(error, "record", None)
        asked = isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Interrupted"
        if asked and kept is not None:  # by Ctrl-C, whichever driver noticed it
            results.append(api.Result(kept, getattr(error, "path", None)))
    if results:
        _print(results, as_json, stopped=stop is not None)
    if stop is not None:
        raise stop


def _print(results: list[Any], as_json: bool, stopped: bool) -> None:
    """The table and what its reader must know, or the JSON document."""
    from analysis import churn, names, report

    summaries = [
        {**result.summary, **({"path": str(result.path)} if result.path else {})} for result in results
    ]
    common.warn_of([(names.label(summary["algorithm"]), summary["flags"]) for summary in summaries])
    if as_json:
        common.emit(report.document(summaries, **({"stopped": True} if stopped else {})))
        return
    console = common.console()
    first = summaries[0]
    servers = f", {names.count(first['servers'], 'server')}" if first["servers"] else ""
    workers, driver = names.count(first["workers"], "worker"), names.driver(first["driver"])
    title = f"{first['scenario']}: {workers}{servers}, {driver}"
    for table in report.tables(summaries, title, console.width):
        console.print(table)
    for note in report.notes(summaries):
        console.print(note, style="dim")
    for summary in summaries:
        if "churn" in summary:
            what = churn.line(summary["churn"])
            console.print(f"{names.label(summary['algorithm'])}: {what}")
    written = [result.path for result in results if result.path]
    if written:
        console.print(f"written to {_common(written)}", soft_wrap=True)


def _common(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths)

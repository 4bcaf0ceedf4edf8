"""``aladdin list``: what there is to choose from."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aladdin.cli import common

if TYPE_CHECKING:
    from rich.table import Table


class What(StrEnum):
    """The lists that there are."""

    algorithms = "algorithms"
    scenarios = "scenarios"
    workloads = "workloads"


def command(
    what: Annotated[What, typer.Argument(help="Which list to print.")],
    json: common.Json = False,
) -> None:
    """List the algorithms, the bundled scenarios, or the workloads (models and data sets).

    Example:

        aladdin list scenarios
    """
    from aladdin import api

    found: Any = {
        What.algorithms: api.list_algorithms, What.scenarios: api.list_scenarios,
        What.workloads: api.list_workloads,
    }[what]()  # fmt: skip
    if json:
        common.emit({what.value: found})
        return
    console = common.console()
    for table in {What.algorithms: _algorithms, What.scenarios: _scenarios, What.workloads: _workloads}[what](
        found
    ):
        console.print(table)


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in heads:
        right = head in ("workers", "parameters", "classes", "train", "test")
        named = head == "name"
        table.add_column(
            head, justify="right" if right else "left", no_wrap=named, style="bold" if named else ""
        )
    return table


def _algorithms(found: Any) -> list[Table]:
    table = _table("name", "what it is", "kind", "options (--set algorithm.NAME=VALUE) and defaults")
    for one in found:
        options = ", ".join(f"{name} {_short(value)}" for name, value in one["options"].items()) or "–"
        kind = "centralized" if one["centralized"] else "decentralized"
        table.add_row(one["name"], one["title"], kind, options)
    return [table]


def _short(value: Any) -> str:
    """A default as one would type it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _scenarios(found: Any) -> list[Table]:
    table = _table("name", "workers", "model", "algorithm", "description")
    for one in found:
        table.add_row(one["name"], str(one["workers"]), one["model"], one["algorithm"], one["description"])
    return [table]


def _workloads(found: Any) -> list[Table]:
    models = _table("name", "parameters", "at images of", "classes")
    models.title, models.title_justify = "workload.model", "left"
    for one in found["models"]:
        models.add_row(one["name"], f"{one['parameters']:,}", one["at"], str(one["classes"]))
    data = _table("name", "images", "classes", "train", "test", "")
    data.title, data.title_justify = "workload.data", "left"
    for one in found["data"]:
        kind = "real" if one["real"] else "synthetic: made-up images, for speed only"
        counts = (str(one["classes"]), f"{one['train']:,}", f"{one['test']:,}")
        data.add_row(one["name"], one["image"], *counts, kind)
    return [models, data]

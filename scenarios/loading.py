"""From YAML to a Scenario: bundled ones by name, others by path.

Rules this module obeys:

* YAML is data (``scenarios.documents``); whatever is wrong with a file is told with the file's name.
* ``base: other`` starts from another scenario, whose tables are merged key by key.
* Bundled scenarios are package data, found wherever the package is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from os.path import isfile, realpath
from pathlib import Path
from typing import Any

from scenarios import files
from scenarios.documents import DocumentError, parse
from scenarios.errors import ScenarioError, suggestion
from scenarios.overrides import apply, given, merge
from scenarios.schema import Scenario

__all__ = ["load", "names", "read"]


def names() -> tuple[str, ...]:
    """Names of the bundled scenarios, such as ``paper/vgg16``."""
    found: list[str] = []
    pending = [("", resources.files("scenarios") / "library")]
    while pending:
        prefix, folder = pending.pop()
        for entry in folder.iterdir():
            if entry.is_dir():
                pending.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(".yaml"):
                found.append(prefix + entry.name.removesuffix(".yaml"))
    return tuple(sorted(found))


def load(source: str | Path | Scenario, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """The scenario of that name in the library, or in the YAML file at that path.

    ``overrides`` maps field paths to values (``{"cluster.workers": "16"}``); see
    ``Scenario.override``. Raises ``ScenarioError``.
    """
    if isinstance(source, Scenario):
        return source.override(changes) if (changes := given(overrides)) else source
    tree = _based(str(source), ())
    tree.setdefault("name", Path(source).stem if _is_path(str(source)) else str(source))
    return Scenario.from_dict(apply(tree, given(overrides)))


def _is_path(source: str) -> bool:
    if source in names() or "\0" in source:
        return False
    return source.endswith((".yaml", ".yml")) or isfile(source)


def _based(source: str, seen: tuple[str, ...], field: str = "scenario") -> dict[str, Any]:
    place = realpath(source) if _is_path(source) else source
    if place in seen:
        raise ScenarioError("base", source, f"a scenario that is not based on itself ({' -> '.join(seen)})")
    text = _text(source, field)
    tree = read(text, source)
    if _is_path(source):
        _anchor(tree, Path(source).parent)
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ScenarioError("base", base, "the name or path of a scenario")
    if _is_path(source) and isfile(Path(source).parent / base):
        base = str(Path(source).parent / base)
    under = _based(base, (*seen, place), "base")
    for own in ("name", "description"):
        under.pop(own, None)
    return merge(under, tree)


def _anchor(tree: dict[str, Any], folder: Path) -> None:
    """Files that a scenario's file names lie beside it."""
    cluster = tree.get("cluster")
    devices = cluster.get("heterogeneity") if isinstance(cluster, dict) else None
    if isinstance(devices, dict) and isinstance(devices.get("file"), str):
        devices["file"] = str(folder / devices["file"])
    run = tree.get("run")
    if isinstance(run, dict) and run.get("keys") and isinstance(run["keys"], str):
        run["keys"] = str(folder / run["keys"])


def _text(source: str, field: str) -> str:
    if source in names():
        return (resources.files("scenarios") / "library" / f"{source}.yaml").read_text(encoding="utf-8")
    if not _is_path(source):
        hint = f"is neither a bundled scenario nor a file — {suggestion(source, names())}"
        raise ScenarioError(field, source, hint=hint)
    try:
        return files.text(source)
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(field, source, hint=f"cannot be read: {error}") from error


def read(text: str, source: str = "scenario") -> dict[str, Any]:
    """The tree of a YAML text; raises ``ScenarioError`` where it is no table or cannot be read."""
    try:
        tree = parse(text)
    except DocumentError as error:
        raise ScenarioError(source, hint=f"is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ScenarioError(
            source, hint="is no scenario: expected a table of name, cluster, workload, algorithm, run"
        )
    return tree

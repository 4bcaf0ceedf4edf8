"""Overrides: fields of a scenario changed by path, ``cluster.workers=16``.

Rules this module obeys:

* Paths are looked up in the tree as written, before anything is expanded or checked, so whatever
  depends on a changed field follows it, and errors name the field as usual.
* Text is read as a YAML scalar; quantities may have units. Whole tables and lists are welcome too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from scenarios.documents import DocumentError
from scenarios.documents import parse as parse_value
from scenarios.errors import ScenarioError

__all__ = ["RESTARTS", "apply", "given", "merge", "parse", "served"]

_TEXTS = (
    "name", "description", "workload.data_dir", "cluster.heterogeneity.file", "run.address", "run.keys",
)  # fmt: skip
_BUDGETS = ("steps", "seconds", "samples")
RESTARTS = ("server_restarts", "checkpoint_every")
"""Fields of ``run`` that concern servers alone."""


def parse(assignments: list[str] | tuple[str, ...]) -> dict[str, str]:
    """``["a.b=1", ...]`` as ``{"a.b": "1"}``; raises ``ScenarioError`` for what is no assignment."""
    found: dict[str, str] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ScenarioError("--set", text, "PATH=VALUE, such as cluster.workers=16")
        found[path.strip()] = value.strip()
    return found


def given(overrides: Any) -> dict[str, Any]:
    """A copy of ``overrides``, empty for None; raises ``ScenarioError`` where they are no table of paths."""
    overrides = {} if overrides is None else overrides
    if not isinstance(overrides, Mapping):
        raise ScenarioError("overrides", overrides, "a table of field paths, such as {'cluster.workers': 16}")
    for path in overrides:
        if not isinstance(path, str):
            raise ScenarioError("overrides", path, "a field's path for each value, such as 'cluster.workers'")
    return dict(overrides)


def apply(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``tree`` with the fields at the given paths replaced (see ``Scenario.override``)."""
    overrides = {path: _scalar(path, value) for path, value in given(overrides).items()}
    chosen = overrides.get("algorithm.name")
    if "algorithm" in overrides:
        chosen = chosen or _name(overrides["algorithm"])
    whole = overrides.get("cluster")
    listed = overrides.get("cluster.machines", whole.get("machines") if isinstance(whole, Mapping) else None)
    budget = any(f"run.{budget}" in overrides for budget in _BUDGETS)
    result = make_way(tree, chosen, budget, isinstance(listed, (list, tuple)))
    if any(path.startswith("algorithm.options.") for path in overrides):
        _gather_options(result)
    for path, value in overrides.items():
        if path != "algorithm" or isinstance(value, Mapping):
            _put(result, path, value)
    return result


def _name(algorithm: Any) -> Any:
    """The name in what an override of ``algorithm`` says: a name, or a table with one."""
    name = algorithm.get("name", "asp") if isinstance(algorithm, Mapping) else algorithm
    if not isinstance(name, str) or not name.strip():
        raise ScenarioError("algorithm", algorithm, "an algorithm's name, or a table with one")
    return name


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``under`` with what ``over`` says: tables merged key by key, all else replaced."""
    over = _spelled(over)
    algorithm, run, cluster = over.get("algorithm"), over.get("run"), over.get("cluster")
    chosen = algorithm.get("name") if isinstance(algorithm, dict) else None
    budget = isinstance(run, dict) and any(name in run for name in _BUDGETS)
    listed = isinstance(cluster, dict) and isinstance(cluster.get("machines"), (list, tuple))
    merged: dict[str, Any] = _merge(make_way(under, chosen, budget, listed), over)
    return merged


def make_way(tree: Mapping[str, Any], chosen: Any, budget: bool, listed: bool) -> dict[str, Any]:
    """A copy of ``tree`` without what a new choice replaces.

    ``chosen``, another algorithm's name: the optimizer's settings stay, the old one's options go, and what
    concerns servers alone if the new one has none.
    ``budget``: a new one is coming, so the old one goes.
    ``listed``: machines are coming one by one, so what was said of all of them goes, and who is where.
    """
    result, gone = copy.deepcopy(_spelled(tree)), list(_BUDGETS if budget else ())
    old = result.get("algorithm", {})
    if isinstance(chosen, str) and isinstance(old, dict) and old.get("name") != chosen:
        from scenarios.schema import SETTINGS

        result["algorithm"] = {"name": chosen} | {key: old[key] for key in SETTINGS if key in old}
        gone += () if served(chosen) else RESTARTS
    if isinstance(result.get("run"), dict):
        for name in gone:
            result["run"].pop(name, None)
    if listed and isinstance(result.get("cluster"), dict):
        from scenarios.cluster import Layout

        said = {"placement", *(field.name for field in fields(Layout))}
        result["cluster"] = {name: value for name, value in result["cluster"].items() if name not in said}
    return result


def served(name: str) -> bool:
    """Whether the algorithm of that name has servers; of an unknown one that is not known."""
    from core.algorithms import find
    from core.errors import OptionError

    try:
        return bool(getattr(find(name), "centralized", True))
    except OptionError:
        return True


def _gather_options(tree: dict[str, Any]) -> None:
    """Move options from directly under ``algorithm`` to ``algorithm.options``, where paths find them."""
    from scenarios.schema import AlgorithmChoice

    if isinstance(tree.get("algorithm"), dict) and isinstance(tree["algorithm"].get("options", {}), dict):
        tree["algorithm"] = AlgorithmChoice.expand(tree["algorithm"])


def _spelled(tree: Mapping[str, Any]) -> dict[str, Any]:
    """``algorithm: asp`` spelled out."""
    result = dict(tree)
    if isinstance(result.get("algorithm"), str):
        result["algorithm"] = {"name": result["algorithm"]}
    return result


def _merge(under: Any, over: Any) -> Any:
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    return under | {key: _merge(under[key], value) if key in under else value for key, value in over.items()}


def _scalar(path: str, value: Any) -> Any:
    if not isinstance(value, str) or path in _TEXTS:
        return copy.deepcopy(value)
    try:
        return parse_value(value)
    except DocumentError as error:
        raise ScenarioError(path, value, f"a YAML value ({error})") from None


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    here: Any = tree
    *parents, last = path.split(".")
    for depth, name in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        if isinstance(here, list):
            here = here[_index(here, name, where)]
            continue
        if here.get(name) is None:
            here[name] = {}
        here = here[name]
        if not isinstance(here, (dict, list)):
            raise ScenarioError(path, value, f"a path to a field; {where} has none below it")
    if isinstance(here, list):
        here[_index(here, last, path)] = value
    else:
        here[last] = value


def _index(items: list[Any], name: str, where: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise ScenarioError(where, hint=f"no such entry; the list has {len(items)}, counted from 0")
    return int(name)

"""Overrides: fields of a scenario changed by path, ``cluster.workers=16``.

Rules this module obeys:

* Paths are looked up in the tree as written, before anything is expanded or checked, so whatever
  depends on a changed field follows it, and errors name the field as usual.
* Text is read as a YAML scalar; quantities may have units. Whole tables and lists are welcome too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from scenarios.errors import ScenarioError

__all__ = ["apply", "parse"]

_TEXTS = ("name", "description", "workload.data_dir")
_BUDGETS = ("run.steps", "run.seconds", "run.samples")


def parse(assignments: list[str] | tuple[str, ...]) -> dict[str, str]:
    """``["a.b=1", ...]`` as ``{"a.b": "1"}``; raises ``ScenarioError`` for what is no assignment."""
    found: dict[str, str] = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise ScenarioError("--set", text, "PATH=VALUE, such as cluster.workers=16")
        found[path.strip()] = value.strip()
    return found


def apply(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``tree`` with the fields at the given paths replaced (see ``Scenario.override``)."""
    result: dict[str, Any] = copy.deepcopy(dict(tree))
    if isinstance(result.get("algorithm"), str):
        result["algorithm"] = {"name": result["algorithm"]}
    budgets = [path for path in _BUDGETS if path in overrides]
    if budgets and isinstance(result.get("run"), dict):
        for path in _BUDGETS:
            result["run"].pop(path.split(".")[1], None)
    if "algorithm.name" in overrides or "algorithm" in overrides:
        _drop_options(result, overrides)
    for path, value in overrides.items():
        if path != "algorithm" or isinstance(value, Mapping):
            _put(result, path, _scalar(path, value))
    return result


def _drop_options(tree: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Choose another algorithm: the optimizer's settings stay, the old one's options go."""
    from scenarios.schema import _FIXED

    chosen = overrides.get("algorithm.name", overrides.get("algorithm"))
    old = tree.get("algorithm")
    if not isinstance(chosen, str) or not isinstance(old, dict):
        return
    if old.get("name") != chosen:
        tree["algorithm"] = {key: value for key, value in old.items() if key in _FIXED and key != "options"}
        tree["algorithm"]["name"] = chosen


def _scalar(path: str, value: Any) -> Any:
    if not isinstance(value, str) or path in _TEXTS:
        return copy.deepcopy(value)
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise ScenarioError(path, value, "a YAML value") from None


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

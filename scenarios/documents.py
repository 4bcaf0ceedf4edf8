"""YAML text as plain data: tables, lists, text, numbers, true and false, nothing.

Rules this module obeys:

* Safe loading only; a key that stands twice in a table is an error, not a silent choice, and so is a number
  that people and YAML read differently: 010 (8 to YAML), 1:30 (90). Dates stay text.
* Whatever is wrong is one ``DocumentError`` of one line, with its place; no other exception gets out.
* A document that contains itself, or is nested deeper than ``DEPTH``, is refused: nobody who walks
  through the tree needs to fear for the stack.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["DEPTH", "DocumentError", "parse"]

DEPTH = 30
"""Levels of tables and lists within each other."""

_ODD = {"int": re.compile(r"[-+]?(0[0-9_]|[0-9_]*:)"), "float": re.compile(r"[-+]?[0-9_.]*:")}


class DocumentError(ValueError):
    """What is wrong with a YAML text, and at which line and column of it."""


def parse(text: str) -> Any:
    """What the YAML ``text`` says; raises ``DocumentError``."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Safe, without dates, and without exceptions that are not YAML's own."""

        yaml_implicit_resolvers = {
            first: [(tag, pattern) for tag, pattern in known if not tag.endswith(":timestamp")]
            for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            kind = str(node.tag).rsplit(":", 1)[-1]
            if kind in _ODD and _ODD[kind].match(str(node.value)):
                problem = f"{node.value} would be octal or a time of day: write the number, or quote it"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            try:
                return super().construct_object(node, deep)
            except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
                problem = f"this is no {kind} that can be read"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, (), set())
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise DocumentError(_line(error)) from None
    except RecursionError:
        raise DocumentError(f"it is nested too deeply (more than {DEPTH} levels)") from None


def _line(error: Any) -> str:
    """A YAML error in one line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = (getattr(error, "problem", None), getattr(error, "context", None), " ".join(str(error).split()))
    problem = next(text for text in said if text)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem


def _check(node: Any, above: tuple[int, ...], done: set[int]) -> None:
    """Refuse twins (the loader would keep the last), documents that contain themselves, deep ones."""
    where = f"line {node.start_mark.line + 1}"
    if id(node) in above:
        raise DocumentError(f"{where}: it contains itself (an alias inside what it stands for)")
    if len(above) > DEPTH:
        raise DocumentError(f"{where}: it is nested too deeply (more than {DEPTH} levels)")
    if id(node) in done or not isinstance(node.value, list):
        return
    keys: set[str] = set()
    for child in node.value:
        key, value = child if isinstance(child, tuple) else (None, child)
        if key is not None:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key.value, str):
                raise DocumentError(f"{line}: a name of a field is text, not a list or table")
            if key.value in keys:
                raise DocumentError(f"{line}: {key.value} stands twice in one table")
            keys.add(key.value)
        _check(value, (*above, id(node)), done)
    done.add(id(node))

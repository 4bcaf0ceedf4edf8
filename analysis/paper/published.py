"""The published values, as one tree; and how each table and figure is read."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

__all__ = ["notes", "published"]


@cache
def _tree(name: str) -> dict[str, Any]:
    import yaml

    text = (resources.files("analysis.paper") / name).read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    return tree


def published(path: str) -> Any:
    """The value at a path such as ``table2.hours.vgg16``; raises ``KeyError`` where there is none."""
    here: Any = _tree("published.yaml")
    for name in path.split("."):
        here = here[name]
    return here


def notes(section: str) -> tuple[str, ...]:
    """How the table or figure of that name is read, a paragraph each."""
    return tuple(_tree("notes.yaml").get(section, ()))

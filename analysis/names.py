"""How algorithms and drivers are called in pictures and tables: one wording everywhere."""

from __future__ import annotations

from core.algorithms import ALGORITHMS
from core.record import Record

__all__ = ["DRIVERS", "driver", "label", "title"]

DRIVERS = {"sim": "predicted", "real": "measured"}


def label(name: str) -> str:
    """How an algorithm is called: ``arsgd`` is AR-SGD; a user's ``package.module:Class`` is Class."""
    if name in ALGORITHMS:
        return str(getattr(ALGORITHMS[name], "title", name)).split(" (")[0]
    return name.replace(":", ".").rsplit(".", 1)[-1]


def driver(name: str) -> str:
    """What a run is in a reader's eyes: ``sim`` is predicted, ``real`` is measured."""
    return DRIVERS.get(name, name)


def title(record: Record, with_driver: bool = True) -> str:
    """The algorithm of a run, and whether it was predicted or measured."""
    name = label(record.manifest.get("scenario", {}).get("algorithm", {}).get("name", "unknown"))
    return f"{name}, {driver(record.manifest.get('driver', 'unknown'))}" if with_driver else name

"""How algorithms and drivers are called in pictures and tables: one wording everywhere."""

from __future__ import annotations

from core.algorithms import ALGORITHMS
from core.record import Record

__all__ = ["DRIVERS", "FAMILIES", "count", "driver", "family", "label", "rank", "sampled", "title"]

DRIVERS = {"sim": "predicted", "real": "measured"}

FAMILIES = {
    "synchronous": ("bsp", "arsgd", "local_sgd", "post_local_sgd", "diloco"),
    "asynchronous, with servers": ("asp", "ssp", "dssp", "easgd"),
    "ALADDIN": ("aladdin", "aladdin_l1", "aladdin_l2"),
    "gossip": ("dpsgd", "adpsgd", "sgp", "gosgd"),
}
"""Algorithms that are drawn together where there are too many for one panel."""


def family(name: str) -> str:
    """Which of ``FAMILIES`` an algorithm belongs to; those that are in none are ``others``."""
    return next((family for family, members in FAMILIES.items() if name in members), "others")


def label(name: str) -> str:
    """How an algorithm is called: ``arsgd`` is AR-SGD; a user's ``package.module:Class`` is Class."""
    if name in ALGORITHMS:
        return str(getattr(ALGORITHMS[name], "title", name)).split(" (")[0]
    return name.replace(":", ".").rsplit(".", 1)[-1]


def count(number: int, what: str) -> str:
    """``1 worker``, ``4 workers``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def rank(name: str) -> int:
    """Where an algorithm stands in the table of algorithms; those that are not in it come last."""
    return list(ALGORITHMS).index(name) if name in ALGORITHMS else len(ALGORITHMS)


def driver(name: str) -> str:
    """What a run is in a reader's eyes: ``sim`` is predicted, ``real`` is measured."""
    return DRIVERS.get(name, name)


def title(record: Record, with_driver: bool = True) -> str:
    """The algorithm of a run, and whether it was predicted or measured."""
    name = label(record.manifest.get("scenario", {}).get("algorithm", {}).get("name", "unknown"))
    return f"{name}, {driver(record.manifest.get('driver', 'unknown'))}" if with_driver else name


def sampled(record: Record) -> str:
    """Which part of the run its spans show, in words; empty where they show all of it."""
    return str(record.manifest.get("sampled", {}).get("spans", ""))

"""The table of algorithms, and how one is made from its name and options."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, cast

from core.algorithms.ablations import AladdinL1, AladdinL2
from core.algorithms.adpsgd import ADPSGD
from core.algorithms.aladdin import Aladdin
from core.algorithms.arsgd import ARSGD
from core.algorithms.asp import ASP
from core.algorithms.bsp import BSP
from core.algorithms.diloco import DiLoCo
from core.algorithms.dpsgd import DPSGD
from core.algorithms.dssp import DSSP
from core.algorithms.easgd import EASGD
from core.algorithms.gosgd import GoSGD
from core.algorithms.local_sgd import LocalSGD
from core.algorithms.post_local_sgd import PostLocalSGD
from core.algorithms.sgp import SGP
from core.algorithms.ssp import SSP
from core.errors import OptionError
from core.node import Algorithm

__all__ = ["ALGORITHMS", "find", "make"]

_KINDS: tuple[Any, ...] = (
    BSP, ASP, SSP, DSSP, EASGD, Aladdin, AladdinL1, AladdinL2,
    ARSGD, LocalSGD, PostLocalSGD, DiLoCo,
    DPSGD, ADPSGD, SGP, GoSGD,
)  # fmt: skip

ALGORITHMS: dict[str, type] = {kind.name: kind for kind in _KINDS}

_MEMBERS = ("worker", "server", "companions", "centralized", "collective")


def find(name: str) -> type:
    """The class of algorithm ``name``: one of ``ALGORITHMS`` or a dotted path to a user's class.

    Raises ``OptionError`` on ``name`` for an unknown name (with near misses) or path.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    module_name, _, attribute = name.replace(":", ".").rpartition(".")
    if not module_name:
        near = get_close_matches(name, ALGORITHMS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise OptionError("name", name, f"one of {', '.join(ALGORITHMS)}, or module:Class{hint}")
    try:
        kind = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise OptionError("name", name, f"an importable module:Class ({error})") from error
    except Exception as error:  # the module is the user's: a slip in it is bad input, too
        why = f"{type(error).__name__}: {error}"
        raise OptionError("name", name, f"an importable module:Class ({why})") from error
    if not (isinstance(kind, type) and all(hasattr(kind, member) for member in _MEMBERS)):
        raise OptionError("name", name, f"a class that has {', '.join(_MEMBERS)} (core.node.Algorithm)")
    return kind


def make(name: str, options: Mapping[str, Any] | None = None) -> Algorithm:
    """An instance of algorithm ``name`` with ``options`` for its dataclass fields.

    Raises ``OptionError`` for an unknown name, an unknown option or a bad value.
    """
    kind = find(name)
    known = [f.name for f in fields(kind) if f.init] if hasattr(kind, "__dataclass_fields__") else []
    for option in options or {}:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            valid = f"one of {', '.join(known)}{hint}" if known else f"no option: {name} has none"
            raise OptionError(option, (options or {})[option], valid)
    return cast(Algorithm, kind(**(options or {})))

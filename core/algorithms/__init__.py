"""The table of algorithms, and how one is made from its name and options."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

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
from core.errors import OptionError, is_number, is_whole
from core.node import Algorithm

__all__ = ["ALGORITHMS", "find", "make"]

_KINDS: tuple[Any, ...] = (
    BSP, ASP, SSP, DSSP, EASGD, Aladdin, AladdinL1, AladdinL2,
    ARSGD, LocalSGD, PostLocalSGD, DiLoCo,
    DPSGD, ADPSGD, SGP, GoSGD,
)  # fmt: skip

ALGORITHMS: dict[str, type] = {kind.name: kind for kind in _KINDS}

_PLAIN: dict[Any, Callable[[Any], bool]] = {
    int: is_whole,
    float: is_number,
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, str),
    NoneType: lambda value: value is None,
}
_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "nothing",
}  # fmt: skip
"""Types of options that are held to as they are said, and how messages call them."""

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


def in_main_module(name: str) -> bool:
    """Whether algorithm ``name`` is a class of the running script or notebook; others have it not."""
    return name.startswith(("__main__.", "__main__:"))


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
    if name not in ALGORITHMS:  # ours say themselves what is valid, ranges included
        _check_types(kind, options or {})
    return cast(Algorithm, kind(**(options or {})))


def _check_types(kind: type, options: Mapping[str, Any]) -> None:
    """Raise ``OptionError`` for an option that is not of the plain type (or one of them) that ``kind`` says.

    What else a field may hold, and what cannot be resolved, is the algorithm's own to check.
    """
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError, AttributeError):
        return
    for option, value in options.items():
        said = hints.get(option, Any)
        plain = get_args(said) if get_origin(said) in (Union, UnionType) else (said,)
        if all(one in _PLAIN for one in plain) and not any(_PLAIN[one](value) for one in plain):
            valid = " or ".join(dict.fromkeys(_WORDS[one] for one in plain))
            raise OptionError(option, value, valid)

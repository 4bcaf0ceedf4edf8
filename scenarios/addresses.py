"""Where the nodes of a real run listen, and what that asks for.

Rules this module obeys:

* Loopback is the default. Whoever else can reach an address could read and forge what goes there, so any
  other one is refused without keys, before anything starts.
* No look-ups: an address is written in figures. Whether it is this machine's, and whether the keys are fit
  for use, is for the real driver to find out.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from scenarios.errors import ScenarioError

__all__ = ["LOOPBACK", "address", "check_address"]

LOOPBACK = "127.0.0.1"


def address(value: Any, name: str) -> str:
    """A kind of field: one IPv4 address at which can be listened and which others can dial."""
    try:
        found = ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        raise ScenarioError(name, value, f"an IPv4 address in figures, such as {LOOPBACK}") from None
    if found.is_unspecified or found.is_multicast or found == ipaddress.IPv4Address("255.255.255.255"):
        raise ScenarioError(name, value, "the address of one interface: the other nodes dial it")
    return str(found)


def check_address(where: str, keys: str) -> None:
    """Raise ``ScenarioError`` for an address beyond loopback without keys."""
    if not keys and not ipaddress.IPv4Address(where).is_loopback:
        hint = (
            f"is missing: run.address {where} is not loopback, and whoever reaches it could read and forge "
            f"what nodes send. Make keys with `aladdin keys OUT_DIR` and say run.keys: OUT_DIR"
        )
        raise ScenarioError("keys", hint=hint)

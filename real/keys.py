"""The keys of a run that leaves loopback: CURVE key pairs in files, made once and handed to who takes part.

Rules this module obeys:

* Secrets are read from files that nobody else can read, in a folder that nobody else can enter, and are
  never shown, logged or put into a record.
* Nothing is ever overwritten. Whatever is wrong with a folder is a ``ScenarioError`` that names the file.
* A public key must belong to its secret one, so files of different sets are noticed before a run starts.

There are two pairs. Whoever listens proves with ``server`` that it may be talked to, whoever dials proves
with ``client`` that it may be listened to; every node of a run does both. Files are text: 40 characters of
Z85 each (ZeroMQ RFC 32); the protocol is CurveZMQ (RFC 26).
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from scenarios.errors import ScenarioError
from scenarios.schema import Run

__all__ = ["FILES", "FRAMING", "Keys", "check", "create", "load"]

FILES = ("server.public", "server.secret", "client.public", "client.secret")

FRAMING = 1024
"""Bytes to allow for CURVE's own commands and for what it adds to a frame."""

_LENGTH = 40
_Z85 = re.compile(rb"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True)
class Keys:
    """Both pairs, as 40 characters of Z85 each."""

    server_public: bytes
    server_secret: bytes = field(repr=False)
    client_public: bytes = b""
    client_secret: bytes = field(default=b"", repr=False)

    def listen(self, end: Any) -> None:
        """Make the socket ``end`` a server: it takes connections that the ZAP handler admits, encrypted."""
        end.curve_server = True
        end.curve_secretkey = self.server_secret
        end.curve_publickey = self.server_public

    def dial(self, end: Any) -> None:
        """Make the socket ``end`` a client: it talks to nobody but a holder of ``server.secret``."""
        end.curve_serverkey = self.server_public
        end.curve_secretkey = self.client_secret
        end.curve_publickey = self.client_public


def create(folder: str | Path) -> Path:
    """Make ``folder`` (mode 0700) with a new set of keys (files of mode 0600); returns it.

    Raises ``ScenarioError`` where something is there already, it cannot be written, or libzmq has no CURVE.
    """
    _need_curve()
    where = Path(folder)
    pairs = {"server": zmq.curve_keypair(), "client": zmq.curve_keypair()}
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(where.iterdir()):
            raise ScenarioError("OUT_DIR", str(where), "a new or empty folder: keys are never overwritten")
        where.chmod(0o700)
        for name, (public, secret) in pairs.items():
            _write(where / f"{name}.public", public)
            _write(where / f"{name}.secret", secret)
    except OSError as error:
        hint = f"cannot hold keys: {error.strerror or error}"
        raise ScenarioError("OUT_DIR", str(where), hint=hint) from error
    return where


def _write(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")


def load(folder: str | Path) -> Keys:
    """The keys in ``folder``; raises ``ScenarioError`` for ``run.keys`` where they are not fit for use."""
    _need_curve()
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unfit(folder, f"cannot be opened: {error.strerror or error}") from error
    try:
        _private(folder, os.fstat(place), "enter", "0700")
        read = {name: _read(folder, place, name) for name in FILES}
    finally:
        os.close(place)
    for pair in ("server", "client"):
        try:
            fits = zmq.curve_public(read[f"{pair}.secret"]) == read[f"{pair}.public"]
        except zmq.ZMQError:  # five characters that say more than four bytes hold
            fits = False
        if not fits:
            raise _unfit(folder, f"{pair}.public and {pair}.secret are not a pair")
    return Keys(*(read[name] for name in FILES))


def check(run: Run, native_collective: bool) -> None:
    """Raise ``ScenarioError`` where a run cannot listen at its address, or its keys are not fit for use."""
    try:
        socket.create_server((run.address, 0)).close()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        hint = f"is no address of this machine that can be listened at ({why})"
        raise ScenarioError("run.address", run.address, hint=hint) from error
    if run.keys:
        load(run.keys)
        if native_collective:
            why = "messages with run.keys: gloo and NCCL neither encrypt nor ask who is there"
            raise ScenarioError("cluster.network.collective", "native", why)


def _read(folder: str | Path, place: int, name: str) -> bytes:
    """One key, from a plain file that is nobody else's business."""
    path = Path(folder) / name
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    except OSError as error:
        raise _unfit(path, f"cannot be read: {error.strerror or error}") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unfit(path, "is not a plain file")
        _private(path, found, "read", "0600")
        key = file.read(_LENGTH + 2).removesuffix(b"\n")
    if not _Z85.fullmatch(key):
        raise _unfit(path, f"is not a key: expected {_LENGTH} characters of Z85")
    return key


def _need_curve() -> None:
    if not zmq.has("curve"):
        raise ScenarioError(
            "this libzmq was built without CURVE, so there can be no keys; pyzmq from PyPI has it: "
            "pip install --force-reinstall pyzmq"
        )


def _private(path: str | Path, found: os.stat_result, may: str, mode: str) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise _unfit(path, "belongs to another user")
    if found.st_mode & 0o077:
        has = stat.S_IMODE(found.st_mode)
        raise _unfit(path, f"can be used by others (mode {has:04o}): nobody else may {may} it (chmod {mode})")


def _unfit(path: str | Path, why: str) -> ScenarioError:
    return ScenarioError("run.keys", str(path), hint=f"{why}; `aladdin keys OUT_DIR` makes a new set")

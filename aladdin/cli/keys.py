"""``aladdin keys``: the keys of runs that leave loopback."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from aladdin.cli import common


def command(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="A folder that is new, or empty.")],
    json: common.Json = False,
) -> None:
    """Make the keys that nodes need to listen anywhere but on loopback.

    Writes two CURVE key pairs to OUT_DIR, which only you can read then; keys are never overwritten.
    With run.keys every connection between nodes is encrypted and both ends prove who they are.

    Example:

        aladdin keys secrets
        aladdin train demo --set run.keys=secrets --set run.address=192.168.1.7
    """
    from scenarios.errors import ScenarioError

    if find_spec("zmq") is None:
        raise ScenarioError("making keys needs pyzmq; install it with: pip install 'aladdin[real]'")
    from real import keys

    where = keys.create(out_dir)
    if json:
        common.emit({"folder": str(where), "files": list(keys.FILES)})
        return
    common.written(where)

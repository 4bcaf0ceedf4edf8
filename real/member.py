"""One life of a node's process as its launcher sees it.

Rules this module obeys: it decides nothing; ``real.launch`` and ``real.churn`` do.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["GONE", "Member"]

GONE = ("dead", "done", "absent")
"""States in which there is no process, or none that matters any more."""


@dataclass(eq=False)
class Member:
    """Life number ``life`` of node ``node``.

    pipe      the launcher's end (``real.pipe.End``) of the pipe to it; absent: None, as process
    state     starting; of who comes later: standby (ready to come), meeting (the others are told of it);
              running, ended (its program is over), retiring (who has left hands over its tables, since it is
              to come back), quiet, params; dead, done, absent (not there yet)
    heard     when the last bytes of it came; still: since when its signs of life tell of no progress
    tally     file with the steps that it has completed
    address   where it listens
    server    whether it is one; joined: all others know that it is there; lived: it was there
    going     it leaves; after: whoever goes comes back so many seconds later
    died      when it was killed, seconds since the start of the run, where that was planned, or when its end
              was noticed, of a server that is started again
    stopped   when it was last stopped (frozen) or asked to hand over its tables, or others were last told of
              it; monotonic
    """

    node: int
    process: Any
    pipe: Any
    life: int = 0
    tally: Path = Path()
    unread: deque[bytearray] = field(default_factory=deque)
    pid: int | None = None
    heard: float = 0.0
    state: str = "starting"
    address: str = ""
    server: bool = False
    joined: bool = True
    lived: bool = True
    going: bool = False
    after: float | None = None
    died: float | None = None
    stopped: float = 0.0
    steps: int = 0
    waiting: str = ""
    moved: int = 0
    still: float = 0.0
    tables: dict[str, Any] = field(default_factory=dict)
    params: bytes | bytearray = b""
    rows: bytearray = field(default_factory=bytearray)

    @property
    def gone(self) -> bool:
        return self.state in GONE

    @property
    def has_part(self) -> bool:
        """Whether what it handed over is part of the trained model: not of who left, or never got any."""
        return bool(self.params) and not self.going and (self.joined or self.server)

    @property
    def reachable(self) -> bool:
        """Whether it takes part in the run, or has."""
        return self.state in ("running", "ended")

    @property
    def attached(self) -> bool:
        """Whether messages may move to it or from it; to who is quiet, too, for it awaits no end of them."""
        return self.reachable or self.state == "quiet"

    def tell(self, **order: Any) -> None:
        """Send an order; who is gone gets none."""
        try:
            self.pipe.send_bytes(msgspec.msgpack.encode(order))
        except OSError:
            return

    def let_go(self, seconds: float) -> None:
        """End the process, after so many seconds of its own time to end, and give back what belongs to it."""
        if self.process is None:
            return
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(1.0)
        self.pipe.close()
        if not self.process.is_alive():
            self.process.close()
            self.process = None

    def ending(self, memory: str) -> str:
        """How the process ended that closed its pipe, and what that may mean (``memory``: what all need)."""
        self.process.join(1.0)
        code = self.process.exitcode
        if code is None or code >= 0:
            return "its process ended" + (f" with exit code {code}" if code else "")
        what = f"its process was ended by {signal.Signals(-code).name}"
        if code != -signal.SIGKILL or self.died is not None:
            return what
        return f"{what}, as kernels do where memory runs out: {memory}"

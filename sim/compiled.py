"""The simulator's innermost modules, compiled (by ``sim.compiling``, ``make fast``): found, and imported.

Rules this module obeys:

* The sources are the same, and so is every record, to the last byte. What is compiled (by mypyc, which
  comes with mypy) is only faster.
* Compiled modules lie in a folder beside the sources that is named after what they were made from: all
  sources whose types they may rely on, the interpreter and the machine. Who edits one of those, or brings
  another Python, runs the sources again.
* Nothing of it is needed: without such a folder everything runs from its sources. So it does where
  ``sys.modules`` has None for ``SHARED``, which is how the tests see to it that they test the sources.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib import machinery, util
from pathlib import Path

__all__ = ["ENDING", "HERE", "MODULES", "PREFIX", "SHARED", "folder", "found", "use"]

MODULES = (
    "alarm", "buckets", "cores", "endpoint", "fast", "fluid", "host", "link", "maxmin", "network", "nic",
    "phases", "programs",
)  # fmt: skip
"""What a worker's step spends most of its time in, and what refers to its classes all the time."""

HERE = Path(__file__).parent
_PACKAGES = ("core", "scenarios", "sim")
PREFIX, SHARED = "compiled-", "sim_compiled__mypyc"
ENDING = sysconfig.get_config_var("EXT_SUFFIX")


def folder() -> Path:
    """Where the compiled modules of these sources are, or would be."""
    import hashlib

    what = hashlib.sha256(f"{sys.version} {ENDING}".encode())
    for package in _PACKAGES:
        for file in sorted((HERE.parent / package).rglob("*.py")):
            what.update(str(file.relative_to(HERE.parent)).encode() + b"\0" + file.read_bytes())
    return HERE / f"{PREFIX}{what.hexdigest()[:16]}"


def found() -> Path | None:
    """The folder of compiled modules that fits these sources, if there is one and it is wanted."""
    if sys.modules.get(SHARED, sys) is None or not any(HERE.glob(f"{PREFIX}*")):
        return None
    there = folder()
    return there if there.is_dir() else None


def use(path: list[str]) -> None:
    """Let the modules of the package that has this ``__path__`` be found compiled, if they are."""
    there = found()
    if there is None:
        return
    if SHARED not in sys.modules:  # what they all share
        file = str(there / f"{SHARED}{ENDING}")
        loader = machinery.ExtensionFileLoader(SHARED, file)
        spec = util.spec_from_file_location(SHARED, file, loader=loader)
        assert spec is not None
        sys.modules[SHARED] = shared = util.module_from_spec(spec)
        loader.exec_module(shared)
    path.insert(0, str(there))

"""Compile the simulator's innermost modules: ``python -m sim.compiling``, or ``make fast``.

Rules this module obeys:

* What is compiled is put beside the sources (``sim.compiled``) whole or not at all.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from sim.compiled import ENDING, HERE, MODULES, PREFIX, SHARED, folder

__all__ = ["build"]

_CONFIG = """
[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-torch.*,sklearn.*,scipy.*,matplotlib.*,pyarrow.*]
follow_imports = skip
"""
"""Of mypy, which types are read with: none of the large libraries has a part in them."""


def build() -> Path:
    """Compile; returns the folder. What was compiled before is removed then.

    Raises ``ImportError`` without mypy or setuptools, ``OSError`` where nothing can be written or
    the sources change meanwhile, and errors of setuptools where the C compiler fails or is missing.
    """
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    there = folder()
    with tempfile.TemporaryDirectory(prefix="aladdin-") as name:
        scratch = Path(name)
        (scratch / "mypy.ini").write_text(_CONFIG, encoding="utf-8")
        files = [str(HERE / f"{module}.py") for module in MODULES]
        group = SHARED.removesuffix("__mypyc")
        flags = [f"--config-file={scratch}/mypy.ini", f"--cache-dir={scratch}/cache"]
        made = mypycify([*flags, *files], target_dir=name, group_name=group, debug_level="0")
        command = build_ext(Distribution({"ext_modules": made}))
        command.build_lib, command.build_temp = f"{name}/lib", f"{name}/temp"
        command.ensure_finalized()
        command.run()
        waiting = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=HERE))
        try:
            waiting.chmod(0o755)
            for file in (scratch / "lib").rglob(f"*{ENDING}"):
                shutil.copy(file, waiting / file.name)
            if folder() != there:
                raise OSError("the sources have changed meanwhile; compile again")
            for old in HERE.glob(f"{PREFIX}*"):
                shutil.rmtree(old)
            return waiting.rename(there)
        except BaseException:
            shutil.rmtree(waiting, ignore_errors=True)
            raise


def _main() -> None:
    try:
        there = build()
    except ImportError as error:
        sys.exit(f"sim.compiling: {error}; it needs mypy and setuptools: pip install 'aladdin[fast]'")
    except OSError as error:
        sys.exit(f"sim.compiling: {error}")
    except Exception as error:  # of setuptools, which may not be there to name its own
        sys.exit(f"sim.compiling: {error}; it needs a C compiler and Python's headers")
    sys.stdout.write(f"the simulator is compiled: {there}\n")


if __name__ == "__main__":
    _main()

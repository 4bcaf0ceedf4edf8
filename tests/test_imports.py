"""The rules of the house: who may import whom, and who may read clocks, environment and global RNGs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("core", "scenarios", "sim", "real", "analysis", "aladdin")
MAY_IMPORT = {
    "core": {"core"},
    "scenarios": {"core", "scenarios"},
    "sim": {"core", "scenarios", "sim"},
    "real": {"core", "scenarios", "real"},
    "analysis": {"core", "scenarios", "analysis"},
    "aladdin": set(OURS),
}
ONLY_IN = {"simpy": ("sim/",), "torch": ("real/", "scenarios/workloads/"), "zmq": ("real/",)}
CLOCKS = {"time", "random", "datetime", "secrets"}
SEEDED = {"Generator", "SeedSequence", "BitGenerator", "PCG64"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield node.module or ""


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def violations(path: Path, source: str) -> list[str]:
    """What the module at ``path`` (relative to the root) does against the rules."""
    package, tree, found = path.parts[0], ast.parse(source), []
    where = path.as_posix()
    for name in imports(tree):
        top = name.split(".")[0]
        if top in OURS and top not in MAY_IMPORT[package]:
            found.append(f"{where} imports {name}")
        if top in ONLY_IN and not where.startswith(ONLY_IN[top]):
            found.append(f"{where} imports {name}")
        if top in CLOCKS and package not in ("real", "aladdin"):
            found.append(f"{where} imports {name}: clocks and global random numbers belong to real/")
    for node in ast.walk(tree):
        name = dotted(node) if isinstance(node, ast.Attribute) else ""
        if name in ("os.environ", "os.getenv", "os.putenv") and where != "real/forking.py":
            found.append(f"{where}:{node.lineno} reads the environment")
        if name.startswith(("np.random.", "numpy.random.")):
            rest = name.split(".")[2]
            if rest != "default_rng" and rest not in SEEDED:
                found.append(f"{where}:{node.lineno} uses the global generator: {name}")
        if isinstance(node, ast.Call) and dotted(node.func).endswith("random.default_rng") and not node.args:
            found.append(f"{where}:{node.lineno} makes an unseeded generator")
    return found


@pytest.mark.parametrize("package", OURS)
def test_rules_hold(package: str) -> None:
    paths = sources(package)
    assert paths
    found = [
        v for path in paths for v in violations(path.relative_to(ROOT), path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("core/x.py", "import scenarios.schema"),
        ("sim/x.py", "from real.driver import train"),
        ("real/x.py", "def f():\n    import analysis.store"),
        ("analysis/x.py", "import sim"),
        ("core/x.py", "import torch"),
        ("scenarios/plan.py", "import torch.nn"),
        ("analysis/x.py", "from simpy import Environment"),
        ("sim/x.py", "import time"),
        ("real/driver.py", "import os\nos.environ['X']"),
        ("core/x.py", "import numpy as np\nnp.random.seed(1)"),
        ("core/x.py", "import numpy as np\nnp.random.default_rng()"),
    ],
)
def test_rules_catch(path: str, source: str) -> None:
    assert violations(Path(path), source)


def test_files_stay_readable() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for package in OURS
        for path in sources(package)
    }
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_algorithms_can_be_read_beside_their_papers() -> None:
    """One file each, under 150 lines."""
    paths = sorted((ROOT / "core" / "algorithms").glob("*.py"))
    assert len(paths) > 10
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {name: length for name, length in lengths.items() if length >= 150} == {}


@pytest.mark.parametrize(
    "module", ["aladdin", "aladdin.cli", "sim", "scenarios", "scenarios.workloads", "analysis"]
)
def test_heavy_libraries_are_imported_late(module: str) -> None:
    """None of these needs torch to be imported; sockets, plots and Parquet come when they are used."""
    late = ("torch", "zmq", "matplotlib", "sklearn", "scipy", "pyarrow")
    code = f"import sys, {module}; print(' '.join(n for n in {late!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

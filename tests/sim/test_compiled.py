"""The compiled simulator: the same records to the last byte, and never of other sources than there are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sim import compiled

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import sys
import sim, sim.maxmin
from scenarios.errors import ScenarioError
from sim.driver import Driver
from tests.sim.samples import ALGORITHMS, digest, sample

FAULTS = [
    [{"kind": "crash", "ranks": [1], "step": 2, "back": "200 ms"}],
    [{"kind": "freeze", "ranks": [0], "step": 1, "back": "500 ms"}],
    [{"kind": "leave", "ranks": [1], "step": 2}],
    [{"kind": "cut", "ranks": [1], "at": "300 ms", "back": "400 ms"}],
]
print("compiled" if sim.maxmin.__file__.endswith(".so") else "sources")
for seed in range(int(sys.argv[1])):
    for algorithm in ALGORITHMS:
        scene = sample(seed, algorithm).scenario
        for faults in ([], FAULTS[seed % len(FAULTS)]):
            try:
                print(seed, algorithm, len(faults), digest(sim.simulate(scene.override({"faults": faults}))))
            except ScenarioError as error:
                print(seed, algorithm, len(faults), type(error).__name__)
            except sim.Deadlock as error:
                print(seed, algorithm, len(faults), error)
"""


def copy(to: Path) -> Path:
    for package in ("core", "scenarios", "sim", "tests/sim"):
        ignored = shutil.ignore_patterns("compiled-*", "__pycache__")
        shutil.copytree(ROOT / package, to / package, ignore=ignored)
    (to / "tests" / "__init__.py").touch()
    return to


def edit(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8") + "\n# another source\n", encoding="utf-8")


def run(folder: Path, *argv: str) -> str:
    done = subprocess.run([sys.executable, *argv], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed(folder: Path, program: str) -> str:
    """What a program says on stderr that ends with exit code 1."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr


@pytest.mark.slow
def test_records_are_those_of_the_sources_to_the_last_byte(tmp_path: Path) -> None:
    pytest.importorskip("mypyc")
    pytest.importorskip("setuptools")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    folder = copy(tmp_path / "copy")
    plain = run(folder, "-c", PROGRAM, "12").splitlines()
    assert "the simulator is compiled" in run(folder, "-m", "sim.compiling")
    fast = run(folder, "-c", PROGRAM, "12").splitlines()
    assert (plain[0], fast[0]) == ("sources", "compiled")
    assert fast[1:] == plain[1:]
    assert sum(len(line.split()[-1]) == 64 for line in plain) > 200

    edit(folder / "sim" / "buckets.py")
    assert run(folder, "-c", PROGRAM, "0") == "sources\n"
    assert "the simulator is compiled" in run(folder, "-m", "sim.compiling")
    assert len([*(folder / "sim").glob("compiled-*")]) == 1


@pytest.mark.parametrize("name", ["sim/maxmin.py", "sim/driver.py", "core/record.py", "scenarios/units.py"])
def test_what_was_compiled_of_other_sources_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Sources that are not compiled themselves, but whose types were relied on, are among them."""
    folder = copy(tmp_path / "copy")
    monkeypatch.setattr(compiled, "HERE", folder / "sim")
    monkeypatch.delitem(sys.modules, compiled.SHARED)
    assert compiled.found() is None
    compiled.folder().mkdir()
    assert compiled.found() == compiled.folder()
    edit(folder / name)
    assert compiled.found() is None
    path = ["sim"]
    compiled.use(path)
    assert path == ["sim"]


def test_tests_are_of_the_sources() -> None:
    assert compiled.found() is None
    from sim import maxmin

    assert Path(maxmin.__file__ or "").suffix == ".py"


def test_what_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("mypyc")
    pytest.importorskip("setuptools")
    folder = copy(tmp_path / "copy")
    program = (
        "import runpy, shutil, sys\n"
        "from pathlib import Path\n"
        "import mypyc.build, setuptools.command.build_ext as building\n"
        "mypyc.build.mypycify = lambda *_, **__: []\n"
        "def run(self):\n"
        "    from sim.compiled import ENDING\n"
        "    Path(self.build_lib).mkdir()\n"
        "    Path(self.build_lib, 'one' + ENDING).touch()\n"
        "building.build_ext.run = run\n"
        "def copy(*_):\n"
        "    raise OSError(28, 'No space left on device')\n"
        "shutil.copy = copy\n"
        "runpy.run_module('sim.compiling', run_name='__main__')\n"
    )
    said = failed(folder, program)
    assert said == "sim.compiling: [Errno 28] No space left on device\n"
    assert not [*(folder / "sim").glob("*compiled-*")]


def test_without_mypyc_it_says_what_is_missing(tmp_path: Path) -> None:
    folder = copy(tmp_path / "copy")
    program = (
        "import runpy, sys\n"
        "sys.modules['mypyc'] = None\n"
        "runpy.run_module('sim.compiling', run_name='__main__')\n"
    )
    said = failed(folder, program)
    assert "pip install 'aladdin[fast]'" in said
    assert "Traceback" not in said

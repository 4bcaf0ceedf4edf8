"""The comparison with SimGrid says what it lacks; where SimGrid is there, both simulate the same times."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.against_simgrid import SOURCE, Missing, build

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "against_simgrid.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], check=False, capture_output=True, text=True
    )


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run("--source", str(tmp_path / "none.cpp"))
    assert done.returncode == 2
    assert "none.cpp: not there; name the reference program with --source" in done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_a_source_that_cannot_be_built_is_told(tmp_path: Path) -> None:
    source = tmp_path / "broken.cpp"
    source.write_text("#include <no/such/simgrid.hpp>\n", encoding="utf-8")
    with pytest.raises(Missing, match="libsimgrid-dev"):
        build(source, tmp_path)


@pytest.mark.skipif(not SOURCE.is_file(), reason="the reference program is not here")
def test_both_end_at_the_same_time() -> None:
    done = run("--workers", "4", "--steps", "5", "--algorithms", "bsp", "aladdin", "--json")
    if done.returncode == 2:
        pytest.skip(done.stderr)
    rows = json.loads(done.stdout)
    assert [row["algorithm"] for row in rows] == ["bsp", "aladdin"]
    assert all(row["difference"] < 1e-9 for row in rows)

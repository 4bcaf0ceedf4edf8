"""Processes forked for nodes: what they know of the program that runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("zmq")

import real
from core.algorithms.asp import ASP
from scenarios import ScenarioError
from tests.real.runs import tiny

ROOT = Path(__file__).parents[2]


def test_an_algorithm_of_the_running_script_is_trained(tmp_path: Path) -> None:
    """Its processes import the script, which therefore says what it does not do there."""
    script = tmp_path / "own.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from dataclasses import dataclass

            import real
            from core.algorithms.asp import ASP
            from tests.real.runs import tiny

            @dataclass(frozen=True)
            class Mine(ASP):
                pass

            if __name__ == "__main__":
                before = dict(__file__=__file__, __spec__=__spec__)
                record = real.train(tiny("__main__:Mine"))
                assert record.manifest["complete"]
                assert before == dict(__file__=__file__, __spec__=__spec__)
                record = real.train(tiny("asp"))
                assert before == dict(__file__=__file__, __spec__=__spec__)
                print(record.manifest["complete"])
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_an_algorithm_of_a_notebook_is_refused_before_a_process_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "Mine", ASP, raising=False)
    monkeypatch.delattr(main, "__file__", raising=False)
    with pytest.raises(ScenarioError, match=r"algorithm\.name: '__main__:Mine' .* no notebook and no prompt"):
        real.train(tiny("__main__:Mine"))

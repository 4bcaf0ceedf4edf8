"""Racks and sites from the command line: the busiest link is named, bad input ends with exit code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aladdin import cli

YAML = """
cluster:
  racks: 2
  machines_per_rack: 2
  bandwidth: 1 Gbit/s
  uplink: {oversubscription: 40}
workload: {parameters: 1000000}
algorithm: asp
run: {steps: 5}
"""


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def run(*argv: str, text: str = YAML) -> tuple[int, str, str]:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        code = cli.main([argv[0], str(path), *argv[1:]])
        return code, *capsys.readouterr()

    return run


def test_the_table_names_the_busiest_link(shell: Any) -> None:
    code, out, _ = shell("simulate")
    assert code == 0
    assert "busiest" in out
    assert "rack1 up (" in out
    code, out, _ = shell("simulate", "--json", "--set", "cluster.racks=3")
    [run] = json.loads(out)["runs"]
    assert run["workers"] == 6
    assert run["link"]["name"] == "rack0"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["--set", "cluster.workers=5"],
            "cluster.workers: 5 is not valid; expected a multiple of 4 (machines)",
        ),
        (["--set", "cluster.uplink=0"], "cluster.uplink.up: 0.0 has no capacity but is in use"),
        (["--set", "cluster.sites=[a, b]"], "cluster.wan: no link leads from a to b: machine machine2"),
        (["--set", "cluster.rakcs=2"], "cluster.rakcs: no such field — did you mean 'racks'?"),
        (["--set", "cluster.heterogeneity.file={csv}"], "bad.csv' line 2: has 2 columns; expected 1: speed"),
    ],
)
def test_bad_input_is_exit_code_2(shell: Any, tmp_path: Path, argv: list[str], says: str) -> None:
    (tmp_path / "bad.csv").write_text("speed\n1,2\n", encoding="utf-8")
    code, out, err = shell("simulate", *(part.format(csv=tmp_path / "bad.csv") for part in argv))
    assert (code, out) == (2, "")
    assert says in err


def test_real_runs_refuse_what_they_cannot_play(shell: Any) -> None:
    pytest.importorskip("torch")
    code, _, err = shell("train")
    assert code == 2
    assert "cluster.racks: 2" in err
    assert "simulate it" in err
    sites = YAML.replace("racks: 2", "sites: [a, b]\n  wan: {bandwidth: 5}").replace("per_rack", "per_site")
    code, _, err = shell("train", text=sites.replace("  uplink: {oversubscription: 40}\n", ""))
    assert code == 2
    assert "cluster.sites: 2" in err

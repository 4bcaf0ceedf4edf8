"""``aladdin mixing``: which matrix, its properties, and one message for whatever is not valid."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from aladdin import cli
from aladdin.mixing import LONGEST, describe, known
from core import mixing
from scenarios import ScenarioError


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = cli.main(["mixing", *map(str, argv)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "options", "n", "zeta", "steps"),
    [
        ("bsp", {}, 8, 0, 1), ("arsgd", {}, 8, 0, 1), ("aladdin", {"pi": 4}, 16, 1 / 8, 8),
        ("aladdin", {"alpha": 0.5}, 16, 1 / 2, 4), ("aladdin", {"pi": 2, "alpha": 0.0}, 4, 1, math.inf),
        ("aladdin_l1", {}, 8, 1, math.inf), ("aladdin_l2", {"pi": 1}, 16, 1 / 4, 2),
        ("local_sgd", {"h": 8}, 4, 0, 8), ("post_local_sgd", {"h": 4}, 4, 0, 4),
        ("diloco", {"h": 5}, 4, 0, 5),
        ("easgd", {"tau": 2, "beta": 0.9}, 10, 0.91, 50), ("dpsgd", {"graph": "hypercube"}, 16, 0.6, 5),
        ("dpsgd", {"matrix": [[0.75, 0.25], [0.25, 0.75]]}, 2, 0.5, 4),
        ("sgp", {"overlap": 0}, 16, 0, 4), ("sgp", {"graph": "complete"}, 4, 0, 1),
        ("adpsgd", {}, 16, math.sqrt(15 / 16), 72), ("gosgd", {"p": 0.5}, 5, 1 - 0.25 * 5 / 4, 7),
    ],
)  # fmt: skip
def test_zeta_and_the_steps_to_come_ten_times_closer(
    name: str, options: dict[str, Any], n: int, zeta: float, steps: float
) -> None:
    found = describe(name, n, options).summary()
    assert found["zeta"] == pytest.approx(zeta, abs=1e-9)
    assert found["rho"] == pytest.approx(zeta**2, abs=1e-9)
    assert found["spectral_gap"] == pytest.approx(1 - zeta, abs=1e-9)
    assert found["steps_to_shrink"] == steps
    assert found["rate"] == pytest.approx(found["zeta"] ** (1 / found["period"]))


@pytest.mark.parametrize("name", known())
def test_every_algorithm_with_a_matrix_has_one_that_conserves(name: str) -> None:
    found = describe(name, 8).summary()
    assert found["stochastic"] == "doubly"
    assert found["algorithm"] == name
    assert found["nodes"] == 8 + (name == "easgd")


def test_push_sum_on_an_irregular_graph_is_stochastic_by_columns_only() -> None:
    found = describe("sgp", 5, {"graph": "star"}).summary()
    assert found["stochastic"] == "by columns"
    assert not found["symmetric"]


def test_the_table_says_it_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "dpsgd", "-n", 16, "--graph", "ring")
    assert (code, err) == (0, "")
    for text in ("D-PSGD, 16 workers", "ring graph", "yes, symmetric", "0.949253", "45 steps"):
        assert text in out
    assert "never" in run(capsys, "aladdin_l1")[1]
    assert "over a period of 4 steps" in run(capsys, "sgp")[1]


def test_json_and_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = run(capsys, "aladdin", "-n", 4, "-s", "pi=2", "--json", "--out", tmp_path)
    found = json.loads(out)
    assert code == 0
    assert found["zeta"] == pytest.approx(1 / math.sqrt(8))
    assert found["zeta_of_each"] == [1.0, pytest.approx(1 / math.sqrt(8))]
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert json.loads(run(capsys, "aladdin_l1", "--json")[1])["steps_to_shrink"] is None


def test_edges_and_matrices_from_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "edges.json").write_text("[[0, 1], [1, 2]]")
    (tmp_path / "edges.txt").write_text("0 1\n1 2\n")
    (tmp_path / "w.json").write_text("[[0.5, 0.5, 0], [0.5, 0.25, 0.25], [0, 0.25, 0.75]]")
    (tmp_path / "w.csv").write_text("0.5,0.5,0\n0.5,0.25,0.25\n0,0.25,0.75\n")
    (tmp_path / "w.yaml").write_text("- [0.5, 0.5, 0]\n- [0.5, 0.25, 0.25]\n- [0, 0.25, 0.75]\n")

    def zeta(*argv: object) -> float:
        return float(json.loads(run(capsys, "dpsgd", "-n", 3, "--json", *argv)[1])["zeta"])

    inline = zeta("-g", "[[0, 1], [1, 2]]")
    assert zeta("-g", tmp_path / "edges.json") == zeta("-g", tmp_path / "edges.txt") == inline
    assert zeta("--matrix", tmp_path / "w.json") == zeta("--matrix", tmp_path / "w.csv")
    assert zeta("--matrix", tmp_path / "w.json") == zeta("--matrix", tmp_path / "w.yaml")
    found = json.loads(run(capsys, "dpsgd", "--matrix", tmp_path / "w.csv", "--json")[1])
    assert found["workers"] == 3  # as many as the matrix has


def test_pictures_of_different_matrices_have_different_names(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "mine.csv").write_text("0.75,0.25\n0.25,0.75\n")
    asked: list[list[object]] = [
        ["dpsgd", "-n", 2], ["dpsgd", "--matrix", tmp_path / "mine.csv"], ["dpsgd", "-n", 2, "-g", "ring"],
        ["dpsgd", "-n", 2, "-g", "[[0, 1]]"], ["aladdin", "-n", 2, "-s", "pi=2"], ["aladdin", "-n", 2],
    ]  # fmt: skip
    for argv in asked:
        assert run(capsys, *argv, "--out", tmp_path / "out")[0] == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "mixing-aladdin-n2.png", "mixing-aladdin-pi2-n2.png", "mixing-dpsgd-edges-n2.png",
        "mixing-dpsgd-mine-n2.png", "mixing-dpsgd-n2.png", "mixing-dpsgd-ring-n2.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dpsgd", "-g", "rong"], "graph: 'rong' is not valid; expected ring, torus"),
        (["dpsgd", "-g", "rong"], "did you mean 'ring'?"),
        (["sgp", "-g", "one_peer_expo"], "did you mean 'one_peer_exponential'?"),
        (["dpsgd", "-n", "12", "-g", "hypercube"], "a hypercube needs a power of two (8 or 16 workers)"),
        (["dpsgd", "-n", "7", "-g", "torus"], "a torus needs n = a x b with a and b above 1"),
        (["dpsgd", "-n", "5", "-g", "random_regular"], "n x degree must be even"),
        (["dpsgd", "-n", "4", "-g", "[[0, 1], [2, 3]]"], "2 parts: {0, 1}, {2, 3}"),
        (["dpsgd", "-n", "4", "-g", "[[0, 9]]"], "two different workers of 0 .. 3"),
        (["dpsgd", "-g", "[[0, 1"], "graph: '[[0, 1'"),
        (["adpsgd", "-n", "5", "-g", "ring"], "a cycle of odd length (2 - 1 - 0 - 4 - 3 - 2)"),
        (["dpsgd", "-n", "1"], "workers: 1 is not valid; expected at least 2"),
        (["gosgd", "-s", "p=1.5"], "p: 1.5 is not valid; expected a number in [0, 1]"),
        (["aladdin", "-s", "alpha=count"], "n_pi or a number in [0, 1]"),
        (["aladdin", "-s", "pi"], "--set: 'pi' is not valid; expected OPTION=VALUE"),
        (["aladdin", "-s", "reduc=sum"], "did you mean 'reduce'?"),
        (["aladdin", "-n", "0"], "workers: 0 is not valid; expected between 1 and 1024"),
        (["aladdin", "-n", "1000000"], "workers: 1000000"),
        (["dpsgd", "-s", "graph=2020-13-45"], "graph: '2020-13-45' is not valid; expected ring, torus"),
        (["gosgd", "-s", "p=2020-13-45"], "p: '2020-13-45' is not valid; expected a number in [0, 1]"),
        (["gosgd", "-s", "p=[" + "[" * 3000], "p: "),
        (["local_sgd", "-s", "h=1000000000"], "h: 1000000000 is not valid; expected a period of at most"),
        (["aladdin", "-s", "pi=1000000000"], "pi: 1000000000 is not valid; expected a period of at most"),
        (["easgd", "-s", "tau=1000000000"], "tau: 1000000000 is not valid; expected a period of at most"),
        (["dpsgd", "-s", "degree=[3]"], "degree: [3] is not valid; expected a whole number of at least 1"),
        (["bsp", "-n", "257", "--out", "x"], "no picture of more than 256 workers"),
        (["aladin"], "did you mean 'aladdin'?"),
        (["asp"], "algorithm: 'asp' is not valid; expected one that mixes parameters: bsp, easgd"),
        (["bsp", "-g", "ring"], "graph: 'ring' is not valid; expected no option: bsp has none"),
        (["dpsgd", "--matrix", "nowhere.csv"], "matrix: 'nowhere.csv' cannot be read"),
        (["dpsgd", "--out", "/proc/no/pictures"], "cannot be written"),
        (["dpsgd", "-g", "nowhere.json"], "graph: 'nowhere.json' cannot be read (No such file"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[0.5, 0.4], [0.4, 0.6]]", "row 0 sums to 0.9, off by -0.1"),
        ("[[0.5, 0.5], [0.2, 0.8]]", "column 0 sums to 0.7, off by -0.3"),
        ("[[0.5, 0.5], [0.2, 0.7]]", "row 1 sums to 0.9, off by -0.1"),
        ("nan 1\n1 nan\n", "[0, 0] is nan' is not valid; expected weights between 0 and 1"),
        ("1 0 0\n0 1 0\n0 0 1\n", "2 x 2, one row and column per worker"),
        ("[[0.5, 0.5], [0.5]]", "rows of numbers, all of the same length"),
        ("hello\n", "holds no rows of numbers"), ("", "2 x 2"),
        ("[[1, 0], [0, 1", "holds no rows of numbers"),
        ("[[0, 1], [1, 0]]", "let every worker keep a share of its own"),
        ("[" * 3000, "nested too deeply"), ("[" * 900 + "]" * 900, "nested too deeply"),
        ("[{" + '"a": [1]' + "}]", "nested too deeply"), ("- {a: 1}\n", "rows of numbers"),
        ("[[2020-13-45, 0], [0, 1]]", "rows of numbers"), (f"[[{10**400}, 0], [0, 1]]", "rows of numbers"),
        ("- [0.5, 0.5]\n" * 20_000, "YAML of more than 250,000 characters"),
    ],
)  # fmt: skip
def test_bad_matrices_in_files(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "w").write_text(text)
    code, out, err = run(capsys, "dpsgd", "-n", 2, "--matrix", tmp_path / "w")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_errors_name_the_field() -> None:
    with pytest.raises(ScenarioError) as caught:
        describe("dpsgd", 16, {"graph": "rong"})
    assert caught.value.path == "graph"


def test_no_spectrum_is_computed_more_often_than_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of each turn of a large push-sum schedule are left out: nine of them here."""
    made = []
    eigenvalues = mixing.eigenvalues
    monkeypatch.setattr(mixing, "eigenvalues", lambda W: made.append(len(W)) or eigenvalues(W))
    found = describe("sgp", 300).summary()
    assert (found["period"], found["zeta_of_each"]) == (9, None)
    assert len(made) <= 2
    made.clear()
    assert len(describe("sgp", 16).summary()["zeta_of_each"]) == 4
    made.clear()
    found = describe("local_sgd", 16, {"h": 1000}).summary()
    assert found["zeta_of_each"] == [1.0] * 999 + [0.0]
    assert len(made) <= 4


def test_a_period_of_a_thousand_steps_needs_one_identity() -> None:
    for name, field in (("local_sgd", "h"), ("aladdin", "pi"), ("easgd", "tau")):
        found = describe(name, 8, {field: LONGEST})
        assert len({id(W) for W in found.matrices}) == 2


def test_left_out_spectra_leave_out_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "of each step by itself" in run(capsys, "sgp", "-n", 12)[1]
    code, out, _ = run(capsys, "sgp", "-n", 300)
    assert code == 0
    assert "of each step by itself" not in out

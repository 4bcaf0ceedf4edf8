"""The oracle's cases at their stated tolerance; files that are not what they should be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from scenarios.errors import ScenarioError
from sim.verify import Row, verify

ORACLE = Path(__file__).parents[1] / "data" / "oracle.json"
TREE: dict[str, Any] = json.loads(ORACLE.read_text(encoding="utf-8"))


def test_every_case_of_the_oracle_is_within_tolerance() -> None:
    rows = verify(ORACLE)
    assert [row.name for row in rows] == [
        case["name"] for part in ("net_cases", "cases") for case in TREE[part]
    ]
    assert [row for row in rows if not row.ok] == []
    assert {row.tolerance for row in rows if row.kind in ("network", "bsp", "aladdin", "ring")} == {1e-8}


def write(path: Path, **sections: Any) -> Path:
    file = path / "cases.json"
    file.write_text(json.dumps(sections), encoding="utf-8")
    return file


def case(name: str) -> dict[str, Any]:
    found = next(c for part in ("cases", "net_cases") for c in TREE[part] if c["name"].startswith(name))
    return copy.deepcopy(found)


def only(rows: list[Row]) -> Row:
    (row,) = rows
    return row


@pytest.mark.parametrize(
    ("name", "field", "index"),
    [
        ("asp_n2", "iter_end", (1, 29)),
        ("bsp_n4", "finish", (3,)),
        ("ring_n4", "makespan", ()),
        ("aladdin_n2", "iter_end", (0, 0)),
        ("gossip_n4", "iter_end", (2, 5)),
    ],
)
def test_one_wrong_time_is_noticed_and_named(
    tmp_path: Path, name: str, field: str, index: tuple[int, ...]
) -> None:
    wrong = case(name)
    place, last = wrong["expected"], field
    for i in index:
        place, last = place[last], i
    place[last] *= 1 + 1e-5
    row = only(verify(write(tmp_path, cases=[wrong])))
    assert not row.ok
    assert row.worst_relative_error == pytest.approx(1e-5, rel=1e-3)
    assert row.what == field + "".join(f"[{i}]" for i in index)


@pytest.mark.parametrize(("field", "index"), [("blend_at_iter", 1), ("model_pushes_received", 0)])
def test_a_wrong_count_is_out_of_tolerance(tmp_path: Path, field: str, index: int) -> None:
    wrong = case("aladdin_n2")
    expected = wrong["expected"][field]
    expected[index] = expected[index][1:] if field == "blend_at_iter" else expected[index] + 1
    row = only(verify(write(tmp_path, cases=[wrong])))
    assert not row.ok
    assert row.what.startswith(f"{field}[{index}]")


def test_what_is_not_comparable_is_not_compared(tmp_path: Path) -> None:
    cut = case("asp_n16")
    cut["expected"]["iter_end"] = [
        [*ends[:5], *(end * 2 for end in ends[5:])] for ends in cut["expected"]["iter_end"]
    ]
    cut["comparable_iterations"] = [5] * 16
    assert only(verify(write(tmp_path, cases=[cut]))).ok


def test_scalars_stand_for_all_nodes_and_defaults_may_be_missing(tmp_path: Path) -> None:
    short = case("bsp_n4")
    for name in ("Bup", "Bdn", "PSup", "PSdn"):
        short["params"][name] = 1.25e9
    del short["params"]["L"], short["compare_until_s"], short["comparable_iterations"]
    assert only(verify(write(tmp_path, cases=[short]))).ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["params"].update(alg="sgd"), r"cases\[0\] \(bsp_n4.*\)\.params\.alg: 'sgd'"),
        (lambda c: c["params"].update(n=0), r"params\.n: 0 is not valid; expected a whole number above 0"),
        (
            lambda c: c["params"].update(T=[0.3, 0.3]),
            r"params\.T: '2 numbers' is not valid; expected 4 of them",
        ),
        (lambda c: c["params"].update(Bup=[1e9, -1.0, 1e9, 1e9]), r"params\.Bup\[1\]: -1\.0"),
        (lambda c: c["params"].update(G="94 MB"), r"params\.G: '94 MB'"),
        (lambda c: c.pop("expected"), r"bsp_n4.*\.expected: is missing"),
        (
            lambda c: c["expected"].update(iter_end=[[1.0]]),
            r"expected\.iter_end: 'list of 1' is not valid; expected a list of 4",
        ),
        (lambda c: c["expected"].update(finish=[1.0, None, 1.0, 1.0]), r"expected\.finish\[1\]: None"),
        (lambda c: c.pop("name"), r"cases\[0\]\.name: None"),
        (lambda c: c.update(params=[]), r"params: \[\] is not valid; expected an object"),
        (lambda c: c.update(comparable_iterations=[1]), r"comparable_iterations"),
    ],
)
def test_malformed_cases_name_the_case_and_the_field(tmp_path: Path, change: Any, message: str) -> None:
    wrong = case("bsp_n4")
    change(wrong)
    with pytest.raises(ScenarioError, match=message):
        verify(write(tmp_path, cases=[wrong]))


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), 1.5, 4, "1", None])
def test_neighbours_are_whole_offsets_to_others(tmp_path: Path, offset: Any) -> None:
    wrong = case("gossip_n4")
    wrong["params"]["nb"][2][0] = offset
    with pytest.raises(ScenarioError, match=r"params\.nb\[2\]\[0\]"):
        verify(write(tmp_path, cases=[wrong]))


def test_malformed_transfers_name_the_flow(tmp_path: Path) -> None:
    wrong = case("incast4")
    wrong["params"]["flows"][1]["dst"] = 9
    with pytest.raises(
        ScenarioError, match=r"params\.flows\[1\]\.dst: 9 is not valid; expected a host between 0 and 4"
    ):
        verify(write(tmp_path, net_cases=[wrong]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no cases"),
        ('{"cases": {}}', "a list of cases"),
        ("\xff", "is not JSON"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "cases.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScenarioError, match=message):
        verify(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        verify(tmp_path / "none.json")


def test_a_case_with_nothing_to_compare_does_not_pass(tmp_path: Path) -> None:
    empty = case("asp_n16")
    empty["compare_until_s"], empty["comparable_iterations"] = 0.0, [0] * 16
    row = only(verify(write(tmp_path, cases=[empty])))
    assert not row.ok
    assert row.what == "nothing to compare"

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


def test_every_case_is_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    verify(write(tmp_path, cases=[case("bsp_n4"), case("asp_n2")]), on_progress=lambda *at: told.append(at))
    assert told == [(0, 2), (1, 2)]


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


KINDS = ("asp_n2", "bsp_n4", "aladdin_n2", "ring_n4", "gossip_n4")


def changed(name: str, field: str, index: tuple[int, ...], change: Any) -> dict[str, Any]:
    """A case with one expected value changed."""
    wrong = case(name)
    place, last = wrong["expected"], field
    for i in index:
        place, last = place[last], i
    place[last] = change(place[last])
    return wrong


@pytest.mark.parametrize("name", KINDS)
def test_no_expected_value_can_change_unnoticed(tmp_path: Path, name: str) -> None:
    """Every number among the expected ones, but for the diagnostic that is no result."""
    expected = case(name)["expected"]
    assert {"n_transfers", "iterations_finished", "throughput_iter_per_s"} <= expected.keys()
    for field in expected.keys() - {"min_ps_arrival_gap_s", "iter_end", "blend_at_iter"}:
        for index in (
            [(i,) for i in range(len(expected[field]))] if isinstance(expected[field], list) else [()]
        ):
            wrong = changed(name, field, index, lambda v: v + 1 if isinstance(v, int) else v * 1.001)
            row = only(verify(write(tmp_path, cases=[wrong])))
            assert not row.ok, (field, index)
            assert row.what.startswith(field), (field, index)


@pytest.mark.parametrize(
    ("field", "index", "change"),
    [
        ("blend_at_iter", (1,), lambda v: v[1:]),
        ("model_pushes_received", (0,), lambda v: v - 1),
        ("n_transfers", (), lambda v: v - 1),
        ("iterations_finished_at_t_first", (1,), lambda v: v - 1),
        ("iterations_finished", (1,), lambda v: v - 1),
    ],
)
def test_a_wrong_count_is_out_of_tolerance(
    tmp_path: Path, field: str, index: tuple[int, ...], change: Any
) -> None:
    row = only(verify(write(tmp_path, cases=[changed("aladdin_n2", field, index, change)])))
    assert not row.ok
    assert row.what.startswith(field + "".join(f"[{i}]" for i in index))


def test_what_is_not_comparable_is_not_compared(tmp_path: Path) -> None:
    cut = case("asp_n16")
    cut["expected"]["iter_end"] = [
        [*ends[:5], *(end * 2 for end in ends[5:])] for ends in cut["expected"]["iter_end"]
    ]
    cut["comparable_iterations"] = [5] * 16
    assert only(verify(write(tmp_path, cases=[cut]))).ok


def test_scalars_stand_for_all_nodes_and_everything_is_comparable_if_nothing_is_said(tmp_path: Path) -> None:
    short = case("bsp_n4")
    for name in ("Bup", "Bdn", "PSup", "PSdn"):
        short["params"][name] = 1.25e9
    del short["compare_until_s"], short["comparable_iterations"]
    assert only(verify(write(tmp_path, cases=[short]))).ok


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_run_depends_on_must_be_given(tmp_path: Path, kind: str) -> None:
    needed = {"alg", "n", "K", "T", "Bup", "Bdn", "L"}
    needed |= {"ring_n4": {"G"}, "gossip_n4": {"M", "nb"}}.get(kind, {"S", "G", "M", "A", "PSup", "PSdn"})
    needed |= {"bsp_n4": {"Aacc"}, "aladdin_n2": {"Aacc", "pi"}}.get(kind, set())
    for name in sorted(needed):
        lacking = case(kind)
        del lacking["params"][name]
        with pytest.raises(ScenarioError, match=rf"cases\[0\] \({kind}.*\)\.params\.{name}: is missing"):
            verify(write(tmp_path, cases=[lacking]))
    spare = case(kind)
    spare["params"] = {name: value for name, value in spare["params"].items() if name in needed}
    assert only(verify(write(tmp_path, cases=[spare]))).ok


@pytest.mark.parametrize("name", ["up", "dn", "lat", "flows"])
def test_whatever_a_transfer_depends_on_must_be_given(tmp_path: Path, name: str) -> None:
    lacking = case("incast4")
    del lacking["params"][name]
    with pytest.raises(ScenarioError, match=rf"params\.{name}: is missing"):
        verify(write(tmp_path, net_cases=[lacking]))
    for part in ("src", "dst", "bytes", "start"):
        lacking = case("incast4")
        del lacking["params"]["flows"][2][part]
        with pytest.raises(ScenarioError, match=rf"params\.flows\[2\]\.{part}: is missing"):
            verify(write(tmp_path, net_cases=[lacking]))


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
        (lambda c: c["expected"].update(finish=[1.0, None, 1.0, 1.0]), r"expected\.finish\[1\]: null"),
        (
            lambda c: c["expected"]["iter_end"].__setitem__(0, c["expected"]["iter_end"][0][:5]),
            r"expected\.iter_end\[0\]: 'list of 5' is not valid; expected 30 times",
        ),
        (lambda c: c["expected"].update(finish=[1.0]), r"expected\.finish: 'list of 1' .* a list of 4"),
        (lambda c: c["expected"].update(n_transfers="240"), r"expected\.n_transfers: '240'"),
        (lambda c: c["params"].update(n=10**9), r"params\.n: 1000000000 .* at most 100000"),
        (lambda c: c["params"].update(G=10**400), r"params\.G: 1000"),
        (lambda c: c["params"].update(eager="no"), r"params\.eager: 'no' is not valid; expected 0 or 1"),
        (
            lambda c: c["params"].update(Bup=1e-9),
            r"cases\[0\] \(bsp_n4\w*\)\.params\.Bup: 1e-09 .* at least 0\.001 bytes/s",
        ),
        (lambda c: c["params"].update(Bup=3e17), r"params\.Bup: 3e\+17 .* at most 2\.5e\+17"),
        (lambda c: c["params"].update(T=2e9), r"params\.T: 2000000000\.0 .* at most 1e\+09"),
        (lambda c: c["params"].update(A=2e9), r"params\.A: 2000000000\.0 .* at most 1e\+09"),
        (lambda c: c["params"].update(Aacc=1e200), r"params\.Aacc: 1e\+200 .* at most 1e\+09"),
        (lambda c: c.pop("name"), r"cases\[0\]\.name: null"),
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
        ("[" * 100_000, "is nested too deeply"),
        ('{"cases": [], "net_cases": []}', "holds no cases: its lists of cases are empty"),
        ('{"cases": ' + "1" * 5000 + "}", "is not JSON"),
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


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    file = write(tmp_path, net_cases=[case("incast4")])
    file.write_text("\ufeff" + file.read_text(encoding="utf-8"), encoding="utf-8")
    assert only(verify(file)).ok


def test_the_diagnostic_is_no_result(tmp_path: Path) -> None:
    other = changed("asp_n2", "min_ps_arrival_gap_s", (), lambda gap: 2 * gap)
    assert only(verify(write(tmp_path, cases=[other]))).ok


def run_case(kind: str, expected: dict[str, Any], **params: Any) -> dict[str, Any]:
    base = {"alg": kind, "n": 2, "K": 1, "G": 1, "M": 1, "L": 0, "Bup": 1e9, "Bdn": 1e9}
    served = {"S": 1, "PSup": 1e9, "PSdn": 1e9, "A": 0, "Aacc": 0}
    return {"name": kind, "params": {**base, **served, **params}, "expected": expected}


def test_moments_that_lie_closer_than_times_are_compared_may_be_one(tmp_path: Path) -> None:
    """Two workers end 5 us apart after a day: whether the second ends by the first's end is no difference."""
    ends = [100000.000000002, 100000.000005002]
    for count, ok in (([1, 0], True), ([1, 1], True), ([0, 0], False), ([1, 2], False)):
        expected = {"iter_end": [[end] for end in ends], "iterations_finished_at_t_first": count}
        one = run_case("asp", expected, T=[100000, 100000.000005])
        assert only(verify(write(tmp_path, cases=[one]))).ok == ok, count


def test_steps_of_weeks_are_run(tmp_path: Path) -> None:
    times = [3e6, 7e8]
    one = run_case("asp", {"iter_end": [[time] for time in times]}, T=times)
    assert only(verify(write(tmp_path, cases=[one]))).ok


def test_a_flow_to_its_own_host_takes_the_nic_both_ways(tmp_path: Path) -> None:
    """By hand: 100 B at 100 B/s and two latencies; beside it one from there to another shares the way out."""
    hosts = {"up": [100, 100], "dn": [100, 100], "lat": [0.001, 0.001]}
    flow = {"src": 0, "dst": 0, "bytes": 100, "start": 0}
    alone = {"name": "alone", "params": {**hosts, "flows": [flow]}, "expected": {"completion": [1.002]}}
    flows = [flow, {**flow, "dst": 1, "bytes": 50}]
    both = {"name": "both", "params": {**hosts, "flows": flows}, "expected": {"completion": [1.502, 1.002]}}
    assert [row.ok for row in verify(write(tmp_path, net_cases=[alone, both]))] == [True, True]


def test_one_time_does_not_stand_for_all_flows(tmp_path: Path) -> None:
    wrong = case("incast4")
    wrong["expected"]["completion"] = wrong["expected"]["completion"][:1]
    with pytest.raises(ScenarioError, match=r"expected\.completion: 'list of 1' is not valid; .* list of 4"):
        verify(write(tmp_path, net_cases=[wrong]))


def test_times_beyond_the_comparable_ones_may_be_left_out(tmp_path: Path) -> None:
    short = case("asp_n2")
    short["comparable_iterations"] = [5, 7]
    short["expected"] = {
        "iter_end": [ends[:k] for ends, k in zip(short["expected"]["iter_end"], (5, 7), strict=True)]
    }
    assert only(verify(write(tmp_path, cases=[short]))).ok
    short["expected"]["iter_end"][1].pop()
    with pytest.raises(ScenarioError, match=r"iter_end\[1\]: 'list of 6' is not valid; .*the first 7"):
        verify(write(tmp_path, cases=[short]))


def test_null_is_as_good_as_missing_where_a_value_may_be_missing(tmp_path: Path) -> None:
    one = case("bsp_n4")
    one.update(compare_until_s=None, comparable_iterations=None)
    one["params"].update(lock=None, eager=None)
    one["expected"].update(makespan=None, finish=None)
    assert only(verify(write(tmp_path, cases=[one]))).ok
    one["params"]["T"] = None
    with pytest.raises(ScenarioError, match=r"params\.T"):
        verify(write(tmp_path, cases=[one]))

"""Recommendations on rows made by hand: the cheapest that is nearly the best, and true reasons."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis import servers
from scenarios import ScenarioError
from tests.analysis.fakes import STEP, make


def one(number: int, rate: float | None, placement: str = "dedicated", sharding: str = "memory",
        share: float | None = None, sums: float = 1.0, blocked: float = 0.4,
        slowest: float = 1.0) -> dict[str, Any]:  # fmt: skip
    done = rate is not None
    fraction = {
        "compute": 1 - blocked,
        "update": 0.0,
        "send": blocked / 2,
        "wait": blocked / 2,
        "receive": 0.0,
    }
    share = 1 / number if share is None else share
    return {
        "servers": number, "placement": placement, "sharding": sharding,
        "outcome": "done" if done else "refused", "message": "" if done else "too many",
        "largest_shard": {"bytes": 4e8 * share, "share": share} if done else None,
        "throughput": rate, "speedup": None, "slowest": slowest if done else None, "step": 1.0,
        "fraction": fraction if done else None, "staleness": None,
        "gradients_per_message": sums if done else None,
        "link": {"name": "server0", "direction": "up", "use": 0.97} if done else None,
    }  # fmt: skip


def test_the_fewest_servers_that_are_nearly_as_fast() -> None:
    rows = [one(1, 100.0), one(2, 197.0), one(4, 199.0), one(8, 200.0)]
    chosen, reasons = servers.recommend(rows)
    assert chosen == 1
    assert reasons[:3] == [
        "197 samples/s, 1.5% less than the best, 8 dedicated servers, memory-wise",
        "more servers gain at most 1.5% from here (with 8)",
        "with 1: 49.2% fewer samples/s",
    ]
    assert servers.recommend(rows, 0.0)[0] == 3
    assert servers.recommend(rows, 0.6)[0] == 0


def test_machines_that_are_there_are_cheaper_than_further_ones() -> None:
    rows = [one(1, 199.0), one(1, 150.0, "beside"), one(8, 198.0, "beside"), one(4, 200.0)]
    chosen, reasons = servers.recommend(rows)
    assert chosen == 2
    assert "on machines of their own at best 1.0% more samples/s (4 servers)" in reasons


def test_the_other_sharding_is_named_with_its_largest_shard() -> None:
    rows = [one(4, 200.0), one(4, 100.0, sharding="layer", share=0.743), one(1, 60.0, sharding="layer")]
    chosen, reasons = servers.recommend(rows)
    assert chosen == 0
    assert "layer-wise: 50.0% fewer samples/s: its largest shard is 74.3% of the model" in reasons
    assert (
        "workers are still blocked for 40% of a step; the busiest link is server0 up, busy for 97% of the run"
        in (reasons)
    )


def test_a_wan_link_goes_by_its_name_alone() -> None:
    wan = {"name": "tokyo > berlin", "direction": "wan", "use": 0.9}
    reasons = servers.recommend([one(1, 100.0) | {"link": wan}])[1]
    assert reasons[-1].endswith("; the busiest link is tokyo > berlin, busy for 90% of the run")


def test_of_equally_fast_rows_the_one_whose_gradients_arrive() -> None:
    rows = [one(1, 100.0, sums=4.0, blocked=0), one(2, 100.0, sums=1.5, blocked=0),
            one(4, 100.0, sums=1.2, blocked=0), one(8, 100.0, sums=1.15, blocked=0)]  # fmt: skip
    chosen, reasons = servers.recommend(rows)
    assert chosen == 2
    assert reasons[0].startswith("throughput hardly depends on the servers here")
    assert reasons[1].endswith("1.20 gradients a message here")
    assert reasons[2:] == ["with 8: 1.15 gradients a message", "with 2: 1.50 gradients a message"]


def test_workers_that_are_left_behind_are_told() -> None:
    """Workers beside a lone server reach it without the network; throughput hides that the others starve."""
    rows = [one(1, 200.0, "beside", slowest=0.35), one(4, 150.0), one(4, 190.0, "beside", slowest=0.6)]
    chosen, reasons = servers.recommend(rows)
    assert chosen == 0
    assert (
        "the slowest worker makes 35% of the mean worker's samples; where all are closer, "
        "150 samples/s at most, with 4 dedicated servers, memory-wise"
    ) in reasons
    assert "slowest" in text(rows, 0, 140)
    assert "slowest" not in text([one(1, 100.0)], 0, 140)


def test_fewer_gradients_a_message_do_not_outweigh_throughput() -> None:
    assert servers.recommend([one(1, 100.0, sums=3.0), one(2, 50.0, sums=1.0)])[0] == 0


@pytest.mark.parametrize("rows", [[], [one(40, None)], [one(40, None), one(2, 10.0)]])
def test_rows_that_are_not_done_are_never_chosen(rows: list[dict[str, Any]]) -> None:
    chosen, reasons = servers.recommend(rows)
    assert chosen == (1 if len(rows) == 2 else None)
    assert bool(reasons) is (len(rows) == 2)


def test_the_largest_number_tried_says_so() -> None:
    assert "no larger number was tried" in servers.recommend([one(1, 100.0), one(2, 190.0)])[1]
    assert "more servers gain nothing from here" in servers.recommend([one(1, 100.0), one(2, 90.0)])[1]


def text(rows: list[dict[str, Any]], chosen: int | None, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for table in servers.tables(rows, chosen, "sweep", width):
        console.print(table)
    return console.export_text()


def test_table_marks_the_row_and_says_what_was_refused() -> None:
    rows = [one(2, 197.0, sums=1.5), one(40, None, sharding="layer")]
    wide, narrow = text(rows, 0, 140), text(rows, 0, 80)
    marked = next(line for line in wide.splitlines() if "recommended" in line)
    for piece in ("2", "dedicated", "memory", "200 MB (50%)", "197", "60.0", "1.50", "server0 up (97 %)"):
        assert piece in marked
    assert any("40" in line and "layer" in line and "refused" in line for line in wide.splitlines())
    assert "Where a step goes" in narrow
    assert "Where a step goes" not in wide


def test_figure_has_a_line_per_placement_and_sharding() -> None:
    rows = [one(1, 100.0), one(2, 197.0), one(1, 90.0, "beside"), one(3, None, "beside")]
    drawn = servers.figure(rows, 1, "sweep")
    first = drawn.axes[0]
    labels = list(first.get_legend_handles_labels()[1])
    assert labels == ["dedicated, memory", "beside, memory"]
    assert first.lines[0].get_ydata().tolist() == [100.0, 197.0]
    assert first.get_ylabel() == "throughput (samples/s)"
    assert drawn.axes[1].get_ylabel() == "blocked, % of a step"
    summed = servers.figure([one(1, 100.0, sums=2.0)], 0)
    assert summed.axes[1].get_ylabel() == "gradients a message"
    with pytest.raises(ScenarioError, match="no run of the sweep is finished"):
        servers.figure([one(3, None)])


def test_row_takes_its_figures_from_a_summary() -> None:
    from analysis import metrics

    found = servers.row(metrics.summary(make([STEP] * 2)))
    assert found["throughput"] == pytest.approx(2 * 10 / 0.2)
    assert found["fraction"]["compute"] == pytest.approx(0.5)
    assert found["gradients_per_message"] == 5.0
    assert found["link"] is None
    assert set(found) == set(servers.row(None))


ROWS = st.lists(
    st.tuples(
        st.integers(1, 16), st.floats(1.0, 1000.0), st.sampled_from(["dedicated", "beside"]),
        st.sampled_from(["memory", "layer"]), st.floats(1.0, 5.0), st.booleans(),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(ROWS, st.floats(0.0, 0.5))
def test_nothing_cheaper_is_as_good_as_what_is_recommended(rows: list[Any], tolerance: float) -> None:
    made = [
        one(number, rate if done else None, placement, sharding, sums=sums)
        for number, rate, placement, sharding, sums, done in rows
    ]
    index, reasons = servers.recommend(made, tolerance)
    done = [row for row in made if row["outcome"] == "done"]
    if index is None:
        assert not done
        return
    chosen = made[index]
    best = max(row["throughput"] for row in done)
    near = [row for row in done if row["throughput"] >= best * (1 - tolerance)]
    assert chosen in near
    least = min(row["gradients_per_message"] for row in near)
    assert chosen["gradients_per_message"] <= least * (1 + servers.SUMMED)

    def price(row: dict[str, Any]) -> tuple[int, int]:
        return (row["servers"] if row["placement"] == "dedicated" else 0), row["servers"]

    good = [row for row in near if row["gradients_per_message"] <= least * (1 + servers.SUMMED)]
    assert price(chosen) == min(map(price, good))
    assert reasons

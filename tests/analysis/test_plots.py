"""Pictures: what is drawn is what the records hold; no text lies on other text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import metrics, pictures, plots
from core.record import EVENTS
from scenarios.errors import ScenarioError
from tests.analysis.fakes import STEP, make

SLOW = {"slowdowns": [{"kind": "fixed", "ranks": [1], "factor": 4.0}]}


def overlaps(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts, of the whole figure, whose boxes intersect by more than a pixel or two."""
    figure.canvas.draw()
    hidden = beyond(figure)
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    return [
        (a, b)
        for (a, x), (b, y) in combinations(boxes, 2)
        if min(x.x1, y.x1) - max(x.x0, y.x0) > 2 and min(x.y1, y.y1) - max(x.y0, y.y0) > 2
    ]


def beyond(figure: Any) -> set[Text]:
    """Labels of ticks outside of what an axis shows, which are not drawn; all texts of hidden axes."""
    found: set[Text] = set()
    for axes in figure.axes:
        if not axes.get_visible():
            found |= set(axes.findobj(Text))
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    found |= {tick.label1, tick.label2}
    return found


def widths(figure: Any) -> list[float]:
    return [patch.get_width() for patch in figure.axes[0].patches]


def test_breakdown_bars_add_up_to_the_step() -> None:
    summaries = [
        metrics.summary(make([STEP] * 4, algorithm=name)) for name in ("bsp", "asp", "arsgd", "aladdin")
    ]
    figure = plots.breakdown(summaries)
    assert sum(widths(figure)) == pytest.approx(4 * 200)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "BSP",
        "ASP",
        "AR-SGD",
        "ALADDIN",
    ]
    assert "ms" in figure.axes[0].get_xlabel()
    assert overlaps(figure) == []


def test_breakdown_tells_slow_from_fast_and_predicted_from_measured() -> None:
    fast, slow = STEP, {**STEP, "compute": 0.4}
    summaries = [
        metrics.summary(make([fast, slow], steps=20, driver=d, cluster=SLOW)) for d in ("sim", "real")
    ]
    figure = plots.breakdown(summaries)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [
        f"ASP, {kind}\n{speed} workers" for kind in ("predicted", "measured") for speed in ("fast", "slow")
    ]
    assert overlaps(figure) == []


def test_timeline_has_a_row_per_node_and_needs_spans() -> None:
    records = [make([STEP] * 6, spans=True, algorithm=name, servers=3) for name in ("bsp", "aladdin")]
    figure = plots.timeline(records)
    assert len(figure.axes) == 2
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["worker 0", "worker 1", "worker 2", "worker 3", "server 0", "server 1"]
    assert figure.axes[0].get_title(loc="left") == "BSP, predicted, 4 of 6 workers, 2 of 3 servers"
    assert overlaps(figure) == []
    with pytest.raises(ScenarioError, match="--spans"):
        plots.timeline([make([STEP])])


def test_timeline_shows_the_time_asked_for() -> None:
    figure = plots.timeline([make([STEP], spans=True)], start=0.0, seconds=0.2)
    bars = [path for group in figure.axes[0].collections for path in group.get_paths()]
    reach = max(path.get_extents().x1 for path in bars if path.get_extents().y0 < 0)
    assert reach == pytest.approx(200)
    assert len(figure.axes[0].collections[0].get_paths()) == 1


def test_a_timelines_legend_names_what_is_shown_and_nothing_else() -> None:
    figure = plots.timeline([make([STEP], spans=True, servers=0)], start=0.0, seconds=0.105)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["compute", "update"]


def test_a_timeline_shows_who_was_away_and_who_was_frozen() -> None:
    record = make([STEP] * 3, spans=True)
    start, end = record.spans["start"], record.spans["end"]
    life = (record.spans["node"] == 1) & (start < 0.5)
    record.spans = {name: column[~life] for name, column in record.spans.items()}
    rows = [(0.1, 2, "freeze"), (0.2, 1, "crash"), (0.3, 2, "thaw"), (0.5, 1, "join")]
    record.events = {
        "time": np.array([row[0] for row in rows]), "node": np.array([row[1] for row in rows]),
        "event": np.array([EVENTS.index(row[2]) for row in rows]), "incarnation": np.array([0, 0, 0, 1]),
    }  # fmt: skip
    assert end.max() > 0.6
    figure = plots.timeline([record], start=0.0, seconds=0.6)
    hatched = [group for group in figure.axes[0].collections if group.get_hatch()]
    assert [group.get_hatch() for group in hatched] == [
        plots.ABSENCES[why] for why in ("not recorded", "away", "frozen")
    ]
    boxes = [group.get_paths()[0].get_extents() for group in hatched]
    assert [(round(box.x0), round(box.x1)) for box in boxes] == [(0, 200), (200, 500), (100, 300)]
    spans = [group for group in figure.axes[0].collections if not group.get_hatch()]
    assert min(group.get_zorder() for group in hatched) > max(group.get_zorder() for group in spans)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[-3:] == ["away", "frozen", "not recorded"]
    assert overlaps(figure) == []


def test_speedup_draws_the_ideal_and_a_line_per_algorithm() -> None:
    summaries = [
        metrics.summary(make([STEP] * n, algorithm=name, driver=driver))
        for name in ("bsp", "asp") for n in (1, 2, 8) for driver in ("sim", "real")
    ]  # fmt: skip
    figure = plots.speedup(summaries)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["ideal", "BSP", "ASP", "hollow: measured"]
    ideal = figure.axes[0].get_lines()[0]
    assert list(ideal.get_xdata()) == list(ideal.get_ydata()) == [1, 8]


@pytest.mark.parametrize("fastest", [900.0, 9_000.0, 90_000.0])
def test_numbers_beside_the_axes_do_not_touch(fastest: float) -> None:
    pairs = [
        {"label": "Post-local SGD n=2 ×10 200 Mbit/s 20 MB shaped/native, frozen", "algorithm": name,
         "predicted": rate, "measured": rate}
        for name in ("asp", "post_local_sgd", "aladdin_l1", "adpsgd") for rate in (237.0, fastest)
    ]  # fmt: skip
    figure = plots.predicted_measured(pairs)
    figure.draw_without_rendering()
    boxes = [one.get_window_extent() for one in figure.axes[0].get_xticklabels()]
    assert len(boxes) >= 2
    assert all(left.x1 + 8 < right.x0 for left, right in pairwise(boxes)), "a digit fits between"


def test_predicted_measured_shows_every_cell_and_its_error() -> None:
    pairs = [
        {"label": f"{name}, n={n}", "algorithm": name, "predicted": 100.0 * n, "measured": 98.0 * n}
        for n in (2, 4) for name in ("bsp", "asp", "arsgd", "aladdin")
    ]  # fmt: skip
    figure = plots.predicted_measured(pairs)
    left, right = figure.axes
    assert [text.get_text() for text in right.get_yticklabels()] == [pair["label"] for pair in pairs]
    errors = [
        line.get_xdata()[1]
        for line in right.get_lines()
        if len(line.get_xdata()) == 2 and line.get_xdata()[1]
    ]
    assert errors == pytest.approx([100 * (100 / 98 - 1)] * 8)
    assert left.get_xscale() == left.get_yscale() == "log"
    assert overlaps(figure) == []


def test_predicted_measured_shows_intervals_and_cuts_none_near_the_values() -> None:
    """One within both axes, one without a lower end, one that reaches far beyond everything."""
    measured = {"predicted": 100.0, "measured": 100.0, "algorithm": "bsp"}
    intervals = [(40.0, 160.0), (-20.0, 220.0), (90.0, 9000.0)]
    pairs = [{**measured, "label": f"cell {low:g}", "low": low, "high": high} for low, high in intervals]
    figure = plots.predicted_measured(pairs)
    left, right = figure.axes
    low, high = left.get_xlim()
    assert low == pytest.approx(100 / 3 / 1.1)
    assert high == pytest.approx(300 * 1.1)
    far = [{**measured, "label": "far", "low": low, "high": 100.0} for low in (34.0, 33.0, 1.0, -1.0)]
    held = [plots.predicted_measured([one]).axes[0].get_xlim()[0] for one in far]
    assert held == pytest.approx([34 / 1.1, *[100 / 3 / 1.1] * 3])
    reach = right.get_xlim()[1]
    arrows = [
        (line.get_marker(), line.get_xdata()[0]) for line in right.get_lines() if line.get_marker() in "<>"
    ]
    assert arrows == [("<", -reach), (">", reach)] * 2 + [("<", -reach), (">", reach)]
    thin = [line.get_xdata() for line in right.get_lines() if line.get_linewidth() == 1]
    ends = [tuple(x) for x in thin if len(x) == 2 and x[0] != x[1]]
    assert ends[0] == pytest.approx((100 * (100 / 160 - 1), 150))
    assert ends[1][0] == pytest.approx(100 * (100 / 220 - 1))
    assert ends[1][1] > reach, "no lower end: it goes on"
    assert right.get_xlabel().endswith("in the measurement's 95 % interval")
    assert overlaps(figure) == []


def test_an_unwritable_picture_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScenarioError, match="cannot be written"):
        plots.save(plots.breakdown([metrics.summary(make([STEP]))]), tmp_path / "file" / "a.png")


def test_runs_get_the_pictures_that_they_hold(tmp_path: Path) -> None:
    runs = {
        f"{driver}{n}": make([STEP] * n, driver=driver, spans=driver == "sim", curves=driver == "real")
        for driver in ("sim", "real") for n in (1, 2)
    }  # fmt: skip
    files = {file.name for file in pictures.draw(runs, tmp_path)}
    assert files == {
        "breakdown-fake-n1.png", "breakdown-fake-n2.png", "timeline-fake-n1.png", "timeline-fake-n2.png",
        "speedup.png", "predicted-measured.png",
        *(f"learning{by}-fake-n{n}.png" for by in ("", "-by-step", "-by-epoch") for n in (1, 2)),
    }  # fmt: skip
    assert all((tmp_path / file).read_bytes()[:4] == b"\x89PNG" for file in files)


def test_a_run_that_was_cut_short_is_marked_and_says_nothing_of_predictions(tmp_path: Path) -> None:
    runs = {driver: make([STEP], driver=driver) for driver in ("sim", "real")}
    drawn: list[list[str]] = []

    def bars(summaries: Sequence[Mapping[str, Any]]) -> Figure:
        figure = breakdown(summaries)
        drawn.append([text.get_text() for text in figure.axes[0].get_yticklabels()])
        return figure

    breakdown = plots.breakdown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "breakdown", bars)
        whole = {file.name for file in pictures.draw(runs, tmp_path / "whole")}
        runs["real"].manifest["flags"] = ["incomplete: nothing moves any more"]
        cut = {file.name for file in pictures.draw(runs, tmp_path / "cut")}
    assert whole - cut == {"predicted-measured.png"}
    assert [name.endswith(", incomplete") for name in drawn[0]] == [False, False]
    assert [name.endswith(", incomplete") for name in drawn[1]] == [False, True]


def test_the_same_record_gives_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plots.save(plots.breakdown([metrics.summary(make([STEP]))]), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_runs_are_paired_only_where_it_is_clear_which_belong_together() -> None:
    def summary(driver: str, algorithm: str, rate: float) -> dict[str, object]:
        run = {"algorithm": algorithm, "driver": driver, "throughput": rate}
        return {"scenario": "demo", "workers": 4, **run}

    runs = [summary("sim", "asp", 100.0), summary("sim", "asp", 7.0), summary("real", "asp", 99.0)]
    runs += [summary("sim", "bsp", 50.0), summary("real", "bsp", 51.0)]
    assert [(one["algorithm"], one["predicted"], one["measured"]) for one in pictures.pairs(runs)] == [
        ("bsp", 50.0, 51.0)
    ]


def test_a_timeline_of_a_part_of_the_run_says_so_and_shows_the_nodes_that_it_has() -> None:
    record = make([STEP] * 3, spans=True, steps=40, sampled={"spans": "the first 9 of 90 spans, until 1 s"})
    keep = (record.spans["node"] != 0) & (record.spans["end"] <= 1.0)
    record.spans = {name: values[keep] for name, values in record.spans.items()}
    axes = plots.timeline([record]).axes[0]
    assert (
        axes.get_title(loc="left") == "ASP, predicted (part of the run: the first 9 of 90 spans, until 1 s)"
    )
    assert [text.get_text() for text in axes.get_yticklabels()][:2] == ["worker 1", "worker 2"]
    assert "from 0 s after the start" in axes.get_xlabel()
    assert axes.get_xlim()[1] <= 1.0, "no empty time after the last span"

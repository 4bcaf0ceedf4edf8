"""Pictures over algorithms and seeds: sixteen of them are told apart and nothing covers anything."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from analysis import curves, metrics, names, pictures, plots, seeds
from core.algorithms import ALGORITHMS
from scenarios.errors import ScenarioError
from tests.analysis.fakes import STEP, make
from tests.analysis.test_plots import overlaps

MANY = sorted(plots.LOOKS)


def table(seed: int, lemma: bool = False) -> dict[str, np.ndarray]:
    time = np.linspace(0, 10, 21)
    wobble = np.random.default_rng(seed).normal(size=21)
    return {
        "time": time, "step": 20 * time, "epoch": time / 2, "loss": 2 / (1 + time) + 0.02 * wobble,
        "accuracy": 1 - 0.9 / (1 + time), "consensus": time * (1 + 0.05 * wobble),
        "lemma": time if lemma else np.full(21, np.nan),
    }  # fmt: skip


def lines(some: list[str]) -> list[curves.Line]:
    return [curves.Line(name, [table(seed, name == "aladdin") for seed in range(3)]) for name in some]


def runs(some: list[str], count: int = 3) -> list[dict]:
    found = []
    for name in some:
        for seed in range(count):
            record = make([STEP] * 3, curves=True, algorithm=name)
            record.steps["wait"] += 0.01 * seed
            found.append({"algorithm": name, "seed": seed, "outcome": "done", "message": "", "path": None,
                          "summary": metrics.summary(record), "curves": table(seed)})  # fmt: skip
    return found


def test_every_algorithm_has_a_look_of_its_own() -> None:
    assert set(ALGORITHMS) <= set(plots.LOOKS)
    looks = [plots.look(name) for name in plots.LOOKS]
    assert len({(one.colour, one.marker) for one in looks}) == len(looks)
    assert len({(one.colour, str(one.dashes)) for one in looks}) == len(looks)
    assert plots.look("mine:New") == plots.look("mine:New")
    assert plots.look("mine:New").colour not in {one.colour for one in looks}


def test_d_psgd_and_ad_psgd_differ_in_colour() -> None:
    assert plots.look("dpsgd").colour != plots.look("adpsgd").colour


@pytest.mark.parametrize("by", seeds.AXES)
def test_learning_curves_of_some_algorithms_stand_together(by: str) -> None:
    some = ["aladdin", "asp", "bsp"]
    figure = curves.learning(lines(some), by, title="demo", accuracy=0.8)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_ylabel().split("\n")[0] for axes in shown] == [
        "loss on the test set", "accuracy (%)", "consensus distance", "Lemma 1: global model's distance",
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in shown} == {curves.X_LABELS[by]}
    assert [axes.get_yscale() for axes in shown] == ["linear", "linear", "log", "log"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [names.label(name) for name in some]
    assert overlaps(figure) == []
    assert all(legend.get_window_extent().x0 >= axes.get_window_extent().x1 for axes in shown)


def test_learning_curves_of_all_algorithms_have_a_column_for_each_family() -> None:
    """Every algorithm is drawn and named in one column, pale in the others, on the same axes."""
    figure = curves.learning(lines([*MANY, "mine:New"]), title="demo", accuracy=0.8)
    grid = np.array(figure.axes, dtype=object).reshape(4, 5)
    shown = np.vectorize(lambda axes: axes.get_visible())(grid)
    assert shown[:3].all()
    assert shown[3].tolist() == [False, False, True, False, False], "Lemma 1 is ALADDIN's"
    named = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in grid[0]]
    assert sorted(chain(*named)) == sorted(names.label(name) for name in [*MANY, "mine:New"])
    assert [axes.get_legend().get_title().get_text() for axes in grid[0]] == [*names.FAMILIES, "others"]
    for row, visible in zip(grid, shown, strict=True):
        panels = row[visible]
        assert len({(*axes.get_xlim(), *axes.get_ylim(), axes.get_yscale()) for axes in panels}) == 1
        assert [bool(axes.get_ylabel()) for axes in panels] == [True] + [False] * (len(panels) - 1)
    pale = [line for line in grid[0, 0].get_lines() if line.get_color() == curves.PALE]
    assert len(pale) + len(named[0]) == len(MANY) + 1
    assert overlaps(figure) == []


def test_every_algorithm_has_a_family() -> None:
    assert sorted(chain(*names.FAMILIES.values())) == sorted(ALGORITHMS)


def test_a_line_is_the_mean_and_its_band_holds_all_seeds() -> None:
    figure = curves.learning(lines(["asp"]))
    axes = figure.axes[0]
    expected = seeds.mean_curve([table(seed) for seed in range(3)], "loss", "time")
    assert axes.get_lines()[0].get_ydata() == pytest.approx(expected["mean"])
    corners = axes.collections[0].get_paths()[0].get_extents()
    assert (corners.y0, corners.y1) == pytest.approx((expected["low"].min(), expected["high"].max()))


def test_panels_that_no_run_has_are_left_out() -> None:
    bare = {name: values for name, values in table(0).items() if name in ("time", "accuracy")}
    figure = curves.learning([curves.Line("asp", [bare])])
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_visible()] == ["accuracy (%)"]
    with pytest.raises(ScenarioError, match="evaluated"):
        curves.learning([curves.Line("asp", [{}])])
    with pytest.raises(ScenarioError, match="time, step, epoch"):
        curves.learning([curves.Line("asp", [bare])], "hours")


def test_axes_are_logarithmic_where_one_line_would_hide_the_others() -> None:
    def scales(slow: float, blown: float) -> tuple[str, str]:
        late, wild = table(0), table(1)
        late["time"] = slow * late["time"]
        wild["loss"] = np.append(wild["loss"][:-1], blown)
        drawn = curves.learning([curves.Line("bsp", [late]), curves.Line("asp", [wild])]).axes[0]
        return drawn.get_xscale(), drawn.get_yscale()

    assert scales(5.0, 2.0) == ("linear", "linear")
    assert scales(20.0, 2.0) == ("log", "linear")
    assert scales(5.0, 1e9) == ("linear", "log")


def test_markers_are_as_far_apart_as_the_axis_shows_them() -> None:
    x = np.geomspace(0.1, 100.0, 700)
    assert np.diff(np.log(x[curves._marks(x, 0.0, True)])) == pytest.approx(np.log(1000) / 7, rel=0.02)
    assert np.diff(x[curves._marks(x, 0.5, False)]) == pytest.approx(99.9 / 7, rel=0.05)
    assert curves._marks(x, 0.5, True)[0] == pytest.approx(50, abs=1)
    assert curves._marks(np.array([0.0, 1.0]), 0.0, True) == [1]
    assert curves._marks(np.zeros(0), 0.0, True) == []


def test_measured_runs_have_hollow_markers() -> None:
    both = [curves.Line("asp", [table(0)], driver) for driver in ("sim", "real")]
    figure = curves.learning(both)
    faces = [line.get_markerfacecolor() for line in figure.axes[0].get_lines()]
    assert faces == [plots.look("asp").colour, "white"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ASP, predicted", "ASP, measured"]


def test_bars_of_all_algorithms_carry_intervals_and_say_what_is_missing() -> None:
    found = runs(MANY)
    for run in found:
        if run["algorithm"] == "bsp":
            run.update(outcome="refused", summary=None, curves=None)
        if run["algorithm"] == "arsgd":
            run["summary"]["staleness"] = None
            run["curves"] = {name: values[:1] for name, values in run["curves"].items()}
        if run["algorithm"] == "asp" and run["seed"] == 2:
            run["curves"] = {name: values[:1] for name, values in run["curves"].items()}
    statistics = seeds.condense(found, 0.9)
    figure = curves.bars(statistics, "demo", 0.9)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    titles = [axes.get_title(loc="left") for axes in shown]
    assert titles[0] == "throughput (samples/s)"
    assert "time to 90 % (s)" in titles
    assert [text.get_text() for text in shown[0].get_yticklabels()] == [
        names.label(one["algorithm"]) for one in statistics
    ]
    texts = {axes.get_title(loc="left"): [t.get_text() for t in axes.texts] for axes in shown}
    assert texts["throughput (samples/s)"] == ["refused"]
    assert sorted(texts["time to 90 % (s)"]) == ["2 of 3 seeds", "not reached", "refused"]
    assert sorted(texts["staleness: mean, p95 |, max ▸"]) == ["none", "refused"]
    assert overlaps(figure) == []
    widths = [patch.get_width() for patch in shown[0].patches]
    assert widths == pytest.approx([one["throughput"]["mean"] for one in statistics if one["throughput"]])


@pytest.mark.parametrize(("lowest", "points"), [(0.55, True), (0.3, False)])
def test_bars_of_accuracies_begin_at_zero_and_points_may_not(lowest: float, points: bool) -> None:
    found = runs(["asp", "bsp", "aladdin"])
    for run in found:
        run["summary"]["accuracy"] = lowest if run["algorithm"] == "asp" else 0.97
    figure = curves.bars(seeds.condense(found), "demo")
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == "final accuracy (%)"]
    assert len(axes.patches) == (0 if points else 3)
    low, high = axes.get_xlim()
    assert (low > 0) == points
    assert low < 100 * lowest < 97 < high
    for other in figure.axes:
        if other.patches and other.get_xscale() == "linear":
            assert other.get_xlim()[0] == 0
    if points:
        drawn = sorted(line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() in "s^o")
        assert drawn == pytest.approx([55, 97, 97])


def test_nothing_finished_is_nothing_to_draw(tmp_path: Path) -> None:
    run = runs(["asp"], 1)[0] | {"outcome": "failed"}
    with pytest.raises(ScenarioError, match="no run"):
        curves.bars(seeds.condense([run]))
    assert pictures.compare(seeds.condense([run]), [run], tmp_path, title="demo") == []


def test_a_comparison_gets_its_pictures(tmp_path: Path) -> None:
    found = runs(["asp", "bsp"])
    files = pictures.compare(seeds.condense(found), found, tmp_path, title="demo")
    assert [file.name for file in files] == [
        "comparison.png", "breakdown.png", "learning.png", "learning-by-step.png", "learning-by-epoch.png",
    ]  # fmt: skip
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in files)
    for run in found:
        run["curves"] = {name: values[:1] for name, values in run["curves"].items()}
    files = pictures.compare(seeds.condense(found), found, tmp_path, title="demo")
    assert [file.name for file in files] == ["comparison.png", "breakdown.png"]


def test_seeds_of_one_run_are_one_bar_and_other_options_another() -> None:
    same = [make([STEP] * 2, run={"seed": seed}) for seed in range(3)]
    other = make([STEP] * 2, cluster={"bandwidth": 1.0})
    keys = [pictures._but_for_the_seed(record) for record in [*same, other]]
    assert len(set(keys)) == 2


@pytest.mark.parametrize("kind", ["speedup", "predicted"])
def test_legends_of_many_algorithms_stand_beside_the_panel(kind: str) -> None:
    if kind == "speedup":
        figure = plots.speedup([metrics.summary(make([STEP] * n, algorithm=name))
                                for name in MANY for n in (1, 4)])  # fmt: skip
    else:
        figure = plots.predicted_measured([
            {"label": name, "algorithm": name, "predicted": 10.0 + k, "measured": 11.0 + k}
            for k, name in enumerate(MANY)
        ])  # fmt: skip
    (legend,) = figure.legends
    figure.canvas.draw()
    assert all(legend.get_window_extent().x0 >= axes.get_window_extent().x1 for axes in figure.axes)
    assert overlaps(figure) == []

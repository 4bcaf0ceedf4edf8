"""Pictures over algorithms and seeds: sixteen of them are told apart and nothing covers anything."""

from __future__ import annotations

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


@pytest.mark.parametrize("by", seeds.AXES)
def test_learning_curves_of_all_algorithms(by: str) -> None:
    figure = curves.learning(lines(MANY), by, title="demo", accuracy=0.8)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_ylabel().split("\n")[0] for axes in shown] == [
        "loss on the test set", "accuracy (%)", "consensus distance", "Lemma 1: global model's distance",
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in shown} == {curves.X_LABELS[by]}
    assert [axes.get_yscale() for axes in shown] == ["linear", "linear", "log", "log"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [names.label(name) for name in MANY]
    assert overlaps(figure) == []
    assert all(legend.get_window_extent().x0 >= axes.get_window_extent().x1 for axes in shown)


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

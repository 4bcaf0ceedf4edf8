"""Figures of cross-checks: rankings gone wrong, means over rounds, simpler models, tables."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from analysis.crosscheck import Cell, combine, predict, rankings, summarize, to_csv
from tests.analysis.fakes import make

CELL = Cell(
    "asp", 4, 1.0, "paced", "native", 110.0, 100.0, 95.0, 105.0, 0.1, 0.5,
    {"compute": 0.5}, {"compute": 0.55}, {"compute": -0.08}, {"no_queueing": 150.0}, {"no_queueing": 0.5},
)  # fmt: skip


def cells(*pairs: tuple[float, float]) -> list[Cell]:
    """Algorithms a, b, ... of one set of circumstances: (predicted, measured)."""
    return [
        replace(CELL, algorithm=name, predicted=said, measured=found, throughput_error=said / found - 1)
        for name, (said, found) in zip("abcd", pairs, strict=False)
    ]


def test_a_ranking_is_wrong_where_values_that_differ_are_predicted_the_other_way_round() -> None:
    (ranking,) = rankings(cells((110, 100), (105, 108), (90, 80)))
    assert ranking.wrong == (("a", "b"),)
    assert (ranking.predicted, ranking.measured) == (("a", "b", "c"), ("b", "a", "c"))
    assert ranking.tau == pytest.approx(1 / 3)
    (close,) = rankings(cells((110, 100), (105, 104), (90, 80)))
    assert close.wrong == (), "4 % are no difference"
    (tied,) = rankings(cells((100, 100), (100, 108)))
    assert tied.wrong == (("a", "b"),), "who is predicted alike is not predicted right"


def test_what_nobody_ranks_is_not_ranked_right() -> None:
    assert [r.tau for r in rankings(cells((100, 100), (100, 108)))] == [0.0]
    assert [r.tau for r in rankings(cells((100, 100), (108, 100)))] == [1.0], "nothing to rank"


def test_only_cells_of_the_same_circumstances_are_ranked() -> None:
    some = cells((110, 100), (90, 80))
    assert rankings([some[0], replace(some[1], n=8)]) == []
    other = [replace(cell, slow=2.0) for cell in some]
    assert len(rankings(some + other)) == 2
    apart = [replace(some[0], bandwidth="mixed", message="4 MB"), replace(some[1], bandwidth="mixed")]
    assert rankings(apart) == []


def test_rounds_are_compared_by_their_means_with_the_interval_of_these() -> None:
    rounds = [
        replace(CELL, predicted=said, measured=found, throughput_error=said / found - 1, flags=(flag,))
        for said, found, flag in ((100, 90, "x"), (110, 100, "x"), (120, 116, "y"))
    ]
    found = combine(rounds)
    assert (found.rounds, found.predicted, found.measured) == (3, 110.0, 102.0)
    assert found.throughput_error == pytest.approx(110 / 102 - 1)
    half = stats.t.ppf(0.975, 2) * stats.sem([90, 100, 116])
    assert (found.low, found.high) == (pytest.approx(102 - half), pytest.approx(102 + half))
    assert found.width == pytest.approx(half / 102)
    assert found.simpler_errors["no_queueing"] == pytest.approx(150 / 102 - 1)
    assert found.flags == ("x", "y")
    assert combine([CELL]) is CELL


def test_hindsight_is_compared_with_the_rounds_that_have_it() -> None:
    known = [
        replace(CELL, measured=found, hindsight=said, hindsight_error=said / found - 1, stretch=stretch)
        for found, said, stretch in ((100.0, 102.0, 1.1), (120.0, 117.0, 0.9))
    ]
    found = combine([*known, replace(CELL, measured=400.0)])
    assert (found.hindsight, found.stretch) == (109.5, 1.0)
    assert found.hindsight_error == pytest.approx(219 / 220 - 1)
    assert combine([CELL, CELL]).hindsight_error is None
    figures = summarize([found, replace(CELL, algorithm="bsp")])["hindsight"]
    assert (figures["cells"], figures["within_5_percent"]) == (1, 1.0)
    assert figures["predicted_median_error"] == abs(found.throughput_error)
    assert summarize([CELL])["hindsight"] == {"cells": 0}


def test_a_prediction_of_several_draws_is_their_mean() -> None:
    records = [make([{"compute": seconds, "wait": 0.1}] * 2) for seconds in (0.4, 0.6)]
    each = [predict(one) for one in records]
    both = predict(records)
    assert both.throughput == pytest.approx((each[0].throughput + each[1].throughput) / 2)
    assert both.parts["compute"] == pytest.approx(0.5)
    assert (both.step, both.slowest, both.draws) == (pytest.approx(0.6), pytest.approx(0.6), 2)
    rates = [one.throughput for one in each]
    assert both.spread == pytest.approx(np.std(rates, ddof=1) / np.mean(rates))
    assert (each[0].draws, each[0].spread) == (1, 0.0)


def test_figures_of_all_cells() -> None:
    """Signed errors of -20, 4, 6 and 10 %; the last two are contended."""
    some = [
        replace(CELL, algorithm=name, throughput_error=e, part_errors={"compute": e / 2}, contention=busy)
        for name, e, busy in (("a", -0.2, 0.1), ("b", 0.04, 0.5), ("c", 0.06, 0.6), ("d", 0.1, 0.9))
    ]
    found = summarize(some)
    assert found["median_error"] == pytest.approx(0.08)
    assert (found["worst_error"], found["worst_cell"][0]) == (0.2, "a")
    assert (found["within_5_percent"], found["parts_within_5_percent"]) == (0.25, 0.75)
    assert found["worst_part_error"] == pytest.approx(0.1)
    assert found["contended"] == {
        "cells": 2, "ours": pytest.approx(0.08),
        "no_queueing": {"error": pytest.approx(0.5), "ours_over_theirs": pytest.approx(0.16)},
    }  # fmt: skip
    assert summarize(some, contended=0.95)["contended"] == {"cells": 0}


def test_cells_as_rows() -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv([replace(CELL, flags=("one", "two"))])))
    assert (row["algorithm"], float(row["throughput_error"])) == ("asp", 0.1)
    assert float(row["part_errors.compute"]) == -0.08
    assert row["flags"] == "one; two"

"""Misses stand beside evidence; figures by level; how well fits fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.crosscheck import Cell
from analysis.verdict import by_level, fits, markdown, misses, words

CELL = Cell(
    "asp", 4, 1.0, "paced", "native", 110.0, 100.0, 95.0, 105.0, 0.1, 0.5,
    {"compute": 0.5, "wait": 0.4}, {"compute": 0.55, "wait": 0.45}, {"compute": -0.05, "wait": -0.07},
    {"no_queueing": 150.0}, {"no_queueing": 0.5}, rounds=3, bandwidth="mixed", message="4 MB", faults="none",
)  # fmt: skip


def test_a_miss_stands_beside_its_evidence() -> None:
    probed = [
        {"step_time.mean": 0.04, "device.slots": 2.0}, {"step_time.mean": 0.05, "device.slots": 2.0},
        {"step_time.mean": 0.044, "device.slots": 1.0},
    ]  # fmt: skip
    (miss,) = misses([CELL, replace(CELL, throughput_error=0.02)], [probed, []])
    assert miss.part == ("wait", -0.07)
    assert not miss.inside
    assert miss.drift == {"device.slots": 1.0, "step_time.mean": pytest.approx(0.25)}
    said = words(miss)
    assert "+10.0%, outside the 95 % interval of 3 rounds (-5.0% … +5.0%)" in said
    assert "most in wait (-7.0% of the step)" in said
    assert "device.slots 100%, step_time.mean 25%" in said
    (beside,) = misses([CELL], others=[0.7], stolen=[0.12])
    assert words(beside).endswith(
        "; other programs kept 0.7 cores busy before"
        "; the machine's host kept up to 12% of the cores that were asked for"
    )
    for share in (None, 0.004):
        (miss,) = misses([CELL], stolen=[share])
        assert "host" not in words(miss)
    known = replace(CELL, hindsight=101.0, hindsight_error=0.01, stretch=1.2)
    said = words(misses([known])[0])
    assert "; its steps took 1.20 times as long as predicted, and with such steps it is +1.0% off" in said
    assert "with such steps" not in words(misses([CELL])[0])
    assert misses([replace(CELL, predicted=104.0, throughput_error=0.04)]) == []


def test_the_worst_miss_comes_first() -> None:
    found = misses([CELL, replace(CELL, throughput_error=-0.3, algorithm="bsp")])
    assert [miss.cell[0] for miss in found] == ["bsp", "asp"]


def test_figures_by_level() -> None:
    cells = [CELL, replace(CELL, n=8, throughput_error=0.01), replace(CELL, n=8, throughput_error=-0.03)]
    found = by_level(cells)
    assert set(found) == {"n"}
    assert found["n"]["8"] == {"cells": 2, "median_error": pytest.approx(0.02), "within_5_percent": 1.0}


def test_the_table() -> None:
    lines = markdown([CELL]).splitlines()
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert "**+10.0%**" in lines[-1]
    assert "+50.0%" in lines[-1]


def test_the_table_says_what_is_left_with_a_cells_own_steps() -> None:
    known = replace(CELL, hindsight=101.0, hindsight_error=0.01, stretch=1.2)
    *_, paced, native = markdown([CELL, known]).splitlines()
    assert "| +1.0% (×1.20) |" in native
    assert paced.count("|") == native.count("|")


def test_the_worst_repetition_speaks_for_a_fit() -> None:
    line = {"r2": 0.99, "residual": 0.02}
    found = fits({
        "step_time": [{"kind": "distribution", "model": "gamma", "ks": 0.1, "p": 0.5},
                      {"kind": "distribution", "model": "lognormal", "ks": 0.3, "p": 0.01}],
        "link.paced": [{"kind": "lines", "lines": {"ping": line}},
                       {"kind": "lines", "lines": {"ping": {"r2": 0.9, "residual": 0.2}}}],
        "tensor_rate": [{"kind": "rates", "rates": {"mix": {"residual": 0.04}}}],
    })  # fmt: skip
    assert found == [
        "step_time: lognormal, KS distance 0.30 (p 0.01)",
        "link.paced, ping: R² 0.9000, largest residual 20.0%",
        "tensor_rate: repetitions lie 4% from the rate (median) at most",
    ]

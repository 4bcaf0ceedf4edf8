"""Tables and documents made of summaries."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from analysis import metrics, report, seeds
from tests.analysis.fakes import STEP, make


def text(table: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=140).print(table)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 µs"),
        (5e-7, "0.5 µs"),
        (0.0123, "12.3 ms"),
        (1.0, "1 s"),
        (1234.5, "1,234 s"),
        (1e300, "1e+300 s"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert report.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (4.5e6, "4.5 MB"),
        (553e6, "553 MB"),
        (999.7e6, "1 GB"),
        (2e15, "2 PB"),
        (3e23, "300,000 EB"),
    ],
)
def test_sizes(count: float, shown: str) -> None:
    assert report.size(count) == shown


def test_table_has_every_figure() -> None:
    shown = text(report.table([metrics.summary(make([STEP] * 4))], "title"))
    for piece in ("title", "ASP", "200 ms", "2.00", "50.0", "5.0", "10.0", "30.0", "2 / 11", "(server 0)"):
        assert piece in shown
    assert "run" not in shown.split("\n")[1]


def test_table_of_trained_runs_shows_accuracy_and_which_run_it_is() -> None:
    both = [metrics.summary(make([STEP] * 2, driver=driver, curves=True)) for driver in ("sim", "real")]
    shown = text(report.table(both))
    assert "predicted" in shown
    assert "measured" in shown
    assert "84.0" in shown


def test_slow_and_fast_workers_get_their_own_rows() -> None:
    cluster = {"slowdowns": [{"kind": "fixed", "ranks": [1], "factor": 4.0}]}
    shown = text(report.table([metrics.summary(make([STEP, {"compute": 0.4}], steps=20, cluster=cluster))]))
    assert "fast workers" in shown
    assert "slow workers" in shown


def test_document_gathers_flags_and_is_strict_json() -> None:
    summaries = [
        metrics.summary(make([STEP], flags=["out of range"], algorithm=name)) for name in ("asp", "bsp")
    ]
    found = report.document(summaries, extra=float("inf"))
    assert found["flags"] == ["out of range"]
    assert [run["algorithm"] for run in found["runs"]] == ["asp", "bsp"]
    assert json.loads(json.dumps(found, allow_nan=False))["extra"] is None


def test_notes_say_what_a_reader_must_know() -> None:
    short = metrics.summary(make([STEP], steps=1, flags=["another hardware"]))
    short["pending"] = 3
    found = report.notes([short])
    assert any("too few steps" in note for note in found)
    assert any("3 gradients" in note for note in found)
    assert found[-1] == "* another hardware"


def test_an_accuracy_on_made_up_images_is_called_so() -> None:
    real, made_up = (
        metrics.summary(make([STEP], curves=True, workload={"data": data}))
        for data in ("digits", "synthetic")
    )
    assert report.MADE_UP in report.notes([real, made_up])
    assert report.MADE_UP not in report.notes([real])
    del made_up["accuracy"]
    assert report.MADE_UP not in report.notes([made_up])


def test_notes_say_how_gradients_were_evaluated_where_that_was_measured() -> None:
    def notes(*ways: tuple[bool, float]) -> list[str]:
        found = []
        for batched, ratio in ways:
            way = {"batched": batched, "chunk": 32, "threads": 1 if batched else 2, "ratio": ratio}
            found.append(metrics.summary(make([STEP] * 4, environment={"numerics": way})))
        return report.notes(found)

    together = "gradients evaluated 32 at a time, with 1 thread (measured: {} times as fast as one by one)"
    assert notes((True, 4.21)) == [together.format("4.2")]
    assert notes((True, 4.94), (True, 4.2), (True, 4.5)) == [together.format("4.2 to 4.9")]
    singly = "gradients evaluated one by one, with 2 threads (measured: batched at 0.5 of that speed)"
    assert notes((False, 0.5), (True, 4.2)) == [singly, together.format("4.2")]
    assert notes((True, 0.0)) == []


def test_comparison_shows_the_error() -> None:
    pair = {"label": "ASP, n=2", "algorithm": "asp", "predicted": 103.0, "measured": 100.0}
    assert "+3.0" in text(report.comparison([pair]))


def test_what_is_next_to_nothing_has_no_minus() -> None:
    pair = {"label": "ASP, n=2", "algorithm": "asp", "predicted": 99.9999, "measured": 100.0}
    assert "-0.0" not in text(report.comparison([pair]))
    summary = metrics.summary(make([STEP] * 4))
    summary["breakdown"]["all"]["fraction"]["wait"] = -1e-12
    assert "-0.0" not in text(report.table([summary]))


def test_a_staleness_that_is_no_count_is_explained() -> None:
    summary = metrics.summary(make([STEP] * 4))
    assert not any("summed up" in note for note in report.notes([summary]))
    summary["staleness"]["max"] = 9.5
    assert any("mean of their staleness" in note for note in report.notes([summary]))


def test_comparison_shows_the_interval_where_it_is_known() -> None:
    pair = {"label": "x", "algorithm": "asp", "predicted": 1.0, "measured": 0.0, "low": 120.0, "high": 130.0}
    assert "120 … 130" in text(report.comparison([pair]))


def test_constants_have_units_and_intervals() -> None:
    found = {
        "link.bandwidth": {
            "value": 2.5e9,
            "unit": "bytes/s",
            "low": 2.4e9,
            "high": 2.6e9,
            "samples": 9,
            "note": "n",
        },
        "link.latency": {"value": 2e-4, "unit": "s", "low": -1e-5, "high": 3e-4, "samples": 9},
        "link.paced_efficiency": {"value": 0.99, "unit": "1", "low": 0.98, "high": 1.0, "samples": 9},
    }
    shown = text(report.constants(found))
    for piece in ("2.5 GB/s", "2.4 GB/s … 2.6 GB/s", "200 µs", "-10 µs … 300 µs", "0.98 … 1"):
        assert piece in shown


def test_figures_of_a_crosscheck_in_words() -> None:
    found = {
        "cells": 8, "median_error": 0.01, "p90_error": 0.02, "worst_error": 0.031,
        "worst_cell": ["asp", 4, 1.0, "paced", "native"], "within_5_percent": 1.0, "worst_part_error": 0.04,
        "rankings": 2, "rankings_wrong": [[2, 4.0, "native", "paced", ["asp", "bsp"]]],
        "contended": {"cells": 4, "ours": 0.01, "no_queueing": {"error": 0.2, "ours_over_theirs": 0.05}},
    }  # fmt: skip
    lines = "\n".join(report.figures(found))
    for piece in (
        "8 cells",
        "1.0% (median)",
        "(worst: ASP, n = 4, paced links, native steps)",
        "ASP / BSP, n = 2, one worker 4 times slower, native links, paced steps",
        "'no queueing': 20.0%",
    ):
        assert piece in lines
    known = {
        "cells": 3, "predicted_within_5_percent": 1 / 3, "within_5_percent": 1.0, "median_error": 0.01,
        "worst_error": 0.04,
    }  # fmt: skip
    assert "hindsight" not in lines
    assert report.figures({**found, "hindsight": known})[-1] == (
        "3 cells with native steps: 33% within 5 %; "
        "with steps as long as the runs' own, known afterwards: 100% (median 1.0%, worst 4.0%)"
    )
    assert "all right" in "\n".join(
        report.figures({**found, "rankings_wrong": [], "contended": {"cells": 0}})
    )


def test_algorithms_have_means_intervals_and_notes() -> None:
    runs = [
        {"algorithm": name, "seed": seed, "outcome": "done", "message": "", "curves": record.curves,
         "summary": metrics.summary(record) | {"throughput": 1000.0 + 20 * seed, "consensus": 2e40 * seed}}
        for name in ("asp", "arsgd") for seed in range(3)
        for record in [make([STEP] * 4, algorithm=name, curves=True)]
    ]  # fmt: skip
    runs[0]["curves"] = {}
    runs[-1] |= {"outcome": "diverged", "message": "loss is nan", "summary": None}
    found = seeds.condense(runs, 0.5)
    shown = text(report.algorithms(found, "demo", 0.5, 140)[0])
    for piece in (
        "1,020 ± 50", "2 / 11 / 11", "600 B (server)", "750 ms", "2 of 3", "2 of 2", "84.0", "(2 ± 5)e+40",
        "AR-SGD*",
    ):  # fmt: skip
        assert piece in shown
    assert report.algorithm_notes(found, 0.5) == [
        "ASP: the time to 50 % is the mean of the 2 seeds that reached it, out of 3",
        "* AR-SGD: 1 diverged of 3: loss is nan",
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([None], "–"), ([0.012], "0.012"), ([1234.5], "1,234"), ([1.0, 3.0], "2 ± 13"),
        ([100.0, 100.2], "100.1 ± 1.3"), ([1e-6, 2e-6], "(2 ± 6)e-06"), ([5.0, 5.0], "5"),
    ],
)  # fmt: skip
def test_a_mean_has_the_digits_that_its_interval_deserves(values: list[float | None], shown: str) -> None:
    assert report._mean(seeds.estimate(values)) == shown


@pytest.mark.parametrize("width", [80, 116, 136, 200])
def test_tables_of_all_algorithms_fit_the_terminal(width: int) -> None:
    record = make([STEP] * 4, curves=True)
    runs = [
        {"algorithm": name, "seed": seed, "outcome": "done", "message": "", "curves": record.curves,
         "summary": metrics.summary(record) | {
            "throughput": 123456.0 + 3210 * seed, "accuracy": 0.9 + seed / 50,
            "speedup": 12.3 + seed, "consensus": 0.00123 * seed}}
        for name in ("post_local_sgd", "aladdin_l1") for seed in range(3)
    ]  # fmt: skip
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for table in report.algorithms(seeds.condense(runs, 0.5), "demo", 0.5, width):
        console.print(table)
    assert "…" not in stream.getvalue()
    for piece in ("Post-local SGD", "consensus", "busiest node", "time to"):
        assert piece in stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_tables_fit_the_terminal(width: int) -> None:
    cluster = {"slowdowns": [{"kind": "fixed", "ranks": [1], "factor": 4.0}]}
    record = make(
        [STEP, {"compute": 0.4}],
        steps=20,
        cluster=cluster,
        driver="real",
        curves=True,
        algorithm="aladdin_l1",
    )
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for table in report.tables([metrics.summary(record)], "title", width):
        console.print(table)
    shown = stream.getvalue()
    assert "…" not in shown
    for piece in ("ALADDIN-L1", "samples/s", "compute", "staleness", "slow workers", "accuracy"):
        assert piece in shown


def condensed(**changes: object) -> dict[str, object]:
    """An algorithm's statistics over three seeds."""
    mean = {"mean": 1301.4055, "half": 2e-6, "count": 3}
    return {
        "algorithm": "asp", "runs": 3, "outcomes": {"done": 3}, "messages": [], "reached": 3,
        "throughput": mean, "speedup": mean, "time_to_accuracy": mean, "accuracy": mean,
        "consensus": {"mean": 5.8e-05, "half": 2.8e-05, "count": 3}, "busiest_role": "server",
        **dict.fromkeys(("staleness_mean", "staleness_p95", "staleness_max"), mean),
        "busiest_bytes_per_step": mean, **changes,
    }  # fmt: skip


def test_an_interval_of_rounding_alone_is_not_shown() -> None:
    shown = text(report.algorithms([condensed()])[0])
    assert "1,301" in shown
    assert "± 0.0000" not in shown


@pytest.mark.parametrize("width", [100, 136, 200])
def test_no_cell_is_cut_short_where_two_tables_hold_all(width: int) -> None:
    wide = {"mean": 123456.789, "half": 0.1234, "count": 3}
    found = [condensed(throughput=wide, speedup=wide)]
    for table in report.algorithms(found, accuracy=0.94, width=width):
        console = Console(width=width)
        with console.capture() as capture:
            console.print(table)
        assert "…" not in capture.get()

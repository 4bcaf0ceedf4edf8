"""Measures what docs/findings.md reports: ALADDIN's readings, coalescing, consensus distance.

    python benchmarks/findings.py readings|coalesce|consensus [--seeds 10] [--out FILE]

Every cell is the bundled scenario ``digits`` with the fields that the table names, trained in virtual
time over so many seeds; figures are means with 95 % intervals (Student's t). The table is Markdown.
``aladdin compare digits --accuracy 0.95 --seeds 10`` measures the rest of that page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

import scenarios
from aladdin.pool import outcomes
from analysis import metrics
from analysis.seeds import estimate

Cell = tuple[tuple[str, ...], dict[str, Any]]
"""What a row of the table is called, and the fields that make it."""

ACCURACY = 0.95


def readings() -> tuple[tuple[str, ...], list[Cell]]:
    """Every reading of ALADDIN's ambiguous lines, with and without momentum on the workers."""
    cells: list[Cell] = []
    for momentum in (0.9, 0.0):
        common = {"algorithm.momentum": momentum}
        told = f"{momentum:g}"
        cells.append((("BSP", "–", "–", "–", told), {"algorithm.name": "bsp", **common}))
        for reduce in ("sum", "mean"):
            options = {"algorithm.name": "aladdin_l1", "algorithm.reduce": reduce, **common}
            cells.append((("L1", "–", "–", reduce, told), options))
        for reduce, pi in product(("sum", "mean"), (1, 2, 4)):
            options = {"algorithm.name": "aladdin_l2", "algorithm.pi": pi, "algorithm.reduce": reduce}
            cells.append((("L2", str(pi), "n_pi", reduce, told), options | common))
        for reduce, alpha, pi in product(("sum", "mean"), ("n_pi", "count", 0.5), (1, 2, 4)):
            options = {"algorithm.pi": pi, "algorithm.alpha": alpha, "algorithm.reduce": reduce, **common}
            cells.append((("full", str(pi), str(alpha), reduce, told), options))
    both = {"algorithm.momentum": 0.9, "algorithm.server_momentum": 0.9, "algorithm.reduce": "sum"}
    for name, kind in (("L1", "aladdin_l1"), ("L2", "aladdin_l2"), ("full", "aladdin")):
        row = (name, "–" if name == "L1" else "2", "–" if name == "L1" else "n_pi", "sum", "0.9, server 0.9")
        cells.append((row, {"algorithm.name": kind, **both}))
    return ("variant", "π", "α", "reduce", "momentum"), cells


def coalesce() -> tuple[tuple[str, ...], list[Cell]]:
    """What a worker does while its link is busy, on ever slower links."""
    cells: list[Cell] = []
    rates = ("25 Mbit/s", "6 Mbit/s", "1.5 Mbit/s")
    for rate, reduce, busy in product(rates, ("sum", "mean"), ("coalesce", "wait")):
        options = {"cluster.bandwidth": rate, "algorithm.reduce": reduce, "algorithm.on_busy": busy}
        cells.append(((rate, reduce, busy), options))
    return ("bandwidth", "reduce", "on_busy"), cells


def consensus() -> tuple[tuple[str, ...], list[Cell]]:
    """How far replicas lie apart, centralized against decentralized algorithms."""
    names = (
        "bsp", "asp", "ssp", "easgd", "aladdin", "arsgd", "local_sgd", "dpsgd", "adpsgd", "sgp", "gosgd",
    )  # fmt: skip
    kinds = {name: scenarios.load("digits", {"algorithm.name": name}).algorithm.make() for name in names}
    return ("algorithm", "kind"), [
        ((name, "centralized" if kind.centralized else "decentralized"), {"algorithm.name": name})
        for name, kind in kinds.items()
    ]


PARTS = {"readings": readings, "coalesce": coalesce, "consensus": consensus}

FIGURES = ("accuracy", "loss", "consensus", "lemma", "seconds", "staleness")


def measure(cells: list[Cell], seeds: int, jobs: int) -> Iterator[dict[str, Any]]:
    """Per cell, an ``estimate`` over the seeds of each of ``FIGURES``, and how many runs were finished."""
    work = [
        {"scenario": scenarios.load("digits", {**options, "run.seed": seed, "run.threads": 1}).to_dict(),
         "profile": None, "path": None}
        for _, options in cells for seed in range(seeds)
    ]  # fmt: skip
    found: list[dict[str, Any]] = [{} for _ in work]
    for done, (index, outcome) in enumerate(outcomes(work, jobs), start=1):
        found[index] = outcome
        print(f"\r{done} of {len(work)} runs", end="", file=sys.stderr)
    print(file=sys.stderr)
    for place in range(len(cells)):
        runs = found[place * seeds : (place + 1) * seeds]
        ended = [run for run in runs if run["outcome"] == "done"]
        rows = [figures(run) for run in ended]
        yield {name: estimate([row[name] for row in rows]) for name in FIGURES} | {
            "outcomes": [run["outcome"] for run in runs]
        }


def figures(run: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of one run: at its end, or (distances) their mean over the second half of the epochs."""
    curves, summary = run["curves"], run["summary"]
    lemma = {"epoch": np.array(curves["epoch"]), "consensus": np.array(curves["lemma"])}
    staleness = summary["staleness"]
    return {
        "accuracy": 100 * summary["accuracy"],
        "loss": summary["loss"],
        "consensus": summary["consensus"],
        "lemma": metrics.consensus(lemma),
        "seconds": summary["seconds"],
        "staleness": staleness["mean"] if staleness else None,
    }


def shown(value: Mapping[str, Any] | None) -> str:
    """A mean with half of its interval, to the digits that the interval leaves."""
    if value is None:
        return "–"
    known = value["half"] is not None and value["half"] > 1e-9 * abs(value["mean"])
    half = f" ± {value['half']:.2g}" if known else ""
    return f"{value['mean']:.4g}{half}"


def table(names: tuple[str, ...], cells: list[Cell], found: list[dict[str, Any]]) -> str:
    """All cells as a Markdown table."""
    heads = (*names, "accuracy, %", "test loss", "consensus distance", "Lemma-1 distance", "simulated s",
             "staleness", "not finished")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for (row, _), one in zip(cells, found, strict=True):
        failed = [outcome for outcome in one["outcomes"] if outcome != "done"]
        values = [shown(one[name]) for name in FIGURES]
        lines.append(f"| {' | '.join((*row, *values, ', '.join(failed) or '0'))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, measure, print (and write) the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    names, cells = PARTS[asked.part]()
    text = table(names, cells, list(measure(cells, asked.seeds, asked.jobs)))
    print(text, end="")
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

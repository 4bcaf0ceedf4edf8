"""Pictures of a calibration: probes and the fits to them, so that everybody can see whether they fit.

Rules this module obeys:

* It draws what a profile's notes hold (``analysis.goodness``); no record is needed.
* Every repetition of a probe is drawn, each in a colour of its own: where they lie apart, one sees it.
* Axes carry units. The same profile gives the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import plots
from analysis.calibrate import distribution
from scenarios.profile import Profile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "lines", "rates", "step_times"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def draw(profile: Profile, folder: str | Path) -> list[Path]:
    """Write a picture for every fit in the profile's notes; returns the files."""
    written = []
    for name, repetitions in profile.notes.get("fits", {}).items():
        figure = _KINDS[repetitions[0]["kind"]](repetitions, name)
        written.append(plots.save(figure, Path(folder) / f"{name.replace('.', '-')}.png"))
    return written


def step_times(repetitions: Sequence[Mapping[str, Any]], title: str = "step_time") -> Figure:
    """Empirical distributions of step times and the fitted ones."""
    figure, axes = _canvas(title)
    for turn, one in enumerate(repetitions):
        times = np.sort(np.asarray(one["times"]))
        colour = COLOURS[turn % len(COLOURS)]
        share = np.arange(1, len(times) + 1) / len(times)
        axes.step(1e3 * times, share, where="post", color=colour, label=f"measured, repetition {turn + 1}")
        if one["model"] == "constant":
            axes.axvline(1e3 * one["mean"], color=colour, linestyle="--", label="constant")
            continue
        span = np.linspace(0.95 * times[0], 1.05 * times[-1], 200)
        fitted = distribution(one["model"], one["mean"], one["spread"]).cdf(span)
        label = f"{one['model']}, KS {one['ks']:.2f} (p {one['p']:.2f})"
        axes.plot(1e3 * span, fitted, "--", color=colour, label=label)
    axes.set_xlabel("step time in ms")
    axes.set_ylabel("share of steps that are shorter")
    axes.legend(fontsize=8, frameon=False)
    return figure


def lines(repetitions: Sequence[Mapping[str, Any]], title: str = "link") -> Figure:
    """Seconds over bytes: medians with the middle 95 %, and the fitted line with its relative residual."""
    names = list(repetitions[0]["lines"])
    figure, panels = _panels(title, len(names))
    for axes, name in zip(panels, names, strict=True):
        for turn, one in enumerate(repetitions):
            own, colour = one["lines"][name], COLOURS[turn % len(COLOURS)]
            size, median = np.asarray(own["bytes"]) / 1e6, 1e3 * np.asarray(own["seconds"])
            low, high = (1e3 * np.asarray(own[bound]) for bound in ("low", "high"))
            axes.errorbar(size, median, [median - low, high - median], fmt="o", ms=4, capsize=2, color=colour)
            ends = np.array([0.0, size.max()])
            fitted = 1e3 * (own["intercept"] + own["slope"] * 1e6 * ends)
            axes.plot(ends, fitted, color=colour, label=f"R² {own['r2']:.4f}, off by {own['residual']:.1%}")
            band = own["residual"] * fitted
            axes.fill_between(ends, fitted - band, fitted + band, color=colour, alpha=0.12, linewidth=0)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("MB")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel(repetitions[0]["what"].replace("seconds", "ms"))
    return figure


def rates(repetitions: Sequence[Mapping[str, Any]], title: str = "tensor_rate") -> Figure:
    """Rates of tensor operations: medians with the middle 95 % of their repetitions."""
    names = list(repetitions[0]["rates"])
    figure, axes = _canvas(title)
    for turn, one in enumerate(repetitions):
        at = np.arange(len(names)) + 0.12 * turn
        own = [one["rates"].get(name) for name in names]
        middle, low, high = (
            np.array([rate[key] / 1e9 if rate else np.nan for rate in own]) for key in ("rate", "low", "high")
        )
        axes.errorbar(
            at, middle, [middle - low, high - middle], fmt="o", ms=4, capsize=2,
            color=COLOURS[turn % len(COLOURS)], label=f"repetition {turn + 1}",
        )  # fmt: skip
    axes.set_xticks(np.arange(len(names)), names)
    axes.set_ylabel("GB/s of a parameter vector")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _canvas(title: str) -> tuple[Figure, Any]:
    figure, panels = _panels(title, 1)
    return figure, panels[0]


def _panels(title: str, count: int) -> tuple[Figure, Any]:
    """A figure with ``count`` axes side by side, under one title."""
    figure, axes = plots.canvas(1.8 + 3.4 * count, 3.8, widths=[1.0] * count)
    panels = np.atleast_1d(axes)
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    for one in panels:
        one.grid()
    return figure, panels


_KINDS = {"distribution": step_times, "lines": lines, "rates": rates}

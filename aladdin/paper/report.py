"""``aladdin.paper.paper``: run the chosen experiments, write the report and its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from aladdin import pool
from aladdin.paper import (
    breakdown,
    epochs,
    gossip,
    heterogeneity,
    learning,
    scaling,
    table2,
    theorem,
    timelines,
)
from aladdin.paper.cases import Case, Results, Unfinished, perform
from aladdin.paper.keeping import Kept
from analysis.paper import Section
from analysis.paper.published import notes
from scenarios import ScenarioError, files

__all__ = ["EXPERIMENTS", "Experiment", "Paper", "paper"]

SEEDS = 5


class Experiment(NamedTuple):
    """What it needs, and how a section is made of it. ``slow`` ones run only when they are asked for."""

    title: str
    wanted: Callable[[], Iterable[Case]]
    section: Callable[[Results], Section]
    slow: bool = False
    notes: str = ""


def _learning(images: learning.Images) -> dict[str, Experiment]:
    """What trains models, on these images."""
    makers = {
        "figure1b": ("parameter variance", learning.mixing),
        "figure4": ("convergence", learning.convergence),
        "figure6": ("accuracy with a straggler", learning.robustness),
        "figure7": ("ablation", learning.ablation),
        "figure8a": ("accuracy by π", learning.period),
        "dpsgd-convergence": ("D-PSGD's and AD-PSGD's convergence", epochs.section),
    }
    return {
        name: Experiment(
            title, partial(learning.wanted, images, name), partial(make, images=images), True, images.notes
        )
        for name, (title, make) in makers.items()
    }


EXPERIMENTS: dict[str, Experiment] = {
    "figure1a": Experiment("communication overhead", breakdown.wanted1a, breakdown.figure1a),
    "figure2": Experiment("breakdown of ASP's time", breakdown.wanted2, breakdown.figure2),
    "figure3": Experiment("timelines", timelines.wanted, timelines.figure3),
    "table2": Experiment("training times", table2.wanted, table2.section),
    "figure5": Experiment("speed-up", scaling.wanted5, scaling.figure5),
    "table3": Experiment("heterogeneous clusters", heterogeneity.wanted, heterogeneity.section),
    "figure8": Experiment("speed-up by π", scaling.wanted8, scaling.figure8),
    "theorem1": Experiment("Theorem 1's bound along runs", theorem.wanted, theorem.theorem1),
    "dpsgd-table1": Experiment("traffic of the busiest node", gossip.wanted_traffic, gossip.traffic),
    "dpsgd-figure2": Experiment("epochs on slow networks", gossip.wanted_bandwidth, gossip.bandwidth),
    "dpsgd-figure3": Experiment("shared PCIe channels", gossip.wanted_channels, gossip.channels),
    "dpsgd-112": Experiment("112 nodes", gossip.wanted_large, gossip.large),
    "adpsgd": Experiment("128 workers, shared network", gossip.wanted_shared, gossip.shared),
    **_learning(learning.SMALL),
}


@dataclass(frozen=True)
class Paper:
    """What was found: a section per experiment; ``path`` is the directory that was written, or None.

    missing  experiments that were asked for and, stopped by Ctrl-C, are not finished
    """

    sections: Sequence[Section]
    seeds: Sequence[int]
    path: Path | None = None
    pictures: Sequence[Path] = field(default_factory=list)
    missing: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        from analysis.store import plain

        tree: dict[str, Any] = plain({
            "seeds": list(self.seeds), "complete": not self.missing, "missing": list(self.missing),
            "sections": [one.to_dict() for one in self.sections],
            "path": self.path, "pictures": list(self.pictures),
        })  # fmt: skip
        return tree


def paper(
    only: Sequence[str] | str = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data_dir: str | Path | None = None,
    seeds: int = SEEDS,
    jobs: int | None = None,
    on_progress: Callable[[float, int], None] | None = None,
) -> Paper:
    """Regenerate the papers' tables and figures on the simulator, beside the published values.

    only         names out of ``EXPERIMENTS``, a list or a text such as ``"table2,figure5"``; empty: all that
                 concern time, ``"all"``: those that train models as well
    out          new directory for ``report.md``, ``report.json``, the pictures, and ``runs.jsonl``: every
                 finished run
    resume       ``out`` holds an earlier report, finished or not: its runs count. What is chosen, and on how
                 many seeds, may differ
    data_dir     folder that holds CIFAR-10: what trains models is then trained on it (``learning.cifar10``)
    seeds        runs of each case, on the seeds 0, 1, ...
    jobs         processes; default: as many as there are cores. The number changes nothing
    on_progress  called now and then with the runs done and the runs in all

    Stopped by Ctrl-C it writes the report of the experiments that are finished to ``out`` and raises
    ``KeyboardInterrupt``, whose ``paper`` holds it and whose ``path`` says where. Raises ``ScenarioError``
    for bad input and ``Unfinished`` where a run fails.
    """
    names = _names(only)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 1 <= seeds <= 1000:
        raise ScenarioError("seeds", seeds, "a number of seeds between 1 and 1000")
    experiments = _with_data(names, data_dir)
    path, kept = _place(out, resume)
    chosen = {name: experiments[name] for name in names}
    processes = pool.size(jobs, ())
    wanted = {name: list(one.wanted()) for name, one in chosen.items()}
    runs: dict[tuple[Case, int], Mapping[str, Any]] = {}
    sections: dict[str, Section] = {}
    results = Results(range(seeds), runs)
    try:
        perform(chain(*wanted.values()), range(seeds), processes, on_progress, kept, runs)
        for name, one in chosen.items():
            sections[name] = _section(name, one, results)
        return _written(Paper(list(sections.values()), range(seeds)), path)
    except Unfinished as stop:
        stop.path = path if kept else None
        raise
    except KeyboardInterrupt as stop:
        for name, one in chosen.items():
            if wanted[name] and all((each, seed) in runs for each in wanted[name] for seed in range(seeds)):
                sections[name] = sections.get(name) or _section(name, one, results)
        missing = [name for name in names if name not in sections]
        in_order = [sections[name] for name in names if name in sections]
        stop.paper = _written(Paper(in_order, range(seeds), missing=missing), path)  # type: ignore[attr-defined]
        stop.path = path if kept else None  # type: ignore[attr-defined]
        raise


def _section(name: str, one: Experiment, results: Results) -> Section:
    return replace(one.section(results), notes=notes(one.notes or name))


def _place(out: str | Path | None, resume: bool) -> tuple[Path | None, Kept | None]:
    """The directory to write to, checked, and the runs that are kept there."""
    if out is None:
        if resume:
            raise ScenarioError("resume", True, "a directory to go on from (out)")
        return None, None
    from analysis.store import reserve

    path = Path(out) if resume else reserve(out)
    return path, Kept(path, resume)


def _with_data(names: Sequence[str], data_dir: str | Path | None) -> dict[str, Experiment]:
    """All experiments; those that train models on CIFAR-10 where a folder with it is given."""
    if data_dir is None:
        return EXPERIMENTS
    if not any(EXPERIMENTS[name].slow for name in names):
        slow = ", ".join(name for name, one in EXPERIMENTS.items() if one.slow)
        raise ScenarioError("data_dir", str(data_dir), f"nothing, unless one of {slow} is asked for (only)")
    return {**EXPERIMENTS, **_learning(learning.cifar10(data_dir))}


def _written(found: Paper, path: Path | None) -> Paper:
    """Report and pictures, if there is a directory for them and anything to report."""
    if path is None or not found.sections:
        return found
    from analysis.paper import pictures
    from analysis.paper.report import markdown

    path.mkdir(parents=True, exist_ok=True)
    drawn = [pictures.draw(one, path) for section in found.sections for one in section.pictures]
    if any(section.name == "figure3" for section in found.sections):
        drawn += timelines.draw(path)
    for picture in _former_pictures(path) - {one.name for one in drawn}:
        (path / picture).unlink(missing_ok=True)
    text = markdown(found.sections, len(found.seeds), found.missing)
    (path / "report.md").write_text(text, encoding="utf-8")
    done = replace(found, path=path, pictures=drawn)
    document = json.dumps(done.to_dict(), indent=2, allow_nan=False) + "\n"
    (path / "report.json").write_text(document, encoding="utf-8")
    return done


def _former_pictures(path: Path) -> set[str]:
    """File names of the pictures that an earlier report in this directory says it drew."""
    try:
        report = json.loads(files.text(path / "report.json"))
        return {Path(one).name for one in report["pictures"] if Path(one).suffix == ".png"}
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _names(only: Sequence[str] | str) -> list[str]:
    parts = only.split(",") if isinstance(only, str) else only
    names = [part.strip() for part in parts if part.strip()]
    if names == ["all"]:
        return list(EXPERIMENTS)
    unknown = next((name for name in names if name not in EXPERIMENTS), None)
    if unknown is not None or (only and not names):
        raise ScenarioError("only", unknown or only, f"some of {', '.join(EXPERIMENTS)}, or all")
    return [name for name, one in EXPERIMENTS.items() if (name in names if names else not one.slow)]

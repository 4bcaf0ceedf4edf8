"""``aladdin.paper.paper``: run the chosen experiments, write the report and its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from aladdin import pool
from aladdin.paper import breakdown, gossip, heterogeneity, learning, scaling, table2, theorem, timelines
from aladdin.paper.cases import Case, Results, perform
from analysis.paper import Section
from analysis.paper.published import notes
from scenarios import ScenarioError

__all__ = ["EXPERIMENTS", "Experiment", "Paper", "paper"]

SEEDS = 5


class Experiment(NamedTuple):
    """What it needs, and how a section is made of it. ``slow`` ones run only when they are asked for."""

    title: str
    wanted: Callable[[], Iterable[Case]]
    section: Callable[[Results], Section]
    slow: bool = False


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
    "figure1b": Experiment("parameter variance", learning.wanted, learning.mixing, slow=True),
    "figure4": Experiment("convergence", learning.wanted, learning.convergence, slow=True),
    "figure6": Experiment("accuracy with a straggler", learning.wanted, learning.robustness, slow=True),
    "figure7": Experiment("ablation", learning.wanted, learning.ablation, slow=True),
    "figure8a": Experiment("accuracy by π", learning.wanted, learning.period, slow=True),
}


@dataclass(frozen=True)
class Paper:
    """What was found: a section per experiment; ``path`` is the directory that was written, or None."""

    sections: Sequence[Section]
    seeds: Sequence[int]
    path: Path | None = None
    pictures: Sequence[Path] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        from analysis.store import plain

        tree: dict[str, Any] = plain({
            "seeds": list(self.seeds), "sections": [one.to_dict() for one in self.sections],
            "path": self.path, "pictures": list(self.pictures),
        })  # fmt: skip
        return tree


def paper(
    only: Sequence[str] | str = (),
    *,
    out: str | Path | None = None,
    seeds: int = SEEDS,
    jobs: int | None = None,
    on_progress: Callable[[float, int], None] | None = None,
) -> Paper:
    """Regenerate the papers' tables and figures on the simulator, beside the published values.

    only         names out of ``EXPERIMENTS``, a list or a text such as ``"table2,figure5"``; empty: all that
                 concern time, ``"all"``: those that train models as well
    out          new directory for ``report.md``, ``report.json`` and the pictures
    seeds        runs of each case, on the seeds 0, 1, ...
    jobs         processes; default: as many as there are cores. The number changes nothing
    on_progress  called now and then with the runs done and the runs in all

    Raises ``ScenarioError`` for bad input and ``Unfinished`` where a run fails.
    """
    names = _names(only)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or not 1 <= seeds <= 1000:
        raise ScenarioError("seeds", seeds, "a number of seeds between 1 and 1000")
    path = None
    if out is not None:
        from analysis.store import reserve

        path = reserve(out)
    chosen = [EXPERIMENTS[name] for name in names]
    processes = pool.size(jobs, ())
    results = perform(chain(*(one.wanted() for one in chosen)), range(seeds), processes, on_progress)
    sections = [
        replace(one.section(results), notes=notes(name)) for name, one in zip(names, chosen, strict=True)
    ]
    return _written(Paper(sections, range(seeds)), path)


def _written(found: Paper, path: Path | None) -> Paper:
    """Report and pictures, if there is a directory for them."""
    if path is None:
        return found
    from analysis.paper import pictures
    from analysis.paper.report import markdown

    path.mkdir(parents=True, exist_ok=True)
    drawn = [pictures.draw(one, path) for section in found.sections for one in section.pictures]
    if any(section.name == "figure3" for section in found.sections):
        drawn += timelines.draw(path)
    (path / "report.md").write_text(markdown(found.sections, len(found.seeds)), encoding="utf-8")
    done = Paper(found.sections, found.seeds, path, drawn)
    document = json.dumps(done.to_dict(), indent=2, allow_nan=False) + "\n"
    (path / "report.json").write_text(document, encoding="utf-8")
    return done


def _names(only: Sequence[str] | str) -> list[str]:
    parts = only.split(",") if isinstance(only, str) else only
    names = [part.strip() for part in parts if part.strip()]
    if names == ["all"]:
        return list(EXPERIMENTS)
    unknown = next((name for name in names if name not in EXPERIMENTS), None)
    if unknown is not None or (only and not names):
        raise ScenarioError("only", unknown or only, f"some of {', '.join(EXPERIMENTS)}, or all")
    return [name for name, one in EXPERIMENTS.items() if (name in names if names else not one.slow)]

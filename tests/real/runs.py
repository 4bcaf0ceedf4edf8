"""Small scenarios for tests of whole runs: a tiny model, short steps."""

from __future__ import annotations

from typing import Any

from scenarios.schema import Scenario

__all__ = ["tiny"]


def tiny(algorithm: str | dict[str, Any] = "asp", workers: int = 2, **changes: Any) -> Scenario:
    """A scenario of some tenths of a second; ``changes`` by section: ``run={"steps": 5}``."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "algorithm": algorithm,
        "cluster": {
            "workers": workers,
            "machines": workers,
            "workers_per_machine": 1,
            "bandwidth": "100 Mbit/s",
            "compute": {"mean": "10 ms"},
            "network": {"collective": "messages"},
        },
        "workload": {"model": "mlp", "data": "digits", "hidden": [16], "batch": 16},
        "run": {"steps": 8, "links": "native", "compute": "paced"},
    }
    for section, fields in changes.items():
        for name, value in fields.items():
            if isinstance(value, dict):
                tree[section][name] = {**tree[section].get(name, {}), **value}
            else:
                tree[section][name] = value
    if changes.get("run", {}).keys() & {"seconds", "samples"}:
        tree["run"].pop("steps")
    return Scenario.from_dict(tree)

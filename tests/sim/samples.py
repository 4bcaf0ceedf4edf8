"""Random scenarios and the hash of a record, for tests that want two runs to agree to the last byte."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np

from core.record import Record
from scenarios.errors import ScenarioError
from scenarios.plan import Plan, plan
from scenarios.schema import Scenario

__all__ = ["ALGORITHMS", "digest", "sample"]

ALGORITHMS = (
    "asp", "aladdin", "aladdin_l1", "aladdin_l2", "bsp", "ssp", "dssp", "easgd", "local_sgd",
    "post_local_sgd", "diloco", "arsgd", "adpsgd", "dpsgd", "sgp", "gosgd",
)  # fmt: skip

SLOWDOWNS: tuple[list[dict[str, Any]], ...] = (
    [],
    [],
    [{"kind": "fixed", "ranks": [0], "factor": 3}],
    [{"kind": "transient", "factor": 4, "mean_on": 0.2, "mean_off": 0.5}],
    [{"kind": "heavy_tailed", "shape": 2.5}, {"kind": "scheduled", "intervals": [[0.1, 0.9, 2.0]]}],
)


def _document(seed: int, algorithm: str, draw: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {"name": algorithm}
    if algorithm == "aladdin":
        options["on_busy"] = draw.choice(["wait", "coalesce"])
    document: dict[str, Any] = {
        "name": f"sample-{seed}",
        "cluster": {
            "workers": draw.choice([2, 3, 4, 7, 8, 20]),
            "servers": {
                "count": draw.choice([1, 1, 2, 3, 16]),
                "placement": draw.choice(["dedicated", "beside"]),
            },
            "workers_per_machine": draw.choice([1, 1, 2]),
            "bandwidth": draw.choice(["1 Gbit/s", "10 Gbit/s"]),
            "latency": draw.choice(["0 s", "50 us", "3 ms"]),
            "network": {
                "admission": draw.choice(["fifo", "fifo", "fair", "fair", 2]),
                "inbox": draw.choice([1, 2, 3]),
                "window": draw.choice([1, 2]),
                "overhead": draw.choice(["0 s", "1 ms"]),
                "backplane": draw.choice([0, 0, 0, "3 Gbit/s"]),
            },
            "compute": draw.choice(
                [{"mean": "100 ms"}, {"mean": "50 ms", "model": "lognormal", "spread": 0.3}]
            ),
            "tensor_seconds": draw.choice([{}, {"accumulate": 0.002, "apply": 0.01, "mix": 0.001}]),
            "slowdowns": draw.choice(SLOWDOWNS),
        },
        "workload": {"model": "resnet50", "data": "synthetic"},
        "algorithm": options,
        "run": {"steps": draw.choice([3, 8, 15]), "seed": seed, "spans": draw.random() < 0.5},
    }
    _place(document["cluster"], draw)
    return document


def _place(cluster: dict[str, Any], draw: random.Random) -> None:
    """Put the machines of a cluster into racks with narrow up-links, or the racks into sites; or neither."""
    kind = draw.choice(["flat", "racks", "sites"])
    if kind == "flat":
        return
    racks, machines = draw.choice([2, 4]), draw.choice([1, 2, 3])
    per = cluster["workers_per_machine"]
    cluster["workers"] = racks * machines * per
    cluster["servers"]["placement"] = draw.choice(["dedicated", "beside", "spread"])
    cluster["machines_per_rack"] = machines
    cluster["uplink"] = {
        "oversubscription": draw.choice([2, 4, 10]),
        "latency": draw.choice(["0 s", "20 us"]),
    }
    if kind == "racks":
        cluster["racks"] = racks
        return
    cluster["sites"], cluster["racks_per_site"] = ["east", "west"], racks // 2
    wan = {"forth": "2 Gbit/s", "back": draw.choice(["1 Gbit/s", "20 Gbit/s"]), "latency": "10 ms"}
    cluster["wan"] = [{"between": ["east", "west"], **wan}]


def sample(seed: int, algorithm: str | None = None) -> Plan:
    """A random plan; the same one for the same ``seed`` and ``algorithm``."""
    draw = random.Random(f"{seed} {algorithm}")
    refused = "nothing"
    for _ in range(50):
        chosen = algorithm or draw.choice(ALGORITHMS)
        try:
            return plan(Scenario.from_dict(_document(seed, chosen, draw)))
        except ScenarioError as error:  # not every combination is one
            refused = str(error)
    raise AssertionError(f"no valid scenario in 50: {refused}")


def digest(record: Record) -> str:
    """Hash of everything that was recorded."""
    found = hashlib.sha256(repr(record.manifest).encode())
    for name, table in sorted(record.tables().items()):
        for column, values in table.items():
            array = np.asarray(values)
            found.update(f"{name}.{column} {array.dtype.str} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()

"""The page on scenarios: its examples run, and it leaves no field out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import scenarios
from scenarios import cluster, heterogeneity, schema, topology
from scenarios.plan import plan

DOCS = Path(__file__).parents[2] / "docs"
PAGE, TOPOLOGIES = ((DOCS / name).read_text(encoding="utf-8") for name in ("scenarios.md", "topologies.md"))
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE + TOPOLOGIES, re.DOTALL)
[DEVICES] = re.findall(r"```csv\n(.*?)```", TOPOLOGIES, re.DOTALL)
DESCRIBED = [
    schema.Cluster, schema.Servers, schema.Network, schema.StepTime, schema.Slowdown, schema.Machine,
    schema.Workload, schema.AlgorithmChoice, schema.Run, schema.Layout, cluster.Host,
    topology.Topology, topology.Rack, topology.Wan, topology.Group, heterogeneity.Heterogeneity,
]  # fmt: skip


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_valid(tmp_path, text) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(text, encoding="utf-8")
    (tmp_path / "devices.csv").write_text(DEVICES, encoding="utf-8")
    scenario = scenarios.load(path)
    assert scenario.name == "example"
    assert len(plan(scenario).machine_of) >= scenario.cluster.workers


@pytest.mark.parametrize("cls", DESCRIBED, ids=lambda cls: cls.__name__)
def test_every_field_is_described(cls) -> None:
    words = set(re.findall(r"\w+", PAGE + TOPOLOGIES))
    missing = [field.name for field in dataclasses.fields(cls) if field.name not in words | {"layout"}]
    assert not missing

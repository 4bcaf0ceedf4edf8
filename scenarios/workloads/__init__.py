"""Workloads: models, data sets and gradients. torch is imported when a task is loaded, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scenarios.workloads.layers import layer_sizes

if TYPE_CHECKING:
    from scenarios.schema import Workload
    from scenarios.workloads.task import Task

__all__ = ["layer_sizes", "load"]


def load(workload: Workload, seed: int, device: str = "cpu") -> Task:
    """The task (model, data, gradients) of a workload; raises ``ScenarioError``. Imports torch."""
    from scenarios.workloads.task import Task

    return Task(workload, seed, device)

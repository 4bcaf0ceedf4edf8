"""Workloads: models, data sets and gradients. torch is imported when a task is loaded, not before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scenarios.workloads.layers import layer_sizes

if TYPE_CHECKING:
    from scenarios.schema import Workload
    from scenarios.workloads.task import Task

__all__ = ["layer_sizes", "load", "one_thread"]


def load(workload: Workload, seed: int, device: str = "cpu") -> Task:
    """The task (model, data, gradients) of a workload; raises ``ScenarioError``. Imports torch."""
    from scenarios.workloads.task import Task

    return Task(workload, seed, device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread: the same sums however many processes share the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

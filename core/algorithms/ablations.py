"""ALADDIN's ablations (section 5.5 of the paper), so that they can be chosen by name.

L1  local self-update only: workers send gradients, the server applies each at once and pushes nothing
L2  L1 and the PS-triggered local update; still without the lazy global update

What they leave out is their name, so ``variant`` is no option of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from core.algorithms.aladdin import Aladdin

__all__ = ["AladdinL1", "AladdinL2"]


@dataclass(frozen=True)
class AladdinL1(Aladdin):
    """Ablation L1: the local self-update alone."""

    name: ClassVar[str] = "aladdin_l1"
    title: ClassVar[str] = "ALADDIN-L1 (ablation: local self-update only)"
    variant: str = field(default="l1", init=False)


@dataclass(frozen=True)
class AladdinL2(Aladdin):
    """Ablation L2: local self-update and PS-triggered update, each gradient applied at once."""

    name: ClassVar[str] = "aladdin_l2"
    title: ClassVar[str] = "ALADDIN-L2 (ablation: no lazy global update)"
    variant: str = field(default="l2", init=False)

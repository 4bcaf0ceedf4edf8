"""The source papers' evaluation, run on the simulator and put beside the published values.

Rules this package obeys:

* An experiment says which cases it wants (``wanted``) and makes a section of the report of their results
  (``section``); it never runs anything itself. All cases run together, each once per seed.
* What is published stands in ``analysis/paper/published.yaml``, what is assumed in the bundled scenarios.
"""

from aladdin.paper.report import EXPERIMENTS, Paper, paper

__all__ = ["EXPERIMENTS", "Paper", "paper"]

"""What the papers report, and how ours is put beside it: data, sections of a report, pictures.

Rules this package obeys:

* Published values are data (``published.yaml``), each with the table or figure that it stands in.
* Nothing is run here: sections are made of what ``aladdin.paper`` has run.
* A claim's status is computed from its evidence: reproduced, not reproduced, or not testable here.
"""

from analysis.paper.published import published
from analysis.paper.sections import Claim, Picture, Section, Series, Table, error, shown

__all__ = ["Claim", "Picture", "Section", "Series", "Table", "error", "published", "shown"]

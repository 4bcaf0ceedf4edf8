"""Sections as one Markdown report: what was claimed and what became of it first, then each in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.paper.sections import Section, Table, shown

__all__ = ["markdown", "table"]


INTRODUCTION = """Simulated, {seeds} seeds; ± is the 95 % interval of a mean over them (Student's t).
Published values are the papers'; the status of a claim follows from the evidence beside it.
"""


def markdown(sections: Sequence[Section], seeds: int, missing: Sequence[str] = ()) -> str:
    """The report; pictures are linked by their names. ``missing``: experiments that it was stopped before."""
    stopped = f"**Incomplete**: stopped before these were finished: {', '.join(missing)}.\n"
    parts = [
        "# The papers' evaluation, regenerated\n",
        INTRODUCTION.format(seeds=seeds),
        *([stopped] if missing else []),
        _claims(sections),
    ]
    return "\n".join([*parts, *(_section(one) for one in sections)])


def table(one: Table) -> str:
    """A Markdown table, its title above and its note below."""
    rows = [[_cell(shown(value)) for value in row] for row in one.rows]
    lines = [f"**{one.title}**\n", _row(map(_cell, one.columns)), _row("---" for _ in one.columns)]
    lines += [_row(row) for row in rows]
    return "\n".join(lines) + (f"\n\n{one.note}" if one.note else "") + "\n"


def _claims(sections: Sequence[Section]) -> str:
    rows = [
        [claim.text, _where(section.title.split(":")[0], claim.source), claim.status, claim.evidence]
        for section in sections
        for claim in section.claims
    ]
    count = sum(row[2] == "reproduced" for row in rows)
    heading = f"## Claims: {count} of {len(rows)} reproduced\n"
    columns = ("claim", "where", "status", "evidence")
    return heading + "\n" + table(Table("", columns, rows)).removeprefix("****\n\n")


def _where(section: str, source: str) -> str:
    return section if source in section else f"{section}, {source}"


def _section(one: Section) -> str:
    parts = [f"## {one.title}\n", f"Source: {one.source}.\n"]
    parts += [table(each) for each in one.tables]
    parts += [f"![{picture.title}]({picture.name}.png)\n" for picture in one.pictures]
    if one.name == "figure3":
        parts.append("![Timelines](figure3.png)\n")
    if one.claims:
        parts.append("\n".join(f"- **{c.status}**: {c.text}. {c.evidence}." for c in one.claims) + "\n")
    parts += [f"{note}\n" for note in one.notes]
    if one.commands:
        parts.append("```console\n" + "\n".join(one.commands) + "\n```\n")
    return "\n".join(parts)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

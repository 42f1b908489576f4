"""What the doctor says: one finding a fact, in words, with what to do where something is wrong or could be better."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A fact.

    Attributes:
        section: versions, devices, paths, models, optional or hub. name, value: the fact in words.
        todo: what to do about it; None where there is nothing to do.
        fatal: no model can be run because of it.
    """

    section: str
    name: str
    value: str
    todo: str | None = None
    fatal: bool = False


def in_words(findings: Iterable[Finding]) -> list[str]:
    """The lines to print: a heading a section, a line a fact, and below it what to do."""
    lines: list[str] = []
    section = None
    for finding in findings:
        if finding.section != section:
            lines += [*([""] if lines else []), finding.section]
            section = finding.section
        lines.append(f"  {finding.name}: {finding.value}")
        if finding.todo is not None:
            lines.append(f"      what to do: {finding.todo}")
    return lines

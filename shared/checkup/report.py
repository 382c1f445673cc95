"""The findings as text for people, or as JSON. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from shared.checkup.findings import CLUSTER, Finding, Level, counted

ALL_GOOD, FINDINGS = 0, 1


def exit_code(findings: Collection[Finding]) -> int:
    """0 when there is nothing to do, 1 otherwise."""
    return ALL_GOOD if all(finding.level is Level.OK for finding in findings) else FINDINGS


def as_text(findings: Sequence[Finding]) -> str:
    """One line each, pool by pool, and how many there are."""
    return "\n".join([*_lines(findings), "", _summary(findings)])


def as_json(findings: Sequence[Finding]) -> str:
    document = {
        "allGood": exit_code(findings) == ALL_GOOD,
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(document, indent=2)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for about, group in groupby(findings, key=lambda finding: finding.about):
        yield "Cluster" if about == CLUSTER else f"Pool {about}"
        yield from map(_line, group)


def _line(finding: Finding) -> str:
    # What others said may have several lines; a finding has one.
    sentence = " ".join(f"{finding.message} {finding.advice}".split())
    return f"  {finding.level:<8} {finding.check:<15} {sentence}"


def _summary(findings: Collection[Finding]) -> str:
    counts = Counter(finding.level for finding in findings)
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    if not problems and not warnings:
        return "All good."
    counts_of = ((problems, "problem"), (warnings, "warning"))
    return ", ".join(counted(count, what) for count, what in counts_of if count) + "."

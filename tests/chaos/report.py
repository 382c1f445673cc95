"""The table at the end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from tests.chaos.evidence import by_kind
from tests.chaos.storms import Outcome
from tests.chaos.traffic import Tally

MOST_EVIDENCE = 20


def table(outcomes: Mapping[str, tuple[Outcome, Tally, int]]) -> list[str]:
    """A column for each broker; with what was asked there, and how many pods were deleted."""
    columns = [_sections(*of_broker) for of_broker in outcomes.values()]
    lines = [_row("", outcomes)]
    for sections in zip(*columns, strict=True):
        names = dict.fromkeys(name for section in sections for name in section)
        lines += [_row(name, [str(section.get(name, 0)) for section in sections]) for name in names]
    return lines


def evidence(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Every violation with how one can tell, up to a limit for each broker."""
    return [
        f"{broker}: {violation.kind}: {violation.evidence}"
        for broker, outcome in outcomes.items()
        for violation in outcome.violations[:MOST_EVIDENCE]
    ]


def _sections(outcome: Outcome, tally: Tally, deleted: int) -> Sequence[Mapping[str, object]]:
    """Groups of rows: within a group a broker may lack some that another has."""
    found, answers = outcome.findings, tally.answers
    assert found is not None
    return (
        {
            "tasks submitted": found.tasks,
            "scale-downs asked for": answers.total(),
            "  allowed": answers["allowed"],
            "  refused": answers["refused"],
            "  refused for the moment": answers["busy"],
            "  failed, no hook there": answers["failed"],
            "  in conflict": answers["conflict"],
            "scale-ups": tally.ups,
            "pods deleted": deleted,
            "rounds, as the hook logs them": outcome.verdicts.total(),
        },
        {f"  {reason}": number for reason, number in outcome.verdicts.most_common()},
        dict(sorted(outcome.disturbances.items())),
        {
            "tasks cut off by the kills themselves": found.cut_off_by_us,
            "tasks Celery repeated or lost for that": found.repeated,
            "seconds until well, median": f"{median(outcome.heal_s):.1f}",
            "seconds until well, longest": f"{max(outcome.heal_s):.1f}",
            "violations": len(outcome.violations),
        },
        {f"  {kind}": number for kind, number in by_kind(outcome.violations).items()},
    )


def _row(name: str, cells: Iterable[str]) -> str:
    return f"{name:<44}" + "".join(f"{cell:>12}" for cell in cells)

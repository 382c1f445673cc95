"""By what a warning of the drain hook is known: a client is told what is said, and not who says it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

DRY_RUN = "Dry run: this scale-down would be"
BYPASSED = "Draining was bypassed:"


def said_by_the_hook(warnings: Iterable[str]) -> str:
    """The first warning that is the hook's, which has one whenever it allows a dry run; empty without."""
    return next((warning for warning in warnings if warning.startswith((DRY_RUN, BYPASSED))), "")

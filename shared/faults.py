"""Ends this process at a named point, as a node that dies would: to try out what survives it.

Nothing but the environment variable CELERY_HPA_FAULT turns it on, as `after-marks`, or as `after-marks:3` for
the third time that this point is reached. Without it a point costs one comparison.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Mapping
from enum import StrEnum

from shared.errors import ConfigurationError, Mistake

log = logging.getLogger(__name__)

VARIABLE = "CELERY_HPA_FAULT"

_FORM = re.compile(r"(?P<point>[a-z-]+)(?::(?P<nth>[1-9]\d{0,5}))?", re.ASCII)


class FaultPoint(StrEnum):
    """Where a process can be ended; in the order in which a round comes by."""

    AFTER_GATHER = "after-gather"
    AFTER_PLAN = "after-plan"
    BETWEEN_PATCHES = "between-patches"
    """After each PATCH of a pod, of a mark or of a release; others may be on their way."""
    AFTER_MARKS = "after-marks"
    BETWEEN_CANCELS = "between-cancels"
    """After each cancel_consumer that was sent: there is one for each queue."""
    AFTER_CANCELS = "after-cancels"
    """The workers have acknowledged, and may not have obeyed yet."""
    AFTER_CONFIRM = "after-confirm"
    BEFORE_ANSWER = "before-answer"
    AFTER_ANSWER = "after-answer"
    BETWEEN_GIVE_BACKS = "between-give-backs"
    """After each add_consumer that was sent."""
    AFTER_GIVE_BACK = "after-give-back"
    """The workers consume again, and their pods still have the record."""


class _Fault:
    """The one that is armed, and how often its point is still to be passed."""

    def __init__(self) -> None:
        self.point: FaultPoint | None = None
        self.passes = 0


_fault = _Fault()


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Take the fault from the environment; none without the variable. Raises ConfigurationError."""
    text = environment.get(VARIABLE)
    _fault.point, _fault.passes = (None, 0) if text is None else _parse(text)
    if _fault.point is not None:
        log.warning("%s is set: this process kills itself at %s. Never set it in production.", VARIABLE, text)


def reach(point: FaultPoint) -> None:
    """Go on; or end here and now, if this is the point."""
    if _fault.point is not point:
        return
    if _fault.passes:
        _fault.passes -= 1
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def _parse(text: str) -> tuple[FaultPoint, int]:
    match = _FORM.fullmatch(text)
    if match is None or match["point"] not in list(FaultPoint):
        points = ", ".join(FaultPoint)
        raise ConfigurationError(
            (
                Mistake(
                    path=VARIABLE, message=f"{text!r} is no fault; name one of {points}, or one as NAME:3."
                ),
            )
        )
    return FaultPoint(match["point"]), int(match["nth"] or 1) - 1

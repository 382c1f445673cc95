"""The one answer to a review, and what becomes of a round whose answer came too late.

A round may end after its answer had to be given, and an answer may be given to nobody: this process was
paused, or the API server's own caller hung up. Then that has decided without us, by its failurePolicy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drain_hook.admission import Verdict

MARKS_STAY = frozenset({"Busy", "Unsettled"})
"""Refusals after which the victims of the last plan go on draining; the next review may find them idle."""


class Answer:
    """Given once; `is_listened_to` says whether the API server still waits for it."""

    def __init__(self, is_listened_to: Callable[[], bool], *, webhook: str = "") -> None:
        self.webhook = webhook
        """Name of the webhook that asks; its failurePolicy decides when nobody listens any more."""
        self._is_listened_to = is_listened_to
        self._verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._was_heard = False

    @property
    def is_heard(self) -> bool:
        """Whether anybody was there when it was given; before that, whether somebody is there now."""
        return self._was_heard if self._verdict.done() else self._is_listened_to()

    def is_(self, verdict: Verdict) -> bool:
        """Whether this very verdict was given, or can still be."""
        return not self._verdict.done() or self._verdict.result() is verdict

    def give(self, verdict: Verdict) -> None:
        """Answer, unless that has been done."""
        if not self._verdict.done():
            self._was_heard = self._is_listened_to()
            self._verdict.set_result(verdict)

    async def wait(self, *, until: float, otherwise: Callable[[], Verdict]) -> Verdict:
        """The verdict; at `until`, by the event loop's clock, `otherwise` makes the one that is given."""
        left_s = until - asyncio.get_running_loop().time()
        await asyncio.wait({self._verdict}, timeout=max(0.0, left_s))
        if not self._verdict.done():
            self.give(otherwise())
        return self._verdict.result()


def keeps_marks(verdict: Verdict, answer: Answer, *, ignores_failures: bool) -> bool:
    """Whether victims go on draining after a round that came to `verdict`; else they are given back.

    Where the API server let it through without us they are kept, and judged by what becomes of the replicas.
    """
    wants_to = verdict.allowed or verdict.reason in MARKS_STAY
    if not answer.is_heard:
        return ignores_failures and (wants_to or verdict.reason == "OutOfTime")
    return wants_to and answer.is_(verdict)

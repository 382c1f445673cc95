"""From a review to its verdict: early exits, one round at a time for each workload, an answer in time.

A round runs on its own, beside the request that asked for it. So a client that hangs up, or a deadline that
passes, never stops a round half-way: it goes on to the next safe point, and takes back what it did.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from drain_hook.admission import Review, ScaleDown, Verdict, early_verdict
from drain_hook.announcements import Announcer
from drain_hook.late_answers import Answer, keeps_marks
from drain_hook.refusals import OutOfTime, failed, full, locked, lost_lock, unavailable
from drain_hook.round_locks import RoundLocks, WorkloadLocked
from drain_hook.rounds import Round, Surroundings
from shared.errors import BrokerUnavailable, CeleryHpaError, KubernetesError
from shared.leases import Lease
from shared.pools import Configuration, Pool

log = logging.getLogger(__name__)

MOST_ROUNDS = 16
"""Rounds in flight; beyond that reviews are refused at once."""
MOST_OF_ONE_WORKLOAD = 4
"""Of these, waiting ones included: callers who ask again and again must not keep other workloads waiting."""
LOCK_WAIT_S = 2.0
"""For the round before, which may just be ending; the HPA and kubectl should not meet often."""
TIDY_FIRST_S = 0.5
"""For what a refused round gives back; a silent worker takes longer, and is given back after the answer."""


class Drainer:
    """Answers reviews; `close` waits for rounds that still tidy up."""

    def __init__(
        self,
        around: Surroundings,
        *,
        configuration: Callable[[], Configuration],
        locks: RoundLocks,
        announcer: Announcer,
        ignores_failures: Callable[[str], bool] = lambda webhook: False,
        most_rounds: int = MOST_ROUNDS,
    ) -> None:
        """`ignores_failures`: whether what this webhook asked about goes through when we do not answer."""
        self._around = around
        self._configuration = configuration
        self._locks = locks
        self._announcer = announcer
        self._ignores_failures = ignores_failures
        self._most_rounds = most_rounds
        self._rounds: dict[asyncio.Task[None], tuple[str, str]] = {}
        """With the key of the pool."""

    async def review(
        self, review: Review, *, deadline: float, is_listened_to: Callable[[], bool] = lambda: True
    ) -> Verdict:
        """The verdict, at `deadline` (by the event loop's clock) at the latest; raises nothing.

        `is_listened_to` says whether whoever asked still waits for it.
        """
        scale_down, configuration = review.scale_down, self._configuration()
        pool = None if scale_down is None else _pool_of(scale_down, configuration)
        if verdict := early_verdict(review, pool=pool):
            self._announcer.passed(verdict, review, pool)
            return verdict
        assert scale_down is not None, "early_verdict() lets nothing else through"
        assert pool is not None, "early_verdict() lets nothing else through"
        started, reserve_s = time.monotonic(), (deadline - _now()) / 20
        round_ = Round(
            scale_down, pool, self._around, ttl_s=configuration.round_ttl, deadline=deadline - reserve_s
        )
        verdict = self._no_room(round_)
        if verdict is None:
            answer = Answer(is_listened_to, webhook=review.webhook)
            self._start(round_, answer)
            verdict = await answer.wait(until=deadline, otherwise=round_.out_of_time)
        self._announcer.verdict(verdict, round_, seconds=time.monotonic() - started)
        return verdict

    async def close(self) -> None:
        """Wait until every round has ended."""
        while self._rounds:
            await asyncio.wait(self._rounds)

    def _no_room(self, round_: Round) -> Verdict | None:
        """A refusal at once rather than a wait that holds up the API server's other callers."""
        if len(self._rounds) >= self._most_rounds:
            return full(self._most_rounds)
        if list(self._rounds.values()).count(round_.pool.key) >= MOST_OF_ONE_WORKLOAD:
            return locked(round_.scale_down, "several reviews of it are waiting here already")
        return None

    def _start(self, round_: Round, answer: Answer) -> None:
        task = asyncio.create_task(self._conduct(round_, answer))
        self._rounds[task] = round_.pool.key
        task.add_done_callback(self._rounds.pop)

    async def _conduct(self, round_: Round, answer: Answer) -> None:
        """A round to its end, which comes after the answer when there is something to undo."""
        with self._around.telemetry.round():
            try:
                await self._take_turn(round_, answer)
            except WorkloadLocked as error:
                answer.give(locked(round_.scale_down, str(error)))
            except Exception as error:
                answer.give(_refusal(round_, error))
        self._announcer.given_back(round_)

    async def _take_turn(self, round_: Round, answer: Answer) -> None:
        if verdict := await round_.check():
            answer.give(verdict)
        elif round_.scale_down.is_dry_run:
            answer.give(await round_.rehearse())
        else:
            async with self._locks.hold(
                round_.pool, wait_s=min(LOCK_WAIT_S, round_.seconds_left / 2)
            ) as lease:
                verdict = await _verdict(round_, lease)
                await (self._allow if verdict.allowed else self._refuse)(verdict, round_, lease, answer)

    async def _allow(self, verdict: Verdict, round_: Round, lease: Lease, answer: Answer) -> None:
        """At once: the longer it takes, the likelier somebody else writes to the workload first."""
        answer.give(verdict)
        await _tidy_up(round_, lease, keeps_marks=self._keeps_marks(verdict, round_, answer))

    async def _refuse(self, verdict: Verdict, round_: Round, lease: Lease, answer: Answer) -> None:
        """Nothing hangs on a moment: when it is read, none but the victims should be draining any more."""
        keeps = self._keeps_marks(verdict, round_, answer)
        tidying = asyncio.create_task(_tidy_up(round_, lease, keeps_marks=keeps))
        await asyncio.wait({tidying}, timeout=max(0.0, min(TIDY_FIRST_S, round_.seconds_left)))
        answer.give(verdict)
        await tidying

    def _keeps_marks(self, verdict: Verdict, round_: Round, answer: Answer) -> bool:
        keeps = keeps_marks(verdict, answer, ignores_failures=self._ignores_failures(answer.webhook))
        if not answer.is_heard:
            log.warning(
                "Nobody waits for an answer on %s %s/%s from %d to %d replicas any more: all of it is %s.",
                round_.scale_down.kind,
                round_.scale_down.namespace,
                round_.scale_down.name,
                round_.scale_down.from_replicas,
                round_.scale_down.to_replicas,
                "kept, for failurePolicy: Ignore lets it through" if keeps else "taken back",
            )
        return keeps


async def _verdict(round_: Round, lease: Lease) -> Verdict:
    try:
        return await round_.prepare(lease)
    except Exception as error:
        return _refusal(round_, error)


async def _tidy_up(round_: Round, lease: Lease, *, keeps_marks: bool) -> None:
    """What cannot be done now is left to the reconciler: the pods say what there is to do."""
    try:
        if round_.has_leftovers(keeps_marks=keeps_marks) and await lease.renew():
            await (round_.release_unused() if keeps_marks else round_.take_back())
    except (BrokerUnavailable, KubernetesError, WorkloadLocked) as error:
        log.warning("A round was not tidied up, the reconciler will do it: %s", error)


def _pool_of(scale_down: ScaleDown, configuration: Configuration) -> Pool | None:
    return configuration.pool_of(kind=scale_down.kind, namespace=scale_down.namespace, name=scale_down.name)


def _refusal(round_: Round, error: Exception) -> Verdict:
    if isinstance(error, OutOfTime):
        return round_.out_of_time()
    if isinstance(error, WorkloadLocked):
        return lost_lock(round_.scale_down)
    if isinstance(error, CeleryHpaError):
        return unavailable(round_.scale_down, error)
    log.error("A round failed", exc_info=error)
    return failed(round_.scale_down)


def _now() -> float:
    return asyncio.get_running_loop().time()

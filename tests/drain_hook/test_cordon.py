"""How marks and commands are sent."""

from collections.abc import Mapping
from typing import Any

from shared.pods import Pod
from tests.drain_hook.stages import AT_ONCE, node, stage
from tests.fakes.celery import Call
from tests.fakes.kubernetes import FakeCluster


class Counting(FakeCluster):
    """Knows how many PATCHes of pods were under way at the same time."""

    now, most = 0, 0

    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
    ) -> Pod:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().patch_pod(
                namespace=namespace,
                name=name,
                uid=uid,
                annotations=annotations,
                resource_version=resource_version,
            )
        finally:
            self.now -= 1


async def test_pods_are_marked_side_by_side_but_not_all_at_once() -> None:
    """The API server has other callers; a thousand requests of one of them at once would be throttled."""
    cluster = Counting()
    scene = stage(3 * AT_ONCE.patches_at_once, cluster=lambda: cluster)
    assert (await scene.ask(len(scene.pods), 0)).allowed
    assert cluster.most == AT_ONCE.patches_at_once


async def test_a_command_that_was_lost_is_sent_once_more() -> None:
    """Redis delivers nothing to a worker that is just reconnecting; it answers the next question."""
    scene = stage(1)
    lost: list[Any] = []

    def lose_the_first(call: Call) -> None:
        if call.method == "cancel_consumer" and not lost:
            lost.append(call)
            scene.celery.loses_commands = True
            scene.celery.silent.add(node("worker-0"))
        elif call.method == "inspect" and lost:
            scene.celery.loses_commands = False
            scene.celery.silent.discard(node("worker-0"))

    scene.celery.before_answer = lose_the_first
    assert (await scene.ask(1, 0)).reason == "Drained"
    assert scene.commands == ["cancel_consumer", "cancel_consumer"]

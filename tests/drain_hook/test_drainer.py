from drain_hook.admission import Verdict
from shared.marks import MARK_ANNOTATION
from shared.pods import DELETION_COST
from tests.drain_hook.stages import NAMESPACE, QUEUES, node, running, stage
from tests.fakes.celery import Call

BUSY = {"worker-0": [running()], "worker-2": [running()]}


async def test_idle_workers_go_and_busy_ones_stay() -> None:
    """Exactly the idle workers are marked and cancelled, and the scale-down is allowed."""
    scene = stage(4, busy=BUSY)
    verdict = await scene.ask(4, 2)
    assert (verdict.allowed, verdict.reason) == (True, "Drained")
    assert scene.marked == scene.draining == {"worker-1", "worker-3"}


async def test_the_record_says_all_that_taking_it_back_needs() -> None:
    """Whoever comes next finds on the pod what was consumed, what the cost was, and for which round."""
    scene = stage(2, queues=("default", "reports"))
    await scene.ask(2, 1)
    (name,) = scene.marked
    mark = scene.mark(name)
    assert (mark.from_replicas, mark.to_replicas, mark.generation) == (2, 1, 1)
    assert (set(mark.queues), mark.foreign_cost) == ({"default", "reports"}, None)
    assert scene.pods[name].cost_annotation == str(mark.cost)


async def test_the_record_is_there_before_the_command() -> None:
    """A crash between the two must leave something that names itself."""
    scene = stage(2)
    marked_at_command: list[set[str]] = []

    def note(call: Call) -> None:
        if call.method == "cancel_consumer":
            marked_at_command.append(scene.marked)

    scene.celery.before_answer = note
    await scene.ask(2, 1)
    assert [len(marked) for marked in marked_at_command] == [1]


async def test_a_busy_worker_is_waited_for() -> None:
    """Refused, but it takes no new tasks any more: the next review, or the one after it, finds it idle."""
    scene = stage(1, busy={"worker-0": [running()]})
    verdict = await scene.ask(1, 0)
    assert (verdict.allowed, verdict.reason, verdict.code) == (False, "Busy", 403)
    assert "worker-0 runs reports.build" in verdict.message
    assert scene.marked == scene.draining == {"worker-0"}


async def test_proceeding_pools_let_busy_workers_go() -> None:
    """With whenBusy: proceed they finish in their grace period, drained like the others."""
    scene = stage(1, busy={"worker-0": [running()]}, drain={"whenBusy": "proceed"})
    verdict = await scene.ask(1, 0)
    assert (verdict.allowed, verdict.reason) == (True, "Proceeding")
    assert scene.draining == {"worker-0"}


async def test_victims_that_finish_while_they_are_held_for_go() -> None:
    """One review waits up to holdSeconds for tasks that are about to end."""
    scene = stage(1, busy={"worker-0": [running()]}, drain={"holdSeconds": 20})
    looks = 0

    def finish_at_the_third_look(call: Call) -> None:
        nonlocal looks
        looks += call.method == "inspect"
        if looks == 4:
            scene.finish("worker-0")

    scene.celery.before_answer = finish_at_the_third_look
    verdict = await scene.ask(1, 0)
    assert verdict.reason == "Drained"


async def test_the_same_round_is_adopted() -> None:
    """A retry of the API server, with another uid, finds the victims drained; nothing is written again."""
    scene = stage(4)
    await scene.ask(4, 3)
    patches, commands = len(scene.cluster.calls_of("patch_pod")), len(scene.commands)
    verdict = await scene.ask(4, 3)
    assert verdict.allowed
    assert (len(scene.cluster.calls_of("patch_pod")), len(scene.commands)) == (patches, commands)


async def test_a_workload_that_was_annotated_meanwhile_is_the_same_round() -> None:
    """Kubernetes counts an annotation of a Deployment as a change: nothing is written again all the same."""
    scene = stage(4)
    await scene.ask(4, 3)
    scene.scale(4, settled=True)
    patches, commands = len(scene.cluster.calls_of("patch_pod")), len(scene.commands)
    assert (await scene.ask(4, 3)).allowed
    assert len(scene.marked) == 1
    assert (len(scene.cluster.calls_of("patch_pod")), len(scene.commands)) == (patches, commands)


async def test_an_adopted_round_lets_go_once_the_victims_are_idle() -> None:
    """The HPA asks every 15 s; what the last review began is gone on with."""
    scene = stage(2, busy={"worker-0": [running()], "worker-1": [running(seconds=7200)]})
    assert (await scene.ask(2, 1)).reason == "Busy"
    scene.finish("worker-0")
    assert (await scene.ask(2, 1)).reason == "Drained"
    assert scene.marked == {"worker-0"}


async def test_asking_again_keeps_the_marks_alive() -> None:
    """A refused round is taken back when nobody asks; so each mark says when a review last did."""
    scene = stage(1, busy={"worker-0": [running()]})
    await scene.ask(1, 0)
    first = scene.mark("worker-0")
    scene.clock.ahead_s = scene.configuration.round_ttl / 2
    await scene.ask(1, 0)
    again = scene.mark("worker-0")
    assert again.asked_at - first.asked_at > scene.configuration.round_ttl / 4
    assert again.since == first.since


async def test_an_adopted_victim_that_consumes_again_is_cancelled_again() -> None:
    """A restarted worker reads its queues from its command line: the mark alone proves nothing."""
    scene = stage(1, busy={"worker-0": [running()]})
    await scene.ask(1, 0)
    scene.celery.change(node("worker-0"), queues=QUEUES, pid=2)
    await scene.ask(1, 0)
    assert scene.draining == {"worker-0"}


async def test_a_wider_round_keeps_the_victims_it_has() -> None:
    """From 4 to 3, then from 4 to 2: the worker that is draining already is one of the two."""
    scene = stage(4, busy={name: [running()] for name in ("worker-0", "worker-1", "worker-2", "worker-3")})
    await scene.ask(4, 3)
    (first,) = scene.marked
    await scene.ask(4, 2)
    assert len(scene.marked) == 2
    assert first in scene.marked
    assert {scene.mark(name).to_replicas for name in scene.marked} == {2}


async def test_a_narrower_round_gives_back_what_it_does_not_use() -> None:
    """From 4 to 2, then from 4 to 3: one of the two consumes again, with no annotation left."""
    scene = stage(4, busy={name: [running()] for name in ("worker-0", "worker-1", "worker-2", "worker-3")})
    await scene.ask(4, 2)
    scene.finish(*scene.marked)
    verdict = await scene.ask(4, 3)
    assert verdict.allowed
    assert len(scene.marked) == 1
    assert scene.draining == scene.marked
    assert (
        scene.sample("drain_hook_releases_total", pool="default", namespace=NAMESPACE, reason="Unused") == 1
    )


async def test_victims_go_before_those_that_are_not_used_any_more() -> None:
    """Kubernetes sorts by cost within milliseconds of our answer, before an old mark can be taken away."""
    scene = stage(4, busy={name: [running()] for name in ("worker-0", "worker-1", "worker-2", "worker-3")})
    await scene.ask(4, 2)
    marked = scene.marked
    scene.finish(*marked)
    await scene.ask(4, 3, tidy=False)
    victim, unused = sorted(marked, key=lambda name: scene.pods[name].deletion_cost)
    assert scene.pods[victim].deletion_cost < scene.pods[unused].deletion_cost
    await scene.settle()
    assert scene.marked == {victim}


async def test_a_task_that_slips_in_spares_its_worker() -> None:
    """Between plan and cancel a task starts on the victim: an idle worker goes in its place."""
    scene = stage(3, busy={"worker-0": [running()]})
    slipped: list[str] = []

    def slip_in(call: Call) -> None:
        if call.method == "cancel_consumer" and not slipped:
            slipped.extend(call.nodes)
            scene.celery.start(slipped[0], running(id="slipped-in"))

    scene.celery.before_answer = slip_in
    verdict = await scene.ask(3, 2)
    spared = slipped[0].removeprefix("celery@")
    assert verdict.allowed
    assert scene.marked == scene.draining == {"worker-1", "worker-2"} - {spared}
    assert scene.celery.workers[slipped[0]].queues == QUEUES
    assert scene.cluster.annotations_of(spared, namespace=NAMESPACE) == {}


async def test_one_surprise_is_enough_to_ask_everybody() -> None:
    """All were idle five seconds ago and all but one are busy now: that one is found at the second try."""
    scene = stage(8)
    await scene.warm_up()
    for index in range(7):
        scene.celery.start(node(f"worker-{index}"), running(id=str(index)))
    verdict = await scene.ask(8, 7)
    assert verdict.allowed
    assert scene.marked == {"worker-7"}
    assert len(scene.cluster.calls_of("patch_pod")) <= 3, "one victim, a second one, and the first given back"


async def test_a_protected_task_that_slips_in_ends_the_round() -> None:
    """With nobody else to take: refused, and everything is taken back."""
    scene = stage(2, busy={"worker-0": [running("billing.charge")]})

    def slip_in(call: Call) -> None:
        if call.method == "cancel_consumer":
            scene.celery.start(node("worker-1"), running("billing.refund"))

    scene.celery.before_answer = slip_in
    verdict = await scene.ask(2, 1)
    assert (verdict.allowed, verdict.reason) == (False, "Protected")
    assert (scene.marked, scene.draining) == (set(), set())


async def test_a_refusal_is_read_when_only_the_victims_drain() -> None:
    """Whoever looks right after it sees no trace of the workers that were let off on the way."""
    scene = stage(2, busy={"worker-0": [running(seconds=5)]})
    scene.celery.before_answer = lambda call: (
        scene.celery.change(node("worker-1"), active=(running("billing.refund"),))
        if call.method == "cancel_consumer"
        else None
    )
    verdict = await scene.ask(2, 1, tidy=False)
    assert verdict.reason == "Busy"
    assert scene.marked == scene.draining == {"worker-0"}
    await scene.settle()


async def test_workers_that_never_settle_are_not_let_go() -> None:
    """If every victim takes a task as it is cancelled, the answer is no, and the idle ones are left alone."""
    scene = stage(8)

    def slip_in(call: Call) -> None:
        if call.method == "cancel_consumer":
            for name in call.nodes:
                scene.celery.start(name, running(id=f"task-of-{name}"))

    scene.celery.before_answer = slip_in
    verdict = await scene.ask(8, 7)
    assert (verdict.allowed, verdict.reason) == (False, "Unsettled")
    assert scene.marked == scene.draining == set()


async def test_a_silent_candidate_is_replaced() -> None:
    """Unknown is not idle: another goes, and the silent one is told to consume, for it may obey late."""
    scene = stage(3, busy={"worker-0": [running()]})
    await scene.warm_up()
    fell_silent: list[str] = []

    def fall_silent(call: Call) -> None:
        if call.method == "cancel_consumer" and not fell_silent:
            fell_silent.extend(call.nodes)
            scene.celery.silent.update(call.nodes)

    scene.celery.before_answer = fall_silent
    verdict = await scene.ask(3, 2)
    lost = fell_silent[0].removeprefix("celery@")
    assert verdict.allowed
    assert scene.draining == {"worker-1", "worker-2"} - {lost}
    assert lost in scene.marked, "the record stays until its worker is seen to consume"
    (victim,) = scene.draining
    assert scene.pods[victim].deletion_cost < scene.pods[lost].deletion_cost
    scene.celery.wake(node(lost))
    assert scene.celery.workers[node(lost)].queues == QUEUES


async def test_a_silent_victim_with_no_one_to_replace_it_is_waited_for() -> None:
    """And told to stop consuming: a busy solo worker obeys as soon as its task has ended."""
    scene = stage(1)
    scene.celery.silent.add(node("worker-0"))
    verdict = await scene.ask(1, 0)
    assert (verdict.allowed, verdict.reason) == (False, "Busy")
    assert "did not answer" in verdict.message
    scene.celery.wake(node("worker-0"))
    assert (await scene.ask(1, 0)).allowed


async def test_the_effect_of_a_cancel_is_waited_for() -> None:
    """A worker says "ok" before it obeys."""
    scene = stage(2)
    scene.celery.late_cancel_s = 0.01
    assert (await scene.ask(2, 1)).allowed
    assert len(scene.draining) == 1


async def test_a_green_worker_is_looked_at_twice() -> None:
    """It may start one more message after it says that it consumes nothing."""
    scene = stage(1)
    scene.celery.change(node("worker-0"), pool="gevent")
    inspections = 0

    def take_one_more(call: Call) -> None:
        nonlocal inspections
        inspections += call.method == "inspect"
        if inspections == 3:
            scene.celery.start(node("worker-0"), running())

    scene.celery.before_answer = take_one_more
    assert (await scene.ask(1, 0)).reason == "Busy"


async def test_a_pod_without_a_worker_gets_no_commands() -> None:
    """A Pending pod goes first whatever its cost; it is marked, so that it can be told, and that is all."""
    scene = stage(2, busy={"worker-0": [running()]})
    scene.cluster.edit_pod("worker-1", namespace=NAMESPACE, phase="Pending", is_ready=False)
    del scene.celery.workers[node("worker-1")]
    assert (await scene.ask(2, 1)).allowed
    assert scene.marked == {"worker-1"}
    assert scene.commands == []


async def test_a_foreign_cost_comes_back() -> None:
    """We only take away what we wrote."""
    scene = stage(2, busy={"worker-1": [running("billing.charge")]})
    scene.cluster.annotate_pod("worker-0", {DELETION_COST: "-7"}, namespace=NAMESPACE)
    await scene.ask(2, 1)
    assert scene.mark("worker-0").foreign_cost == "-7"
    scene.celery.start(node("worker-0"), running("billing.refund"))
    scene.celery.finish(node("worker-1"))
    await scene.warm_up()
    assert (await scene.ask(2, 1)).allowed
    assert scene.cluster.annotations_of("worker-0", namespace=NAMESPACE) == {DELETION_COST: "-7"}


async def test_a_victim_that_is_gone_is_no_obstacle() -> None:
    """It was evicted between our look and our write; the workload's other pods are planned with anew."""
    scene = stage(3)
    await scene.warm_up()
    scene.cluster.cache.freeze()
    scene.cluster.delete_pod("worker-0", namespace=NAMESPACE)
    scene.cluster.edit_workload(namespace=NAMESPACE, replicas=3)
    scene.celery.workers.pop(node("worker-0"))
    verdict: Verdict = await scene.ask(3, 2)
    scene.cluster.cache.thaw()
    assert verdict.allowed
    assert len(scene.marked) == 0 or "worker-0" not in scene.marked


async def test_a_cache_that_lags_is_not_planned_on() -> None:
    """When it disagrees with the workload's own count, pods are listed live."""
    scene = stage(2, busy={"worker-0": [running()]})
    scene.cluster.cache.freeze()
    scene.cluster.add_pod("worker-2", replica_set="worker-rs", namespace=NAMESPACE)
    scene.celery.workers[node("worker-2")] = scene.celery.workers[node("worker-1")]
    scene.celery.start(node("worker-1"), running())
    scene.cluster.scale(3, namespace=NAMESPACE, settled=True)
    await scene.ask(3, 2)
    assert scene.cluster.calls_of("workload_state") != []
    scene.cluster.cache.thaw()
    assert MARK_ANNOTATION not in scene.cluster.annotations_of("worker-0", namespace=NAMESPACE)

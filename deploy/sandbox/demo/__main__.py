"""`python -m deploy.sandbox.demo`: play the story on this machine, and say what became of every task."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from redis.asyncio import Redis
from rich.console import Console

from deploy.sandbox import manifests
from deploy.sandbox.cluster import ROOT, Sandbox, sandbox
from deploy.sandbox.demo.directory import DirectoryTaken, emptied
from deploy.sandbox.demo.hints import hints
from deploy.sandbox.demo.observer import Observer
from deploy.sandbox.demo.story import burst
from deploy.sandbox.demo.summary import closing_sentence, summary_lines
from deploy.sandbox.demo.timeline import draw_timeline
from deploy.sandbox.demo.view import View, open_view
from deploy.sandbox.processes import ServiceFailed
from deploy.sandbox.services import apply

SLOTS = 2
MAX_REPLICAS = 8
GRACE_SECONDS = 3
"""Shorter than a long task: what a plain HPA hits is killed, as it is with hours and minutes elsewhere."""
HPA_SYNC_PERIOD_S = 2.0
BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 4}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 4,
        "policies": [{"type": "Pods", "value": 3, "periodSeconds": 4}],
    },
}
TASKS, SHORT_S, PROTECTED_S = 150, 1.5, 45.0
IDLE_S, QUIET_S, LIMIT_S = 3.0, 3.0, 150.0


def main(arguments: list[str] | None = None) -> int:
    """0 when every task finished, 1 when one was killed or lost, 2 when the sandbox could not be run."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console()
    try:
        with emptied(Path(options.directory)) as directory:
            return asyncio.run(_play(console, directory, with_hook=options.with_hook, keep=options.keep))
    except DirectoryTaken as error:
        parser.error(str(error))
    except ServiceFailed as error:
        console.print(
            f"The sandbox could not be started. {error}", style="red", highlight=False, markup=False
        )
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.sandbox.demo",
        description="Play a burst of tasks on a cluster on this machine; show what becomes of them.",
    )
    parser.add_argument(
        "--without-hook", dest="with_hook", action="store_false", help="leave the webhook out: a plain HPA"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave the sandbox running at the end, to look around with kubectl",
    )
    parser.add_argument(
        "--directory",
        default="out/demo",
        metavar="DIR",
        help="logs, kubeconfig and picture (default: %(default)s)",
    )
    return parser


async def _play(console: Console, directory: Path, *, with_hook: bool, keep: bool) -> int:
    console.print("Starting a broker, a control plane, metrics_adapter and drain_hook.", highlight=False)
    async with sandbox(
        directory,
        configuration=_configuration,
        hpa_sync_period_s=HPA_SYNC_PERIOD_S,
        with_webhook=with_hook,
    ) as cluster:
        valkey = Redis.from_url(cluster.broker_url)
        observer = Observer(kube=cluster.kube, valkey=valkey, hook_log=cluster.services.hook_log, slots=SLOTS)
        try:
            await _create_workload(cluster)
            with open_view(console) as view:
                await _tell(cluster, observer, view)
            code = _conclude(console, observer, directory, with_hook=with_hook)
            if keep:
                await _stay(console, cluster)
            return code
        finally:
            await valkey.aclose()


def _configuration(broker_url: str) -> manifests.Document:
    pool = manifests.pool(
        name="default", workload="worker", broker_url=broker_url, slots=SLOTS, queues=("default",)
    )
    return manifests.configuration(pool)


async def _create_workload(cluster: Sandbox) -> None:
    command = manifests.worker_command(slots=SLOTS, queues=("default",))
    deployment = manifests.worker_deployment(
        name="worker",
        replicas=1,
        command=command,
        environment=cluster.worker_environment,
        grace_seconds=GRACE_SECONDS,
    )
    await apply(cluster.kube, deployment)
    await apply(
        cluster.kube,
        manifests.autoscaler(name="worker", pool="default", max_replicas=MAX_REPLICAS, behavior=BEHAVIOR),
    )


async def _tell(cluster: Sandbox, observer: Observer, view: View) -> None:
    """The chapters: an idle worker, the burst, its end, the way down, quiet."""
    await _watch(observer, view, "starting", until=lambda: _ready(observer) >= 1)
    observer.began_at = time.time()
    idle_until = time.time() + IDLE_S
    await _watch(observer, view, "idle", until=lambda: time.time() > idle_until)
    planned = burst(count=TASKS, short_s=SHORT_S, protected_s=PROTECTED_S)
    observer.submitted |= await asyncio.to_thread(cluster.submit, [(t.name, t.seconds) for t in planned])
    view.say(f"{len(planned)} tasks submitted: one in ten runs ten times as long, one is protected.")
    await _watch(observer, view, "burst", until=lambda: _is_over(observer))
    await _watch(observer, view, "scaling down", until=lambda: _is_at_rest(observer))
    quiet_until = time.time() + QUIET_S
    await _watch(observer, view, "quiet", until=lambda: time.time() > quiet_until)


async def _watch(observer: Observer, view: View, chapter: str, *, until: Callable[[], bool]) -> None:
    while time.time() < observer.began_at + LIMIT_S:
        scene = await observer.look(chapter)
        view.show(scene)
        if until():
            return
        await asyncio.sleep(0.4)


def _ready(observer: Observer) -> int:
    return sum(1 for pod in observer.pods if pod.is_ready and not pod.is_terminating)


def _is_over(observer: Observer) -> bool:
    """Every task has finished, or its worker was killed."""
    figures = observer.outcome()
    return figures.finished + figures.killed >= figures.submitted


def _is_at_rest(observer: Observer) -> bool:
    return len(observer.pods) == 1 and not any(pod.has_mark_annotation for pod in observer.pods)


def _conclude(console: Console, observer: Observer, directory: Path, *, with_hook: bool) -> int:
    outcome = observer.outcome()
    picture = directory / "timeline.svg"
    picture.write_text(
        draw_timeline(
            title="A stock HPA with celery-hpa" if with_hook else "The same HPA without the drain hook",
            outcome=outcome,
            pods=observer.lives,
            runs=observer.runs,
            samples=observer.samples,
            rounds=observer.rounds,
            slots=SLOTS,
            end=time.time(),
        )
    )
    console.print()
    for line in summary_lines(outcome, observer.rounds, with_hook=with_hook):
        console.print(line, highlight=False)
    console.print()
    console.print(closing_sentence(outcome, with_hook=with_hook), highlight=False, soft_wrap=True)
    console.print(f"Timeline: {picture}", highlight=False, soft_wrap=True)
    return 1 if outcome.killed or outcome.lost else 0


async def _stay(console: Console, cluster: Sandbox) -> None:
    """Until the user has seen enough."""
    lines = hints(
        kubeconfig=cluster.kubeconfig,
        directory=cluster.directory,
        broker_url=cluster.broker_url,
        python=sys.executable,
        root=ROOT,
    )
    for line in ("", *lines):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    sys.exit(main())

"""How many questions the adapter answers, and how soon, also while nothing around it answers at all.

Asked as the API server's front proxy asks: TLS with its client certificate, and the headers of a recorded
request of the HPA controller. The asker is a process of its own on the same cores.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox
from deploy.sandbox.resources import API_SERVICES
from tests.bench.airflow_rows import Size, create_airflow
from tests.bench.asker import Answers, Errand
from tests.bench.figures import Target, row, save
from tests.bench.fleets import POOL, fleet
from tests.bench.processes import cpu_s, memory_mib, process_of
from tests.postgres import postgresql

WORKERS = 50
SIZE = Size(task_instances=10_000, live=100, dags=20)
RECORDING = Path(__file__).parents[1] / "recordings" / "kubernetes" / "b1_hpa_external_queries.json"
PATH = (
    f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{manifests.NAMESPACE}/celery_load_factor"
    f"?labelSelector=pool%3D{POOL}"
)
MASTERS = (("X-Remote-User", "system:kube-aggregator"), ("X-Remote-Group", "system:masters"))
"""Whom the adapter needs not ask the API server about."""
SECONDS, QUICK_SECONDS = 5.0, 2.0
OUTAGE_RATE = 100.0
FORGOTTEN_S = 11.0
"""So long that no decision of the API server is fresh any more."""

LEAST_PER_SECOND = 7_000.0
MOST_P99_MS = 8.0
MOST_OUTAGE_P99_MS = 10.0
MOST_MIB = 80.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way of asking."""

    what: str
    answers: Answers
    cpu_us: float
    """Of the adapter, for each request."""
    memory_mib: float
    """Of the adapter, afterwards."""
    load: float
    """Of the machine, afterwards: how many processes wanted a core."""


async def measure_queries(directory: Path, *, repeats: int) -> Sequence[Target]:
    """The middle one of three bursts on 1 and on 16 connections, then 100/s in an outage."""
    seconds = QUICK_SECONDS if os.environ.get("QUICK") else SECONDS
    print(f"Starting a sandbox with {WORKERS} workers.", flush=True)
    for part in ("peace", "outage"):
        (directory / part).mkdir()
    measured = await _in_peace(
        directory / "peace", seconds=seconds, bursts=1 if os.environ.get("QUICK") else 3
    )
    measured += await _in_an_outage(directory / "outage", seconds=seconds)
    print("\n" + "\n".join(table(measured)))
    save(directory, [asdict(one) for one in measured])
    return list(targets_of(measured))


def table(measured: Sequence[Measured]) -> list[str]:
    lines = [row("", ["a second", "p50 ms", "p99 ms", "CPU us", "MiB", "load"])]
    for one in measured:
        answers = one.answers
        cells = [f"{answers.per_second:.0f}", f"{answers.p50_ms:.2f}", f"{answers.p99_ms:.2f}"]
        cells += [f"{one.cpu_us:.0f}", f"{one.memory_mib:.0f}", f"{one.load:.1f}"]
        unsuccessful = {status: count for status, count in answers.statuses.items() if status != "200"}
        lines.append(row(one.what, cells) + (f"   answered with {unsuccessful}" if unsuccessful else ""))
    return lines


async def _in_peace(directory: Path, *, seconds: float, bursts: int) -> list[Measured]:
    async with fleet(directory, workers=WORKERS) as box:
        errand = await _errand(box, seconds=seconds)
        before = memory_mib(_adapter(box))
        print(f"The adapter has {before:.0f} MiB before anybody asked.", flush=True)
        measured = []
        for connections in (1, 16):
            asked = replace(errand, connections=connections)
            several = [await _measured(box, asked, _connections(connections)) for _ in range(bursts)]
            middle = sorted(several, key=lambda one: one.answers.per_second)[bursts // 2]
            # What went wrong in any of them is not hidden by the one that counts.
            statuses = sum((Counter(one.answers.statuses) for one in several), Counter[str]())
            measured.append(replace(middle, answers=replace(middle.answers, statuses=dict(statuses))))
        return measured


async def _in_an_outage(directory: Path, *, seconds: float) -> list[Measured]:
    """Broker and database are frozen, the API server takes requests and never answers: their worst."""
    with ExitStack() as stack:
        server = stack.enter_context(postgresql())
        url = create_airflow(server, major=3, size=SIZE)
        async with fleet(directory, workers=WORKERS, database=url) as box:
            errand = replace(await _errand(box, seconds=seconds), connections=16, rate=OUTAGE_RATE)
            masters = replace(errand, headers=[*_headers_of_a_message(errand), *MASTERS])
            before = await _measured(box, masters, "100 a second, all is well")
            with ExitStack() as outage:
                _freeze_broker(box, outage)
                server.freeze()
                outage.callback(server.thaw)
                box.plane.server.trouble = _never_answer
                outage.callback(setattr, box.plane.server, "trouble", None)
                if not os.environ.get("QUICK"):
                    await asyncio.sleep(FORGOTTEN_S)
                during = await _measured(box, masters, "100 a second, nothing else answers")
            return [before, during]


async def _never_answer(_request: web.Request) -> web.StreamResponse | None:
    await asyncio.sleep(3600)
    return None


def _freeze_broker(box: Sandbox, outage: ExitStack) -> None:
    pid = process_of("valkey-server", urlsplit(box.broker_url).netloc)
    os.kill(pid, signal.SIGSTOP)
    outage.callback(os.kill, pid, signal.SIGCONT)


def _connections(count: int) -> str:
    return (
        "1 connection, as fast as it answers" if count == 1 else f"{count} connections, as fast as it answers"
    )


def _adapter(box: Sandbox) -> int:
    return process_of("metrics_adapter", box.services.configuration)


async def _errand(box: Sandbox, *, seconds: float) -> Errand:
    service = (await box.kube.get(API_SERVICES, "", "v1beta1.external.metrics.k8s.io"))["spec"]
    proxy = box.directory / "pki" / "front-proxy-client"
    return Errand(
        port=service["service"]["port"],
        ca_pem=base64.b64decode(service["caBundle"]).decode(),
        certificate_file=f"{proxy}.crt",
        key_file=f"{proxy}.key",
        path=PATH,
        headers=_recorded_headers(),
        connections=1,
        seconds=seconds,
    )


def _recorded_headers() -> Sequence[Sequence[str]]:
    request: Any = json.loads(RECORDING.read_text())["cases"]["value_no_selector"]["requests"][0]
    return [header for header in request["headers"] if header[0] != "Host"]


def _headers_of_a_message(errand: Errand) -> Iterator[Sequence[str]]:
    """Those that do not say who asks."""
    return (header for header in errand.headers if not header[0].startswith("X-Remote-"))


async def _measured(box: Sandbox, errand: Errand, what: str) -> Measured:
    adapter = _adapter(box)
    before = cpu_s(adapter)
    asker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.asker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asker.communicate(json.dumps(asdict(errand)).encode())
    if asker.returncode:
        raise RuntimeError(f"The asker failed; look into {box.directory}.")
    answers = Answers(**json.loads(output))
    spent_us = (cpu_s(adapter) - before) * 1e6
    measured = Measured(
        what=what,
        answers=answers,
        cpu_us=spent_us / answers.sent,
        memory_mib=memory_mib(adapter),
        load=os.getloadavg()[0],
    )
    print(f"{what}: {answers.per_second:.0f} a second, p99 {answers.p99_ms:.1f} ms", flush=True)
    return measured


def targets_of(measured: Sequence[Measured]) -> Iterator[Target]:
    _, many, _, outage = measured
    per_second, p99_ms = many.answers.per_second, many.answers.p99_ms
    yield Target(
        what="requests a second on 16 connections",
        measured=per_second,
        limit=LEAST_PER_SECOND,
        is_least=True,
    )
    yield Target(what="p99 on 16 connections, ms", measured=p99_ms, limit=MOST_P99_MS)
    yield Target(
        what="memory of the adapter after 16 connections, MiB", measured=many.memory_mib, limit=MOST_MIB
    )
    yield Target(
        what="p99 at 100 a second while nothing else answers, ms",
        measured=outage.answers.p99_ms,
        limit=MOST_OUTAGE_P99_MS,
    )
    yield Target(
        what="answers a second of 100 while nothing else answers",
        measured=outage.answers.per_second,
        limit=0.99 * OUTAGE_RATE,
        is_least=True,
    )
    others = sum(
        one.answers.statuses[code] for one in measured for code in one.answers.statuses.keys() - {"200"}
    )
    yield Target(what="answers other than 200", measured=others, limit=0)

"""How a service runs: HTTPS for its work, plain HTTP for health and telemetry, and a graceful end."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from shared.connections import LARGEST_HEAD, LimitedSite, Limits, listeners
from shared.errors import CeleryHpaError, ConfigurationError, Mistake
from shared.settings import Settings
from shared.tls import ClientCa, ReloadingTls

log = logging.getLogger(__name__)

KEEPALIVE_S = 120.0
"""Longer than the 90 s after which Go's clients close idle connections: they close first, not we."""
FINISH_S = 35.0
"""How long requests may take to finish once we stop; kube-apiserver gives up at 34 s."""
HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
TLS_BUFFER = 64 * 1024
"""Bytes."""
SWITCH_S = 0.001
"""After so long a thread lets another one go on."""
HEADERS: Mapping[str, Any] = {
    "max_line_size": LARGEST_HEAD,
    "max_field_size": LARGEST_HEAD,
    "max_headers": 4096,
}
"""The front proxy sends a header for each group of a user: more than aiohttp takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the service can do its work, and what is amiss, one sentence each."""

    is_ready: bool = True
    details: tuple[str, ...] = ()


HealthCheck = Callable[[], Health]


async def serve(
    app: web.Application,
    *,
    settings: Settings,
    name: str,
    registry: CollectorRegistry,
    health: HealthCheck,
    client_ca: ClientCa | None = None,
    on_stranger: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; then take no more, finish what is in flight and close.

    `app` gets /healthz, /livez and /readyz; `on_stranger` is told of client certificates that no CA vouches
    for. Raises CertificateError, and ConfigurationError when a port is taken.
    """
    if settings.tls_cert_file is None or settings.tls_private_key_file is None:
        raise CeleryHpaError("There is no certificate to serve with.")
    tls = ReloadingTls(
        certificate_file=settings.tls_cert_file,
        key_file=settings.tls_private_key_file,
        client_ca=client_ca,
        on_stranger=on_stranger,
    )
    stopping = stop or asyncio.Event()
    check = _unless(stopping, health)
    loop = asyncio.get_running_loop()
    show_tasks(registry, lambda: len(asyncio.all_tasks(loop)))
    app.add_routes(health_routes(check, tells_details=False))
    async with (
        _listening(
            telemetry_app(registry, check), settings.host, settings.telemetry_port, option="--telemetry-port"
        ) as telemetry_port,
        _listening(app, settings.host, settings.port, option="--port", tls=tls, parsing=HEADERS) as port,
    ):
        with _stopped_by_signals(stopping):
            _prepare_interpreter()
            print(
                f"{name} serves https://{settings.host}:{port}, "
                f"telemetry http://{settings.host}:{telemetry_port}.",
                flush=True,
            )
            await stopping.wait()
        log.info("%s stops: it takes no more requests and finishes those it has.", name)


def show_tasks(registry: CollectorRegistry, count: Callable[[], int]) -> None:
    """How many tasks there are, counted whenever Prometheus asks: a leak shows long before memory does."""
    gauge = Gauge(
        "celery_hpa_asyncio_tasks",
        "What the service does at the same time, counted in asyncio's tasks.",
        registry=registry,
    )
    gauge.set_function(count)


def _prepare_interpreter() -> None:
    """Two habits of Python that would hold a request up, while the other thread reads answers of workers.

    The collector would go through all modules again and again, 30 ms at a time; they are here to stay. And a
    thread that computes gives way after 5 ms only.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)


def health_routes(check: HealthCheck, *, tells_details: bool) -> list[web.RouteDef]:
    """/healthz and /livez: the process answers. /readyz: it can do its work; 503 otherwise.

    Details name pools, brokers and delegates: they are not for a port that everybody in the cluster reaches.
    """

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_request: web.Request) -> web.Response:
        health = check()
        head = "ok" if health.is_ready else "not ready"
        text = "".join(f"{line}\n" for line in (head, *(health.details if tells_details else ())))
        return web.Response(text=text, status=200 if health.is_ready else 503)

    return [web.get("/healthz", alive), web.get("/livez", alive), web.get("/readyz", ready)]


def telemetry_app(registry: CollectorRegistry, check: HealthCheck) -> web.Application:
    """/metrics for Prometheus, and health for the kubelet, which has no certificate to show."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    # A series for each other one, that says when it began: nobody asks for it.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client's only untyped one
    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), *health_routes(check, tells_details=True)])
    return app


def run(service: Coroutine[Any, Any, None]) -> int:
    """Run a service to its end and return the exit code: 2 for mistakes in what it was told, 1 for others.

    What goes wrong at start is a sentence on stderr, not a traceback.
    """
    # Each connection has a buffer for what TLS hands over at once, of 256 KiB; a record has 16 at most. There
    # are three connections for each pool.
    SSLProtocol.max_size = TLS_BUFFER
    try:
        asyncio.run(service)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (CeleryHpaError, OSError, ExceptionGroup) as error:
        cause = _single(error)
        if isinstance(cause, ConfigurationError):
            for mistake in cause.mistakes:
                print(mistake, file=sys.stderr)
            return 2
        if isinstance(cause, CeleryHpaError | OSError):
            print(cause, file=sys.stderr)
            return 1
        raise
    return 0


def _single(error: Exception) -> Exception:
    """The one error of a group of tasks; the group when there are more."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _listening(
    app: web.Application,
    host: str,
    port: int,
    *,
    option: str,
    tls: ReloadingTls | None = None,
    parsing: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[int]:
    """The port it listens on; at the end requests in flight finish and idle connections are closed.

    `parsing` are options of aiohttp's. Raises ConfigurationError about `option` when it cannot listen.
    """
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=KEEPALIVE_S, shutdown_timeout=FINISH_S, **parsing
    )
    await runner.setup()
    try:
        try:
            for listener in listeners(host, port, Limits()):
                await LimitedSite(runner, listener, ssl_context=tls.context if tls else None).start()
        except OSError as error:
            message = f"{host}:{port} cannot be listened on ({error.strerror}); name another port, or --host"
            raise ConfigurationError((Mistake(path=option, message=message),)) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _unless(stopping: asyncio.Event, health: HealthCheck) -> HealthCheck:
    """Not ready once we stop, so that no new connection is sent here."""

    def check() -> Health:
        if stopping.is_set():
            return Health(is_ready=False, details=("The service is stopping.",))
        return health()

    return check

"""A running service: TLS that follows its files, health, telemetry, and an end that drops no request."""

import asyncio
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair
from shared.errors import BrokerUnavailable, CertificateError, ConfigurationError, Mistake
from shared.serving import KEEPALIVE_S, Health, run, serve
from shared.settings import Settings
from tests.shared.mounted_volume import MountedVolume

CA = make_ca("test CA")


@dataclass(kw_only=True)
class Service:
    """A service on free ports, with a handler that the test holds back."""

    directory: Path
    port: int = 0
    telemetry_port: int = 0
    health: Health = field(default_factory=Health)
    client_ca: Callable[[], str] | None = None
    strangers: int = 0
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    url: str = ""
    telemetry: str = ""

    mounted: Path | None = None
    """Where a Secret is mounted to serve with, instead of `files`."""

    @property
    def files(self) -> Mapping[str, Path]:
        return {"certificate_file": self.directory / "crt", "key_file": self.directory / "key"}

    def issue(self, ca: KeyPair = CA) -> KeyPair:
        leaf = make_leaf(ca, common_name="service", names=["localhost"], addresses=["127.0.0.1"])
        save_key_pair(leaf, **self.files)
        return leaf

    async def handle(self, request: web.Request) -> web.Response:
        transport = request.transport
        assert transport is not None
        if "wait" in request.query:
            self.entered.set()
            await self.may_answer.wait()
        peer = transport.get_extra_info("peercert") or {}
        names = [value for rdn in peer.get("subject", ()) for _, value in rdn]
        return web.json_response({"headers": len(request.headers), "client": names})

    def meet_stranger(self) -> None:
        self.strangers += 1

    async def serve(self) -> None:
        app = web.Application()
        app.add_routes([web.get("/", self.handle)])
        settings = Settings(
            config=Path("none"),
            host="127.0.0.1",
            port=self.port,
            telemetry_port=self.telemetry_port,
            tls_cert_file=self.mounted / "tls.crt" if self.mounted else self.files["certificate_file"],
            tls_private_key_file=self.mounted / "tls.key" if self.mounted else self.files["key_file"],
        )
        await serve(
            app,
            settings=settings,
            name="a_service",
            registry=self.registry,
            health=lambda: self.health,
            client_ca=self.client_ca,
            on_stranger=self.meet_stranger,
            stop=self.stop,
        )


@asynccontextmanager
async def running(service: Service, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(service.serve())
    async with asyncio.timeout(10):
        while not (match := re.search(r"serves (\S+), telemetry (\S+)\.\n", capsys.readouterr().out)):
            assert not task.done(), task.exception()
            await asyncio.sleep(0)
    service.url, service.telemetry = match.groups()
    try:
        yield task
    finally:
        service.stop.set()
        service.may_answer.set()
        await asyncio.wait_for(task, 10)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    service = Service(directory=tmp_path)
    service.issue()
    return service


def session(
    ca: KeyPair = CA, client: KeyPair | None = None, directory: Path | None = None
) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cadata=ca.certificate_pem.decode())
    if client and directory:
        files = {"certificate_file": directory / "client.crt", "key_file": directory / "client.key"}
        save_key_pair(client, **files)
        context.load_cert_chain(files["certificate_file"], files["key_file"])
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))


async def no_longer_taken(url: str) -> None:
    """Return when new connections are refused."""
    async with session() as client, asyncio.timeout(10):
        while True:
            try:
                await (await client.get(url)).read()
            except aiohttp.ClientError:
                return


async def test_it_says_where_it_serves_with_the_ports_it_got(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(service, capsys), session() as client:
        async with client.get(service.url) as response:
            assert response.status == 200
        assert service.url.startswith("https://127.0.0.1:")
        assert service.telemetry.startswith("http://127.0.0.1:")


async def test_new_handshakes_see_a_new_certificate_and_old_connections_go_on(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """A certificate is renewed without a restart."""
    async with running(service, capsys), session() as old:
        async with old.get(service.url) as response:
            assert response.status == 200
        second_ca = make_ca("another CA")
        service.issue(second_ca)
        async with session(second_ca) as new, new.get(service.url) as response:
            assert response.status == 200
        async with old.get(service.url) as response:
            assert response.status == 200
        async with session() as late:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await late.get(service.url)


async def test_a_mounted_certificate_changes_as_the_kubelet_changes_it(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """cert-manager's Secret: both files at once, by a symlink, and the directory they were in is gone."""

    def pair(ca: KeyPair) -> dict[str, str]:
        leaf = service.issue(ca)
        return {"tls_crt": leaf.certificate_pem.decode(), "tls_key": leaf.key_pem.decode()}

    second_ca = make_ca("another CA")
    volume = MountedVolume(service.directory / "tls", **pair(CA))
    service.mounted = volume.directory
    async with running(service, capsys):
        async with session() as client, client.get(service.url) as response:
            assert response.status == 200
        volume.change(**pair(second_ca))
        async with session(second_ca) as client, client.get(service.url) as response:
            assert response.status == 200


async def test_a_half_written_certificate_leaves_the_old_one_in_use(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(service, capsys):
        service.files["key_file"].write_bytes(b"rubbish")
        async with session() as client, client.get(service.url) as response:
            assert response.status == 200
        service.files["key_file"].unlink()
        async with session() as client, client.get(service.url) as response:
            assert response.status == 200
        service.issue()
        async with session() as client, client.get(service.url) as response:
            assert response.status == 200


async def test_client_certificates_are_taken_from_the_cas_of_the_moment(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CA of the front proxy is only known later, and changes; who has no certificate is served too."""
    authorities = {"pem": ""}
    service.client_ca = lambda: authorities["pem"]
    proxy_ca = make_ca("front proxy CA")
    proxy = make_leaf(proxy_ca, common_name="front-proxy-client", is_client=True)
    async with running(service, capsys):
        async with session() as client, client.get(service.url) as response:
            assert (await response.json())["client"] == []
        authorities["pem"] = proxy_ca.certificate_pem.decode()
        async with session(client=proxy, directory=tmp_path) as client, client.get(service.url) as response:
            assert (await response.json())["client"] == ["front-proxy-client"]
        authorities["pem"] = make_ca("the next CA").certificate_pem.decode()
        assert service.strangers == 0
        async with session(client=proxy, directory=tmp_path) as client:
            with pytest.raises(aiohttp.ClientError):
                await (await client.get(service.url)).read()
        assert service.strangers > 0  # aiohttp may have tried again


async def test_a_user_of_many_groups_is_not_refused(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """The front proxy sends a header for each group; aiohttp's own limit is 128 headers of 8 KiB."""
    headers = [("X-Remote-Group", f"group-{n}") for n in range(1000)] + [("X-Remote-Extra-A", "x" * 50_000)]
    async with (
        running(service, capsys),
        session() as client,
        client.get(service.url, headers=headers) as response,
    ):
        assert response.status == 200
        assert (await response.json())["headers"] > 1000


async def test_go_clients_are_told_that_it_is_http_1(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """kube-apiserver offers HTTP/2 first; without an answer to that it would have to guess."""
    context = ssl.create_default_context(cadata=CA.certificate_pem.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with running(service, capsys):
        port = int(service.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        connection = writer.get_extra_info("ssl_object")
        assert connection.selected_alpn_protocol() == "http/1.1"
        writer.close()
        await writer.wait_closed()


def test_go_clients_close_idle_connections_before_we_do() -> None:
    """After 90 s; whoever closes first while the other writes makes a request fail."""
    assert KEEPALIVE_S > 90


async def test_whoever_reads_telemetry_needs_no_large_headers(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(service, capsys), session() as client:
        for url, status in ((service.url, 200), (service.telemetry, 400)):
            async with client.get(f"{url}/livez", headers={"X-Large": "x" * 10_000}) as response:
                assert response.status == status


async def test_a_request_in_flight_is_finished_before_the_end(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """A review that was cut off would be a refused scale-down."""
    async with running(service, capsys) as task, session() as client:
        request = asyncio.create_task(client.get(f"{service.url}/?wait"))
        await asyncio.wait_for(service.entered.wait(), 10)
        service.stop.set()
        await no_longer_taken(f"{service.url}/healthz")
        assert not task.done()
        service.may_answer.set()
        response = await request
        assert response.status == 200
        await asyncio.wait_for(task, 10)


async def test_an_idle_connection_does_not_hold_up_the_end(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """kube-apiserver keeps its connections; one left open would make a stopped service look alive."""
    async with running(service, capsys) as task, session() as client:
        async with client.get(service.url) as response:
            await response.read()
        service.stop.set()
        await asyncio.wait_for(task, 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it(
    service: Service, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(service, capsys) as task:
        signal.raise_signal(number)
        await asyncio.wait_for(task, 10)
        assert service.stop.is_set()


async def test_health_is_on_both_ports_and_readiness_tells_what_is_amiss(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words only where telemetry is read: the other port is open to everybody in the cluster."""
    async with running(service, capsys), session() as client:
        service.health = Health(is_ready=False, details=("The broker cannot be reached.",))
        for base, readiness in (
            (service.url, "not ready\n"),
            (service.telemetry, "not ready\nThe broker cannot be reached.\n"),
        ):
            for path, status in (("/healthz", 200), ("/livez", 200), ("/readyz", 503)):
                async with client.get(base + path) as response:
                    assert (path, response.status) == (path, status)
                    text = await response.text()
            assert text == readiness
        service.health = Health(details=("A detail.",))
        async with client.get(f"{service.telemetry}/readyz") as response:
            assert (response.status, await response.text()) == (200, "ok\nA detail.\n")


async def test_telemetry_is_what_prometheus_reads(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    Counter("things", "Things counted.", registry=service.registry).inc(3)
    async with (
        running(service, capsys),
        session() as client,
        client.get(f"{service.telemetry}/metrics") as response,
    ):
        assert response.content_type == "text/plain"
        text = await response.text()
        assert "things_total 3.0" in text
        assert "_created" not in text


async def test_files_that_cannot_be_served_with_are_told_at_start(service: Service) -> None:
    service.files["key_file"].write_bytes(make_ca("x").key_pem)
    with pytest.raises(CertificateError, match="cannot be used together"):
        await service.serve()


@pytest.mark.parametrize(("field", "option"), [("port", "--port"), ("telemetry_port", "--telemetry-port")])
async def test_a_port_that_is_taken_is_told_with_its_option(
    service: Service, field: str, option: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        setattr(service, field, other.getsockname()[1])
        with pytest.raises(ConfigurationError, match=f"{option}: .*in use.*name another") as caught:
            await service.serve()
    assert len(caught.value.mistakes) == 1


def test_mistakes_are_printed_one_a_line_and_the_exit_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    async def start() -> None:
        raise ConfigurationError((Mistake(path="a", message="wrong"), Mistake(path="", message="also wrong")))

    assert run(start()) == 2
    assert capsys.readouterr().err == "a: wrong\nalso wrong\n"


def test_what_else_goes_wrong_at_start_is_a_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    async def start() -> None:
        raise BrokerUnavailable("The broker cannot be reached.")

    assert run(start()) == 1
    assert capsys.readouterr().err == "The broker cannot be reached.\n"


def test_an_error_out_of_a_group_of_tasks_is_a_sentence_all_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def start() -> None:
        async with asyncio.TaskGroup():
            raise CertificateError("The certificate cannot be read.")

    assert run(start()) == 1
    assert capsys.readouterr().err == "The certificate cannot be read.\n"


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    async def start() -> None:
        raise AssertionError("this cannot be")

    with pytest.raises(AssertionError):
        run(start())


def test_a_service_that_was_stopped_has_gone_well() -> None:
    async def start() -> None:
        return None

    assert run(start()) == 0

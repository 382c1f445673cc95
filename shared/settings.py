"""What both services are told at start: the command line, and the configuration file with its secrets."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from shared.configuration_values import broker_url_mistake, database_url_mistake
from shared.errors import BrokerUnavailable, ConfigurationError, DatabaseUnavailable, Mistake
from shared.logs import LogFormat
from shared.pools import Airflow, Broker, Configuration, Pool, SecretSource, parse_configuration

log = logging.getLogger(__name__)

RELOAD_EVERY_S = 2.0
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The command line."""

    config: Path
    """The configuration file."""
    kubeconfig: str | None = None
    """None: the service account of the pod."""
    host: str = "0.0.0.0"
    port: int
    """0 takes a free one; the line printed at start names it."""
    telemetry_port: int
    tls_cert_file: Path | None = None
    tls_private_key_file: Path | None = None
    tls_self_managed: bool = False
    """Make a CA and a certificate, keep them in a Secret, and register the CA with the API server."""
    client_ca_file: Path | None = None
    """CAs of the client certificates that are let in; None lets in everybody."""
    client_allowed_names: frozenset[str] = frozenset()
    """One of these a client certificate must have; empty allows each of the CAs'."""
    log_format: LogFormat = "text"
    log_level: str = "info"


def parse_arguments(
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    port: int,
    telemetry_port: int,
    checks_clients: bool = False,
) -> Settings:
    """The settings of a command line; a wrong one prints what would be right and exits with 2.

    With `checks_clients` it may say whose client certificates are let in.
    """
    parser = _parser(prog=prog, description=description, port=port, telemetry_port=telemetry_port)
    if checks_clients:
        _add_clients(parser)
    arguments = parser.parse_args(argv)
    if checks_clients and arguments.client_allowed_names and not arguments.client_ca_file:
        parser.error("--client-allowed-names needs --client-ca-file: names of any CA say nothing.")
    files = (arguments.tls_cert_file, arguments.tls_private_key_file)
    if any(files) != all(files):
        parser.error("--tls-cert-file and --tls-private-key-file belong together: name both.")
    if all(files) == arguments.tls_self_managed:
        parser.error(
            "name either --tls-cert-file with --tls-private-key-file, or --tls-self-managed: "
            "the API server speaks nothing but HTTPS."
        )
    return Settings(**vars(arguments))


def _parser(*, prog: str, description: str, port: int, telemetry_port: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the pools, as YAML")
    add("--kubeconfig", metavar="FILE", help="how to reach Kubernetes (the pod's service account)")
    add("--host", default="0.0.0.0", metavar="ADDRESS", help="address to serve on (%(default)s)")
    add("--port", type=_port, default=port, help="HTTPS; 0 for any free port (%(default)s)")
    add(
        "--telemetry-port",
        type=_port,
        default=telemetry_port,
        metavar="PORT",
        help="HTTP for /metrics, /livez and /readyz; 0 for any free port (%(default)s)",
    )
    add("--tls-cert-file", type=Path, metavar="FILE", help="serving certificate; may change while it runs")
    add("--tls-private-key-file", type=Path, metavar="FILE", help="its private key")
    add(
        "--tls-self-managed",
        action="store_true",
        help="instead of the two files: make a certificate, keep it in a Secret, renew it in time",
    )
    add("--log-format", choices=("text", "json"), default="text", help="(%(default)s)")
    add("--log-level", choices=LOG_LEVELS, default="info", help="(%(default)s)")
    return parser


def _add_clients(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--client-ca-file",
        type=Path,
        metavar="FILE",
        help="answer only to client certificates of these CAs, as the API server's; may change while it runs",
    )
    parser.add_argument(
        "--client-allowed-names",
        type=_names,
        default=frozenset(),
        metavar="NAME,…",
        help="and only to those with one of these common or alternative names (any)",
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, (name.strip() for name in text.split(","))))


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError("a port is a number from 0 (any free one) to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    text: str = field(repr=False)
    configuration: Configuration
    broker_urls: Mapping[tuple[str, str], str] = field(repr=False)
    """By Pool.key."""
    database_urls: Mapping[tuple[str, str], str] = field(repr=False)
    """By Pool.key, of Airflow pools."""


class ConfigurationFile:
    """The configuration in force: that of the file as it was when it was last without a mistake."""

    def __init__(
        self, path: Path, *, registry: CollectorRegistry, environment: Mapping[str, str] = os.environ
    ) -> None:
        """Read the file and its secrets; raises ConfigurationError with every mistake."""
        self._path = path
        self._environment = environment
        self._is_sound = Gauge(
            "celery_hpa_configuration_ok",
            "1 while the configuration file is in force as it stands, 0 while an older one is.",
            registry=registry,
        )
        self._loaded = self._load(None)
        self._is_sound.set(1)
        self._event = asyncio.Event()
        self.problem: str | None = None
        """Why the file as it stands is not in force."""
        self.version = 0
        """Grows whenever another configuration, or another secret, comes into force."""

    @property
    def current(self) -> Configuration:
        return self._loaded.configuration

    @property
    def broker_urls(self) -> Mapping[tuple[str, str], str]:
        """The brokers' URLs of the current configuration, with passwords, by Pool.key."""
        return self._loaded.broker_urls

    @property
    def database_urls(self) -> Mapping[tuple[str, str], str]:
        """The metadata databases' URLs of the Airflow pools, with passwords, by Pool.key."""
        return self._loaded.database_urls

    def broker_url(self, pool: Pool) -> str:
        """The broker's URL of a pool of the current configuration, with its password.

        Raises BrokerUnavailable for one that was removed in the meantime.
        """
        if pool.key not in self._loaded.broker_urls:
            raise BrokerUnavailable(f"Pool {pool.namespace}/{pool.name} is not in {self._path} any more.")
        return self._loaded.broker_urls[pool.key]

    def database_url(self, pool: Pool) -> str:
        """The metadata database's URL of an Airflow pool of the current configuration, with its password.

        Raises DatabaseUnavailable for one that was removed, or is no Airflow pool any more.
        """
        if pool.key not in self._loaded.database_urls:
            raise DatabaseUnavailable(
                f"Pool {pool.namespace}/{pool.name} has no metadata database in {self._path} any more."
            )
        return self._loaded.database_urls[pool.key]

    async def wait_changed(self, version: int) -> int:
        """Return the current version as soon as it is another one than `version`."""
        while self.version == version:
            await self._event.wait()
        return self.version

    async def watch(self, *, every_s: float = RELOAD_EVERY_S) -> None:
        """Look for changes for ever, by content: mounted ConfigMaps and Secrets are swapped by symlink."""
        while True:
            await asyncio.sleep(every_s)
            self.reload()

    def reload(self) -> None:
        """Read everything again; a file with mistakes leaves the old configuration in force and says so."""
        try:
            loaded = self._load(self._loaded)
        except ConfigurationError as error:
            self._keep_old(error)
            return
        self.problem = None
        self._is_sound.set(1)
        if loaded != self._loaded:
            self._loaded = loaded
            self.version += 1
            self._event.set()
            self._event = asyncio.Event()
            log.info("%s was read again and is in force.", self._path)

    def _load(self, before: _Loaded | None) -> _Loaded:
        text = _read(self._path, path="")
        is_same = before is not None and text == before.text
        configuration = before.configuration if before and is_same else parse_configuration(text)
        broker_urls, database_urls = _urls(configuration, self._environment)
        return _Loaded(
            text=text,
            configuration=configuration,
            broker_urls=broker_urls,
            database_urls=database_urls,
        )

    def _keep_old(self, error: ConfigurationError) -> None:
        mistakes = "; ".join(map(str, error.mistakes))
        problem = f"{self._path} cannot be used, what it said before stays in force: {mistakes}"
        if problem != self.problem:
            log.error("%s", problem)
        self.problem = problem
        self._is_sound.set(0)


_Urls = Mapping[tuple[str, str], str]


def _urls(configuration: Configuration, environment: Mapping[str, str]) -> tuple[_Urls, _Urls]:
    """The brokers' and the metadata databases' URLs by Pool.key; raises with every mistake in them."""
    brokers: dict[tuple[str, str], str] = {}
    databases: dict[tuple[str, str], str] = {}
    mistakes: list[Mistake] = []
    for index, pool in enumerate(configuration.pools):
        try:
            brokers[pool.key] = _broker_url(pool.broker, f"pools[{index}].broker", environment)
        except ConfigurationError as error:
            mistakes += error.mistakes
        try:
            if pool.airflow is not None:
                databases[pool.key] = _database_url(pool.airflow, f"pools[{index}].airflow", environment)
        except ConfigurationError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigurationError(tuple(mistakes))
    return brokers, databases


def broker_url_of(pool: Pool, *, environment: Mapping[str, str] = os.environ) -> str:
    """The URL of one pool's broker, with its password; raises ConfigurationError when it cannot be read."""
    return _broker_url(pool.broker, "broker", environment)


def database_url_of(pool: Pool, *, environment: Mapping[str, str] = os.environ) -> str | None:
    """The URL of an Airflow pool's metadata database, with its password; None for a pool that has none.

    Raises ConfigurationError when it cannot be read.
    """
    return None if pool.airflow is None else _database_url(pool.airflow, "airflow", environment)


def read_configuration(path: Path) -> Configuration:
    """The file without its secrets; raises ConfigurationError with every mistake."""
    return parse_configuration(_read(path, path=""))


def _broker_url(broker: Broker, path: str, environment: Mapping[str, str]) -> str:
    if broker.url_from is None:
        return broker.url or ""
    return _secret_url(broker.url_from, f"{path}.urlFrom", environment, broker_url_mistake)


def _database_url(airflow: Airflow, path: str, environment: Mapping[str, str]) -> str:
    if airflow.database_from is None:
        return airflow.database or ""
    return _secret_url(airflow.database_from, f"{path}.databaseFrom", environment, database_url_mistake)


def _secret_url(
    source: SecretSource,
    path: str,
    environment: Mapping[str, str],
    mistake_in: Callable[[str], str | None],
) -> str:
    url = _secret(source, path, environment)
    if sentence := mistake_in(url):
        raise ConfigurationError((Mistake(path=path, message=sentence),))
    return url


def _secret(source: SecretSource, path: str, environment: Mapping[str, str]) -> str:
    if source.file is not None:
        return _read(Path(source.file), path=f"{path}.file").strip()
    name = source.env or ""
    if not environment.get(name):
        message = f"the environment variable {name} is not set, or empty"
        raise ConfigurationError((Mistake(path=f"{path}.env", message=message),))
    return environment[name].strip()


def _read(file: Path, *, path: str) -> str:
    """The text of a file; `path` is where the configuration names it."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror or error}"
    except UnicodeDecodeError:
        message = f"{file} is no UTF-8 text"
    except ValueError:
        message = "no file can have this name"
    raise ConfigurationError((Mistake(path=path, message=message),))

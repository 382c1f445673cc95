"""The command line and the configuration file: mistakes are named, a broken file replaces no sound one."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from shared.errors import ConfigurationError, DatabaseUnavailable
from shared.settings import ConfigurationFile, Settings, parse_arguments
from tests.shared.mounted_volume import MountedVolume

POOL = """
pools:
  - name: default
    namespace: airflow
    workload: {kind: Deployment, name: worker}
    queues: [default]
    slotsPerWorker: 16
    broker: BROKER
"""
IN_PLACE = POOL.replace("BROKER", "{url: 'redis://:secret@redis:6379/0'}")
FROM_ENVIRONMENT = POOL.replace("BROKER", "{urlFrom: {env: BROKER_URL}}")
AIRFLOW_FROM_ENVIRONMENT = IN_PLACE + "    airflow: {databaseFrom: {env: AIRFLOW_DB}}"
FILES = ["--tls-cert-file", "c", "--tls-private-key-file", "k"]


def parsed(*arguments: str) -> Settings:
    return parse_arguments(arguments, prog="hook", description="It hooks.", port=8443, telemetry_port=9091)


def file_at(
    path: Path, text: str, *, environment: Mapping[str, str] = {}, registry: CollectorRegistry | None = None
) -> ConfigurationFile:
    path.write_text(text)
    return ConfigurationFile(path, registry=registry or CollectorRegistry(), environment=environment)


def mistakes_of(path: Path, text: str, *, environment: Mapping[str, str] = {}) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        file_at(path, text, environment=environment)
    return list(map(str, caught.value.mistakes))


def test_only_who_asks_for_it_checks_clients(capsys: pytest.CaptureFixture[str]) -> None:
    """The adapter has its trust from the API server itself."""
    wanted = ["--config", "f", *FILES, "--client-ca-file", "ca", "--client-allowed-names", "apiserver, other"]
    told = {"prog": "hook", "description": "", "port": 1, "telemetry_port": 2}
    settings = parse_arguments(wanted, **told, checks_clients=True)
    assert settings.client_ca_file == Path("ca")
    assert settings.client_allowed_names == {"apiserver", "other"}
    with pytest.raises(SystemExit):
        parse_arguments(wanted, **told)
    assert "--client-ca-file" in capsys.readouterr().err


def test_names_without_a_ca_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--config", "f", *FILES, "--client-allowed-names", "apiserver"]
    with pytest.raises(SystemExit):
        parse_arguments(wanted, prog="", description="", port=1, telemetry_port=2, checks_clients=True)
    assert "needs --client-ca-file" in capsys.readouterr().err


def test_a_short_command_line_is_filled_with_defaults() -> None:
    settings = parsed("--config", "f", *FILES)
    assert settings == Settings(
        config=Path("f"),
        port=8443,
        telemetry_port=9091,
        tls_cert_file=Path("c"),
        tls_private_key_file=Path("k"),
    )
    assert (settings.host, settings.kubeconfig, settings.log_format) == ("0.0.0.0", None, "text")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (FILES, "--config"),
        (["--config", "f"], "name either --tls-cert-file"),
        (["--config", "f", "--tls-cert-file", "c"], "belong together"),
        (["--config", "f", "--tls-self-managed", *FILES], "name either --tls-cert-file"),
        (["--config", "f", *FILES, "--port", "65536"], "a port is a number"),
        (["--config", "f", *FILES, "--port", "-1"], "a port is a number"),
        (["--config", "f", *FILES, "--log-format", "xml"], "text"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_why(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_broker_url_may_stand_in_place(tmp_path: Path) -> None:
    file = file_at(tmp_path / "f", IN_PLACE)
    assert file.broker_url(file.current.pools[0]) == "redis://:secret@redis:6379/0"


def test_the_broker_url_may_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("amqp://u:p@rabbit//\n")
    file = file_at(tmp_path / "f", POOL.replace("BROKER", f"{{urlFrom: {{file: {secret}}}}}"))
    assert file.broker_url(file.current.pools[0]) == "amqp://u:p@rabbit//"
    file = file_at(tmp_path / "g", FROM_ENVIRONMENT, environment={"BROKER_URL": "redis://r/0"})
    assert file.broker_url(file.current.pools[0]) == "redis://r/0"


def test_every_secret_that_is_missing_is_named(tmp_path: Path) -> None:
    text = POOL.replace("BROKER", "{urlFrom: {file: /nowhere/url}}")
    second = FROM_ENVIRONMENT.removeprefix("\npools:\n").replace("default", "other").replace("worker", "w2")
    mistakes = mistakes_of(tmp_path / "f", text + second)
    assert mistakes == [
        "pools[0].broker.urlFrom.file: /nowhere/url cannot be read: No such file or directory",
        "pools[1].broker.urlFrom.env: the environment variable BROKER_URL is not set, or empty",
    ]


def test_a_secret_file_that_cannot_exist_is_a_mistake(tmp_path: Path) -> None:
    """While it runs, too: no name in the file may end the process."""
    (mistake,) = mistakes_of(tmp_path / "f", POOL.replace("BROKER", '{urlFrom: {file: "/a\\0b"}}'))
    assert mistake == "pools[0].broker.urlFrom.file: no file can have this name"


def test_a_secret_that_is_no_broker_url_is_not_repeated(tmp_path: Path) -> None:
    """It may be a password that was put into the wrong variable."""
    (mistake,) = mistakes_of(tmp_path / "f", FROM_ENVIRONMENT, environment={"BROKER_URL": "hunter2"})
    assert mistake.startswith(
        "pools[0].broker.urlFrom: write the broker's URL beginning with one of redis://"
    )
    assert "hunter2" not in mistake


def test_the_database_url_may_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("postgresql://u:p@db/airflow\n")
    file = file_at(tmp_path / "f", IN_PLACE + f"    airflow: {{databaseFrom: {{file: {secret}}}}}")
    assert file.database_url(file.current.pools[0]) == "postgresql://u:p@db/airflow"
    environment = {"AIRFLOW_DB": "mysql://u:p@db/airflow"}
    file = file_at(tmp_path / "g", AIRFLOW_FROM_ENVIRONMENT, environment=environment)
    assert file.database_url(file.current.pools[0]) == "mysql://u:p@db/airflow"
    file = file_at(tmp_path / "h", IN_PLACE + "    airflow: {database: 'postgresql://u:p@db/a'}")
    assert file.database_url(file.current.pools[0]) == "postgresql://u:p@db/a"


def test_a_pool_that_is_no_airflow_pool_any_more_has_no_database(tmp_path: Path) -> None:
    """Rounds go on by the configuration with which they began."""
    file = file_at(tmp_path / "f", IN_PLACE)
    with pytest.raises(DatabaseUnavailable, match="no metadata database"):
        file.database_url(file.current.pools[0])


def test_mistakes_in_secrets_of_broker_and_database_are_told_at_once(tmp_path: Path) -> None:
    """And a password that stands where a URL belongs is not repeated."""
    text = FROM_ENVIRONMENT + "    airflow: {databaseFrom: {env: AIRFLOW_DB}}"
    mistakes = mistakes_of(tmp_path / "f", text, environment={"AIRFLOW_DB": "hunter2"})
    assert [mistake.partition(": ")[0] for mistake in mistakes] == [
        "pools[0].broker.urlFrom.env",
        "pools[0].airflow.databaseFrom",
    ]
    assert "write the URL of Airflow's metadata database" in mistakes[1]
    assert "hunter2" not in mistakes[1]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql+asyncpg://u:hunter2@db/airflow", "postgresql+psycopg2://"),
        ("oracle://u:hunter2@db/airflow", "mysql+pymysql://"),
        ("postgresql://u:hunter2/a@db/airflow", "%2F for a slash"),
        ("postgresql://u:hunter2@x@db/airflow", "%2F for a slash"),
        ("postgresql://u:12/hunter2@db/airflow", "%2F for a slash"),
        ("postgresql://db/airflow?user=u&password=ab@hunter2", "%2F for a slash"),
        ("postgresql://u@db/airflow?sslpassword=k@hunter2", "%2F for a slash"),
        ("postgresql://u:hunter2@db", "HOST:PORT/DATABASE"),
        ("mysql+mysqldb://u:hunter2@db/airflow?ssl_mode=REQUIRED", "mysql+pymysql://"),
        ("sqlite://hunter2", "sqlite:///PATH"),
    ],
)
def test_a_database_url_that_cannot_be_used_is_not_repeated(url: str, sentence: str, tmp_path: Path) -> None:
    environment = {"AIRFLOW_DB": url}
    (from_secret,) = mistakes_of(tmp_path / "f", AIRFLOW_FROM_ENVIRONMENT, environment=environment)
    (in_place,) = mistakes_of(tmp_path / "g", IN_PLACE + f"    airflow: {{database: '{url}'}}")
    assert from_secret.startswith("pools[0].airflow.databaseFrom: write ")
    assert in_place.startswith("pools[0].airflow.database: write ")
    for mistake in (from_secret, in_place):
        assert sentence in mistake
        assert "hunter2" not in mistake


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        ConfigurationFile(tmp_path / "none", registry=CollectorRegistry())


def test_a_file_that_is_no_text_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="no UTF-8 text"):
        ConfigurationFile(tmp_path / "f", registry=CollectorRegistry())


def test_a_changed_file_comes_into_force(tmp_path: Path) -> None:
    file = file_at(tmp_path / "f", IN_PLACE)
    file.reload()
    assert file.version == 0
    (tmp_path / "f").write_text(IN_PLACE.replace("16", "8"))
    file.reload()
    assert (file.version, file.current.pools[0].slots_per_worker) == (1, 8)


def test_a_swapped_symlink_is_noticed(tmp_path: Path) -> None:
    """So a mounted ConfigMap changes."""
    (tmp_path / "old").write_text(IN_PLACE)
    (tmp_path / "new").write_text(IN_PLACE.replace("16", "8"))
    (tmp_path / "f").symlink_to(tmp_path / "old")
    file = ConfigurationFile(tmp_path / "f", registry=CollectorRegistry())
    (tmp_path / "beside").symlink_to(tmp_path / "new")
    (tmp_path / "beside").replace(tmp_path / "f")
    file.reload()
    assert file.current.pools[0].slots_per_worker == 8


def test_mounted_volumes_change_as_the_kubelet_changes_them(tmp_path: Path) -> None:
    """The ConfigMap and the Secret each by themselves, and the directories that they were in are gone."""
    secret = MountedVolume(tmp_path / "secret", url="redis://:old@r/0")
    text = POOL.replace("BROKER", f"{{urlFrom: {{file: {secret.directory / 'url'}}}}}")
    volume = MountedVolume(tmp_path / "config", config_yaml=text)
    file = ConfigurationFile(tmp_path / "config" / "config.yaml", registry=CollectorRegistry())
    volume.change(config_yaml=text.replace("16", "8"))
    file.reload()
    assert (file.version, file.current.pools[0].slots_per_worker) == (1, 8)
    secret.change(url="redis://:new@r/0")
    file.reload()
    assert (file.version, file.broker_url(file.current.pools[0])) == (2, "redis://:new@r/0")
    volume.change(config_yaml="pools: nonsense")
    file.reload()
    assert (file.version, file.current.pools[0].slots_per_worker) == (2, 8)
    assert file.problem


def test_a_configuration_that_comes_before_its_secret_waits_for_it(tmp_path: Path) -> None:
    """The kubelet brings them one after the other, in any order."""
    secret = MountedVolume(tmp_path / "secret", old="redis://:old@r/0")
    text = POOL.replace("BROKER", f"{{urlFrom: {{file: {secret.directory / 'old'}}}}}")
    file = file_at(tmp_path / "f", text)
    (tmp_path / "f").write_text(text.replace("secret/old", "secret/new"))
    file.reload()
    assert "secret/new cannot be read" in (file.problem or "")
    assert file.broker_url(file.current.pools[0]) == "redis://:old@r/0"
    secret.change(new="redis://:new@r/0")
    file.reload()
    assert file.problem is None
    assert file.broker_url(file.current.pools[0]) == "redis://:new@r/0"


@pytest.mark.parametrize("broken", ["", "no broker url", None])
def test_a_secret_that_is_broken_leaves_the_old_one_in_force(tmp_path: Path, broken: str | None) -> None:
    """Emptied, garbled or gone: workers stay reachable, and the password is not in what is said of it."""
    secret = tmp_path / "secret"
    secret.write_text("redis://:hunter2@r/0")
    file = file_at(tmp_path / "f", POOL.replace("BROKER", f"{{urlFrom: {{file: {secret}}}}}"))
    if broken is None:
        secret.unlink()
    else:
        secret.write_text(broken)
    file.reload()
    assert file.broker_url(file.current.pools[0]) == "redis://:hunter2@r/0"
    assert file.problem
    assert "hunter2" not in file.problem


def test_a_changed_secret_comes_into_force(tmp_path: Path) -> None:
    """Passwords are rotated without touching the configuration file."""
    secret = tmp_path / "secret"
    secret.write_text("redis://:old@r/0")
    file = file_at(tmp_path / "f", POOL.replace("BROKER", f"{{urlFrom: {{file: {secret}}}}}"))
    secret.write_text("redis://:new@r/0")
    file.reload()
    assert file.version == 1
    assert file.broker_url(file.current.pools[0]) == "redis://:new@r/0"


def test_broker_urls_that_were_taken_stay_as_they_were(tmp_path: Path) -> None:
    """Whoever still works by the old configuration finds its pools, the new one may name others."""
    file = file_at(tmp_path / "f", IN_PLACE)
    (old,), urls = file.current.pools, file.broker_urls
    (tmp_path / "f").write_text(IN_PLACE.replace("default", "other"))
    file.reload()
    assert old.key in urls
    assert old.key not in file.broker_urls


def test_a_broken_file_leaves_the_old_one_in_force_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    file = file_at(tmp_path / "f", IN_PLACE, registry=registry)
    assert registry.get_sample_value("celery_hpa_configuration_ok") == 1
    (tmp_path / "f").write_text("pools: []")
    for _ in range(3):
        file.reload()
    assert (file.version, file.current.pools[0].name) == (0, "default")
    assert file.problem is not None
    assert "pools: " in file.problem
    assert registry.get_sample_value("celery_hpa_configuration_ok") == 0
    assert len(caplog.records) == 1, "one line when it breaks, not one every two seconds"
    (tmp_path / "f").write_text(IN_PLACE)
    file.reload()
    assert file.problem is None
    assert registry.get_sample_value("celery_hpa_configuration_ok") == 1


def test_a_password_shows_in_no_representation(tmp_path: Path) -> None:
    file = file_at(tmp_path / "f", IN_PLACE)
    assert "secret" not in repr(file._loaded) + repr(file.current) + str(file.current)


async def test_whoever_waits_hears_of_a_change(tmp_path: Path) -> None:
    file = file_at(tmp_path / "f", IN_PLACE)
    watching = asyncio.create_task(file.watch(every_s=0.01))
    (tmp_path / "f").write_text(IN_PLACE.replace("16", "8"))
    assert await asyncio.wait_for(file.wait_changed(0), 10) == 1
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

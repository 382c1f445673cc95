"""Single values of the configuration file: durations, ratios, names, URLs. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

BROKER_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel", "amqp", "amqps", "pyamqp")
"""Celery's remote control works on Redis and RabbitMQ only."""

DATABASE_SCHEMES = {
    "postgresql": "postgresql+psycopg2",
    "postgresql+psycopg2": "postgresql+psycopg2",
    "postgresql+psycopg": "postgresql+psycopg2",
    "postgres": "postgresql+psycopg2",
    "postgres+psycopg2": "postgresql+psycopg2",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    "mysql+mysqldb": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
    "sqlite": "sqlite",
}
"""How Airflow's users write the URL of the metadata database, and with which driver we open it."""

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"


def _seconds(value: object) -> object:
    """`90`, `"90s"`, `"1h30m"` to seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if match is None:
        raise ValueError("write a duration as 90s, 5m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _number(value: object) -> object:
    """Python takes true for 1."""
    if isinstance(value, bool):
        raise ValueError("write a number")
    return value


def _ratio(value: object) -> object:
    """`"0.8"` or `0.8`; a string so that 0.8 means eight tenths and not a float near it."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _no_finer_than_a_milli(value: Decimal) -> Decimal:
    if value != value.quantize(Decimal("0.001")):
        raise ValueError("at most three decimals: Kubernetes rounds finer quantities up")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Integer = Annotated[int, BeforeValidator(_number)]
PositiveSeconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[
    Decimal,
    BeforeValidator(_ratio),
    Field(gt=0, le=100, allow_inf_nan=False),
    AfterValidator(_no_finer_than_a_milli),
]
Name = Annotated[str, Field(pattern=_NAME, max_length=253)]
Text = Annotated[str, Field(min_length=1)]


def broker_url_mistake(url: str) -> str | None:
    """What is wrong with a broker's URL, without a word of it; None when it can be used."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in BROKER_SCHEMES:
        return f"write the broker's URL beginning with one of {', '.join(f'{s}://' for s in BROKER_SCHEMES)}"
    if not all(map(_names_a_place, url.split(";"))):
        return (
            "write the broker's URL as redis://USER:PASSWORD@HOST:PORT/0, with each / ? # @ : ; [ ] and % of "
            "user and password encoded: %2F for a slash"
        )
    return None


def _names_a_place(url: str) -> bool:
    """Whether host and port can be read; a password that is not encoded is taken for a port."""
    scheme, _, rest = url.rpartition("://")
    try:
        parts = urlsplit(f"{scheme or 'amqp'}://{rest}")
        return parts.port is None or bool(parts.hostname)
    except ValueError:
        return False


def database_url_mistake(url: str) -> str | None:
    """What is wrong with a metadata database's URL, without a word of it; None when it can be used."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in DATABASE_SCHEMES:
        return (
            "write the URL of Airflow's metadata database with a driver that is here: postgresql+psycopg2://"
            "USER:PASSWORD@HOST:5432/airflow or mysql+pymysql://USER:PASSWORD@HOST:3306/airflow"
        )
    if scheme == "sqlite":
        return None if rest.startswith("/") and rest.strip("/") else "write sqlite:///PATH of the file"
    if not _names_a_database(url):
        return (
            "write the database's URL as postgresql+psycopg2://USER:PASSWORD@HOST:PORT/DATABASE, with each "
            "/ ? # @ : [ ] and % of user and password encoded: %2F for a slash"
        )
    if scheme == "mysql+mysqldb" and (options := urlsplit(url).query) and not options.startswith("charset="):
        return "write mysql+pymysql:// with options as PyMySQL names them: those of mysqldb are others"
    return None


def _names_a_database(url: str) -> bool:
    """Whether host, port and database can be read; an @ too many is one of a password that is not encoded."""
    if not _names_a_place(url):
        return False
    parts = urlsplit(url)
    return bool(parts.path.strip("/")) and url.count("@") <= parts.netloc.count("@") <= 1

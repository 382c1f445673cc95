"""URLs of databases in sentences. Those of brokers: test_celery_brokers.py."""

import pytest

from shared.urls import database_address, redacted


def test_an_address_of_a_database_names_neither_user_nor_options() -> None:
    url = "postgresql+psycopg2://airflow:pass;word@db:5432/airflow?sslpassword=other&connect_timeout=3"
    assert database_address(url) == "postgresql+psycopg2://db:5432/airflow"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h:5432/airflow?user=u&password=ab@hunter2", "postgresql://…"),
        ("postgresql://u@h/airflow?sslpassword=k@hunter2", "postgresql://…"),
        ("postgresql://u:12/hunter2@h/airflow", "postgresql://…"),
        ("postgresql://u:hunter@2@h/airflow", "postgresql://…"),
        ("postgresql://u:p@[::1]:5432/airflow", "postgresql://[::1]:5432/airflow"),
        ("postgresql://u:hunter2@[::1/airflow", "postgresql://…"),
        ("sqlite:////data/airflow.db", "sqlite:////data/airflow.db"),
    ],
)
def test_an_address_has_nothing_of_a_password_that_is_not_encoded(url: str, expected: str) -> None:
    """Where it begins and ends cannot be told, so nothing of such a URL is; the settings refuse it."""
    assert database_address(url) == expected


def test_every_password_of_a_database_is_hidden() -> None:
    """Those among the options, and one with the sign that separates several brokers."""
    url = "postgresql+psycopg2://airflow:pass;word@db:5432/airflow?sslpassword=other"
    assert redacted("pass;word was refused, and other", url=url) == "*** was refused, and ***"

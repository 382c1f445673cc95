"""URLs of databases in sentences. Those of brokers: test_celery_brokers.py."""

from shared.urls import address, redacted


def test_an_address_of_a_database_names_neither_user_nor_options() -> None:
    url = "postgresql+psycopg2://airflow:pass;word@db:5432/airflow?sslpassword=other&connect_timeout=3"
    assert address(url.replace(";", "%3B")) == "postgresql+psycopg2://db:5432/airflow"


def test_every_password_of_a_database_is_hidden() -> None:
    """Those among the options, and one with the sign that separates several brokers."""
    url = "postgresql+psycopg2://airflow:pass;word@db:5432/airflow?sslpassword=other"
    assert redacted("pass;word was refused, and other", url=url) == "*** was refused, and ***"

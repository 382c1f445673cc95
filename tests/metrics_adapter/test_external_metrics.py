"""Quantities and value lists as Kubernetes writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_adapter.catalogue import Sample
from metrics_adapter.external_metrics import quantity, value_list

SUFFIXES = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@pytest.mark.parametrize(
    ("milli", "text"),
    [
        (0, "0"),
        (1, "1m"),
        (800, "800m"),
        (1500, "1500m"),
        (42_000, "42"),
        (1_000_000, "1k"),
        (1_500_000, "1500"),
        (10**9, "1M"),
    ],
)
def test_a_quantity_is_canonical(milli: int, text: str) -> None:
    """No fraction, and the largest suffix that loses nothing."""
    assert quantity(milli) == text


@given(st.integers(0, 10**24))
def test_a_quantity_loses_nothing(milli: int) -> None:
    text = quantity(milli)
    number = text.rstrip("mkMGTPE")
    assert Decimal(number).scaleb(SUFFIXES[text.removeprefix(number)]) == Decimal(milli).scaleb(-3)


def test_a_negative_value_never_leaves() -> None:
    """An HPA takes a negative value for an overflow and goes to maxReplicas."""
    with pytest.raises(ValueError, match="negative"):
        quantity(-1)


def test_a_value_list_has_the_fields_of_the_api() -> None:
    sample = Sample(labels={"pool": "default"}, milli=2000, measured_at=1_700_000_000.9)
    assert value_list("celery_demand", [sample]) == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [
            {
                "metricName": "celery_demand",
                "metricLabels": {"pool": "default"},
                "timestamp": "2023-11-14T22:13:20Z",
                "value": "2",
            }
        ],
    }

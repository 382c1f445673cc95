"""Who may read a metric is the API server's decision."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from metrics_adapter.authorization import LARGEST_QUESTION, Authorizer, access_review_spec
from metrics_adapter.review_limits import BURST
from metrics_adapter.statuses import ApiError
from metrics_adapter.users import User
from shared.errors import KubernetesUnavailable
from tests.fakes.kubernetes import FakeCluster
from tests.metrics_adapter.builders import Clock

HPA = User(
    name="system:serviceaccount:kube-system:horizontal-pod-autoscaler",
    groups=("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"),
)


def test_a_review_is_one_that_a_real_api_server_allows(recording: Callable[[str], Any]) -> None:
    """The verb is list: that is what RBAC has to grant."""
    recorded = recording("f2")["cases"]["sar_hpa_list"]
    spec = access_review_spec(HPA, metric="queue_depth", namespace="default")
    assert spec == recorded["request"]["spec"]
    assert recorded["response"]["status"]["allowed"] is True


def test_uid_and_extra_are_passed_on(recording: Callable[[str], Any]) -> None:
    recorded = recording("f2")["cases"]["sar_extra_and_uid"]["request"]["spec"]
    user = User(
        name=HPA.name,
        groups=tuple(recorded["groups"]),
        uid="u-1",
        extra=(("authentication.kubernetes.io/credential-id", ("JTI=x",)),),
    )
    spec = access_review_spec(user, metric="queue_depth", namespace="default")
    assert (spec["uid"], spec["extra"]) == (recorded["uid"], recorded["extra"])


def test_all_namespaces_are_asked_for_without_one() -> None:
    spec = access_review_spec(HPA, metric="celery_demand", namespace="")
    assert "namespace" not in spec["resourceAttributes"]


async def test_the_api_server_decides() -> None:
    cluster = FakeCluster(is_allowed=lambda spec: spec["resourceAttributes"]["namespace"] == "airflow")
    authorizer = Authorizer(cluster)
    assert await authorizer.may_read(HPA, metric="celery_demand", namespace="airflow")
    assert not await authorizer.may_read(HPA, metric="celery_demand", namespace="other")


async def test_masters_are_not_asked_about() -> None:
    cluster = FakeCluster(is_allowed=lambda spec: False)
    admin = User(name="admin", groups=("system:masters",))
    assert await Authorizer(cluster).may_read(admin, metric="celery_demand", namespace="airflow")
    assert cluster.calls == []


async def test_a_decision_is_remembered_for_ten_seconds_both_ways() -> None:
    clock = Clock()
    cluster = FakeCluster(is_allowed=lambda spec: spec["user"] == HPA.name)
    authorizer = Authorizer(cluster, clock=clock)
    users = (HPA, User(name="alice"))
    for clock.now in (0.0, 9.0, 11.0):
        for user in users:
            allowed = await authorizer.may_read(user, metric="celery_demand", namespace="airflow")
            assert allowed is (user is HPA)
    assert len(cluster.calls_of("subject_access_review")) == 4


async def test_another_group_is_another_decision() -> None:
    cluster = FakeCluster(is_allowed=lambda spec: "ops" in spec["groups"])
    authorizer = Authorizer(cluster)
    alice, promoted = User(name="alice"), User(name="alice", groups=("ops",))
    assert not await authorizer.may_read(alice, metric="celery_demand", namespace="airflow")
    assert await authorizer.may_read(promoted, metric="celery_demand", namespace="airflow")


async def test_without_an_answer_there_is_no_permission() -> None:
    cluster = FakeCluster(broken={"*": KubernetesUnavailable("gone", status=503)})
    with pytest.raises(KubernetesUnavailable):
        await Authorizer(cluster).may_read(HPA, metric="celery_demand", namespace="airflow")


async def test_who_was_allowed_is_while_the_api_server_is_away_and_who_was_not_is_not() -> None:
    """For five minutes: values that are too old are refused long before."""
    clock = Clock()
    cluster = FakeCluster(is_allowed=lambda spec: spec["user"] == HPA.name)
    authorizer = Authorizer(cluster, clock=clock)
    alice = User(name="alice")
    assert await authorizer.may_read(HPA, metric="celery_demand", namespace="airflow")
    assert not await authorizer.may_read(alice, metric="celery_demand", namespace="airflow")
    cluster.broken["*"] = KubernetesUnavailable("gone", status=503)
    clock.now = 309.0
    assert await authorizer.may_read(HPA, metric="celery_demand", namespace="airflow")
    for user, metric in ((alice, "celery_demand"), (HPA, "celery_workers")):
        with pytest.raises(KubernetesUnavailable):
            await authorizer.may_read(user, metric=metric, namespace="airflow")
    clock.now = 311.0
    with pytest.raises(KubernetesUnavailable):
        await authorizer.may_read(HPA, metric="celery_demand", namespace="airflow")


async def test_reviews_of_absurd_size_are_not_remembered() -> None:
    cluster = FakeCluster()
    authorizer = Authorizer(cluster)
    for _ in range(2):
        assert await authorizer.may_read(HPA, metric="m" * 10_000, namespace="airflow")
    assert len(cluster.calls_of("subject_access_review")) == 2


class Yes:
    """Allows everything, and keeps nothing of what it was asked."""

    async def subject_access_review(self, spec: Mapping[str, Any]) -> bool:
        return True


async def test_what_is_remembered_does_not_grow_with_what_is_asked_for() -> None:
    """Anybody with a name may ask for thousands of metrics with names of a megabyte."""
    authorizer = Authorizer(Yes())
    tracemalloc.start()
    for number in range(20):
        await authorizer.may_read(HPA, metric=f"{number}" * 500_000, namespace="airflow")
    remembered = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert remembered < 5_000_000


async def flood(authorizer: Authorizer, user: User, length: int = 1) -> None:
    for number in range(1000):
        await authorizer.may_read(user, metric=f"m{number}" * length, namespace="airflow")


async def test_who_asks_for_ever_other_metrics_is_stopped_and_nobody_else() -> None:
    """Also with metrics whose names are too long to be remembered."""
    clock, cluster = Clock(), FakeCluster()
    authorizer = Authorizer(cluster, clock=clock)
    flooder = User(name="flooder")
    for length in (1, LARGEST_QUESTION):
        clock.now += 60.0
        with pytest.raises(ApiError) as refusal:
            await flood(authorizer, flooder, length)
        assert refusal.value.code == 503
        assert await authorizer.may_read(HPA, metric="celery_demand", namespace="airflow")
    assert len(cluster.calls_of("subject_access_review")) == 2 * (BURST + 1)
    assert authorizer.answers.refused == 2


async def test_a_permission_is_not_kept_by_asking_too_much() -> None:
    """Only a silent API server may be made up for, not one that we do not ask."""
    clock, cluster = Clock(), FakeCluster()
    authorizer = Authorizer(cluster, clock=clock)
    alice = User(name="alice")
    assert await authorizer.may_read(alice, metric="celery_demand", namespace="airflow")
    cluster.is_allowed = lambda spec: False
    clock.now = 20.0
    with pytest.raises(ApiError):
        await flood(authorizer, alice)
    with pytest.raises(ApiError):
        await authorizer.may_read(alice, metric="celery_demand", namespace="airflow")
    clock.now = 21.0
    assert not await authorizer.may_read(alice, metric="celery_demand", namespace="airflow")

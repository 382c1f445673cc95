"""What counts as not mended."""

from __future__ import annotations

from shared.pods import Pod
from tests.chaos.health import complaints

QUEUES = ("orders", "orders-fast")


def about(
    pod: Pod, *, consumed: tuple[str, ...] | None = QUEUES, foreign: dict[str, str] | None = None
) -> tuple[str, ...]:
    return complaints(
        [pod],
        queues=QUEUES,
        consumed={} if consumed is None else {pod.name: consumed},
        foreign_costs=foreign or {},
    )


def test_an_unmarked_worker_that_consumes_everything_is_well() -> None:
    assert about(Pod(name="a", uid="1")) == ()


def test_a_mark_must_be_gone() -> None:
    assert about(Pod(name="a", uid="1", has_mark_annotation=True)) == ("a is marked, and no round wants it",)


def test_a_cost_of_ours_must_be_gone() -> None:
    """Without its record nobody would ever take it away."""
    (complaint,) = about(Pod(name="a", uid="1", cost_annotation="-2147483648"))
    assert "has the pod-deletion-cost -2147483648, and others gave it None" in complaint


def test_a_foreign_cost_must_be_back() -> None:
    foreign = {"a": "7"}
    assert about(Pod(name="a", uid="1", cost_annotation="7"), foreign=foreign) == ()
    assert about(Pod(name="a", uid="1"), foreign=foreign) != ()


def test_every_queue_must_be_consumed() -> None:
    (complaint,) = about(Pod(name="a", uid="1"), consumed=("orders",))
    assert complaint == "a has a worker that does not consume orders-fast"


def test_a_silent_worker_is_not_well() -> None:
    assert about(Pod(name="a", uid="1"), consumed=None) == ("a has a worker that does not answer",)


def test_who_goes_away_is_not_asked() -> None:
    going = Pod(name="a", uid="1", is_terminating=True, has_mark_annotation=True)
    assert about(going, consumed=None) == ()

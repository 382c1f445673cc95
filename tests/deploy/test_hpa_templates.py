"""The HPAs of deploy/hpa fit the pool of deploy/base, the metrics that are served, and docs/scaling.md."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from deploy.sandbox.controllers.quantities import parse_milli
from metrics_adapter.catalogue import METRICS
from shared.checkup.autoscaler_checks import check_autoscalers
from shared.checkup.picture import Autoscaler, ExternalMetric, MetricAnswer
from shared.pools import Pool, parse_configuration
from tests.bench.hpa import SHOWN_SIZES, cells
from tests.bench.hpa_grid import BAND
from tests.checkup import builders
from tests.deploy.autoscalers import DIRECTORY, NAMES, template, without_tolerance
from tests.deploy.manifests import BASE, ROOT, Document
from tests.deploy.schemas import OLDEST, schemas_of

PAGE = (ROOT / "docs" / "scaling.md").read_text()
(POOL,) = parse_configuration((BASE / "config.yaml").read_text()).pools
EACH = pytest.mark.parametrize("name", NAMES)


def external(document: Document) -> Document:
    (metric,) = document["spec"]["metrics"]
    assert metric["type"] == "External"
    return dict(metric["external"])


def test_there_are_the_three_ways_to_scale() -> None:
    assert {external(template(name))["metric"]["name"] for name in NAMES} == {
        "celery_demand",
        "celery_desired_workers",
        "celery_load_factor",
    }


@EACH
def test_it_scales_the_pool_that_it_selects(name: str) -> None:
    """The one that the base is installed with, by a metric of its namespace."""
    document = template(name)
    metric = external(document)["metric"]
    assert metric["name"] in METRICS
    assert metric["selector"] == {"matchLabels": {"pool": POOL.name}}
    assert document["metadata"]["namespace"] == POOL.namespace
    reference = {"apiVersion": "apps/v1", "kind": POOL.workload.kind, "name": POOL.workload.name}
    assert document["spec"]["scaleTargetRef"] == reference


def test_targets_are_those_of_the_pool() -> None:
    """A metric is read by the type of target that it is made for; `check` would complain of another."""
    target = parse_milli(str(POOL.algorithm.target))
    wanted = {
        "load-factor": ("Value", target),
        "demand": ("AverageValue", POOL.slots_per_worker * target),
        "desired-workers": ("AverageValue", 1000),
    }
    found = {name: external(template(name))["target"] for name in NAMES}
    assert {
        name: (one["type"], parse_milli(one.get("averageValue", one.get("value"))))
        for name, one in found.items()
    } == wanted


@EACH
def test_check_finds_nothing_about_it(name: str) -> None:
    document = template(name)
    reference, read = document["spec"]["scaleTargetRef"], external(document)
    metric = ExternalMetric(
        name=read["metric"]["name"], selector=f"pool={POOL.name}", target=read["target"]["type"]
    )
    autoscaler = Autoscaler(
        namespace=document["metadata"]["namespace"],
        name=document["metadata"]["name"],
        kind=reference["kind"],
        target=reference["name"],
        metrics=(metric,),
        answers={metric: MetricAnswer(pools=(POOL.name,))},
    )
    picture = builders.picture(autoscalers=(autoscaler,), metrics=frozenset(METRICS))
    (finding,) = check_autoscalers(picture, builders.pool_picture(pool=POOL))
    assert finding.level == "ok"


@EACH
def test_behavior_is_what_the_docs_say(name: str) -> None:
    """No tolerance, and no policy that would make a second step of it."""
    behavior = template(name)["spec"]["behavior"]
    assert behavior == {
        "scaleUp": {
            "tolerance": 0,
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 1000, "periodSeconds": 15}],
        },
        "scaleDown": {
            "tolerance": 0,
            "stabilizationWindowSeconds": 300,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
    }
    rows = dict(re.findall(r"^\| `(scale\w+\.\w+)` \| `?([^`|]+?)`? \|", PAGE, flags=re.MULTILINE))
    assert rows == {
        "scaleUp.tolerance": "0",
        "scaleUp.stabilizationWindowSeconds": "0",
        "scaleUp.policies": "1,000 pods in 15 s",
        "scaleDown.tolerance": "0",
        "scaleDown.stabilizationWindowSeconds": "300",
        "scaleDown.policies": "100 % in 15 s",
    }


@EACH
def test_in_older_versions_only_the_tolerance_is_unknown(name: str) -> None:
    """So that deleting its two lines is all there is to do."""
    document, schemas = template(name), schemas_of(OLDEST)
    assert schemas.problems(document) == [
        f"HorizontalPodAutoscaler.spec.behavior.{direction}.tolerance is not known"
        for direction in ("scaleUp", "scaleDown")
    ]
    assert schemas.problems(without_tolerance(document)) == []


@EACH
def test_the_two_lines_can_be_deleted(name: str) -> None:
    lines = (DIRECTORY / f"{name}.yaml").read_text().splitlines()
    kept = [line for line in lines if not line.strip().startswith("tolerance:")]
    assert len(kept) == len(lines) - 2
    assert yaml.safe_load("\n".join(kept)) == without_tolerance(template(name))


@EACH
def test_every_line_that_could_be_changed_says_what_it_does(name: str) -> None:
    """Each field with a value of its own has a comment beside it, or belongs to a line that has one."""
    uncommented = [
        line.strip()
        for line in (DIRECTORY / f"{name}.yaml").read_text().splitlines()[3:]
        if "#" not in line and not line.rstrip().endswith(":")
    ]
    assert set(uncommented) <= {"- type: External", 'averageValue: "1"'}


def test_the_table_of_what_a_tolerance_costs_is_what_it_costs() -> None:
    """As `python -m tests.bench hpa` prints it."""
    rows = {first: rest for first, *rest in _rows_after("| replicas |")}
    assert rows == {f"`{name}`": cells(name, SHOWN_SIZES) for name in NAMES}


def test_the_band_of_the_docs_is_the_one_that_is_tried() -> None:
    """By the grid, with the tolerance of older versions, too."""
    (text,) = re.findall(r"```yaml\n(algorithm: .*?)```", PAGE, flags=re.DOTALL)
    algorithm = Pool.model_validate(POOL.model_dump(by_alias=True) | yaml.safe_load(text)).algorithm
    assert {
        "scaleUpAbove": str(algorithm.scale_up_above),
        "scaleDownBelow": str(algorithm.scale_down_below),
    } == BAND


@pytest.mark.parametrize(
    "snippet", [yaml.safe_load(one) for one in re.findall(r"```yaml\n(behavior:.*?)```", PAGE, re.DOTALL)]
)
def test_every_behavior_of_the_docs_is_one(snippet: Any) -> None:
    document = without_tolerance(template("demand"))
    behavior = document["spec"]["behavior"]
    merged = {name: behavior[name] | snippet["behavior"].get(name, {}) for name in behavior}
    document["spec"]["behavior"] = merged
    assert merged != behavior
    assert snippet["behavior"].keys() <= behavior.keys()
    assert schemas_of(OLDEST).problems(document) == []


def _rows_after(head: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

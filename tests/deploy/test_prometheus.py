"""deploy/components/prometheus: what it scrapes, its alerts and its dashboard fit services and docs."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from deploy.sandbox.manifests import ADAPTER_SERVICE, HOOK_SERVICE
from metrics_adapter.catalogue import METRICS
from tests.deploy.manifests import BASE, ROOT, Document, container, documents, the, the_only
from tests.deploy.promql import grouped_by, parsed, series
from tests.deploy.telemetry import TELEMETRY, figures

COMPONENT = BASE.parent / "components" / "prometheus"
MONITORED = documents(COMPONENT / "telemetry.yaml")
RUNBOOKS = ROOT / "docs" / "operations.md"
DASHBOARD = json.loads((COMPONENT / "dashboard.json").read_text())

OF_A_TARGET = {"job", "namespace", "pod", "instance"}
"""Labels that the Prometheus operator gives each series."""
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


class Query(NamedTuple):
    where: str
    text: str


def alerts() -> list[Document]:
    (rule,) = documents(COMPONENT / "alerts.yaml")
    return [alert for group in rule["spec"]["groups"] for alert in group["rules"]]


def panels() -> list[Document]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    for alert in alerts():
        yield Query(alert["alert"], alert["expr"])
    for panel in panels():
        for target in panel["targets"]:
            yield Query(f"{panel['title']} {target['refId']}", target["expr"])


EACH_QUERY = pytest.mark.parametrize("query", list(queries()), ids=lambda query: query.where)
EACH_ALERT = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])


def figure_of(series_name: str) -> str:
    """The figure whose series this is, by the name it is registered under."""
    for name, kind in figures().items():
        if series_name in {name, *(name + suffix for suffix in SUFFIXES.get(kind, ()))}:
            if kind == "histogram":
                assert series_name != name, f"{name} has no series but with {SUFFIXES[kind]}"
            return name
    raise AssertionError(f"Neither service registers {series_name}.")


def labels_of(figure: str) -> set[str]:
    """As docs/telemetry.md says."""
    row = re.search(rf"^\| `{figure}` \|([^|]*)\|", TELEMETRY, flags=re.MULTILINE)
    assert row
    return set(re.findall(r"`(\w+)`", row[1]))


def documented_values(column: str) -> set[str]:
    """Reasons of verdicts, from their table."""
    text = (ROOT / "docs" / "draining.md").read_text()
    table = text[text.index(f"| {column} | means") :].split("\n\n")[0]
    return set(
        re.findall(r"\b[A-Z][A-Za-z]+\b", " ".join(row.split("|")[1] for row in table.splitlines()[2:]))
    )


@EACH_QUERY
def test_every_query_is_one_that_prometheus_takes(query: Query) -> None:
    assert parsed(query.text)


@EACH_QUERY
def test_every_query_asks_for_figures_and_labels_that_are_there(query: Query) -> None:
    known = set(OF_A_TARGET)
    for use in series(query.text):
        own = set() if use.name == "up" else labels_of(figure_of(use.name))
        own |= {"le"} if use.name.endswith("_bucket") else set()
        assert {matcher.name for matcher in use.matchers} <= own | OF_A_TARGET
        known |= own
    assert grouped_by(query.text) <= known


@EACH_QUERY
def test_every_value_that_is_compared_with_exists(query: Query) -> None:
    for use in series(query.text):
        if use.name == "metrics_adapter_value":
            assert use.alternatives("metric") <= set(METRICS)
        if use.name == "drain_hook_verdicts_total":
            assert use.alternatives("reason") <= documented_values("reason")
        assert use.alternatives("job") <= {ADAPTER_SERVICE, HOOK_SERVICE}


def test_every_figure_is_on_the_dashboard() -> None:
    shown = {
        figure_of(use.name)
        for panel in panels()
        for target in panel["targets"]
        for use in series(target["expr"])
        if use.name != "up"
    }
    assert shown == figures().keys()


@EACH_ALERT
def test_every_alert_says_how_grave_it_is_and_what_it_means(alert: Document) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"].endswith(".")


@EACH_ALERT
def test_a_summary_speaks_of_labels_that_its_alert_has(alert: Document) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    kept = grouped_by(alert["expr"])
    assert named <= (kept or OF_A_TARGET)


@EACH_ALERT
def test_every_alert_has_its_section_in_the_runbooks(alert: Document) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert ROOT / page == RUNBOOKS
    assert anchor == alert["alert"].lower()
    assert f"\n### {alert['alert']}\n" in RUNBOOKS.read_text()


def test_every_runbook_is_for_an_alert() -> None:
    """And no name is used twice."""
    sections = re.findall(r"^### (CeleryHpa\w+)$", RUNBOOKS.read_text(), flags=re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts()]
    assert len(sections) == len(set(sections))


@pytest.mark.parametrize("name", [ADAPTER_SERVICE, HOOK_SERVICE])
def test_every_replica_is_scraped_ready_or_not(name: str) -> None:
    """Through a Service of its own, which the ServiceMonitor selects and names the job by."""
    service = the_only("Service", f"{name}-telemetry", MONITORED)
    (monitor,) = [one for one in MONITORED if one["kind"] == "ServiceMonitor"]
    assert service["spec"]["selector"] == the("Deployment", name)["spec"]["selector"]["matchLabels"]
    assert service["spec"]["publishNotReadyAddresses"] is True
    (port,) = service["spec"]["ports"]
    served = {one["name"]: one["containerPort"] for one in container(name)["ports"]}
    assert port["port"] == served[port["targetPort"]]
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["spec"]["jobLabel"]] == name
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]


def test_no_other_service_of_ours_is_scraped() -> None:
    """Those of deploy/base have no telemetry port."""
    (monitor,) = [one for one in MONITORED if one["kind"] == "ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    for name in (ADAPTER_SERVICE, HOOK_SERVICE):
        assert not wanted <= the("Service", name)["metadata"]["labels"].items()


def test_the_namespace_of_a_pool_is_not_lost() -> None:
    """Prometheus would call it exported_namespace, and `namespace` be ours for every pool."""
    (monitor,) = [one for one in MONITORED if one["kind"] == "ServiceMonitor"]
    assert any(OF_A_TARGET & labels_of(figure) for figure in figures())
    assert all(endpoint["honorLabels"] is True for endpoint in monitor["spec"]["endpoints"])


def test_the_dashboard_asks_whichever_data_source_is_chosen() -> None:
    sources = {part["datasource"]["uid"] for panel in panels() for part in (panel, *panel["targets"])}
    assert sources == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_panels_of_the_dashboard_do_not_cover_each_other() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        position = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & covered
        assert all(x < 24 for x, _ in covered)
        cells |= covered

"""What README and docs show is there, and is what the code takes."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.sandbox import manifests as sandbox
from metrics_adapter.catalogue import METRICS
from shared.pools import parse_configuration
from tests.deploy.manifests import ROOT, Document

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def links(page: Path) -> Iterator[str]:
    """Targets of links and pictures that are not on the web."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            yield target.partition("#")[0]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def snippets(text: str) -> list[Document]:
    found = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    return [document for snippet in found for document in yaml.safe_load_all(snippet)]


@EACH_PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    assert [target for target in links(page) if target and not (page.parent / target).exists()] == []


@EACH_PAGE
def test_every_link_into_a_page_leads_to_a_heading(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", page.read_text())
    astray = [
        (name, anchor)
        for name, anchor in targets
        if anchor not in anchors(page.parent / name if name else page)
    ]
    assert astray == []


@EACH_PAGE
def test_every_page_is_reached_from_the_readme(page: Path) -> None:
    assert page.name == "README.md" or str(page.relative_to(ROOT)) in set(links(ROOT / "README.md"))


@EACH_PAGE
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """Files named with their directory, as in `docs/metrics.md`; what is made in `out` is another matter."""
    known = "|".join(
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and path.name[0] not in "._" and path.name != "out"
    )
    named = re.findall(rf"`((?:{known})/[\w/.-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@EACH_PAGE
def test_every_make_target_that_is_named_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), flags=re.MULTILINE)) <= targets


@EACH_PAGE
def test_every_snippet_is_yaml(page: Path) -> None:
    assert all(isinstance(snippet, dict) for snippet in snippets(page.read_text()))


def test_the_readmes_autoscaler_is_the_demos() -> None:
    """But for its behavior and its number of workers."""
    (shown,) = [snippet for snippet in snippets(README) if snippet.get("kind") == "HorizontalPodAutoscaler"]
    spec = sandbox.autoscaler(name="worker", pool="default", max_replicas=20, behavior={})["spec"]
    del spec["behavior"]
    assert shown["spec"] == spec


def test_the_readmes_pool_is_one_and_is_the_one_its_autoscaler_scales() -> None:
    (text,) = [one for one in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if one.startswith("pools:")]
    (pool,) = parse_configuration(text).pools
    (shown,) = [snippet for snippet in snippets(README) if snippet.get("kind") == "HorizontalPodAutoscaler"]
    (metric,) = shown["spec"]["metrics"]
    assert metric["external"]["metric"]["selector"]["matchLabels"] == {"pool": pool.name}
    assert shown["spec"]["scaleTargetRef"]["name"] == pool.workload.name
    assert shown["metadata"]["namespace"] == pool.namespace


def test_the_readmes_metric_is_served() -> None:
    named = re.findall(r"metric: \{name: (\w+)", README) + re.findall(r"`(celery_\w+)`", README)
    assert set(named) <= set(METRICS)


def test_every_metric_has_a_row_in_the_docs() -> None:
    rows = re.findall(
        r"^\| `(celery_\w+)` \|", (ROOT / "docs" / "metrics.md").read_text(), flags=re.MULTILINE
    )
    assert sorted(rows) == sorted(METRICS)

"""The component for a second provider, and what docs/delegate.md shows."""

import re

import yaml

from shared.pools import parse_configuration
from tests.deploy.manifests import ROOT, the_only
from tests.deploy.rendering import needs_kubectl, rendered_with

PAGE = (ROOT / "docs" / "delegate.md").read_text()
POOL = "pools:\n- {name: a, namespace: a, workload: {name: a}, queues: [a], slotsPerWorker: 1, broker: {url: redis://a}}\n"


@needs_kubectl
def test_the_adapter_may_read_what_the_other_one_serves_and_nothing_else() -> None:
    documents = rendered_with("delegate")
    name = "celery-hpa:metrics-adapter-delegate"
    assert the_only("ClusterRole", name, documents)["rules"] == [
        {"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}
    ]
    binding = the_only("ClusterRoleBinding", name, documents)
    account = the_only("ServiceAccount", "metrics-adapter", documents)["metadata"]
    assert [(s["namespace"], s["name"]) for s in binding["subjects"]] == [
        (account["namespace"], account["name"])
    ]
    assert binding["roleRef"]["name"] == name


def test_every_delegate_that_is_shown_is_a_configuration() -> None:
    shown = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL) if "delegate:" in text]
    assert len(shown) >= 3
    for text in shown:
        assert parse_configuration(POOL + text).delegate is not None
        assert set(yaml.safe_load(text)) == {"delegate"}

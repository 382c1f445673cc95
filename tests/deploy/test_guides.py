"""Install, upgrade, uninstall, operations and troubleshooting: who does what they say sees what they show."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import BASE, ROOT, Document, container, the
from tests.deploy.rendering import COMPONENTS, EVERY_COMPONENT, needs_kubectl, rendered_with
from tests.deploy.sentences import begets, complaints, fits, texts, unknown_clauses
from tests.deploy.telemetry import figures

DOCS = ROOT / "docs"
INSTALL, UNINSTALL, OPERATIONS = (DOCS / f"{name}.md" for name in ("install", "uninstall", "operations"))
RECORDINGS = ROOT / "tests" / "recordings" / "kubernetes"
GUIDES = [INSTALL, DOCS / "upgrade.md", UNINSTALL, OPERATIONS, DOCS / "troubleshooting.md"]


def quotations(header: str) -> list[tuple[str, str]]:
    """Page and first cell of each row of the tables with this header."""
    found = []
    for page in GUIDES:
        for table in page.read_text().split("\n\n"):
            if table.startswith(f"| {header} |"):
                cells = re.findall(r"^\| `(.+?)` \|", table, flags=re.MULTILINE)
                assert len(cells) == len(table.strip().splitlines()) - 2, table
                found += [(page.name, cell) for cell in cells]
    return found


def blocks(page: Path) -> list[str]:
    """What is shown in fences, without a language."""
    return re.findall(r"^ *```\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def block_with(page: Path, words: str) -> list[str]:
    (found,) = [block for block in blocks(page) if words in block]
    return found.splitlines()


@pytest.mark.parametrize(("page", "message"), quotations("message"))
def test_every_message_that_is_quoted_can_be_said(page: str, message: str) -> None:
    assert unknown_clauses(message, texts()) == []


def test_every_warning_and_error_of_the_log_is_explained() -> None:
    explained = [message for page, message in quotations("message") if page == OPERATIONS.name]
    assert [text for text in complaints() if not any(fits(message, text) for message in explained)] == []


@pytest.mark.parametrize(("page", "message"), quotations("Kubernetes says"))
def test_what_kubernetes_says_was_recorded(page: str, message: str) -> None:
    recorded = [path.read_text().replace('\\"', '"') for path in sorted(RECORDINGS.glob("*.json"))]
    assert unknown_clauses(message, recorded) == []


def test_every_event_is_explained_and_no_other() -> None:
    """Of the hook's own."""
    table = next(
        part for part in OPERATIONS.read_text().split("\n\n") if part.startswith("| reason | type | on |")
    )
    explained = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    tree = ast.parse((ROOT / "drain_hook" / "announcements.py").read_text())
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    told = {c for c in constants if isinstance(c, str) and re.fullmatch(r"(ScaleDown|Drain)[A-Z]?\w+", c)}
    assert explained - {"FailedUpdateScale", "FailedGetExternalMetric"} == told - {"Drained"}


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_figure_that_is_named_is_registered(page: Path) -> None:
    named = re.findall(r"\b(?:metrics_adapter|drain_hook|celery_hpa)_[a-z_]+\b", page.read_text())
    assert set(named) <= figures().keys()


def test_every_component_is_in_the_table_of_the_installation() -> None:
    rows = re.findall(r"^\| `deploy/components/([\w.-]+)` \|", INSTALL.read_text(), flags=re.MULTILINE)
    assert rows == list(EVERY_COMPONENT)


@needs_kubectl
def test_apply_prints_what_is_shown() -> None:
    """In the order in which kubectl applies it; the namespace is there from the step before."""
    shown = block_with(INSTALL, "serviceaccount/drain-hook created")
    assert shown[1:] == [f"{_printed(document)} created" for document in rendered_with()][1:]
    assert shown[0] == f"{_printed(rendered_with()[0])} unchanged"


def _printed(document: Document) -> str:
    group, slash, _ = document["apiVersion"].partition("/")
    kind = document["kind"].lower() + (f".{group}" if slash else "")
    return f"{kind}/{document['metadata']['name']}"


def test_the_secret_of_the_installation_is_the_one_that_pods_read() -> None:
    for service in ("metrics-adapter", "drain-hook"):
        (key,) = [
            one["valueFrom"]["secretKeyRef"]
            for one in container(service)["env"]
            if one["name"] == "BROKER_URL"
        ]
        assert f"create secret generic {key['name']} --from-literal={key['key']}=" in INSTALL.read_text()


def test_the_certificates_that_are_shown_are_those_of_the_component() -> None:
    shown = [line.split() for line in block_with(INSTALL, "READY   SECRET")[1:]]
    made = {
        document["metadata"]["name"]: document["spec"]["secretName"]
        for document in yaml.safe_load_all((COMPONENTS / "cert-manager" / "certificates.yaml").read_text())
        if document["kind"] == "Certificate"
    }
    assert {name: secret for name, _, secret, _ in shown} == made


def test_the_dry_run_that_is_shown_is_one() -> None:
    warning, _ = block_with(INSTALL, "Warning: Dry run")
    whole = warning.removeprefix("Warning: ")
    for sentence in (whole, whole.partition(" now. ")[2]):
        assert any(begets(text, sentence) for text in texts())


def test_the_webhook_goes_first_and_the_apiservice_before_the_rest() -> None:
    commands = [line.strip() for block in blocks(UNINSTALL) for line in block.splitlines()]
    order = [command for command in commands if command.startswith("kubectl delete")]
    assert order == [
        "kubectl delete validatingwebhookconfiguration celery-hpa-drain",
        "kubectl delete apiservice v1beta1.external.metrics.k8s.io",
        "kubectl delete -k OVERLAY --ignore-not-found",
    ]


@needs_kubectl
@pytest.mark.parametrize("gone", ["drain-hook", "metrics-adapter"])
def test_one_service_can_be_left_out_with_whatever_leads_to_it(gone: str) -> None:
    """A webhook or an APIService without its service is what must never stay."""
    patches = re.findall(r"```yaml\n(patches:.*?)```", UNINSTALL.read_text(), flags=re.DOTALL)
    (chosen,) = [text for text in patches if gone in text]
    left_out = {
        (patch["kind"], patch["metadata"]["name"])
        for one in yaml.safe_load(chosen)["patches"]
        for patch in [yaml.safe_load(one["patch"])]
    }
    before = {(one["kind"], one["metadata"]["name"]) for one in rendered_with()}
    after = {(one["kind"], one["metadata"]["name"]) for one in rendered_with(more=chosen)}
    leading = {"drain-hook": "ValidatingWebhookConfiguration", "metrics-adapter": "APIService"}[gone]
    assert before - after == left_out
    assert {kind for kind, _ in left_out} == {"Deployment", leading}


def test_the_patch_that_breaks_the_glass_opens_the_webhook_of_the_base() -> None:
    text = (DOCS / "draining.md").read_text()
    (patch,) = re.findall(r"celery-hpa-drain --type json -p '(.+?)'", text)
    (step,) = json.loads(patch)
    (webhook,) = the("ValidatingWebhookConfiguration", "celery-hpa-drain")["webhooks"]
    assert step["path"] == "/webhooks/0/failurePolicy"
    assert (step["op"], webhook["failurePolicy"], step["value"]) == ("replace", "Fail", "Ignore")


def test_the_threats_and_the_store_of_the_security_page_name_what_is_there() -> None:
    """Objects and annotations, by their names in code and manifests."""
    text = (DOCS / "security.md").read_text()
    for name in ("metrics-adapter-tls", "drain-hook-tls", "celery-hpa-broker", "celery-hpa-drain-reconciler"):
        assert f"`{name}`" in text
    sources = "".join(path.read_text() for path in [*BASE.glob("*.yaml"), ROOT / "shared" / "marks.py"])
    for annotation in re.findall(r"`(celery-hpa\.io/drain\w*)`", text):
        assert annotation in sources

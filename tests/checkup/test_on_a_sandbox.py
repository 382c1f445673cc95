"""`celery-hpa check` on a whole sandbox: nothing to do when it is healthy, and each fault by its name."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from deploy.sandbox import manifests
from deploy.sandbox.cluster import Sandbox, sandbox
from deploy.sandbox.demo.story import SHORT
from deploy.sandbox.processes import free_port
from deploy.sandbox.resources import (
    API_SERVICES,
    AUTOSCALERS,
    ROLE_BINDINGS,
    WEBHOOK_CONFIGURATIONS,
    Document,
)
from deploy.sandbox.services import apply
from shared.certificates import make_ca
from shared.checkup.command import Options, run_check
from shared.checkup.findings import Finding, Level
from shared.checkup.permissions import API_SERVICE, WEBHOOK_CONFIGURATION
from shared.checkup.report import as_json, as_text, exit_code
from shared.hook_warnings import DRY_RUN

pytestmark = [pytest.mark.scenario, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
SOUND, DEAF = "sound", "deaf"
PATIENCE_S = 90.0
PASSWORD = "open-sesame"
Change = Callable[[Document], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A sandbox with two pools: a sound one, and one whose workers have no remote control."""

    box: Sandbox
    directory: Path

    def options(self, *pools: Document) -> Options:
        """As on the command line, with these pools in the file."""
        config = self.directory / "checked.yaml"
        config.write_text(yaml.safe_dump(manifests.configuration(*pools)))
        return Options(config=config, kubeconfig=str(self.box.kubeconfig), timeout_s=1.5)

    def pool(self, name: str = SOUND, **changes: object) -> Document:
        pool = manifests.pool(
            name=name, workload=name, broker_url=self.box.broker_url, slots=1, queues=(name,)
        )
        return pool | changes

    async def until(
        self, holds: Callable[[tuple[Finding, ...]], bool], *pools: Document, kubeconfig: Path | None = None
    ) -> tuple[Finding, ...]:
        """Look again until the findings are so: controllers, workers and busy machines take their time."""
        options = self.options(*(pools or (self.pool(),)))
        options = replace(options, kubeconfig=str(kubeconfig or self.box.kubeconfig))
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while not holds(findings := await run_check(options)):
            assert asyncio.get_running_loop().time() < deadline, as_text(findings)
            await asyncio.sleep(0.5)
        return findings

    async def finds(self, check: str, *words: str, pools: tuple[Document, ...] = ()) -> None:
        """Wait until a finding of this check, good ones apart, has these words."""
        await self.until(lambda findings: bool(named(findings, check, *words)), *pools)


def named(findings: tuple[Finding, ...], check: str, *words: str) -> list[Finding]:
    return [
        finding
        for finding in findings
        if finding.check == check and finding.level is not Level.OK and all(w in str(finding) for w in words)
    ]


def is_all_good(findings: tuple[Finding, ...]) -> bool:
    return exit_code(findings) == 0


def deployment(box: Sandbox, name: str, *, replicas: int, more: tuple[str, ...] = ()) -> Document:
    command = manifests.worker_command(slots=1, queues=(name,), pool="threads")
    return manifests.worker_deployment(
        name=name,
        replicas=replicas,
        command=[*command, *more],
        environment=box.worker_environment,
        grace_seconds=1,
    )


def autoscaler(name: str = SOUND, *, change: Change = lambda spec: None) -> Document:
    document = manifests.autoscaler(name=name, pool=SOUND, max_replicas=3, behavior={})
    document["spec"]["scaleTargetRef"]["name"] = SOUND
    document["spec"]["minReplicas"] = 2
    change(document)
    return document


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("checkup")

    def configuration(broker_url: str) -> Document:
        return manifests.configuration(
            *(
                manifests.pool(name=name, workload=name, broker_url=broker_url, slots=1, queues=(name,))
                for name in (SOUND, DEAF)
            )
        )

    async with sandbox(directory, configuration=configuration, hpa_sync_period_s=1.0) as box:
        off = ("--", "worker.enable_remote_control=no")
        await apply(box.kube, deployment(box, SOUND, replicas=2))
        await apply(box.kube, deployment(box, DEAF, replicas=1, more=off))
        await apply(box.kube, autoscaler())
        site = Site(box=box, directory=directory)
        await site.until(is_all_good)
        yield site


@asynccontextmanager
async def changed(site: Site, document: Document) -> AsyncIterator[None]:
    """Another state of one object, for a while; afterwards everything is good again."""
    metadata = document["metadata"]
    resource = {
        "APIService": API_SERVICES,
        "ValidatingWebhookConfiguration": WEBHOOK_CONFIGURATIONS,
        "HorizontalPodAutoscaler": AUTOSCALERS,
    }[document["kind"]]
    before = await site.box.kube.get(resource, metadata.get("namespace", ""), metadata["name"])
    await apply(site.box.kube, document)
    yield
    del before["metadata"]["resourceVersion"]
    await apply(site.box.kube, before)
    await site.until(is_all_good)


def api_service(**changes: object) -> Document:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API_SERVICE},
        "spec": changes,
    }


async def webhooks(site: Site) -> Document:
    document = await site.box.kube.get(WEBHOOK_CONFIGURATIONS, "", WEBHOOK_CONFIGURATION)
    del document["metadata"]["resourceVersion"]
    return document


async def test_a_healthy_sandbox_is_all_good(site: Site) -> None:
    findings = await site.until(is_all_good)
    assert {finding.level for finding in findings} == {Level.OK}
    (hook,) = [finding for finding in findings if finding.check == "hook"]
    assert f"reached the hook. {DRY_RUN} allowed now." in hook.message
    text = as_text(findings)
    assert text.startswith("Cluster\n")
    assert "Pool default/sound\n" in text
    assert text.endswith("All good.")
    assert json.loads(as_json(findings))["allGood"] is True


async def test_the_command_exits_with_0_1_and_2(site: Site) -> None:
    """And says what there is to say on the right stream."""

    def run(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "shared.checkup", "check", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    options = site.options(site.pool())
    where = ("--config", str(options.config), "--kubeconfig", str(options.kubeconfig), "--timeout", "5")
    code, out, err = await asyncio.to_thread(run, *where)
    assert (code, out.splitlines()[-1], err) == (0, "All good.", "")
    site.options(site.pool(queues=[SOUND, "forgotten"]))
    code, out, err = await asyncio.to_thread(run, *where, "-o", "json")
    assert (code, json.loads(out)["allGood"], err) == (1, False, "")
    options.config.write_text("pools: 3")
    code, out, err = await asyncio.to_thread(run, *where)
    assert (code, out) == (2, "")
    assert err.startswith("pools: ")
    assert (await asyncio.to_thread(run, "--konfig", "x"))[0] == 2


async def test_another_provider_owns_the_metrics(site: Site) -> None:
    service = {"namespace": "keda", "name": "keda-operator-metrics-apiserver"}
    async with changed(site, api_service(service=service)):
        await site.finds("api-service", "keda/keda-operator-metrics-apiserver", "celery-hpa/metrics-adapter")


async def test_the_aggregator_trusts_another_ca(site: Site) -> None:
    ca = b64encode(make_ca("another").certificate_pem).decode()
    async with changed(site, api_service(caBundle=ca)):
        await site.finds("api-service", "does not fit the certificate")
        await site.finds("api-service", "does not find APIService", "FailedDiscoveryCheck")


async def test_the_webhook_is_not_registered(site: Site) -> None:
    document = await webhooks(site)
    await site.box.kube.delete(WEBHOOK_CONFIGURATIONS, "", WEBHOOK_CONFIGURATION)
    await site.finds("webhook", "There is no ValidatingWebhookConfiguration celery-hpa-drain")
    del document["metadata"]["uid"]
    await apply(site.box.kube, document)
    await site.until(is_all_good)


async def test_the_api_server_does_not_trust_the_hook(site: Site) -> None:
    """Seen in its certificate, and in what becomes of a scale-down."""
    document = await webhooks(site)
    ca = b64encode(make_ca("another").certificate_pem).decode()
    document["webhooks"][0]["clientConfig"]["caBundle"] = ca
    async with changed(site, document):
        await site.finds("webhook", "does not fit the certificate that celery-hpa/drain-hook serves with")
        await site.finds("hook", "asked for as a dry run, failed", "failed calling webhook")


async def test_nothing_answers_where_the_webhook_leads(site: Site) -> None:
    document = await webhooks(site)
    document["webhooks"][0]["clientConfig"]["service"]["port"] = free_port()
    async with changed(site, document):
        await site.finds("hook", "failed calling webhook")


async def test_a_webhook_ignores_failures(site: Site) -> None:
    document = await webhooks(site)
    document["webhooks"][0]["failurePolicy"] = "Ignore"
    async with changed(site, document):
        await site.finds("failure-policy", "scale.drain.celery-hpa.io has failurePolicy Ignore")


async def test_the_hook_is_not_asked_about_this_kind(site: Site) -> None:
    document = await webhooks(site)
    document["webhooks"][0]["rules"][0]["resources"] = ["statefulsets/scale"]
    async with changed(site, document):
        await site.finds("hook", "not asked about scale-downs of a Deployment")


async def test_a_condition_that_never_holds(site: Site) -> None:
    """The webhook is registered, sound, and never called."""
    document = await webhooks(site)
    document["webhooks"][0]["matchConditions"] = [{"name": "never", "expression": "false"}]
    async with changed(site, document):
        await site.finds("hook", "was allowed without a word of the hook")


async def test_a_hook_that_fails_and_is_ignored(site: Site) -> None:
    document = await webhooks(site)
    document["webhooks"][0]["failurePolicy"] = "Ignore"
    document["webhooks"][0]["clientConfig"]["service"]["port"] = free_port()
    async with changed(site, document):
        await site.finds("hook", "was allowed without a word of the hook")


async def test_a_label_that_the_namespace_lacks(site: Site) -> None:
    document = await webhooks(site)
    document["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"celery-hpa.io/pools": "true"}}
    async with changed(site, document):
        await site.finds("hook", "namespaceSelector leaves out default in scale.drain.celery-hpa.io")


async def test_a_permission_is_missing(site: Site) -> None:
    """As after a new pool in a namespace without the bindings."""
    name = "celery-hpa:drain-hook"
    binding = await site.box.kube.get(ROLE_BINDINGS, manifests.NAMESPACE, name)
    await site.box.kube.delete(ROLE_BINDINGS, manifests.NAMESPACE, name)
    await site.finds("permissions", "drain-hook may not", "patch pods", "in namespace default")
    del binding["metadata"]["resourceVersion"], binding["metadata"]["uid"]
    await apply(site.box.kube, binding)
    await site.until(is_all_good)


async def test_whoever_may_not_look_is_told_what_was_not_seen(site: Site) -> None:
    """As in a pod of the adapter: the brokers are looked at, and nothing that is good is called bad."""
    kubeconfig = site.box.plane.kubeconfig_of(manifests.SYSTEM_NAMESPACE, manifests.ADAPTER_SERVICE)
    findings = await site.until(
        lambda findings: Level.PROBLEM not in {finding.level for finding in findings}, kubeconfig=kubeconfig
    )
    levels = {finding.check: finding.level for finding in findings}
    assert levels["webhook"] is levels["autoscaler"] is Level.WARNING
    assert levels["api-service"] is levels["permissions"] is levels["workers"] is Level.OK


@pytest.mark.parametrize(
    ("selector", "metric", "words"),
    [
        ({"pool": "sund"}, "celery_load_factor", ("pool=sund", "selects nothing")),
        ({"pool": DEAF}, "celery_load_factor", (DEAF,)),
        ({"pool": SOUND}, "celery_loadfactor", ("which nobody serves", "Did you mean celery_load_factor?")),
        ({"pool": SOUND}, "queue_length", ("none of our metrics", "queue_length")),
        ({"pool": SOUND}, "celery_demand", ("type Value", "AverageValue")),
    ],
)
async def test_an_autoscaler_reads_the_wrong_thing(
    site: Site, selector: dict[str, str], metric: str, words: tuple[str, ...]
) -> None:
    def change(document: Document) -> None:
        document["spec"]["metrics"][0]["external"]["metric"] = {
            "name": metric,
            "selector": {"matchLabels": selector},
        }

    async with changed(site, autoscaler(change=change)):
        await site.finds("autoscaler", f"HPA default/{SOUND}", *words)


async def test_two_autoscalers_on_one_workload(site: Site) -> None:
    await apply(site.box.kube, autoscaler("second"))
    await site.finds("autoscaler", "HPA default/second, HPA default/sound all scale")
    await site.box.kube.delete(AUTOSCALERS, manifests.NAMESPACE, "second")
    await site.until(is_all_good)


async def test_no_autoscaler_or_one_in_another_namespace(site: Site) -> None:
    await site.box.kube.delete(AUTOSCALERS, manifests.NAMESPACE, SOUND)
    await site.finds("autoscaler", f"No HPA scales Deployment default/{SOUND}")

    def elsewhere(document: Document) -> None:
        document["metadata"]["namespace"] = "celery-hpa"

    await apply(site.box.kube, autoscaler(change=elsewhere))
    await site.finds("autoscaler", f"HPA celery-hpa/{SOUND} is in another namespace")
    await site.box.kube.delete(AUTOSCALERS, "celery-hpa", SOUND)
    await apply(site.box.kube, autoscaler())
    await site.until(is_all_good)


async def test_the_workload_is_not_there(site: Site) -> None:
    pool = site.pool(workload={"kind": "Deployment", "name": "elsewhere"})
    await site.finds("workload", "There is no Deployment default/elsewhere", pools=(pool,))


async def test_the_broker_cannot_be_reached(site: Site) -> None:
    """Its password is not told."""
    url = f"redis://hpa:{PASSWORD}@127.0.0.1:{free_port()}/0"
    broken = site.pool(broker={"url": url})
    findings = await site.until(lambda findings: bool(named(findings, "broker", "from here")), broken)
    assert PASSWORD not in as_text(findings) + as_json(findings)


async def test_the_brokers_secret_is_not_here(site: Site) -> None:
    """On a laptop the rest can be looked at all the same."""
    elsewhere = site.pool(broker={"urlFrom": {"env": "NOWHERE_SET"}})
    findings = await site.until(
        lambda findings: [f.check for f in findings if f.level is not Level.OK] == ["broker"], elsewhere
    )
    assert named(findings, "broker", "NOWHERE_SET is not set")


async def test_names_that_do_not_match_pods(site: Site) -> None:
    pool = site.pool(workerName="worker@{pod}")
    await site.finds("workers", "call themselves celery@", 'Write workerName: "celery@{pod}"', pools=(pool,))


async def test_queues_and_consumers_do_not_fit(site: Site) -> None:
    pools = (site.pool(queues=["forgotten"]),)
    await site.finds("queues", "Nobody consumes forgotten", pools=pools)
    await site.finds("queues", f"also consume {SOUND}", pools=pools)


async def test_slots_that_nobody_has(site: Site) -> None:
    await site.finds("slots", "slotsPerWorker is 16", pools=(site.pool(slotsPerWorker=16),))


async def test_remote_control_is_off(site: Site) -> None:
    pools = (site.pool(), site.pool(DEAF))
    await site.finds("workers", "1 of 1 workers has no remote control", "celery@deaf-", pools=pools)


async def test_a_task_outlasts_the_grace_period(site: Site) -> None:
    """The pods of this sandbox have a second to end."""
    await asyncio.to_thread(site.box.submit, [(SHORT, 8.0)], queue=SOUND)
    await site.finds("grace-period", f"A task {SHORT} has run for")
    await site.until(is_all_good)

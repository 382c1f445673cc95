"""A Kubernetes API in memory with the methods of KubeClient and WorkloadCache.

Documents are kept as Kubernetes' JSON and read by the same functions as the real ones. Nothing happens by
itself: `scale`, `delete_pod` and `edit_pod` are what the API server, controllers and kubelet would do.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from shared.errors import Conflict, NotFound
from shared.kube_documents import CaBundles, LeaseRecord, Secret, TokenUser, WebhookClient, WebhookTerms
from shared.pods import (
    OWN_THEIR_PODS,
    Pod,
    ReplicaSet,
    Workload,
    WorkloadKey,
    WorkloadState,
    pod_from,
    replica_set_from,
    state_of,
    workload_from,
)
from tests.fakes.kubernetes_documents import (
    annotate,
    controller_uid,
    fits,
    pod_document,
    refuse_invalid_cost,
    replica_set_document,
    set_pod_fields,
    workload_document,
)


@dataclass(slots=True, kw_only=True)
class Event:
    """An Event as it was asked for last."""

    name: str

    involved: Workload | Pod
    reason: str
    message: str
    type: str
    component: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a method of the client."""

    method: str
    arguments: Mapping[str, Any]


@dataclass(kw_only=True)
class FakeCluster:
    """Stands in for KubeClient; `cache` stands in for WorkloadCache."""

    calls: list[Call] = field(default_factory=list)
    """Every call in order, failed ones too."""
    events: list[Event] = field(default_factory=list)
    refusals: dict[str, list[Exception]] = field(default_factory=dict)
    """By method: errors that its next calls meet, one each."""
    broken: dict[str, Exception] = field(default_factory=dict)
    """By method, or "*" for all: the error that every call meets."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """By method: its calls wait here before they take effect."""
    config_maps: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], Secret] = field(default_factory=dict)
    leases: dict[tuple[str, str], LeaseRecord] = field(default_factory=dict)
    ca_bundles: dict[str, CaBundles] = field(default_factory=dict)
    """By name of the ValidatingWebhookConfiguration."""
    webhooks: dict[str, tuple[WebhookTerms, ...]] = field(default_factory=dict)
    """By name of the ValidatingWebhookConfiguration."""
    tokens: dict[str, TokenUser] = field(default_factory=dict)
    """Tokens that TokenReview knows."""
    honours_costs: bool = True
    """Its feature gate PodDeletionCost is on: a cost that is no number is refused."""
    version: tuple[int, int] = (1, 36)
    is_allowed: Callable[[Mapping[str, Any]], bool] = lambda spec: True
    """What SubjectAccessReview answers."""

    def __post_init__(self) -> None:
        self._workloads: dict[WorkloadKey, dict[str, Any]] = {}
        self._replica_sets: dict[tuple[str, str], dict[str, Any]] = {}
        self._pods: dict[tuple[str, str], dict[str, Any]] = {}
        self._versions = itertools.count(1)
        self.cache = FakeCache(self)

    # What a test arranges, and what controllers and the kubelet would do.

    def add_workload(
        self,
        name: str = "worker",
        *,
        replicas: int = 0,
        namespace: str = "default",
        kind: str = "Deployment",
        uid: str | None = None,
        annotations: Mapping[str, str] = {},
        with_pods: bool = True,
    ) -> Workload:
        """A settled workload with one ReplicaSet and `replicas` ready pods, NAME-0, NAME-1, …

        A StatefulSet or CloneSet owns its pods itself.
        """
        document = workload_document(
            name, replicas=replicas, namespace=namespace, kind=kind, uid=uid, annotations=annotations
        )
        self._workloads[WorkloadKey(kind, namespace, name)] = self._stamp(document)
        if kind not in OWN_THEIR_PODS:
            self.add_replica_set(f"{name}-rs", workload=name, replicas=replicas, namespace=namespace)
        for index in range(replicas if with_pods else 0):
            self.add_pod(f"{name}-{index}", replica_set=f"{name}-rs", namespace=namespace)
        return workload_from(document, kind=kind)

    def add_replica_set(
        self,
        name: str,
        *,
        workload: str = "worker",
        replicas: int,
        namespace: str = "default",
        revision: int = 1,
    ) -> ReplicaSet:
        owner = self._workload_document(namespace, workload)
        document = replica_set_document(name, owner=owner, replicas=replicas, revision=revision)
        self._replica_sets[namespace, name] = self._stamp(document)
        return replica_set_from(document)

    def add_pod(
        self, name: str, *, replica_set: str = "worker-rs", namespace: str = "default", **fields: Any
    ) -> Pod:
        """`fields` are those of `pod_document`. Without such a ReplicaSet the workload itself owns it."""
        owner = self._replica_sets.get((namespace, replica_set))
        if owner is None:
            owner = self._workload_document(namespace, replica_set.removesuffix("-rs"))
        document = pod_document(name, owner=owner, **fields)
        self._pods[namespace, name] = self._stamp(document)
        return pod_from(document)

    def edit_pod(self, name: str, *, namespace: str = "default", **fields: Any) -> Pod:
        """Change `phase`, `is_ready`, `host`, `restarts` or `is_terminating`, as the kubelet would."""
        document = self._pods[namespace, name]
        set_pod_fields(document, **fields)
        self._stamp(document)
        return pod_from(document)

    def annotate_pod(
        self, name: str, annotations: Mapping[str, str | None], *, namespace: str = "default"
    ) -> None:
        """What somebody else writes."""
        self._stamp(annotate(self._pods[namespace, name], annotations))

    def delete_pod(self, name: str, *, namespace: str = "default") -> None:
        """The pod is gone."""
        del self._pods[namespace, name]
        self._stamp({"metadata": {}})

    def delete_workload(self, name: str = "worker", *, namespace: str = "default") -> None:
        """The workload and all that it owns are gone."""
        key = self._key(namespace, name)
        state = self._state(key)
        for pod in state.pods:
            del self._pods[namespace, pod.name]
        for replica_set in state.replica_sets:
            self._replica_sets.pop((namespace, replica_set.name), None)
        del self._workloads[key]
        self._stamp({"metadata": {}})

    def scale(
        self, replicas: int, *, name: str = "worker", namespace: str = "default", settled: bool = False
    ) -> None:
        """The API server admitted this; `settled` says that the controllers have caught up with it."""
        document = self._workload_document(namespace, name)
        document["spec"]["replicas"] = replicas
        document["metadata"]["generation"] += 1
        if settled:
            self._settle(document, replicas)
        self._stamp(document)

    def edit_workload(self, *, name: str = "worker", namespace: str = "default", **status: Any) -> None:
        """Set keys of its status, as `observedGeneration=3`."""
        document = self._workload_document(namespace, name)
        document["status"].update(status)
        self._stamp(document)

    def add_token(self, username: str) -> str:
        """A bearer token that TokenReview takes for this user's."""
        token = f"token of {username}"
        self.tokens[token] = TokenUser(username=username)
        return token

    def annotations_of(self, name: str, *, namespace: str = "default") -> dict[str, str]:
        return dict(self._pods[namespace, name]["metadata"]["annotations"])

    def calls_of(self, *methods: str) -> list[Call]:
        return [call for call in self.calls if call.method in methods]

    @property
    def writes(self) -> list[Call]:
        """Calls that change something: empty for a dry run."""
        return [call for call in self.calls if call.method in _WRITES]

    # The methods of KubeClient.

    async def workload(self, *, kind: str, namespace: str, name: str) -> Workload:
        await self._enter("workload", kind=kind, namespace=namespace, name=name)
        key = WorkloadKey(kind, namespace, name)
        if key not in self._workloads:
            raise NotFound(f'deployments.apps "{name}" not found', status=404)
        return workload_from(self._workloads[key], kind=kind)

    async def replica_sets(
        self, *, namespace: str, selector: str, owner_uid: str | None = None
    ) -> tuple[ReplicaSet, ...]:
        await self._enter("replica_sets", namespace=namespace, selector=selector, owner_uid=owner_uid)
        return tuple(
            replica_set_from(document)
            for (where, _), document in sorted(self._replica_sets.items())
            if where == namespace
            and fits(document, selector)
            and owner_uid in (None, controller_uid(document))
        )

    async def pods(self, *, namespace: str, selector: str) -> tuple[Pod, ...]:
        await self._enter("pods", namespace=namespace, selector=selector)
        return tuple(
            pod_from(document)
            for (where, _), document in sorted(self._pods.items())
            if where == namespace and fits(document, selector)
        )

    async def workload_state(self, *, kind: str, namespace: str, name: str) -> WorkloadState:
        await self._enter("workload_state", kind=kind, namespace=namespace, name=name)
        key = WorkloadKey(kind, namespace, name)
        if key not in self._workloads:
            raise NotFound(f'deployments.apps "{name}" not found', status=404)
        return self._state(key)

    async def patch_pod(
        self,
        *,
        namespace: str,
        name: str,
        uid: str,
        annotations: Mapping[str, str | None],
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Pod:
        method = "rehearse_patch_pod" if dry_run else "patch_pod"
        await self._enter(method, namespace=namespace, name=name, uid=uid, annotations=dict(annotations))
        document = self._pods.get((namespace, name))
        if document is None:
            raise NotFound(f'pods "{name}" not found', status=404)
        if document["metadata"]["uid"] != uid:
            raise Conflict(f'the UID of pod "{name}" is {document["metadata"]["uid"]}, not {uid}', status=409)
        if resource_version not in ("", document["metadata"]["resourceVersion"]):
            raise Conflict(f'pods "{name}": the object has been modified', status=409)
        if self.honours_costs:
            refuse_invalid_cost(document, annotations)
        if dry_run:
            return pod_from(annotate(copy.deepcopy(document), annotations))
        return pod_from(self._stamp(annotate(document, annotations)))

    async def server_version(self) -> tuple[int, int]:
        await self._enter("server_version")
        return self.version

    async def create_event(
        self, *, involved: Workload | Pod, reason: str, message: str, component: str, type: str = "Normal"
    ) -> str:
        await self._enter("create_event", involved=involved, reason=reason, message=message)
        event = Event(
            name=f"{involved.name}.{next(self._versions)}",
            involved=involved,
            reason=reason,
            message=message[:1024],
            type=type,
            component=component,
        )
        self.events.append(event)
        return event.name

    async def repeat_event(self, *, namespace: str, name: str, message: str, count: int) -> None:
        await self._enter("repeat_event", name=name, message=message, count=count)
        for event in self.events:
            if (event.involved.namespace, event.name) == (namespace, name):
                event.message, event.count = message[:1024], count
                return
        raise NotFound(f'events "{name}" not found', status=404)

    async def read_lease(self, *, namespace: str, name: str) -> LeaseRecord:
        await self._enter("read_lease", namespace=namespace, name=name)
        if (namespace, name) not in self.leases:
            raise NotFound(f'leases.coordination.k8s.io "{name}" not found', status=404)
        return self.leases[namespace, name]

    async def create_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        await self._enter("create_lease", namespace=namespace, name=name, record=record)
        if (namespace, name) in self.leases:
            raise Conflict(f'leases.coordination.k8s.io "{name}" already exists', status=409)
        return self._put_lease(namespace, name, record)

    async def replace_lease(self, *, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        await self._enter("replace_lease", namespace=namespace, name=name, record=record)
        if (namespace, name) not in self.leases:
            raise NotFound(f'leases.coordination.k8s.io "{name}" not found', status=404)
        if self.leases[namespace, name].resource_version != record.resource_version:
            raise Conflict(f'leases.coordination.k8s.io "{name}": the object has been modified', status=409)
        return self._put_lease(namespace, name, record)

    async def subject_access_review(self, spec: Mapping[str, Any]) -> bool:
        await self._enter("subject_access_review", spec=spec)
        return self.is_allowed(spec)

    async def token_review(self, token: str, *, audiences: Collection[str] = ()) -> TokenUser | None:
        await self._enter("token_review", audiences=tuple(audiences))
        return self.tokens.get(token)

    async def config_map(self, *, namespace: str, name: str) -> Mapping[str, str]:
        await self._enter("config_map", namespace=namespace, name=name)
        if (namespace, name) not in self.config_maps:
            raise NotFound(f'configmaps "{name}" not found', status=404)
        return dict(self.config_maps[namespace, name])

    async def secret(self, *, namespace: str, name: str) -> Secret:
        await self._enter("secret", namespace=namespace, name=name)
        if (namespace, name) not in self.secrets:
            raise NotFound(f'secrets "{name}" not found', status=404)
        return self.secrets[namespace, name]

    async def create_secret(self, *, namespace: str, name: str, data: Mapping[str, bytes]) -> Secret:
        await self._enter("create_secret", namespace=namespace, name=name)
        if (namespace, name) in self.secrets:
            raise Conflict(f'secrets "{name}" already exists', status=409)
        return self._put_secret(namespace, name, data)

    async def replace_secret(
        self, *, namespace: str, name: str, data: Mapping[str, bytes], resource_version: str
    ) -> Secret:
        await self._enter("replace_secret", namespace=namespace, name=name)
        if (namespace, name) not in self.secrets:
            raise NotFound(f'secrets "{name}" not found', status=404)
        if self.secrets[namespace, name].resource_version != resource_version:
            raise Conflict(f'secrets "{name}": the object has been modified', status=409)
        return self._put_secret(namespace, name, data)

    async def webhook_terms(self, name: str) -> tuple[WebhookTerms, ...]:
        await self._enter("webhook_terms", name=name)
        if name not in self.webhooks:
            raise NotFound(f'validatingwebhookconfigurations "{name}" not found', status=404)
        return self.webhooks[name]

    async def webhook_ca(self, name: str) -> CaBundles:
        await self._enter("webhook_ca", name=name)
        if name not in self.ca_bundles:
            raise NotFound(f'validatingwebhookconfigurations "{name}" not found', status=404)
        return self.ca_bundles[name]

    async def replace_webhook_ca(self, name: str, ca_bundle: bytes, found: CaBundles) -> None:
        await self._enter("replace_webhook_ca", name=name, ca_bundle=ca_bundle)
        if self.ca_bundles[name].resource_version != found.resource_version:
            raise Conflict("the server rejected our request", status=422)
        stored, written = self.ca_bundles[name], {client.index for client in found.clients}
        self.ca_bundles[name] = replace(
            stored,
            bundles=tuple(ca_bundle if i in written else kept for i, kept in enumerate(stored.bundles)),
            resource_version=str(next(self._versions)),
        )

    def register_cas(self, name: str, *bundles: bytes) -> None:
        """Somebody writes a ValidatingWebhookConfiguration with these, all of which lead to us."""
        self.ca_bundles[name] = CaBundles(
            bundles=bundles,
            resource_version=str(next(self._versions)),
            clients=tuple(
                WebhookClient(index=index, name=f"{index}.{name}", service=None)
                for index in range(len(bundles))
            ),
        )

    # Behind the curtain.

    async def _enter(self, method: str, **arguments: Any) -> None:
        self.calls.append(Call(method=method, arguments=arguments))
        if gate := self.gates.get(method):
            await gate.wait()
        await asyncio.sleep(0)
        if error := self.broken.get(method) or self.broken.get("*"):
            raise error
        if waiting := self.refusals.get(method):
            raise waiting.pop(0)

    def _stamp(self, document: dict[str, Any]) -> dict[str, Any]:
        document["metadata"]["resourceVersion"] = str(next(self._versions))
        self.cache.refresh()
        return document

    def _key(self, namespace: str, name: str) -> WorkloadKey:
        return next(key for key in self._workloads if (key.namespace, key.name) == (namespace, name))

    def _workload_document(self, namespace: str, name: str) -> dict[str, Any]:
        return self._workloads[self._key(namespace, name)]

    def _state(self, key: WorkloadKey) -> WorkloadState:
        document = self._workloads[key]
        return state_of(
            workload_from(document, kind=key.kind),
            tuple(map(replica_set_from, self._replica_sets.values())),
            tuple(map(pod_from, self._pods.values())),
            as_of=time.time(),
        )

    def _settle(self, document: dict[str, Any], replicas: int) -> None:
        document["status"].update(
            observedGeneration=document["metadata"]["generation"],
            replicas=replicas,
            updatedReplicas=replicas,
        )
        sets = [d for d in self._replica_sets.values() if controller_uid(d) == document["metadata"]["uid"]]
        if len(sets) == 1:
            sets[0]["metadata"]["generation"] += sets[0]["spec"]["replicas"] != replicas
            sets[0]["spec"]["replicas"] = replicas
            sets[0]["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] = str(replicas)

    def _put_lease(self, namespace: str, name: str, record: LeaseRecord) -> LeaseRecord:
        stored = replace(record, resource_version=str(next(self._versions)))
        self.leases[namespace, name] = stored
        return stored

    def _put_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> Secret:
        stored = Secret(data=dict(data), resource_version=str(next(self._versions)))
        self.secrets[namespace, name] = stored
        return stored


class FakeCache:
    """Stands in for WorkloadCache: follows the cluster at once, unless it is frozen."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self._frozen: dict[WorkloadKey, WorkloadState] | None = None
        self._event = asyncio.Event()
        self.version = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def follow(self, keys: Iterable[WorkloadKey]) -> None:
        return None

    def state(self, *, kind: str, namespace: str, name: str) -> WorkloadState | None:
        key = WorkloadKey(kind, namespace, name)
        if self._frozen is not None:
            return self._frozen.get(key)
        return self._cluster._state(key) if key in self._cluster._workloads else None

    async def wait_synced(self) -> None:
        return None

    async def wait_changed(self, version: int) -> int:
        while self.version == version:
            await self._event.wait()
        return self.version

    def freeze(self) -> None:
        """A watch that hangs: the cache stays as it is now."""
        self._frozen = {key: self._cluster._state(key) for key in self._cluster._workloads}

    def thaw(self) -> None:
        self._frozen = None
        self.refresh()

    def refresh(self) -> None:
        self.version += 1
        self._event.set()
        self._event = asyncio.Event()


_WRITES = frozenset(
    {
        "patch_pod",
        "create_event",
        "repeat_event",
        "create_lease",
        "replace_lease",
        "create_secret",
        "replace_secret",
        "replace_webhook_ca",
    }
)

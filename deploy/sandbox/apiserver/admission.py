"""Validating admission: every webhook that a write is meant for is asked at once; one refusal suffices."""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator

from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.apiserver.webhook_rules import conditions_hold, covers, selects_namespace, selects_object
from deploy.sandbox.apiserver.webhooks import Answer, WebhookClient, WebhookFailed
from deploy.sandbox.apiserver.writing import Operation, Write
from deploy.sandbox.errors import ApiError, internal, request_timeout
from deploy.sandbox.resources import NAMESPACES, WEBHOOK_CONFIGURATIONS, Document

log = logging.getLogger(__name__)

SCALE_KIND = {"group": "autoscaling", "version": "v1", "kind": "Scale"}


class ValidatingAdmission:
    """Sends writes to the webhooks of the stored configurations."""

    def __init__(self, store: ObjectStore, client: WebhookClient) -> None:
        self._store = store
        self._client = client

    async def review(
        self, write: Write, operation: Operation, document: Document | None, old: Document | None
    ) -> None:
        """Ask every webhook concerned. Raises ApiError when one refuses, or fails and may not."""
        concerned = list(self._concerned(write, operation, document, old))
        if not concerned:
            return
        request = admission_request(write, operation, document, old)
        called = [
            webhook
            for webhook in concerned
            if conditions_hold(webhook, write, {"object": document, "oldObject": old, "request": request})
        ]
        outcomes = await asyncio.gather(
            *(self._call(write, webhook, request) for webhook in called), return_exceptions=True
        )
        refusals = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if refusals:
            raise refusals[0]

    def _concerned(
        self, write: Write, operation: Operation, document: Document | None, old: Document | None
    ) -> Iterator[Document]:
        if write.resource is WEBHOOK_CONFIGURATIONS:
            return  # or a broken webhook could never be repaired
        namespace = self._store.get(Key(NAMESPACES, "", write.namespace or write.name))
        for configuration in self._store.select(WEBHOOK_CONFIGURATIONS):
            for webhook in configuration["webhooks"]:
                if (
                    covers(webhook["rules"], write, operation)
                    and selects_namespace(webhook["namespaceSelector"], write, namespace)
                    and selects_object(webhook["objectSelector"], document, old)
                ):
                    yield webhook

    async def _call(self, write: Write, webhook: Document, request: Document) -> None:
        name = webhook["name"]
        unique = request | {"uid": str(uuid.uuid4())}
        try:
            answer = await self._client.call(
                webhook, unique, time_left_s=max(write.deadline - time.monotonic(), 0.001)
            )
        except WebhookFailed as error:
            if webhook["failurePolicy"] == "Ignore":
                log.warning("Failed calling webhook, failing open %s: %s", name, error)
                write.annotations[f"failed-open.validating.webhook.admission.k8s.io/{name}"] = name
                return
            if time.monotonic() >= write.deadline:
                raise request_timeout() from error
            raise internal(f'failed calling webhook "{name}": {error}') from error
        write.warnings.extend(answer.warnings)
        write.annotations.update({f"{name}/{key}": value for key, value in answer.annotations.items()})
        if not answer.allowed:
            raise denial(name, answer)


def admission_request(
    write: Write, operation: Operation, document: Document | None, old: Document | None
) -> Document:
    """The request of a review, in the order the real server writes it; the uid is filled in at each call."""
    resource = write.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    kind = SCALE_KIND if write.subresource == "scale" else kind
    what = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    subresource = {"subResource": write.subresource} if write.subresource else {}
    requested = {"requestSubResource": write.subresource} if write.subresource else {}
    return {
        "uid": "",
        "kind": kind,
        "resource": what,
        **subresource,
        "requestKind": kind,
        "requestResource": what,
        **requested,
        **({"name": write.name} if write.name else {}),
        **({"namespace": write.namespace} if write.namespace else {}),
        "operation": operation,
        "userInfo": write.user.info(),
        "object": document,
        "oldObject": old,
        "dryRun": write.dry_run,
        "options": write.options,
    }


def denial(name: str, answer: Answer) -> ApiError:
    """The refusal a client gets: the webhook's code, but none below 400, and its message after our words."""
    status = answer.status
    code = max(int(status.get("code") or 400), 400)
    message = f'admission webhook "{name}" denied the request'
    if status.get("message"):
        message = f"{message}: {status['message']}"
    elif status.get("reason"):
        message = f"{message}: {status['reason']}"
    else:
        message = f"{message} without explanation"
    return ApiError(code, status.get("reason", ""), message, details=status.get("details"))

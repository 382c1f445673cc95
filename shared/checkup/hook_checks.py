"""Whether the hook is asked about the scale-downs of a pool, and is heard. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shared.checkup.findings import Check, Finding
from shared.checkup.permissions import COMPONENTS, WEBHOOK_CONFIGURATION
from shared.checkup.picture import Picture, PoolPicture, Rehearsal, Unread
from shared.checkup.webhook_reach import covering, selects_a_scale, selects_namespace
from shared.pods import Document


def check_hook(picture: Picture, pool: PoolPicture) -> Iterator[Finding]:
    """Nothing without the webhook configuration, of which the cluster's findings tell."""
    check = Check(about=pool.about, name="hook")
    document = picture.webhooks.document
    if isinstance(document, Unread):
        return
    if not pool.pool.drain.enabled:
        yield check.ok("Draining is switched off for this pool (drain.enabled: false).")
        return
    if deaf := _check_reach(check, document, pool):
        yield deaf
    elif pool.rehearsal is not None:
        ours = {webhook["name"] for webhook in document.get("webhooks") or ()}
        yield _check_rehearsal(check, pool.rehearsal, is_ours=pool.rehearsal.webhook in ours)


def _check_reach(check: Check, document: Document, pool: PoolPicture) -> Finding | None:
    """Why the hook is not asked, as its registration tells."""
    kind = pool.pool.workload.kind
    about_scales = covering(document, kind, subresource="scale")
    if not about_scales:
        manifest = COMPONENTS.get(kind, "deploy/base/webhook.yaml")
        return check.problem(f"The hook is not asked about scale-downs of a {kind}.", f"Apply {manifest}.")
    about_updates = covering(document, kind, subresource="")
    asked_here = [webhook for webhook in about_scales if _is_asked_in(webhook, pool)]
    if deaf := [*_all_or_none(about_scales, pool), *_all_or_none(about_updates, pool)]:
        return check.problem(
            f"The namespaceSelector leaves out {pool.pool.namespace} in {', '.join(dict.fromkeys(deaf))}, "
            "so the hook is not asked.",
            "Name it there, or move the workers; deploy/example shows how.",
        )
    if not any(map(selects_a_scale, asked_here)):
        return check.problem(
            f"The objectSelector of {', '.join(webhook['name'] for webhook in asked_here)} leaves out every "
            "scale-down, for a Scale has no labels, so the hook is not asked.",
            "Take it away: which pools are drained says the configuration file.",
        )
    return None


def _all_or_none(webhooks: Sequence[Document], pool: PoolPicture) -> list[str]:
    """Names of all of them, when each leaves out the pool's namespace: one that is asked there will do."""
    if any(_is_asked_in(webhook, pool) for webhook in webhooks):
        return []
    return [webhook["name"] for webhook in webhooks]


def _is_asked_in(webhook: Document, pool: PoolPicture) -> bool:
    labels = None if isinstance(pool.namespace_labels, Unread) else pool.namespace_labels
    return selects_namespace(webhook, pool.pool.namespace, labels)


def _check_rehearsal(check: Check, rehearsal: Rehearsal, *, is_ours: bool) -> Finding:
    what = f"A scale-down to {rehearsal.replicas}, asked for as a dry run,"
    if rehearsal.not_asked:
        return check.warning(
            f"{what} was not possible: {rehearsal.not_asked}", "Run this as somebody who may scale it."
        )
    if rehearsal.webhook and not is_ours:
        return _somebody_elses(check, rehearsal, what)
    if rehearsal.failure:
        return check.problem(
            f"{what} failed, so real ones do: {rehearsal.failure}",
            "Look at the pods, Service and log of drain-hook. docs/draining.md says how to break the glass.",
        )
    if rehearsal.refusal:
        return check.ok(f"{what} reached the hook, which would refuse it now: {rehearsal.refusal}")
    if rehearsal.said:
        return check.ok(f"{what} reached the hook. {rehearsal.said}")
    return check.problem(
        f"{what} was allowed without a word of the hook, which always has one: it was not asked or did not "
        "answer, or does not know this pool.",
        f"Look at matchConditions, clientConfig and failurePolicy in {WEBHOOK_CONFIGURATION}, and whether "
        "drain-hook reads the same file as this check.",
    )


def _somebody_elses(check: Check, rehearsal: Rehearsal, what: str) -> Finding:
    """Nothing was learnt of the hook."""
    if rehearsal.failure:
        return check.problem(
            f"{what} failed at webhook {rehearsal.webhook}, which is none of ours, so real ones do: "
            f"{rehearsal.failure}",
            "Look at the service behind that webhook, then run this again.",
        )
    return check.warning(
        f"{what} was refused by webhook {rehearsal.webhook}, which is none of ours, so whether the hook is "
        f"reached was not seen: {rehearsal.refusal}",
        "See whether that webhook may refuse this, then run this again.",
    )

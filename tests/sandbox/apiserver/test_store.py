"""The object store by itself."""

import pytest

from deploy.sandbox.apiserver.store import Key, ObjectStore
from deploy.sandbox.errors import ApiError
from deploy.sandbox.resources import CONFIGMAPS, PODS, Document


def named(name: str, *owners: str) -> Document:
    references = {"ownerReferences": [{"uid": uid} for uid in owners]} if owners else {}
    return {"metadata": {"name": name, "uid": f"uid-{name}", **references}}


def test_every_write_has_a_version_of_its_own() -> None:
    """One increasing number for all kinds, removals included."""
    store = ObjectStore()
    pod = store.put(Key(PODS, "n", "a"), named("a"))
    configmap = store.put(Key(CONFIGMAPS, "n", "a"), named("a"))
    removed = store.remove(Key(PODS, "n", "a"))
    assert removed is not None
    versions = [int(document["metadata"]["resourceVersion"]) for document in (pod, configmap, removed)]
    assert versions == sorted(set(versions))
    assert versions[-1] == store.resource_version


def test_a_stored_document_is_never_changed_in_place() -> None:
    """A writer recognises by identity that nobody wrote in between, and readers keep what they got."""
    store = ObjectStore()
    key = Key(PODS, "n", "a")
    first = store.put(key, named("a"))
    assert store.get(key) is first
    second = store.put(key, first | {"spec": {}})
    assert store.get(key) is second
    assert "spec" not in first


def test_lists_are_in_the_order_of_names_and_within_a_namespace() -> None:
    """As etcd's keys are."""
    store = ObjectStore()
    for namespace, name in (("n", "b"), ("m", "c"), ("n", "a")):
        store.put(Key(PODS, namespace, name), named(name))
    assert [document["metadata"]["name"] for document in store.select(PODS)] == ["c", "a", "b"]
    assert [document["metadata"]["name"] for document in store.select(PODS, "n")] == ["a", "b"]
    assert store.select(CONFIGMAPS) == []


def test_dependents_are_found_by_their_owner() -> None:
    """And no longer, once they are gone or disowned."""
    store = ObjectStore()
    kept, gone = Key(PODS, "n", "kept"), Key(PODS, "n", "gone")
    store.put(kept, named("kept", "one", "two"))
    store.put(gone, named("gone", "one"))
    assert store.dependents("one") == [gone, kept]
    store.remove(gone)
    store.put(kept, named("kept", "two"))
    assert store.dependents("one") == []
    assert store.dependents("two") == [kept]


def test_history_tells_what_happened_since() -> None:
    """With the state before each change."""
    store = ObjectStore()
    key = Key(PODS, "n", "a")
    store.put(key, named("a"))
    since = store.resource_version
    store.put(key, named("a", "owner"))
    store.remove(key)
    changes = store.history(PODS).since(since)
    assert [change.type for change in changes] == ["MODIFIED", "DELETED"]
    assert all(change.previous is not None for change in changes)


def test_history_that_is_not_kept_is_refused() -> None:
    """Changes of other kinds do not push it out."""
    store = ObjectStore(history_limit=2)
    store.put(Key(PODS, "n", "a"), named("a"))
    version = store.resource_version
    for name in "xyz":
        store.put(Key(CONFIGMAPS, "n", name), named(name))
    assert store.history(PODS).since(version) == []
    with pytest.raises(ApiError) as refused:
        store.history(CONFIGMAPS).since(version)
    assert refused.value.code == 410


def test_removing_what_is_not_there_changes_nothing() -> None:
    """No version, no event."""
    store = ObjectStore()
    assert store.remove(Key(PODS, "n", "a")) is None
    assert store.history(PODS).since(0) == []

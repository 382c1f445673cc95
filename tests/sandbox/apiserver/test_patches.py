"""Merge, strategic merge and JSON patches on literals."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.sandbox.apiserver.patches import apply_patch, json_patch, merge_patch, strategic_merge_patch
from deploy.sandbox.errors import ApiError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)
TWO = {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"b": {"c": 1}}, {"a": 1, "b": {"c": 1}}),
        ({"a": "x"}, {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_a_merge_patch_follows_rfc_7386(target: Any, patch: Any, expected: Any) -> None:
    """Null removes, objects merge, lists are replaced."""
    assert merge_patch(target, patch) == expected


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"containers": [{"name": "b", "image": "2"}]}, ["1", "2"]),
        ({"containers": [{"name": "c", "image": "3"}]}, ["1", None, "3"]),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, [None]),
        ({"containers": [{"$patch": "replace"}, {"name": "z", "image": "9"}]}, ["9"]),
        ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, [None, "1"]),
    ],
)
def test_a_strategic_merge_patch_knows_containers_by_their_names(patch: Any, expected: Any) -> None:
    """Merged, appended, deleted, replaced and put in order."""
    merged = strategic_merge_patch(TWO, patch)
    assert [container.get("image") for container in merged["containers"]] == expected


def test_a_strategic_merge_reaches_lists_in_lists() -> None:
    """env of one container, by the variable's name."""
    env = [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]
    merged = strategic_merge_patch(TWO, {"containers": [{"name": "a", "env": env}]})
    assert merged["containers"][0] == {"name": "a", "image": "1", "env": env}


def test_conditions_are_merged_by_type() -> None:
    """As controllers patch a status."""
    old = {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}
    merged = strategic_merge_patch(old, {"conditions": [{"type": "B", "status": "False"}]})
    assert [condition["status"] for condition in merged["conditions"]] == ["True", "False"]


def test_finalizers_are_added_and_removed_by_value() -> None:
    """A list of plain strings."""
    added = strategic_merge_patch({"finalizers": ["a"]}, {"finalizers": ["a", "b"]})
    assert added == {"finalizers": ["a", "b"]}
    assert strategic_merge_patch(added, {"$deleteFromPrimitiveList/finalizers": ["a"]}) == {
        "finalizers": ["b"]
    }


def test_keys_that_are_not_retained_go() -> None:
    """From RollingUpdate to Recreate."""
    old = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    patch = {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}
    assert strategic_merge_patch(old, patch) == {"strategy": {"type": "Recreate"}}


def test_an_item_without_its_key_is_refused() -> None:
    """Nobody could tell which one is meant."""
    with pytest.raises(ApiError, match="does not contain declared merge key: name"):
        strategic_merge_patch(TWO, {"containers": [{"image": "2"}]})


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": [1, 2], "b": 1}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1, 2]}),
        ([{"op": "replace", "path": "/a/1", "value": 5}], {"a": [1, 5]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "move", "from": "/a", "path": "/x~1y"}], {"x/y": [1, 2]}),
        ([{"op": "copy", "from": "/a/0", "path": "/c"}], {"a": [1, 2], "c": 1}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
    ],
)
def test_a_json_patch_follows_rfc_6902(steps: Any, expected: Any) -> None:
    """Every operation once."""
    assert json_patch({"a": [1, 2]}, steps) == expected


@pytest.mark.parametrize(
    "step",
    [
        {"op": "test", "path": "/a", "value": 1},
        {"op": "remove", "path": "/b"},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "twist", "path": "/a"},
        {"op": "add", "path": "a", "value": 1},
        {"op": "add"},
    ],
)
def test_a_json_patch_that_does_not_fit_is_refused(step: Any) -> None:
    """422, with the step in the message."""
    with pytest.raises(ApiError) as refused:
        json_patch({"a": [1]}, [step])
    assert refused.value.code == 422


@given(target=OBJECTS, patch=OBJECTS)
def test_patches_leave_what_they_are_given_alone(target: Any, patch: Any) -> None:
    """Stored documents are shared with readers."""
    before = copy.deepcopy((target, patch))
    merge_patch(target, patch)
    strategic_merge_patch(target, patch)
    assert (target, patch) == before


@given(target=OBJECTS, patch=OBJECTS)
def test_a_merge_patch_twice_is_a_merge_patch_once(target: Any, patch: Any) -> None:
    """So that a retry after a conflict does no harm."""
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


def test_unknown_patch_types_are_refused_with_what_to_do() -> None:
    """Server-side apply is not served, and says so."""
    with pytest.raises(ApiError, match="leave --server-side away"):
        apply_patch("application/apply-patch+yaml", {}, {})
    with pytest.raises(ApiError, match="accepted media types"):
        apply_patch("text/plain", {}, {})

"""A LabelSelector document and what it selects."""

from collections.abc import Mapping

from deploy.sandbox.resources import Document
from metrics_adapter.selectors import parse_selector
from shared.pods import selector_text


def matches_labels(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects these labels; an empty one selects everything."""
    return parse_selector(selector_text(selector)).matches(labels)

"""A LabelSelector document and what it selects."""

from collections.abc import Mapping

from deploy.sandbox.resources import Document
from metrics_adapter.selectors import parse_selector


def matches_labels(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects these labels; an empty one selects everything."""
    return parse_selector(selector_text(selector)).matches(labels)


def selector_text(selector: Document) -> str:
    """A LabelSelector in string form, keys and values sorted."""
    terms = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    terms += [
        (expression["key"], _expression(expression)) for expression in selector.get("matchExpressions") or ()
    ]
    return ",".join(text for _, text in sorted(terms))


def _expression(expression: Document) -> str:
    key, values = expression["key"], ",".join(sorted(expression.get("values") or ()))
    texts: dict[str, str] = {
        "In": f"{key} in ({values})",
        "NotIn": f"{key} notin ({values})",
        "Exists": key,
        "DoesNotExist": f"!{key}",
    }
    return texts[expression["operator"]]

"""What every object has in common, for those who write them and for the server that stores them."""

from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as metadata carries it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Ages as kubectl's tables show them: two units at most, and fewer the older a thing is."""

from datetime import datetime, timedelta

MINUTE, HOUR, DAY = 60, 3600, 86400


def age(since: str | None, now: datetime) -> str:
    """How long ago a timestamp was."""
    if not since:
        return "<unknown>"
    return human_duration(now - datetime.fromisoformat(since))


def human_duration(elapsed: timedelta) -> str:
    """The duration in the units the real server chooses, which stop being exact as it grows."""
    seconds = int(elapsed.total_seconds())
    if seconds < 2 * MINUTE:
        return f"{max(seconds, 0)}s"
    if seconds < 10 * MINUTE:
        return _two(seconds, MINUTE, "m", 1, "s")
    if seconds < 3 * HOUR:
        return f"{seconds // MINUTE}m"
    if seconds < 8 * HOUR:
        return _two(seconds, HOUR, "h", MINUTE, "m")
    if seconds < 2 * DAY:
        return f"{seconds // HOUR}h"
    if seconds < 8 * DAY:
        return _two(seconds, DAY, "d", HOUR, "h")
    return f"{seconds // DAY}d"


def _two(seconds: int, large: int, large_sign: str, small: int, small_sign: str) -> str:
    rest = seconds % large // small
    return f"{seconds // large}{large_sign}" + (f"{rest}{small_sign}" if rest else "")

"""What is known of each pool, how old that is, and whether it may still be served. Pure.

Nobody after us rejects old values: the HPA controller looks neither at timestamp nor window.
"""

from __future__ import annotations

from dataclasses import dataclass

from metrics_adapter.load import Load
from shared.pools import Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A pool of the configuration, its last load, and what is wrong now."""

    pool: Pool
    load: Load | None = None
    """None until its first refresh succeeds."""
    age_s: float = 0.0
    problem: str | None = None
    """Why the latest refresh failed."""

    @property
    def title(self) -> str:
        return f"{self.pool.namespace}/{self.pool.name}"

    def refusal(self, *, max_age_s: float) -> str | None:
        """Why its values are not served; None when they are."""
        because = self.problem or "The refresh that is under way has not finished."
        if self.load is None:
            return f"Pool {self.title} has not been measured yet. {because}"
        if self.age_s > max_age_s:
            return (
                f"The values of pool {self.title} are {self.age_s:.0f} s old and not served any more "
                f"(maxAge is {max_age_s:.0f} s). {because}"
            )
        return None

    def complaint(self, *, max_age_s: float) -> str | None:
        """What is wrong with it, served or not."""
        failing = f"Pool {self.title}: {self.problem}" if self.problem else None
        return self.refusal(max_age_s=max_age_s) or failing

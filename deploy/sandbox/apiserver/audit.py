"""What is remembered of every write."""

from dataclasses import dataclass

from deploy.sandbox.apiserver.authentication import User


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What is remembered of a write: who, what, the answer, and what admission had to say."""

    user: User
    verb: str
    path: str
    code: int
    annotations: dict[str, str]

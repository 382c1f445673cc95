"""Everything that can go wrong, in the words of this project; doors translate foreign errors into these.

CeleryHpaError
├── ConfigurationError          the configuration file has mistakes; carries all of them
├── SelectorSyntaxError         a label selector that Kubernetes would refuse
├── BrokerUnavailable           the broker cannot be reached or does not answer in time
├── DatabaseUnavailable         Airflow's metadata database cannot be reached, read or understood
├── CertificateError            a certificate or key cannot be read or does not fit
└── KubernetesError             the Kubernetes API refused a request
    ├── NotFound                404
    ├── Conflict                409: somebody wrote in between, or the object is another one
    ├── Forbidden               401 and 403
    ├── Gone                    410: a watch must start over
    └── KubernetesUnavailable   429, 5xx, connection refused, time-outs
"""

from __future__ import annotations

from dataclasses import dataclass


class CeleryHpaError(Exception):
    """Root of the tree above; its text is a sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in the configuration file, and where it is."""

    path: str
    """Where, as `pools[0].algorithm.target`; empty for the file as a whole."""
    message: str
    """What is wrong and what would be right."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigurationError(CeleryHpaError):
    """The configuration file cannot be used; `mistakes` names every reason at once."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class SelectorSyntaxError(CeleryHpaError):
    """The text is no label selector."""


class BrokerUnavailable(CeleryHpaError):
    """The broker cannot be reached, or did not answer before our deadline."""


class DatabaseUnavailable(CeleryHpaError):
    """Airflow's metadata database cannot be reached, did not answer in time, or has not what we look for."""


class CertificateError(CeleryHpaError):
    """A certificate or private key cannot be read, or they do not belong together."""


class KubernetesError(CeleryHpaError):
    """The Kubernetes API refused a request; `status` is the HTTP code, 0 when there was no answer.

    `retry_after_s` is how long it asks us to wait before the next try, 0.0 when it does not say.
    """

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class NotFound(KubernetesError):
    """404: there is no such object."""


class Conflict(KubernetesError):
    """409: somebody wrote in between, the object exists already, or its uid is another one."""


class Forbidden(KubernetesError):
    """401 or 403: our service account lacks a permission."""


class Gone(KubernetesError):
    """410: the resourceVersion is too old; list again."""


class KubernetesUnavailable(KubernetesError):
    """429, 5xx, or no answer at all; worth another try."""

"""Who is asking: client certificates of the cluster CA, bearer tokens, impersonation, or nobody."""

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID
from multidict import CIMultiDictProxy

from deploy.sandbox.errors import unauthorized
from deploy.sandbox.resources import Document

AUTHENTICATED = "system:authenticated"
MASTERS = "system:masters"
CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
AUDIENCE = "https://kubernetes.default.svc.cluster.local"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An identity as admission reviews, the front proxy and access reviews see it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> Document:
        """The userInfo document; empty fields are left out."""
        document: Document = {"username": self.name}
        if self.uid:
            document["uid"] = self.uid
        document["groups"] = list(self.groups)
        if self.extra:
            document["extra"] = {key: list(values) for key, values in self.extra.items()}
        return document


ANONYMOUS = User(name="system:anonymous", groups=("system:unauthenticated",))


@lru_cache(maxsize=512)
def certificate_user(der: bytes) -> User:
    """The user of a client certificate: its CN, and its Os as groups."""
    subject = x509.load_der_x509_certificate(der).subject
    names = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    credential = f"X509SHA256={hashlib.sha256(der).hexdigest()}"
    return User(name=names[0], groups=(*groups, AUTHENTICATED), extra={CREDENTIAL_ID: (credential,)})


def service_account_user(namespace: str, name: str) -> User:
    """The identity of a service account with a fresh uid and credential id."""
    return User(
        name=f"system:serviceaccount:{namespace}:{name}",
        uid=str(uuid.uuid4()),
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED),
        extra={CREDENTIAL_ID: (f"JTI={uuid.uuid4()}",)},
    )


class Tokens:
    """The bearer tokens this cluster has given out."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}

    def issue(self, user: User) -> str:
        """A new token for a user."""
        token = secrets.token_urlsafe(32)
        self._users[token] = user
        return token

    def issue_for_service_account(self, namespace: str, name: str) -> str:
        """A new token for a service account, as TokenRequest gives one."""
        return self.issue(service_account_user(namespace, name))

    def user(self, token: str) -> User | None:
        """Whose token it is."""
        return self._users.get(token)


def authenticate(certificate: bytes | None, headers: CIMultiDictProxy[str], tokens: Tokens) -> User:
    """The user of a request. Raises ApiError 401 for an unknown token."""
    if certificate is not None:
        return certificate_user(certificate)
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return ANONYMOUS
    user = tokens.user(token.strip())
    if user is None:
        raise unauthorized()
    return user


def impersonated(headers: CIMultiDictProxy[str]) -> User | None:
    """As whom a request is to be carried out, if not as its own user."""
    name, groups = headers.get("Impersonate-User"), tuple(headers.getall("Impersonate-Group", ()))
    if name is None:
        return None
    if (account := service_account_of(name)) and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    return User(name=name, groups=(*groups, AUTHENTICATED))


def service_account_of(user_name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user is."""
    parts = user_name.split(":")
    return (parts[2], parts[3]) if parts[:2] == ["system", "serviceaccount"] and len(parts) == 4 else None

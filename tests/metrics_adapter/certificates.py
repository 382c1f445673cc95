"""The two CAs of a cluster, and certificates of them, sound or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography.x509.oid import NameOID

from metrics_adapter.client_trust import ClientTrust, client_trust_from
from shared.certificates import KeyPair, make_ca, make_leaf
from shared.client_certificates import Presented


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """As kubeadm sets it up: one CA for clients, another for the API server as a front proxy."""

    client_ca: KeyPair
    proxy_ca: KeyPair

    @classmethod
    def make(cls) -> Self:
        return cls(client_ca=make_ca("lab-ca"), proxy_ca=make_ca("lab-front-proxy-ca"))

    def config_map(self, **changes: str) -> dict[str, str]:
        """The data of extension-apiserver-authentication; `changes` have _ for -."""
        data = {
            "client-ca-file": self.client_ca.certificate_pem.decode(),
            "requestheader-client-ca-file": self.proxy_ca.certificate_pem.decode(),
            "requestheader-allowed-names": json.dumps(["front-proxy-client"]),
            "requestheader-username-headers": json.dumps(["X-Remote-User"]),
            "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
        }
        return data | {key.replace("_", "-"): value for key, value in changes.items()}

    def trust(self, **changes: str) -> ClientTrust:
        return client_trust_from(self.config_map(**changes))

    def front_proxy(self, name: str = "front-proxy-client") -> KeyPair:
        return make_leaf(self.proxy_ca, common_name=name, is_client=True)

    def client(self, name: str = "alice", *groups: str) -> KeyPair:
        return make_leaf(self.client_ca, common_name=name, organizations=groups, is_client=True)


def presented(pair: KeyPair) -> Presented:
    return Presented(leaf=pair.certificate)


def expired(ca: KeyPair, name: str) -> KeyPair:
    """It was good for one day, until yesterday."""
    past = datetime.now(UTC) - timedelta(days=2)
    return make_leaf(ca, common_name=name, is_client=True, days=1, now=past)


def for_servers(ca: KeyPair, name: str) -> KeyPair:
    return make_leaf(ca, common_name=name, names=[name])


def namesake(ca: KeyPair) -> KeyPair:
    """Another CA of the same name."""
    (name,) = ca.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return make_ca(str(name.value))

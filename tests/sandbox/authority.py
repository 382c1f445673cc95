"""A certificate authority for tests that writes what it signs into a directory."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shared.certificates import KeyPair, make_ca, make_leaf, save_key_pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a certificate and its key are."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Signs certificates of servers and clients."""

    directory: Path
    pair: KeyPair

    @classmethod
    def create(cls, directory: Path) -> Self:
        """A new authority with a directory of its own."""
        directory.mkdir(parents=True)
        authority = cls(directory=directory, pair=make_ca(directory.name))
        authority.file.write_bytes(authority.pair.certificate_pem)
        return authority

    @property
    def file(self) -> Path:
        """The authority's own certificate."""
        return self.directory / "ca.crt"

    @property
    def bundle(self) -> str:
        """What a caBundle field takes."""
        return base64.b64encode(self.pair.certificate_pem).decode()

    def serving(self, common_name: str, *hosts: str) -> Files:
        """A new certificate for a server on 127.0.0.1 that is also known by these names."""
        leaf = make_leaf(self.pair, common_name=common_name, names=hosts, addresses=["127.0.0.1"])
        return self._save(common_name, leaf)

    def client(self, common_name: str, *groups: str) -> Files:
        """A new certificate for a user in these groups."""
        leaf = make_leaf(self.pair, common_name=common_name, organizations=groups, is_client=True)
        return self._save(common_name, leaf)

    def _save(self, name: str, leaf: KeyPair) -> Files:
        files = Files(certificate=self.directory / f"{name}.crt", key=self.directory / f"{name}.key")
        save_key_pair(leaf, certificate_file=files.certificate, key_file=files.key)
        return files

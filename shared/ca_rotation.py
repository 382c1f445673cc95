"""When our CA and our leaf are made anew, whom callers trust meanwhile, and which leaf is served. Pure.

A new CA is announced first: it stands in every caBundle beside the old one, while everybody serves the
old leaf. Once it has stood there for a moment, a leaf is made under it, and each replica serves that as soon
as it has seen the new CA in the caBundle for itself. The old CA is trusted for a while longer. So whatever a
replica serves, at any instant, is under a CA that callers trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from shared.certificates import LEAF_DAYS, KeyPair, as_pem, certificates_in
from shared.errors import CertificateError

LEAF_RENEWED_BEFORE = timedelta(days=90)
CA_RENEWED_BEFORE = timedelta(days=2 * LEAF_DAYS)
"""So much before its end; no leaf outlasts the CA that it is under, however long an announcement takes."""
SEEN_AFTER = timedelta(minutes=1)
"""How long a CA has stood in every caBundle until each API server has seen it, and had an old view end."""
OLD_CA_STAYS = timedelta(days=7)
"""Beside the new one, from when a leaf was made under that: no replica that works looks away for so long."""

SeenSince = Mapping[x509.Certificate, datetime]
"""Which CAs stand in every caBundle, and since when as far as we know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the Secret holds. While a new CA is announced, the leaf is still under an old one."""

    ca: KeyPair
    leaf: KeyPair
    old_cas: tuple[x509.Certificate, ...] = ()
    """Their keys are gone: they sign nothing any more."""

    @property
    def ca_bundle(self) -> bytes:
        """Whom callers are to trust, as PEM."""
        return as_pem((self.ca.certificate, *self.old_cas))

    def issuer(self) -> x509.Certificate | None:
        """The CA that the leaf is under; None when it is under none of them."""
        cas = (self.ca.certificate, *self.old_cas)
        return next((ca for ca in cas if self.leaf.is_signed_by(ca)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be made, and which CAs are to be trusted beside the one that signs."""

    makes_ca: bool = False
    makes_leaf: bool = False
    old_cas: tuple[x509.Certificate, ...] = ()


def plan(
    kept: Kept | None,
    *,
    names: frozenset[str],
    registered: Iterable[x509.Certificate],
    seen_since: SeenSince,
    now: datetime,
) -> Plan:
    """What becomes of the Secret, None while there is none that can be used; `registered` are CAs of ours."""
    if kept is None:
        return Plan(makes_ca=True, makes_leaf=True, old_cas=_lasting(registered, now=now))
    is_usable = _is_usable(kept, names, now=now)
    if kept.ca.lasts_until() - now < CA_RENEWED_BEFORE:
        old = _lasting((kept.ca.certificate, *kept.old_cas, *registered), now=now)
        return Plan(makes_ca=True, makes_leaf=not is_usable, old_cas=old)
    is_announced = not kept.leaf.is_under(kept.ca)
    is_due = (
        is_trusted(kept.ca.certificate, seen_since, now=now)
        if is_announced
        else kept.leaf.lasts_until() - now < LEAF_RENEWED_BEFORE
    )
    makes_leaf = is_due or not is_usable
    others = (one for one in (*kept.old_cas, *registered) if one != kept.ca.certificate)
    are_needed = makes_leaf or is_announced or now - kept.leaf.begins_at() < OLD_CA_STAYS
    return Plan(makes_leaf=makes_leaf, old_cas=_lasting(others, now=now) if are_needed else ())


def may_serve(kept: Kept, *, instead_of: KeyPair | None, seen_since: SeenSince, now: datetime) -> bool:
    """Whether to serve its leaf from now on, and no longer the one that is served so far."""
    if instead_of is None or instead_of.lasts_until() <= now:
        return True
    issuer = kept.issuer()
    if issuer is None:
        return False
    # Whoever trusts what is served trusts another leaf of the same CA, whether or not we can see that.
    return instead_of.is_signed_by(issuer) or is_trusted(issuer, seen_since, now=now)


def is_trusted(ca: x509.Certificate, seen_since: SeenSince, *, now: datetime) -> bool:
    """Whether every caller that looks at the caBundle has this CA by now."""
    return ca in seen_since and now - seen_since[ca] >= SEEN_AFTER


def still_seen(before: SeenSince, bundles: Sequence[bytes], *, now: datetime) -> SeenSince:
    """What stands in every caBundle now, and since when."""
    in_each = [set(_readable(bundle)) for bundle in bundles]
    in_all = set.intersection(*in_each) if in_each else set()
    return {ca: before.get(ca, now) for ca in in_all}


def cas_named(subject: x509.Name, bundles: Iterable[bytes]) -> tuple[x509.Certificate, ...]:
    """Those that some caBundle holds: of ours, as their name says, and not of others who wrote there."""
    found = (ca for bundle in bundles for ca in _readable(bundle) if ca.subject == subject)
    return tuple(dict.fromkeys(found))


def _is_usable(kept: Kept, names: frozenset[str], *, now: datetime) -> bool:
    is_named = names <= kept.leaf.names()
    return is_named and kept.leaf.lasts_until() > now and kept.issuer() is not None


def _lasting(cas: Iterable[x509.Certificate], *, now: datetime) -> tuple[x509.Certificate, ...]:
    return tuple(dict.fromkeys(ca for ca in cas if ca.not_valid_after_utc > now))


def _readable(bundle: bytes) -> tuple[x509.Certificate, ...]:
    """None where somebody wrote what is no PEM: nobody can be trusted by that."""
    try:
        return certificates_in(bundle)
    except CertificateError:
        return ()

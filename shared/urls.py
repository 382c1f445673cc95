"""URLs of brokers and databases in sentences: without their secrets. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

_SCHEME = re.compile(r"[a-z0-9+]+://")


def address(url: str) -> str:
    """Where a server is, or the several of a broker, without user, password and options."""
    return ", ".join(map(_address, url.split(";")))


def _address(url: str) -> str:
    # After the last @, whatever a library would say: a password that nobody encoded may hold / ? and #.
    scheme, rest = _without_scheme(url)
    return scheme + rest.rpartition("@")[2].partition("?")[0].partition("#")[0]


def database_address(url: str) -> str:
    """Where a metadata database is, without user, password and options, as a parser reads the URL."""
    scheme = _without_scheme(url)[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme}…"
    if url.count("@") > ("@" in parts.netloc):
        # One of a password that nobody encoded, which may then begin and end anywhere.
        return f"{scheme}…"
    return scheme + parts.netloc.rpartition("@")[2] + parts.path


def redacted(text: str, *, url: str) -> str:
    """`text` without the passwords of `url`, as written there or decoded."""
    for part in (url, *url.split(";")):
        for secret in _secrets(part):
            text = text.replace(secret, "***")
    return text


def _secrets(url: str) -> list[str]:
    userinfo = _without_scheme(url)[1].rpartition("@")[0]
    options = parse_qsl(url.partition("?")[2])
    passwords = [userinfo.partition(":")[2], *(value for name, value in options if "pass" in name.lower())]
    return [secret for password in passwords if password for secret in (password, unquote(password))]


def _without_scheme(url: str) -> tuple[str, str]:
    """The scheme with its ://, and the rest; the further ones of several brokers may have none."""
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    return scheme, url[len(scheme) :]

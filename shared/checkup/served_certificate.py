"""The door to a server's certificate: whether CAs that somebody registered fit it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress

DIAL_S = 3.0


async def tls_problem(host: str, port: int, *, server_name: str, ca_pem: bytes) -> str | None:
    """Why the API server would not trust it; empty when it would, None when nothing answers from here."""
    try:
        context = ssl.create_default_context(cadata=ca_pem.decode())
    except (ssl.SSLError, ValueError) as error:
        return f"it holds no certificates ({error})"
    # Python 3.13 insists on extensions that Go never looks at.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        async with asyncio.timeout(DIAL_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name)
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip(".") or str(error)
    except (OSError, TimeoutError):
        return None
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""

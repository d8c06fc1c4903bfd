"""How one gets a certificate from the fleet's controller: the first by a join token, the next by the one before."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from shoal.errors import ControllerUnavailable, IdentityError, ShoalError
from shoal.http1 import HEAD_LIMIT_BYTES, ProtocolError, parse_json, request
from shoal.pki.credentials import Credentials, authority_context
from shoal.pki.identity import Identity, create_key, create_request
from shoal.pki.peer import Role, server_name
from shoal.pki.token import JoinToken

JOIN_PATH, RENEW_PATH, CERTIFICATES_PATH = "/v1/join", "/v1/renew", "/v1/certificates"
_ANSWER_S = 10.0


async def join_fleet(url: str, token: JoinToken, *, role: Role, name: str) -> Identity:
    """A first identity. The secret of the token is told only to who has the authority's key.

    Raises IdentityError if it is refused, ControllerUnavailable if nobody answers at `url` (https://HOST:PORT).
    """
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # what comes is public, and checked by its hash
    unchecked.minimum_version = ssl.TLSVersion.TLSv1_3
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    authority_pem = _text(await _call(url, unchecked, "GET", JOIN_PATH), "authority")
    token.check_authority(authority_pem)
    key_pem = create_key()
    body = {"token": str(token), "role": role, "name": name, "request": create_request(key_pem)}
    answer = await _call(url, authority_context(authority_pem), "POST", JOIN_PATH, body)
    return Identity.of(key_pem, _text(answer, "certificate"), authority_pem)


async def renew(url: str, credentials: Credentials) -> Identity:
    """The next identity of the same holder, with a new key. Raises as `join_fleet` does."""
    key_pem = create_key()
    body = {"request": create_request(key_pem)}
    answer = await _call(url, credentials.client_context(), "POST", RENEW_PATH, body)
    return Identity.of(key_pem, _text(answer, "certificate"), credentials.identity.authority_pem)


async def _call(url: str, context: ssl.SSLContext, method: str, path: str, body: object = None) -> Mapping[str, Any]:
    place = urlsplit(url)
    name = server_name("controller") if context.check_hostname else None
    try:
        async with asyncio.timeout(_ANSWER_S):
            streams = await asyncio.open_connection(
                place.hostname, place.port, ssl=context, server_hostname=name or "", limit=HEAD_LIMIT_BYTES
            )
            async with request(streams, method, path, body) as response:
                answer = parse_json(await response.read())
    except ssl.SSLError as error:
        raise IdentityError(f"the controller at {url}: {describe_tls_error(error)}") from error
    except (OSError, ProtocolError) as error:  # a TimeoutError is one
        raise ControllerUnavailable(f"no controller answers at {url}: {error or type(error).__name__}") from error
    if not isinstance(answer, dict):
        raise ShoalError(f"the controller at {url} answered what this version does not understand")
    found: dict[str, Any] = answer  # pyright: ignore[reportUnknownVariableType] - JSON
    if response.status in {401, 403, 429}:
        raise IdentityError(f"the controller at {url} refuses: {found.get('message')}")
    if response.status != 200:
        raise ShoalError(f"the controller at {url} answered {response.status}: {found.get('message')}")
    return found


def describe_tls_error(error: ssl.SSLError) -> str:
    """In words that say what to do; what OpenSSL says stays with it."""
    said = f"{error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason or error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        if "expired" in said or "not yet valid" in said:
            return f"its certificate does not hold now ({said}): compare the clocks of both machines"
        return f"it is not the controller of this fleet ({said}): another fleet's answers there, or it was made anew"
    return f"TLS failed ({said}): it does not accept our certificate, or is no controller"


def _text(answer: Mapping[str, Any], key: str) -> str:
    found = answer.get(key)
    if not isinstance(found, str):
        raise ShoalError(f"the controller's answer has no {key}, which this version of Shoal expects")
    return found

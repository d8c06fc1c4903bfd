"""Keys and certificates of a fleet: its own certificate authority, and who was let in by it.

What decides is pure: `now` is an argument, in epoch seconds. `joining` alone speaks with the network, and `member`
reads the clock.
"""

from __future__ import annotations

from shoal.pki.authority import Authority
from shoal.pki.credentials import Credentials
from shoal.pki.identity import Identity, create_key, create_request
from shoal.pki.peer import ROLES, Peer, Role, server_name
from shoal.pki.token import JoinToken

__all__ = [
    "ROLES",
    "Authority",
    "Credentials",
    "Identity",
    "JoinToken",
    "Peer",
    "Role",
    "create_key",
    "create_request",
    "server_name",
]

"""What a broker may be: where it is, and that no password stands in the file.

What is wrong with a URL is told without showing it, since a password may be why.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from shoal.spec.agent_checks import SECRET, SECRET_RULE
from shoal.spec.model import Broker
from shoal.spec.nodes import Loc
from shoal.spec.validation import Finding
from shoal.spec.values import shown

_OUTSIDE = ("url", "management_url", "secret")
_SCHEMES = {"url": ("amqp", "amqps"), "management_url": ("http", "https")}
_WANTED = {"url": "amqp://HOST:PORT/VHOST or amqps://HOST:PORT/VHOST", "management_url": "http(s)://HOST:PORT"}


def check_broker(name: str, broker: Broker, engine: str) -> Iterator[Finding]:
    """What is wrong with one broker whose values are right one by one."""
    at: Loc = ("brokers", name)
    if broker.type == "embedded":
        for key in _OUTSIDE:
            if getattr(broker, key) is not None:
                message = "only a broker of `type: rabbitmq` has this: Shoal runs the embedded one"
                yield Finding((*at, key), message, key=True)
        return
    if broker.url is None:
        yield Finding(at, "the key `url` is missing", f"write where it is: {_WANTED['url']}", key=True)
    for key in _SCHEMES:
        yield from _url((*at, key), key, getattr(broker, key), engine)
    if broker.secret is not None and not SECRET.fullmatch(broker.secret):
        yield Finding((*at, "secret"), f"{shown(broker.secret)} can't be the name of a secret", SECRET_RULE)


def _url(at: Loc, key: str, url: str | None, engine: str) -> Iterator[Finding]:
    if url is None:
        return
    if "@" in url:
        message = "a user or password in a URL would be stored, shown and logged"
        remedy = "leave it out, keep `user:password` in a secret, and name that: `secret: NAME`"
        yield Finding(at, message, remedy)
        return
    try:
        split = urlsplit(url)
        host, _ = split.hostname, split.port
    except ValueError:
        host, split = None, urlsplit("")
    if split.scheme not in _SCHEMES[key] or not host or split.query or split.fragment or " " in url:
        yield Finding(at, f"this is no address of a broker; expected {_WANTED[key]}")
    elif engine != "local" and _is_this_machine(host):
        message = f"{host} is another machine for each container of the {engine} engine"
        yield Finding(at, message, "write the name under which the broker is reached from there")


def _is_this_machine(host: str) -> bool:
    if host.lower().rstrip(".") in {"localhost", "ip6-localhost"} or host.lower().endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified

"""From which sites a browser may ask: the names that a service answers to, against DNS rebinding and foreign forms."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from ...errors import InputError

ANY_NAME = "*"
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII)
_LOCAL = "localhost"


def allowed_names(names: Iterable[str]) -> frozenset[str] | None:
    """Return names of hosts as `refusal` compares them; None if one of them is `ANY_NAME`.

    Raises
    ------
    InputError
        One is no name of a host.
    """
    given = [name.strip().lower() for name in names]
    for name in given:
        if name != ANY_NAME and not _NAME.fullmatch(name):
            raise InputError(
                f"--allowed-host {name}: is no name of a host; give one such as spectra.example.org, without scheme "
                "and port, or * for any"
            )
    return None if ANY_NAME in given else frozenset(name.rstrip(".") for name in given)


def refusal(headers: Iterable[tuple[bytes, bytes]], allowed: frozenset[str] | None, *, changes: bool) -> str | None:
    """Return why a request is not answered; None if it is.

    A page whose name its owner lets point to this machine ("DNS rebinding") calls the service by that name, which the
    browser writes into ``Host``; no such name is an address, so addresses are always allowed. A form of another site is
    sent with that site as its ``Origin``. What is no browser says what it likes, and is not kept out by this.

    Parameters
    ----------
    headers : iterable of (bytes, bytes)
        Names in lower case, as ASGI has them.
    allowed : frozenset of str or None
        Names of hosts, from `allowed_names`, besides localhost and addresses; None where ``Host`` may be any.
    changes : bool
        Whether the request may change something: not for GET and HEAD.

    See Also
    --------
    https://fetch.spec.whatwg.org/#http-origin, https://www.w3.org/TR/fetch-metadata : the headers.
    """
    of: dict[bytes, list[str]] = {b"host": [], b"origin": [], b"sec-fetch-site": []}
    for name, value in headers:
        if name in of:
            of[name].append(value.decode("latin-1").strip().lower())
    for host in of[b"host"]:  # HTTP/1.0 may do without, and browsers do not speak it
        if allowed is not None and not _is_own(_name_of(host), allowed):
            return f"Host: {host[:100]!r} is no name of this service; if it is one, start it with --allowed-host"
    if not changes:
        return None
    if any(site in ("cross-site", "same-site") for site in of[b"sec-fetch-site"]):
        return "another site called this from a browser; open the page of the service instead"
    if of[b"sec-fetch-site"]:
        return None
    for origin in of[b"origin"]:  # browsers say no more where the connection is not encrypted
        place = origin.partition("://")[2]  # an origin has nothing behind host and port
        if place not in of[b"host"] and _name_of(place) not in (allowed or ()):
            return f"Origin: {origin[:100]!r} is another site; if it is this service, start it with --allowed-host"
    return None


def _is_own(name: str, allowed: frozenset[str]) -> bool:
    if name in allowed or name == _LOCAL or name.endswith("." + _LOCAL):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name_of(place: str) -> str:
    """Return the host of ``host:port``, without the brackets of an IPv6 address and without the dot of the root."""
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place.partition(":")[0].rstrip(".")

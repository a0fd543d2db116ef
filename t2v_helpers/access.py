"""Decides which requests may act on a page, from the page's names and the origin that a request states."""

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..modelscope.errors import TextToVideoError

FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto")
"""Headers that a proxy adds to the requests that it passes on."""
_OWN_SITES = ("same-origin", "none")
"""Values of Sec-Fetch-Site for a page's own requests, and for addresses that a person opens directly."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+(%\w+)?)\]|(?P<name>[\w.-]+))(:\d{1,5})?", re.ASCII)
_SHOWN = 100
"""Number of characters of a header that an error shows."""


class Refused(TextToVideoError):
    """The error for a request that does not come from one of our pages."""


class Visit(NamedTuple):
    """A request as it arrived.

    Args:
        headers: The headers by their names in lower case. Programs such as curl send no `origin`.
        client: The address that the request came from.
    """

    headers: Mapping[str, str]
    client: str

    @property
    def is_local(self) -> bool:
        """True if the visitor sits at this computer: address, host and origin are local, and there is no proxy."""
        by_proxy = any(name in self.headers for name in FORWARDED)
        named = [self.headers.get("host", "")]
        # A proxy that does not pass the host on can still be seen from the page's address.
        named += [self.headers["origin"].partition("://")[2]] if "origin" in self.headers else []
        return is_loopback(self.client) and all(is_loopback(host_name(one)) for one in named) and not by_proxy


@dataclass(frozen=True)
class Names:
    """The host names under which a page is served.

    Args:
        extra: Additional names, for instance a proxy's. One that begins with a dot stands for all names below it.
        listens: The address or name at which other computers reach the page; empty if they do not.
        remedy: For errors, how to allow another name; `{name}` in it stands for that name.
    """

    extra: tuple[str, ...] = ()
    listens: str = ""
    remedy: str = ""

    def includes(self, name: str) -> bool:
        """Return whether the page is served under a name, which is in lower case and without a port."""
        if is_loopback(name) or any(name == one or _is_below(name, one) for one in self.extra):
            return True
        return bool(self.listens) and (is_address(name) or name == self.listens.lower() or _is_own_name(name))

    def declares(self, name: str) -> bool:
        """Return whether exactly this name is an extra one: names below those with a dot may be other people's."""
        return bool(name) and name in self.extra


def _is_below(name: str, above: str) -> bool:
    return above.startswith(".") and name.endswith(above)


def check_request(headers: Mapping[str, str], names: Names) -> None:
    """Check that a request comes from a page that is served under one of the names, or from no page. Raises Refused."""
    check_host(headers, names)
    host, origin = headers["host"], headers.get("origin")
    if origin is not None and not _is_own(origin, host, names):
        remedy = _remedy(names, host_name(origin.partition("://")[2]))
        raise Refused(f"Refused: this request comes from another page, {origin[:_SHOWN]!a}. Nothing was done.{remedy}")
    if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        raise Refused("Refused: this request comes from another site's page. Nothing was done.")


def check_host(headers: Mapping[str, str], names: Names) -> None:
    """Check that the page is served under the request's host name. Raises Refused.

    Somebody else may let their own name lead to this computer, and pass their page off as ours (DNS rebinding).
    """
    name = host_name(headers.get("host", ""))
    if not name:
        raise Refused("Refused: the request names no valid host.")
    if not names.includes(name):
        raise Refused(f"Refused: this page is not served as {name[:_SHOWN]!a}.{_remedy(names, name)}")


def _remedy(names: Names, name: str) -> str:
    """Return the remedy for a name, with a space before it; none for this computer's own names, where it is useless."""
    useful = name and names.remedy and not is_loopback(name)
    return f" {names.remedy.format(name=ascii(name[:_SHOWN]))}" if useful else ""


def read_visit(scope: Mapping[str, Any]) -> Visit:
    """Return an ASGI request as a visit. A repeated header has all its values, which no check accepts."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Visit(headers, (scope.get("client") or ("",))[0])


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case, without port and brackets; empty if invalid."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"]).lower().rstrip(".") if match else ""


def is_loopback(name: str) -> bool:
    """Return whether a name means this computer itself."""
    if not is_address(name):
        return name == "localhost"
    address = ipaddress.ip_address(name)
    # A server for both kinds of addresses sees IPv4 addresses in their IPv6 form.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_address(name: str) -> bool:
    """Return whether a name is an IP address. Unlike a name, an address cannot be made to lead here by others."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_own_name(name: str) -> bool:
    own = socket.gethostname().lower()
    return name in (own, f"{own.partition('.')[0]}.local")


def _is_own(origin: str, host: str, names: Names) -> bool:
    """Return whether a page's origin is the address that receives the request, or one of the extra names."""
    try:
        page = urlsplit(origin)
        asked = urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        name = page.hostname or ""
        same = (name, page.port or default) == (asked.hostname, asked.port or default)
    except (KeyError, ValueError):
        return False
    return same or names.declares(name)

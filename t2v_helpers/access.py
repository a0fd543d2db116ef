"""Who may act on a page: the names that lead to it, and where a request says that it comes from."""

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
"""What Sec-Fetch-Site says of a page's own requests, and of addresses that a person opens by hand."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+(%\w+)?)\]|(?P<name>[\w.-]+))(:\d{1,5})?", re.ASCII)
_SHOWN = 100
"""Characters of a header that an error shows."""


class Refused(TextToVideoError):
    """A request that does not come from a page of ours."""


class Visit(NamedTuple):
    """A request as it arrived.

    Args:
        headers: By their names in lower case. Programs such as curl send no `origin`.
        client: The address that it came from.
    """

    headers: Mapping[str, str]
    client: str

    @property
    def is_local(self) -> bool:
        """Whether the visitor sits at this computer: a proxy on it looks so too, but for the headers that it adds."""
        by_proxy = any(name in self.headers for name in FORWARDED)
        named = [self.headers.get("host", "")]
        # A proxy that passes no host on still shows in the address of the page.
        named += [self.headers["origin"].partition("://")[2]] if "origin" in self.headers else []
        return is_loopback(self.client) and all(is_loopback(host_name(one)) for one in named) and not by_proxy


@dataclass(frozen=True)
class Names:
    """The host names that lead to a page.

    Args:
        extra: Names in front of it, a proxy's for instance. One that begins with a dot stands for all names below.
        listens: The address or name at which other computers reach the page; empty if they do not.
        remedy: How to let another name in, for errors; `{name}` in it stands for that name.
    """

    extra: tuple[str, ...] = ()
    listens: str = ""
    remedy: str = ""

    def includes(self, name: str) -> bool:
        """Return whether this name leads to the page. It is lower case and has no port."""
        if is_loopback(name) or any(name == one or _is_below(name, one) for one in self.extra):
            return True
        return bool(self.listens) and (is_address(name) or name == self.listens.lower() or _is_own_name(name))

    def declares(self, name: str) -> bool:
        """Return whether this very name is an extra one: other people have names below those with a dot."""
        return bool(name) and name in self.extra


def _is_below(name: str, above: str) -> bool:
    return above.startswith(".") and name.endswith(above)


def check_request(headers: Mapping[str, str], names: Names) -> None:
    """Raise Refused unless a request comes from a page that is served under one of the names, or from no page."""
    check_host(headers, names)
    host, origin = headers["host"], headers.get("origin")
    if origin is not None and not _is_own(origin, host, names):
        remedy = _remedy(names, host_name(origin.partition("://")[2]))
        raise Refused(f"Refused: this request comes from another page, {origin[:_SHOWN]!a}. Nothing was done.{remedy}")
    if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
        raise Refused("Refused: this request comes from another site's page. Nothing was done.")


def check_host(headers: Mapping[str, str], names: Names) -> None:
    """Raise Refused unless the request's host leads to the page.

    A name that somebody else owns may lead here as well: that page could then pass for ours (DNS rebinding).
    """
    name = host_name(headers.get("host", ""))
    if not names.includes(name):
        shown = ascii(name[:_SHOWN]) if name else "nothing, which the request names as its host"
        raise Refused(f"Refused: this page is not served as {shown}.{_remedy(names, name)}")


def _remedy(names: Names, name: str) -> str:
    """Other pages of this computer have its own names, which help nobody."""
    useful = name and names.remedy and not is_loopback(name)
    return f" {names.remedy.format(name=ascii(name[:_SHOWN]))}" if useful else ""


def read_visit(scope: Mapping[str, Any]) -> Visit:
    """Return an ASGI request as a visit. A header that is there twice has both values, which passes no check."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Visit(headers, (scope.get("client") or ("",))[0])


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case, without port and brackets; empty if it is none."""
    match = _HOST.fullmatch(host)
    return (match["address"] or match["name"]).lower().rstrip(".") if match else ""


def is_loopback(name: str) -> bool:
    """Return whether a name means the computer itself."""
    if not is_address(name):
        return name == "localhost"
    address = ipaddress.ip_address(name)
    # A server for both kinds of addresses sees the old ones in the new ones' form.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_address(name: str) -> bool:
    """Return whether this is an IP address. Nobody else can let one lead here."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_own_name(name: str) -> bool:
    own = socket.gethostname().lower()
    return name in (own, f"{own.partition('.')[0]}.local")


def _is_own(origin: str, host: str, names: Names) -> bool:
    """Return whether a page's origin is the address that it asks, or one of the names in front of it."""
    try:
        page = urlsplit(origin)
        asked = urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        name = page.hostname or ""
        same = (name, page.port or default) == (asked.hostname, asked.port or default)
    except (KeyError, ValueError):
        return False
    return same or names.declares(name)

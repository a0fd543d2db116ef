"""Serves the standalone page in a thread until a signal ends it: signals reach the process's main thread."""

import logging
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ... import signals
from ...terminal import say

if TYPE_CHECKING:
    from .host import StandaloneHost

ANY_ADDRESS = "0.0.0.0"
LOCALHOST = "127.0.0.1"
PATIENCE = 4.0
"""Seconds to wait for a run to end, before the server ends."""
PAUSE = 0.2


def open_listener(address: str, port: int) -> socket.socket:
    """Return a socket that listens at an address of this computer. Raises OSError, OverflowError."""
    if ":" in address:
        return socket.create_server((address, port), family=socket.AF_INET6, dualstack_ipv6=address == "::")
    return socket.create_server((address, port))


def addresses(listener: socket.socket, prefix: str) -> Iterator[str]:
    """Yield the page's addresses for a browser, the one for this computer first."""
    host, port = listener.getsockname()[:2]
    names = [LOCALHOST, *_own_addresses(listener.family)] if host in (ANY_ADDRESS, "::") else [host]
    for name in names:
        yield f"http://{f'[{name}]' if ':' in name else name}:{port}{prefix}/"


def _own_addresses(family: int) -> list[str]:
    """Return the addresses of this computer that others can reach."""
    import psutil

    kinds = (socket.AF_INET, socket.AF_INET6) if family == socket.AF_INET6 else (socket.AF_INET,)
    found = [one.address for ones in psutil.net_if_addrs().values() for one in ones if one.family in kinds]
    # Link-local addresses are left out; they end in the link's name.
    return [address for address in found if not address.startswith("127.") and "%" not in address and address != "::1"]


def serve(host: "StandaloneHost", app: Any, listener: socket.socket, welcome: str) -> int:
    """Serve the app until Ctrl-C or SIGTERM, which end this process. A run that is under way ends after its step.

    welcome: printed on the console once the server runs.
    """
    import uvicorn

    # The gate decides which headers of proxies to trust.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, proxy_headers=False)
    server, ended = uvicorn.Server(config), threading.Event()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    with signals.call_on_signal(ended.set):
        thread.start()
        say(welcome)
        while thread.is_alive() and not ended.wait(PAUSE):
            continue
        _end(host, server, thread)
    return 1


def _end(host: "StandaloneHost", server: Any, thread: threading.Thread) -> None:
    """End the run and the server. A thread that still computes would keep Python from ending, or crash it."""
    # Nobody needs uvicorn's messages about the requests that are cut off now.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    host.close()
    server.should_exit = True
    ended = host.tasks.wait_until_idle(PATIENCE)
    thread.join(1)
    left = "" if ended else " The run was stopped in the middle of a step."
    if signals.received():
        signals.set_last_line(f"Interrupted; the page is closed, and saved videos are kept.{left}")
        signals.leave()

"""The command `python run.py ui`: serves the tab on a standalone page, without a WebUI."""

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..access import Names, host_name, is_loopback
from ..generation.outputs import DEFAULT_FOLDER
from ..host import LORA_FOLDER
from ..hosts.console import MODELS, ROOT
from ..hosts.standalone.app import build_app
from ..hosts.standalone.gate import Entrance, clean_prefix
from ..hosts.standalone.host import StandaloneHost
from ..hosts.standalone.server import ANY_ADDRESS, LOCALHOST, addresses, open_listener, serve
from ..terminal import warn
from .launcher import launch

AUTH = "TEXT2VIDEO_AUTH"
"""The environment variable that holds a user and a password."""
REMEDY = "If {name} is your own proxy or tunnel, start the page with --allow-host {name}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    password = options.auth or os.environ.get(AUTH, "")
    listens = "" if is_loopback(options.listen) else options.listen
    if problem := _password_problem(options, password, listens):
        warn(f"Error: {problem}")
        return 2
    names = Names(tuple(options.allow_host), listens, REMEDY)
    entrance = Entrance(names, options.root_path, password, tuple(folder.resolve() for folder in options.readable_dir))
    try:
        listener = open_listener(options.listen or LOCALHOST, options.port)
    except (OSError, OverflowError) as error:
        at = f"at {options.listen} " if options.listen else ""
        choose = "--port, or an address of this computer with --listen" if options.listen else "--port"
        warn(f"Error: port {options.port} {at}cannot be used ({error}). Choose another with {choose}.")
        return 1
    folders = (options.models_dir.resolve(), options.output_dir.resolve(), options.settings.resolve())
    loras = options.lora_dir.resolve() if options.lora_dir else None
    host = StandaloneHost(*folders, options.device, loras, entrance=entrance)
    # An empty working directory, since gradio serves the files in it.
    with listener, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.chdir(empty)
        lines = [f"Open in a browser: {address}" for address in addresses(listener, entrance.prefix)]
        return serve(
            host, build_app(host), listener, "\n".join([*lines, *_visitors(entrance), "Press Ctrl-C to stop it."])
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py ui", description="Serves the text2video tab without a WebUI.")
    parser.add_argument("--port", type=int, default=7861, help="port of the page; default: %(default)s")
    parser.add_argument(
        "--models-dir", type=Path, default=MODELS, metavar="DIR", help="models folder; default: %(default)s"
    )
    parser.add_argument(
        "--lora-dir",
        type=Path,
        metavar="DIR",
        help=f"folder with LoRA files; default: {LORA_FOLDER} in the models folder",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="folder for videos; default: %(default)s"
    )
    parser.add_argument(
        "--settings", type=Path, default=ROOT / "settings.json", metavar="FILE",
        help="file that stores the settings; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--device", help="device to compute on: cpu, cuda or mps; default: the best available")
    _add_entrance(parser)
    return parser


def _add_entrance(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "visitors", "Without these options, only browsers on this computer can open the page."
    )
    group.add_argument(
        "--listen", nargs="?", const=ANY_ADDRESS, default="", metavar="ADDRESS",
        help="let other computers in, on all addresses of this computer or on ADDRESS; needs a password",
    )  # fmt: skip
    group.add_argument(
        "--auth", metavar="USER:PASSWORD",
        help=f"ask every visitor for these; the environment variable {AUTH} does the same, hidden from process lists",
    )  # fmt: skip
    group.add_argument(
        "--no-password", action="store_true", help="let in anyone who can reach the page, without a password"
    )
    group.add_argument(
        "--allow-host", action="append", default=[], type=_host, metavar="NAME",
        help="a host name under which a proxy serves the page; can be given more than once",
    )  # fmt: skip
    group.add_argument(
        "--readable-dir", action="append", default=[], type=Path, metavar="DIR",
        help="a folder from which visitors on other computers may open files; can be given more than once",
    )  # fmt: skip
    group.add_argument(
        "--root-path", type=_path, default="", metavar="/PATH", help="the path under which a proxy serves the page"
    )


def _path(text: str) -> str:
    try:
        return clean_prefix(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _host(text: str) -> str:
    name = host_name(text)
    if not name or name != text.lower().rstrip("."):
        raise argparse.ArgumentTypeError(
            f"{text!a} is not a host name such as video.example.org. Leave out https:// and the port."
        )
    return name


def _password_problem(options: argparse.Namespace, password: str, listens: str) -> str:
    """Return what is wrong with the options for visitors, if anything. listens: the address for other computers."""
    user, colon, secret = password.partition(":")
    if options.no_password and password:
        return f"--no-password conflicts with the password in --auth or {AUTH}. Remove one of them."
    if password and not (user and colon and secret and password.isprintable()):
        return f"--auth and {AUTH} take USER:PASSWORD: printable characters, with a colon between the two."
    if listens and not password and not options.no_password:
        return (
            "--listen lets other computers in, but there is no password. Set the environment variable "
            f"{AUTH}=USER:PASSWORD, or add --auth USER:PASSWORD. To let everyone in, add --no-password."
        )
    return ""


def _visitors(entrance: Entrance) -> list[str]:
    if not entrance.names.listens:
        return []
    if not entrance.password:
        return ["There is no password: anyone who can reach the page can use it and change its settings."]
    return ["Visitors need the password."]


if __name__ == "__main__":
    launch("ui", sys.argv[1:])

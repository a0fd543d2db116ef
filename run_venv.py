"""Makes, repairs and fills the .venv that run.py starts commands in. Standard library only."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

Child = subprocess.Popen[bytes]
APART: dict[str, Any]
"""Starts a process that Ctrl-C in the console does not reach; we end it."""
if sys.platform == "win32":
    import msvcrt

    APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
else:
    import fcntl

    APART = {"start_new_session": True}

ROOT = Path(__file__).resolve().parent
NAMED = os.environ.get("TEXT2VIDEO_VENV", "").strip()
VENV = Path(os.path.abspath(os.path.expanduser(NAMED))) if NAMED else ROOT / ".venv"  # noqa: PTH111 - raises nothing
STAMP = VENV / "run.py.json"
KEPT = VENV / "kept.txt"
IN_VENV = {STAMP.name, STAMP.with_suffix(".new").name, KEPT.name, "tmp", "pyvenv.cfg", ".gitignore", "bin", "lib"}
IN_VENV |= {"lib64", "include", "share", "etc", "man", "Scripts", "Lib", "Include"}
"""What venv, pip and run.py put into such a folder."""
REQUIREMENTS = ROOT / "requirements"
TORCH = "torch.txt"
CONSTRAINTS = "constraints.txt"
WINDOWS = os.name == "nt"
PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
NEWEST_PYTHON = (3, 13)
"""The newest that the pinned torch was built for."""
OLDEST_TORCH = (2, 1)

# Where .venv has its torch from, as the stamp says it.
PINNED = "the pinned one"
COMMAND = "TORCH_COMMAND="
OWN = f"that of {sys.prefix}"

# All of pip's settings but these would have it install something else, or elsewhere.
OF_PIP = re.compile(
    "PIP_(CACHE_DIR|(CLIENT_)?CERT|CONFIG_FILE|(DEFAULT_)?TIMEOUT|(EXTRA_)?INDEX_URL|FIND_LINKS|KEYRING_PROVIDER|LOG|"
    "NO_(CACHE_DIR|COLOR|INDEX|INPUT)|PREFER_BINARY|PROGRESS_BAR|PROXY|QUIET|RETRIES|TRUSTED_HOST|USE_\\w+|VERBOSE)"
)
OF_PYTHON = [
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "PYTHONEXECUTABLE",
    "PYTHONPLATLIBDIR",
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
]
"""What a Python other than .venv's was told."""

PRINT_TAG = "import sys; print(sys.implementation.cache_tag)"
PRINT_KEPT = """
from importlib.metadata import PackageNotFoundError, version
for name in ("torch", "torchvision", "numpy"):
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        pass
"""


class Problem(Exception):
    """What went wrong and what to do about it, for the person."""


@dataclass(frozen=True)
class Stamp:
    """What .venv holds: its Python, its torch, the hashes of the installed requirement files."""

    python: str
    torch: str
    complete: bool = False
    installed: dict[str, str] = field(default_factory=dict)


def say(text: str) -> None:
    """Tell the person, beside what the command itself prints."""
    # print() takes a missing stream for standard output.
    with suppress(OSError):
        if sys.stderr:
            print(f"run.py: {text}", file=sys.stderr, flush=True)


def dotted(version: tuple[int, int]) -> str:
    """(3, 11) as 3.11."""
    return "{}.{}".format(*version)


def free_space() -> str:
    """How much room there is for .venv."""
    there = next(folder for folder in VENV.parents if folder.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.1f} GB are free there"


def prepare(name: str, requirements: tuple[str, ...], own_torch: bool) -> None:
    """Bring .venv and the environment to where the command can run. Where they are: no lock, no pip. Raises Problem."""
    if os.pathsep in str(VENV):
        raise Problem(
            f"Python cannot make an environment at {VENV}, for the {os.pathsep!r} in that path. Rename the folder, or "
            "let the environment variable TEXT2VIDEO_VENV name another one for it."
        )
    if not VENV.name:
        raise Problem(f"TEXT2VIDEO_VENV names {VENV}. Let it name a new or an empty folder.")
    if own_torch:
        _check_own_torch()
    _clean_environment(own_torch)
    needed = {file: _hash(file) for file in (*requirements, CONSTRAINTS)}
    if not _is_ready(needed, own_torch):
        with _locked():
            if not _is_ready(needed, own_torch):
                _install(name, _repaired(own_torch), needed)
    if os.pathsep in str(ROOT):
        _add_to_path("text2video.pth", [str(ROOT)])


def _clean_environment(own_torch: bool) -> None:
    """Drop what would lead pip or .venv's Python elsewhere; the project goes to where Python finds it."""
    for name in list(os.environ):
        if name in OF_PYTHON or (name.startswith("PIP_") and not OF_PIP.fullmatch(name)):
            del os.environ[name]
    ours = "" if os.pathsep in str(ROOT) else str(ROOT)
    theirs = os.environ.get("PYTHONPATH", "") if own_torch else ""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, theirs]))


def _hash(file: str) -> str:
    return hashlib.sha256((REQUIREMENTS / file).read_bytes()).hexdigest()


def _is_ready(needed: dict[str, str], own_torch: bool) -> bool:
    stamp = _read_stamp()
    if not stamp or not needed.items() <= stamp.installed.items():
        return False
    return not _defect(stamp, _wanted_torch(stamp, own_torch))


def _read_stamp() -> Stamp | None:
    """What .venv holds, None where that is said nowhere or the file is damaged."""
    try:
        stamp: Any = Stamp(**json.loads(STAMP.read_text(encoding="utf-8")))
        texts = [stamp.python, stamp.torch, *stamp.installed, *stamp.installed.values()]
        fits = isinstance(stamp.complete, bool) and all(text.isprintable() for text in texts)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return stamp if fits else None


def _write_stamp(stamp: Stamp) -> Stamp:
    draft = STAMP.with_suffix(".new")
    draft.write_text(json.dumps(asdict(stamp), indent=1), encoding="utf-8")
    draft.replace(STAMP)
    return stamp


def _wanted_torch(stamp: Stamp | None, own_torch: bool) -> str:
    """Whose torch it is to be. One that TORCH_COMMAND installed stays when that is no longer set."""
    if own_torch:
        return OWN
    command = " ".join(os.environ.get("TORCH_COMMAND", "").split())
    if command:
        return COMMAND + command
    return stamp.torch if stamp and stamp.torch.startswith(COMMAND) and KEPT.exists() else PINNED


def _defect(stamp: Stamp | None, torch: str) -> str:
    """Why .venv cannot be used as it is; empty where it can."""
    if not stamp or not stamp.complete:
        return "an earlier start was cut off while it set up .venv"
    if stamp.torch != torch:
        return f"torch is to be {torch}, and .venv has {stamp.torch}"
    if {stamp.python, _tag_of_venv()} != {_tag()}:
        return "the Python that .venv was made with is gone, or another one runs now"
    return ""


def _tag() -> str:
    return str(sys.implementation.cache_tag)


def _tag_of_venv() -> str:
    try:
        line = [str(PYTHON), "-I", "-S", "-c", PRINT_TAG]
        return subprocess.check_output(line, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _repaired(own_torch: bool) -> Stamp:
    """The stamp of a usable .venv: the one that is there, or a new one."""
    stamp = _read_stamp()
    torch = _wanted_torch(stamp, own_torch)
    reason = _defect(stamp, torch)
    if stamp and not reason:
        return stamp
    _check_python(torch)
    _make_room(reason)
    return _make_venv(torch)


def _check_python(torch: str) -> None:
    """Whether this Python can make the .venv that is wanted: asked before the old one goes. Raises Problem."""
    if Path(sys.prefix).resolve() == VENV:
        raise Problem("the Python inside .venv cannot make it anew: leave it (deactivate) and start again.")
    if not (find_spec("venv") and find_spec("ensurepip")):
        version = dotted(sys.version_info[:2])
        raise Problem(
            f"{sys.executable} lacks the modules venv and ensurepip. On Debian and Ubuntu: sudo apt install "
            f"python{version}-venv. Without such rights: use a Python from python.org or Miniforge."
        )
    if torch == PINNED and sys.version_info[:2] > NEWEST_PYTHON:
        raise Problem(
            f"the pinned torch has no build for Python {dotted(sys.version_info[:2])}. Run run.py with Python 3.10 to "
            f"{dotted(NEWEST_PYTHON)}, or bring a torch of your own (run.py --help)."
        )


def is_ours(names: set[str]) -> bool:
    """Whether a folder with these names in it, which a person has named, holds what run.py put there and no more."""
    return names <= IN_VENV and ("pyvenv.cfg" in names or names == {STAMP.name} or _read_stamp() is not None)


def _make_room(reason: str) -> None:
    """Empty a .venv of ours; one that somebody else made is moved aside, or left alone where it was named."""
    inside = list(VENV.iterdir()) if VENV.is_dir() else []
    if STAMP in inside and (not NAMED or is_ours({path.name for path in inside})):
        say(f"{reason}; making it anew.")
        # The stamp goes last: without it a half-deleted .venv would look like somebody else's.
        for path in sorted(inside, key=STAMP.__eq__):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    elif NAMED and os.path.lexists(VENV) and (inside or not VENV.is_dir()):
        raise Problem(f"{VENV} holds what run.py did not put there. Let TEXT2VIDEO_VENV name a new or an empty folder.")
    elif inside or (os.path.lexists(VENV) and not VENV.is_dir()):
        aside = VENV.with_name(time.strftime(".venv-%Y%m%d-%H%M%S"))
        say(f"the .venv here was not made by run.py; it is now {aside.name}.")
        VENV.rename(aside)


def _make_venv(torch: str) -> Stamp:
    """Stamped as incomplete first, so that the next start notices when this one is killed."""
    VENV.mkdir(parents=True, exist_ok=True)
    stamp = _write_stamp(Stamp(_tag(), torch))
    if _run_installer([sys.executable, "-I", "-m", "venv", str(VENV)]):
        raise Problem(f".venv could not be made; the lines above say why ({free_space()}).")
    if torch == OWN:
        # Unlike --system-site-packages this also works from within a venv.
        _add_to_path("own_torch.pth", [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))])
    return _write_stamp(replace(stamp, complete=True))


def _add_to_path(name: str, folders: list[str]) -> None:
    """Let .venv's Python find what is in these folders."""
    site_packages = sysconfig.get_path("purelib", "nt" if WINDOWS else "posix_prefix", {"base": str(VENV)})
    lines = [f"import site; site.addsitedir({folder!a})\n" for folder in folders]
    Path(site_packages, name).write_text("".join(lines), encoding="ascii")


def _check_own_torch() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("torch")
    except PackageNotFoundError:
        found = "none"
    match = re.match(r"(\d+)\.(\d+)", found)
    if not match or tuple(map(int, match.groups())) < OLDEST_TORCH:
        raise Problem(f"--own-torch needs torch {dotted(OLDEST_TORCH)} or newer in {sys.executable}; found: {found}.")


def _install(name: str, stamp: Stamp, needed: dict[str, str]) -> None:
    """Install what the command needs, together with what is already there, so that all stays consistent."""
    say(f"installing what {name!r} needs into .venv. This happens once{_size_hint(stamp)}.")
    _write_stamp(replace(stamp, complete=False))
    wanted = {**stamp.installed, **needed}
    done = _install_torch(stamp) and _install_rest(list(wanted), stamp.torch)
    # Where pip gave up by itself, what was there before still is.
    _write_stamp(replace(stamp, complete=True, installed=wanted if done else stamp.installed))
    if not done:
        raise Problem(
            f"pip could not install what {name!r} needs; its lines above say why. Is there a network, and space "
            f"({free_space()})? Then run the same command again. Where no torch fits: see run.py --help."
        )


def _size_hint(stamp: Stamp) -> str:
    if stamp.torch != PINNED or TORCH in stamp.installed:
        return ""
    linux = "with CUDA about 3 GB to download, less with TORCH_COMMAND (see run.py --help)"
    return "; " + (linux if sys.platform == "linux" else "about 200 MB to download")


def _install_torch(stamp: Stamp) -> bool:
    """Run the person's own torch command, if any, and note what must then stay as it is."""
    if stamp.torch == PINNED:
        return True
    command = stamp.torch.removeprefix(COMMAND) if TORCH not in stamp.installed and stamp.torch != OWN else ""
    if command and _run_installer([str(PYTHON), "-I", "-m", *_words(command)]):
        return False
    kept = subprocess.check_output([str(PYTHON), "-I", "-c", PRINT_KEPT], text=True, **APART)
    if "torch==" not in kept:
        raise Problem(f"there is no torch after {stamp.torch}. Correct it, or unset it for the pinned torch.")
    KEPT.write_text(kept, encoding="utf-8")
    return True


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command, posix=not WINDOWS)
    except ValueError as error:
        raise Problem(f"TORCH_COMMAND cannot be read ({error}): {command}") from error


def _install_rest(files: list[str], torch: str) -> bool:
    """What hangs on a person's own torch is theirs as well: neither its pins nor the constraints apply."""
    apart = {CONSTRAINTS} if torch == PINNED else {CONSTRAINTS, TORCH}
    options = [option for file in files if file not in apart for option in ("-r", str(REQUIREMENTS / file))]
    constraints = REQUIREMENTS / CONSTRAINTS if torch == PINNED else KEPT
    pip = [str(PYTHON), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
    return not _run_installer([*pip, *options, "-c", str(constraints)])


def _run_installer(line: list[str]) -> int:
    """Run pip or venv with their output on stderr, so that stdout is the command's alone. A signal ends them."""
    temporary = VENV / "tmp"
    temporary.mkdir(exist_ok=True)
    # What pip leaves when it is ended is gigabytes: it goes with .venv.
    settings = {"PIP_USER": "0", **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}
    output = 2 if sys.stderr else subprocess.DEVNULL
    # A killed run.py leaves the installer running: it inherits the lock, and the next start waits for it.
    options = {"stdout": output, "close_fds": False, "env": {**os.environ, **settings}, **APART}
    code, signals = attend(line, _end, **options)
    if signals:
        signal.raise_signal(signals[0])
    shutil.rmtree(temporary, ignore_errors=True)
    return code


def attend(line: list[str], respond: Callable[[Child, list[int]], None], **options: Any) -> tuple[int, list[int]]:
    """Run a child to its end, and return its exit code and the signals that came meanwhile.

    respond: told of them as long as the child runs.
    """
    with _noted() as signals:
        child = subprocess.Popen(line, **options)
        while child.poll() is None:
            if signals:
                respond(child, signals)
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.1)
    return child.returncode, signals


@contextmanager
def _noted() -> Iterator[list[int]]:
    """The signals that come meanwhile, which then do nothing else."""
    signals: list[int] = []
    names = {"SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"}
    before = {number: signal.getsignal(number) for number in signal.Signals if number.name in names}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        yield signals
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _end(child: Child, _: list[int]) -> None:
    """End an installer and what it has started. In a group of their own they say nothing of it."""
    with suppress(OSError):
        if sys.platform == "win32":
            child.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            os.killpg(child.pid, signal.SIGTERM)


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock on .venv. The system releases it when its holder ends, so it cannot go stale."""
    lock = VENV.with_name(f"{VENV.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)
        if not _try_lock(file):
            say("another start is still setting up .venv; waiting for it.")
            while not _try_lock(file):
                time.sleep(0.2)
        yield


def _try_lock(file: TextIO) -> bool:
    """Whether the lock could be had. A file system without locks gives it to everyone."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True

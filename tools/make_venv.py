"""Creates, repairs and fills the .venv in which run.py starts commands. Uses only the standard library."""

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
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .children import SEPARATE, attend, end, locked

ROOT = Path(__file__).resolve().parents[1]
NAMED = os.environ.get("TEXT2VIDEO_VENV", "").strip()
VENV = Path(os.path.abspath(os.path.expanduser(NAMED))) if NAMED else ROOT / ".venv"  # noqa: PTH111 - raises nothing
WINDOWS = os.name == "nt"
PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
STAMP, KEPT, LOCK = VENV / "run.py.json", VENV / "kept.txt", Path(f"{VENV}.lock")
IN_VENV = {STAMP.name, STAMP.with_suffix(".new").name, KEPT.name, "tmp", "pyvenv.cfg", ".gitignore", "bin", "lib"}
IN_VENV |= {"lib64", "include", "share", "etc", "man", "Scripts", "Lib", "Include"}
"""Names of what venv, pip and run.py put into such a folder."""
REQUIREMENTS = ROOT / "requirements"
TORCH, CONSTRAINTS = "torch.txt", "constraints.txt"
NEWEST_PYTHON, OLDEST_TORCH = (3, 13), (2, 1)
"""The newest Python for which the pinned torch was built, and the oldest torch that --own-torch accepts."""
PINNED, COMMAND, OWN = "the pinned one", "TORCH_COMMAND=", f"that of {sys.prefix}"
"""The source of .venv's torch, as in the stamp and in messages; COMMAND is followed by the command."""
PIP_SETTINGS = re.compile(
    "PIP_(CACHE_DIR|(CLIENT_)?CERT|CONFIG_FILE|(DEFAULT_)?TIMEOUT|(EXTRA_)?INDEX_URL|FIND_LINKS|KEYRING_PROVIDER|LOG|"
    "NO_(CACHE_DIR|COLOR|INDEX|INPUT)|PREFER_BINARY|PROGRESS_BAR|PROXY|QUIET|RETRIES|TRUSTED_HOST|USE_\\w+|VERBOSE)"
)
"""Pattern for pip's settings that are respected. All others could make it install something else, or elsewhere."""
PYTHON_SETTINGS = {f"PYTHON{name}" for name in ("HOME", "STARTUP", "EXECUTABLE", "PLATLIBDIR")}
PYTHON_SETTINGS |= {"__PYVENV_LAUNCHER__", "VIRTUAL_ENV"}
"""Settings that are meant for another Python than .venv's."""
PRINT_TAG = "import sys; print(sys.implementation.cache_tag)"
PRINT_KEPT = """
from importlib.metadata import distribution
from contextlib import suppress
for name in ("torch", "torchvision", "numpy"):
    with suppress(ImportError):
        print(f"{name}=={distribution(name).version}")
"""


class Problem(Exception):
    """An error for the person: what went wrong, and what to do about it."""


@dataclass(frozen=True)
class Stamp:
    """The content of .venv: its Python, its torch, and the hashes of the installed requirement files."""

    python: str
    torch: str
    complete: bool = False
    installed: dict[str, str] = field(default_factory=dict)


def say(text: str) -> None:
    """Print a message on standard error, apart from the command's own output."""
    # print() would use standard output if the stream is None.
    with suppress(OSError):
        if sys.stderr:
            print(f"run.py: {text}", file=sys.stderr, flush=True)


def dotted(version: tuple[int, int]) -> str:
    """Return (3, 11) as 3.11."""
    return "{}.{}".format(*version)


def free_space() -> str:
    """Return the free space for .venv as text."""
    folder = next(folder for folder in VENV.parents if folder.exists())
    return f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free"


def prepare(name: str, requirements: tuple[str, ...], own_torch: bool) -> None:
    """Prepare .venv and the environment for a command. If they are ready, neither a lock nor pip is needed.

    Args:
        name: The command's name, for messages.
        requirements: The files in requirements/ that the command needs.
        own_torch: Whether to use the torch of the Python that runs this.

    Raises:
        Problem: .venv cannot be prepared.
        OSError: The disk cannot be read or written.
    """
    if own_torch:
        _check_own_torch()
    _clean_environment(own_torch)
    needed = {file: _hash(file) for file in (*requirements, CONSTRAINTS)}
    if not _is_ready(needed, own_torch):
        _check_place(own_torch)
        with locked(LOCK, lambda: say("another start is still setting up .venv; waiting for it to finish.")):
            if not _is_ready(needed, own_torch):
                _install(name, _repair(own_torch), needed)
    if os.pathsep in str(ROOT):
        _add_to_path("text2video.pth", [str(ROOT)])


def _clean_environment(own_torch: bool) -> None:
    """Remove variables that would mislead pip or .venv's Python, and let Python find the project."""
    for name in list(os.environ):
        if name in PYTHON_SETTINGS or (name.startswith("PIP_") and not PIP_SETTINGS.fullmatch(name)):
            del os.environ[name]
    ours = "" if os.pathsep in str(ROOT) else str(ROOT)
    theirs = os.environ.get("PYTHONPATH", "") if own_torch else ""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, theirs]))


def _hash(file: str) -> str:
    return hashlib.sha256((REQUIREMENTS / file).read_bytes()).hexdigest()


def _is_ready(needed: dict[str, str], own_torch: bool) -> bool:
    stamp = read_stamp()
    return stamp is not None and needed.items() <= stamp.installed.items() and not find_defect(stamp, own_torch)


def read_stamp() -> Stamp | None:
    """Return the stamp of .venv, or None if it is missing or damaged."""
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


def _choose_torch(stamp: Stamp | None, own_torch: bool) -> str:
    """Return the source of the torch to use. One that TORCH_COMMAND installed stays after that is no longer set."""
    if own_torch:
        return OWN
    if command := " ".join(os.environ.get("TORCH_COMMAND", "").split()):
        return COMMAND + command
    return stamp.torch if stamp and stamp.torch.startswith(COMMAND) and KEPT.exists() else PINNED


def find_defect(stamp: Stamp | None, own_torch: bool) -> str:
    """Return the reason why .venv cannot be used as it is, or an empty string."""
    torch = _choose_torch(stamp, own_torch)
    if not stamp or not stamp.complete:
        return "an earlier start was interrupted while setting up .venv"
    if stamp.torch != torch:
        return f"torch should be {torch}, but .venv has {stamp.torch}"
    if {stamp.python, _ask_python("-S", "-c", PRINT_TAG).strip()} != {sys.implementation.cache_tag}:
        return "the Python that created .venv is gone, or another one is running now"
    return ""


def _ask_python(*options: str) -> str:
    """Return what .venv's Python prints, or an empty string if it does not run."""
    try:
        line = [str(PYTHON), "-I", *options]
        return subprocess.check_output(line, stderr=subprocess.DEVNULL, text=True, **SEPARATE)
    except (OSError, subprocess.CalledProcessError):
        return ""


def _check_place(own_torch: bool) -> None:
    """Refuse a path at which .venv cannot be, before a lock is left next to it. Raises Problem."""
    if os.pathsep in str(VENV):
        raise Problem(
            f"Python cannot create an environment at {VENV}, because that path contains {os.pathsep!r}. Rename the "
            "folder, or set the environment variable TEXT2VIDEO_VENV to another one."
        )
    if NAMED.startswith("~") and os.path.expanduser(NAMED) == NAMED:  # noqa: PTH111 - raises nothing
        raise Problem(f"TEXT2VIDEO_VENV is {NAMED}, but there is no such user. Set it to a full path.")
    if not VENV.name:
        raise Problem(f"TEXT2VIDEO_VENV is {VENV}. Set it to a new or empty folder.")
    if NAMED and find_defect(read_stamp(), own_torch) and _is_foreign():
        raise Problem(
            f"{VENV} contains files that run.py did not create. Set TEXT2VIDEO_VENV to a new or empty folder."
        )


def _is_foreign() -> bool:
    """Return whether something that run.py did not create is at .venv's path."""
    if not VENV.is_dir():
        return os.path.lexists(VENV)
    names = set(os.listdir(VENV))
    return bool(names) and not (STAMP.name in names and (not NAMED or is_ours(names)))


def is_ours(names: set[str]) -> bool:
    """Return whether a folder that a person has named, with these names in it, holds only what run.py put there."""
    return names <= IN_VENV and ("pyvenv.cfg" in names or names == {STAMP.name} or read_stamp() is not None)


def _repair(own_torch: bool) -> Stamp:
    """Return the stamp of a usable .venv: the present one, or a new one that is created. Raises Problem."""
    stamp = read_stamp()
    reason, torch = find_defect(stamp, own_torch), _choose_torch(stamp, own_torch)
    if stamp and not reason:
        return stamp
    _check_python(torch)
    _make_room(reason)
    return _make_venv(torch)


def _check_python(torch: str) -> None:
    """Check that this Python can create the new .venv, before the old one is removed. Raises Problem."""
    version = dotted(sys.version_info[:2])
    if Path(sys.prefix).resolve() == VENV:
        raise Problem("the Python inside .venv cannot recreate it. Leave it (deactivate), then start again.")
    if not (find_spec("venv") and find_spec("ensurepip")):
        raise Problem(
            f"{sys.executable} lacks the modules venv and ensurepip. On Debian and Ubuntu: sudo apt install "
            f"python{version}-venv. Without administrator rights, use a Python from python.org or Miniforge."
        )
    if torch == PINNED and sys.version_info[:2] > NEWEST_PYTHON:
        raise Problem(
            f"the pinned torch has no build for Python {version}. Run run.py with Python 3.10 to "
            f"{dotted(NEWEST_PYTHON)}, or use a torch of your own (see run.py --help)."
        )


def _make_room(reason: str) -> None:
    """Empty a .venv that run.py made; move one that somebody else made aside."""
    if _is_foreign():
        aside = VENV.with_name(time.strftime(".venv-%Y%m%d-%H%M%S"))
        say(f"the .venv here was not created by run.py; it was renamed to {aside.name}.")
        VENV.rename(aside)
    elif STAMP.exists():
        say(f"{reason}; recreating it.")
        # The stamp goes last: without it a half-deleted .venv would look like somebody else's.
        for path in sorted(VENV.iterdir(), key=STAMP.__eq__):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _make_venv(torch: str) -> Stamp:
    """Create .venv. It is stamped as incomplete first, so that the next start notices if this one is killed."""
    VENV.mkdir(parents=True, exist_ok=True)
    stamp = _write_stamp(Stamp(str(sys.implementation.cache_tag), torch))
    if _run_installer([sys.executable, "-I", "-m", "venv", str(VENV)]):
        raise Problem(f".venv could not be created; the lines above say why ({free_space()}).")
    if torch == OWN:
        # Unlike --system-site-packages this also works from within a venv.
        _add_to_path("own_torch.pth", [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))])
    return stamp


def _add_to_path(name: str, folders: list[str]) -> None:
    """Make .venv's Python find the modules in these folders."""
    site_packages = sysconfig.get_path("purelib", "nt" if WINDOWS else "posix_prefix", {"base": str(VENV)})
    lines = [f"import site; site.addsitedir({folder!a})\n" for folder in folders]
    Path(site_packages, name).write_text("".join(lines), encoding="ascii")


def _check_own_torch() -> None:
    from importlib.metadata import distributions

    found = next((one.version for one in distributions(name="torch")), "none")
    match = re.match(r"(\d+)\.(\d+)", found)
    if not match or tuple(map(int, match.groups())) < OLDEST_TORCH:
        raise Problem(f"--own-torch needs torch {dotted(OLDEST_TORCH)} or newer in {sys.executable}; found: {found}.")


def _install(name: str, stamp: Stamp, needed: dict[str, str]) -> None:
    """Install what a command needs together with what is already installed, so that all of it stays consistent."""
    hint = ""
    if stamp.torch == PINNED and TORCH not in stamp.installed:
        linux = "about 3 GB to download with CUDA, less with TORCH_COMMAND (see run.py --help)"
        hint = "; " + (linux if sys.platform == "linux" else "about 200 MB to download")
    say(f"installing what {name!r} needs into .venv. This happens once{hint}.")
    _write_stamp(replace(stamp, complete=False))
    wanted = {**stamp.installed, **needed}
    done = _install_torch(stamp) and _install_rest(list(wanted), stamp.torch)
    # If pip gave up by itself, what was installed before is still there.
    _write_stamp(replace(stamp, complete=True, installed=wanted if done else stamp.installed))
    if not done:
        raise Problem(
            f"pip could not install what {name!r} needs; its messages above say why. Check the network and the free "
            f"space ({free_space()}), then run the same command again. If no torch fits, see run.py --help."
        )


def _install_torch(stamp: Stamp) -> bool:
    """Run the person's own torch command, if there is one, and record the versions that must not change after it.

    Return whether that worked.
    """
    if stamp.torch == PINNED:
        return True
    if stamp.torch != OWN and TORCH not in stamp.installed:
        command = stamp.torch.removeprefix(COMMAND)
        try:
            words = shlex.split(command, posix=not WINDOWS)
        except ValueError as error:
            raise Problem(f"TORCH_COMMAND cannot be read ({error}): {command}") from error
        if _run_installer([str(PYTHON), "-I", "-m", *words]):
            return False
    kept = _ask_python("-c", PRINT_KEPT)
    if "torch==" not in kept:
        raise Problem(f"{stamp.torch} installed no torch. Correct it, or unset it to use the pinned torch.")
    KEPT.write_text(kept, encoding="utf-8")
    return True


def _install_rest(files: list[str], torch: str) -> bool:
    """Install everything but a person's own torch; with that, neither pins nor constraints apply to what depends on it.

    Return whether that worked.
    """
    left_out = {CONSTRAINTS} if torch == PINNED else {CONSTRAINTS, TORCH}
    options = [option for file in files if file not in left_out for option in ("-r", str(REQUIREMENTS / file))]
    constraints = REQUIREMENTS / CONSTRAINTS if torch == PINNED else KEPT
    pip = [str(PYTHON), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
    return not _run_installer([*pip, *options, "-c", str(constraints)])


def _run_installer(line: list[str]) -> int:
    """Run pip or venv, and return its exit code. It writes to stderr, as stdout is the command's. A signal ends it."""
    temporary = VENV / "tmp"
    temporary.mkdir(exist_ok=True)
    # An ended pip may leave gigabytes: they are inside .venv, and removed with it.
    settings = {"PIP_USER": "0", **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))}
    output = 2 if sys.stderr else subprocess.DEVNULL
    # A killed run.py leaves the installer running: it inherits the lock, and the next start waits for it.
    options = {"stdout": output, "close_fds": False, "env": {**os.environ, **settings}, **SEPARATE}
    code, signals = attend(line, end, **options)
    if signals:
        signal.raise_signal(signals[0])
    shutil.rmtree(temporary, ignore_errors=True)
    return code

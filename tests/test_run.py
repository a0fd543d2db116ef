"""run.py as a person starts it: a real process, real environments, no network."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
COMMAND_LINE = """
import colorsys, importlib.metadata, os, sys, time

def main():
    if sys.argv[1:] == ["wait"]:
        print("ready", flush=True)
        time.sleep(60)
    if sys.argv[1:] == ["torch"]:
        print(importlib.metadata.version("torch"))
        return 0
    print(os.getcwd(), sys.prefix, *sys.argv[1:], sep="|")
    return len(sys.argv) - 1
"""
INSTALLING = "installing what"
IMPORT = "from sd_t2v.tools import make_venv"
posix_only = pytest.mark.skipif(os.name == "nt", reason="signals and links as POSIX has them")


def lay_out(folder: Path) -> Path:
    """run.py with requirements that need nothing and a command line that says how it was started."""
    (folder / "tools").mkdir()
    for name in ("run.py", "sd_t2v.py", "tools/children.py", "tools/make_venv.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements").mkdir()
    for file in (ROOT / "requirements").iterdir():
        (folder / "requirements" / file.name).write_text("# nothing\n", encoding="utf-8")
    (folder / "t2v_helpers" / "commands").mkdir(parents=True)
    for name in ("commands/launcher.py", "signals.py", "commands/streams.py"):
        shutil.copy(ROOT / "t2v_helpers" / name, folder / "t2v_helpers" / name)
    (folder / "t2v_helpers" / "commands" / "demo.py").write_text(COMMAND_LINE, encoding="utf-8")
    return folder


def run(folder: Path, *arguments: str, python: tuple[str, ...] = (sys.executable,), **options: Any) -> "Result":
    command = [*python, str(folder / "run.py"), *arguments]
    options = {"cwd": folder, "capture_output": True, "encoding": "utf-8", "timeout": 400, **options}
    return subprocess.run(command, check=False, **options)


Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def first_starts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    """A new checkout and what two simultaneous first starts in it said."""
    folder = lay_out(tmp_path_factory.mktemp("with a space, ü and 影"))
    children = [started(folder, "demo", "a red ball") for _ in range(2)]
    said = [child.communicate(timeout=400) for child in children]
    return folder, [Result(child.args, child.returncode, *texts) for child, texts in zip(children, said, strict=True)]


@pytest.fixture
def checkout(first_starts: tuple[Path, list[Result]], tmp_path: Path) -> Path:
    """A checkout of one's own, with its .venv."""
    return shutil.copytree(first_starts[0], tmp_path / "checkout", symlinks=True)


@pytest.fixture(autouse=True)
def _no_torch_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_COMMAND", raising=False)


def edit_stamp(folder: Path, **changes: object) -> None:
    stamp = folder / ".venv" / "run.py.json"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), **changes}))


def test_help_lists_the_commands() -> None:
    result = run(ROOT, "--help")
    assert result.returncode == 0
    assert all(f"\n  {name} " in result.stdout for name in ("demo", "test", "lint", "bench"))
    assert "TORCH_COMMAND" in result.stdout and "--own-torch" in result.stdout


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("--own-torch",), ("--nonsense", "demo")])
def test_no_command_or_an_unknown_one_shows_the_help(arguments: tuple[str, ...]) -> None:
    result = run(ROOT, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "\n  demo " in result.stderr and "Traceback" not in result.stderr


def test_an_old_python_can_parse_run_py_and_is_told_at_once() -> None:
    body = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 7)).body
    assert [type(node) for node in body[:3]] == [ast.Expr, ast.Import, ast.If]
    pretend = "import runpy, sys; sys.version_info = (3, 9, 1, 'final', 0); runpy.run_path(sys.argv[1])"
    result = run(ROOT, "demo", python=(sys.executable, "-c", pretend))
    assert result.returncode == 1
    assert result.stderr.startswith("run.py needs Python 3.10 or newer") and len(result.stderr.splitlines()) == 1


def test_two_first_starts_at_once_share_one_installation(first_starts: tuple[Path, list[Result]]) -> None:
    folder, results = first_starts
    assert [result.returncode for result in results] == [1, 1]
    assert sum(INSTALLING in result.stderr for result in results) == 1
    assert all(result.stdout == f"{folder}|{folder / '.venv'}|a red ball\n" for result in results)


def test_a_later_start_passes_everything_on_and_needs_no_pip(checkout: Path, tmp_path: Path) -> None:
    for pip in checkout.glob(".venv/[Ll]ib/**/pip"):
        shutil.rmtree(pip)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    if sys.version_info >= (3, 11):
        (elsewhere / "colorsys.py").write_text("raise SystemExit('a file of the person stood in for a module')")
    result = run(checkout, "demo", "--steps", "", "ü", cwd=elsewhere)
    assert (result.returncode, result.stderr) == (3, "")
    assert result.stdout == f"{elsewhere}|{checkout / '.venv'}|--steps||ü\n"


def test_a_changed_requirement_is_installed_once(checkout: Path) -> None:
    (checkout / "requirements" / "demo.txt").write_text("# something else\n")
    assert INSTALLING in run(checkout, "demo").stderr
    assert run(checkout, "demo").stderr == ""


def test_a_failed_installation_says_so_and_spoils_nothing(checkout: Path) -> None:
    (checkout / "requirements" / "test.txt").write_text("missing @ file:///nowhere/missing-1-py3-none-any.whl\n")
    result = run(checkout, "test")
    assert result.returncode == 1
    assert "missing-1-py3-none-any.whl" in result.stderr and "run.py: pip could not install" in result.stderr
    assert "Traceback" not in result.stderr.partition("run.py: pip could not install")[2]
    assert run(checkout, "demo").stderr == ""


def test_an_installation_cut_off_is_created_again(checkout: Path) -> None:
    edit_stamp(checkout, complete=False)
    result = run(checkout, "demo")
    assert result.returncode == 0
    assert "interrupted while setting up" in result.stderr and INSTALLING in result.stderr


@posix_only
def test_a_venv_whose_python_is_gone_is_noticed(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    ask = f"{IMPORT}; print(make_venv.find_defect(make_venv.read_stamp(), False))"
    result = subprocess.run(
        [sys.executable, "-c", ask], cwd=checkout, capture_output=True, text=True, check=True, timeout=300
    )
    assert "the Python that created .venv is gone" in result.stdout


def test_a_venv_of_another_python_is_not_remade_from_inside(checkout: Path) -> None:
    edit_stamp(checkout, python="cpython-38")
    inside = checkout / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    result = run(checkout, "demo", python=(str(inside),))
    assert result.returncode == 1
    assert "Leave it (deactivate)" in result.stderr and inside.exists()


@posix_only
def test_ctrl_c_goes_to_the_command(checkout: Path) -> None:
    with started(checkout, "demo", "wait") as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=60) == 130
        assert child.stderr and child.stderr.read() == "\nInterrupted; no file was left behind.\n"


@posix_only
def test_ctrl_c_during_installation_ends_it(checkout: Path) -> None:
    os.mkfifo(checkout / "hangs-1-py3-none-any.whl")
    (checkout / "requirements" / "demo.txt").write_text(f"{checkout}/hangs-1-py3-none-any.whl\n")
    with started(checkout, "demo") as child:
        assert child.stderr and INSTALLING in child.stderr.readline()
        while "hangs" not in child.stderr.readline():
            pass
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=60) == 130
        assert "run.py" not in child.stderr.read()


@posix_only
def test_a_start_waits_for_another_that_installs(checkout: Path) -> None:
    import fcntl

    (checkout / "requirements" / "demo.txt").write_text("# something else\n")
    with (checkout / ".venv.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with started(checkout, "demo") as child:
            assert child.stderr and "waiting for it" in child.stderr.readline()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert child.wait(timeout=400) == 0


def test_torch_command_is_obeyed_and_remembered(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    (folder / "requirements" / "torch.txt").write_text("torch==99\n")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "somebody else's").touch()
    command = f"pip install --no-index {make_wheel(tmp_path, 'torch', '2.5.0').as_posix()}"
    first = run(folder, "demo", "torch", env={**os.environ, "TORCH_COMMAND": command})
    assert first.stdout == "2.5.0\n"
    assert "was not created by run.py" in first.stderr
    assert [path.name for path in folder.glob(".venv-*/*")] == ["somebody else's"]
    second = run(folder, "demo", "torch")
    assert (second.stdout, second.stderr) == ("2.5.0\n", "")


def test_own_torch_shares_the_packages_of_this_python(checkout: Path) -> None:
    (checkout / "requirements" / "torch.txt").write_text("torch==99\n")
    result = run(checkout, "--own-torch", "demo", "torch")
    assert result.stdout.startswith("2.")
    assert "recreating it" in result.stderr


def test_own_torch_wants_a_torch(checkout: Path) -> None:
    result = run(checkout, "--own-torch", "demo", python=(sys.executable, "-S"))
    assert result.returncode == 1
    assert "needs torch 2.1 or newer" in result.stderr and "found: none" in result.stderr


def test_a_python_without_ensurepip_is_told_the_remedy(tmp_path: Path) -> None:
    pretend = (
        "import runpy, sys; sys.modules['ensurepip'] = None; sys.argv = sys.argv[1:]; "
        "sys.path[0] = sys.argv[0][:-7]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    result = run(lay_out(tmp_path), "demo", python=(sys.executable, "-c", pretend))
    assert result.returncode == 1
    assert "-venv" in result.stderr and "Traceback" not in result.stderr


def test_a_checkout_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (lay_out(tmp_path) / ".venv.lock").mkdir()
    result = run(tmp_path, "demo")
    assert result.returncode == 1
    assert "you may write in" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("how", ["-I", "-P", "PYTHONSAFEPATH"])
def test_a_python_that_does_not_look_beside_the_script_will_do(checkout: Path, how: str) -> None:
    if how != "-I" and sys.version_info < (3, 11):
        pytest.skip("newer than this Python")
    options = (how,) if how.startswith("-") else ()
    result = run(
        checkout, "demo", "x", python=(sys.executable, *options), env={**os.environ, "PYTHONSAFEPATH": how.strip("-IP")}
    )
    assert (result.returncode, result.stdout) == (1, f"{checkout}|{checkout / '.venv'}|x\n"), result.stderr


DAMAGED = [
    "",
    "null",
    "[]",
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"python":1,"torch":2,"complete":3,"installed":4}',
    '{"python":"x","torch":"y","complete":true,"installed":["z"]}',
    '{"python":"x","torch":"y","complete":true,"installed":{"z":{}}}',
    '{"python":"x","torch":"TORCH_COMMAND=\\u0000","complete":true}',
    '{"python":["x"],"torch":"y"}',
    '{"python":"x","torch":"y","complete":"no"}',
    '{"python":"x","torch":"y","more":1}',
    "\udcff",
]


def test_a_damaged_stamp_counts_as_none(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / ".venv").mkdir()
    for text in DAMAGED:
        (tmp_path / ".venv" / "run.py.json").write_bytes(text.encode(errors="surrogateescape"))
        ask = f"{IMPORT}; print(make_venv.read_stamp())"
        result = subprocess.run(
            [sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )
        assert (result.stdout, result.stderr) == ("None\n", ""), text[:80]


def test_a_venv_with_a_damaged_stamp_is_created_again(checkout: Path) -> None:
    (checkout / ".venv" / "run.py.json").write_text("[" * 100_000)
    result = run(checkout, "demo")
    assert result.returncode == 0, result.stderr
    assert "recreating it" in result.stderr and "Traceback" not in result.stderr
    assert not list(checkout.glob(".venv-*"))


def test_settings_meant_for_others_are_ignored(checkout: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path, "torch", "2.5.0")
    (checkout / "requirements" / "demo.txt").write_text("torch==2.5.0\n")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "colorsys.py").write_text("raise SystemExit('a folder meant for another Python was used')")
    pip = {"TARGET": str(theirs), "PREFIX": str(theirs), "ROOT": str(theirs), "USER": "1", "REQUIRE_VIRTUALENV": "1"}
    pip |= {"NO_DEPS": "1", "CONSTRAINT": "/no/such", "REQUIREMENT": "/no/such", "DRY_RUN": "1", "PYTHON": "/no/such"}
    # These are meant for us.
    pip |= {"NO_INDEX": "1", "FIND_LINKS": wheel.parent.as_uri()}
    python = {"HOME": sys.base_prefix, "PATH": str(theirs), "STARTUP": str(theirs / "colorsys.py")}
    environment = {**os.environ, **{f"PIP_{name}": value for name, value in pip.items()}}
    environment |= {f"PYTHON{name}": value for name, value in python.items()}
    environment |= {"VIRTUAL_ENV": str(theirs), "__PYVENV_LAUNCHER__": str(theirs / "python")}
    result = run(checkout, "demo", "torch", env=environment, python=(sys.executable, "-I"))
    assert (result.returncode, result.stdout) == (0, "2.5.0\n"), result.stderr
    assert [path.name for path in theirs.iterdir()] == ["colorsys.py"]


@posix_only
def test_a_folder_with_a_colon_is_told_a_remedy_that_helps(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    result = run(lay_out(folder), "demo")
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1 and "Rename the folder" in line and "TEXT2VIDEO_VENV" in line
    there = tmp_path / "new" / "environment"
    result = run(folder, "demo", "x", env={**os.environ, "TEXT2VIDEO_VENV": str(there)})
    assert (result.returncode, result.stdout) == (1, f"{folder}|{there}|x\n"), result.stderr
    assert not (folder / ".venv").exists()


def test_a_named_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    lay_out(tmp_path)
    theirs, file = tmp_path / "theirs", tmp_path / "file"
    theirs.mkdir()
    (theirs / "precious").touch()
    file.touch()
    for named in (theirs, file):
        result = run(tmp_path, "demo", env={**os.environ, "TEXT2VIDEO_VENV": str(named)})
        assert result.returncode == 1
        assert "a new or empty folder" in result.stderr and "Traceback" not in result.stderr
        assert not named.with_name(f"{named.name}.lock").exists()
    assert [path.name for path in theirs.iterdir()] == ["precious"] and file.exists()


def test_the_home_of_an_unknown_user_is_no_place(tmp_path: Path) -> None:
    lay_out(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = run(tmp_path, "demo", env={**os.environ, "TEXT2VIDEO_VENV": "~no-such-user-1f3a/x"})
    assert result.returncode == 1
    assert "there is no such user" in result.stderr and "Traceback" not in result.stderr
    assert sorted(path for path in tmp_path.iterdir() if path.name != "__pycache__") == before


@pytest.mark.parametrize("name", ["photos", "share"], ids=["anything", "a name as in a venv"])
def test_a_file_named_as_our_stamp_makes_no_folder_ours(name: str, tmp_path: Path) -> None:
    lay_out(tmp_path)
    theirs = tmp_path / "theirs"
    (theirs / name).mkdir(parents=True)
    (theirs / "run.py.json").write_text("{}")
    result = run(tmp_path, "demo", env={**os.environ, "TEXT2VIDEO_VENV": str(theirs)})
    assert result.returncode == 1
    assert "a new or empty folder" in result.stderr and "Traceback" not in result.stderr
    assert (theirs / name).is_dir()


@posix_only
def test_the_root_of_all_folders_is_no_place(tmp_path: Path) -> None:
    result = run(lay_out(tmp_path), "demo", env={**os.environ, "TEXT2VIDEO_VENV": "/"})
    assert result.returncode == 1
    assert "a new or empty folder" in result.stderr and "Traceback" not in result.stderr


def test_a_torch_command_that_no_shell_reads_is_a_message(tmp_path: Path) -> None:
    result = run(lay_out(tmp_path), "demo", env={**os.environ, "TORCH_COMMAND": 'pip install "torch'})
    assert result.returncode == 1
    assert "TORCH_COMMAND cannot be read" in result.stderr and "Traceback" not in result.stderr


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_installation_ends_with_run_py_alone_asked_to(checkout: Path, number: int) -> None:
    import fcntl

    os.mkfifo(checkout / "hangs-1-py3-none-any.whl")
    (checkout / "requirements" / "demo.txt").write_text(f"{checkout}/hangs-1-py3-none-any.whl\n")
    with started(checkout, "demo") as child:
        assert child.stderr
        while "hangs" not in child.stderr.readline():
            pass
        child.send_signal(number)
        assert child.wait(timeout=60) == 128 + number
        said = child.stderr.read()
        assert said.endswith("\nInterrupted; the command had not started.\n") and "Traceback" not in said
    # pip would still hold it.
    with (checkout / ".venv.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@posix_only
def test_a_signal_while_waiting_or_while_python_starts_is_one_line(checkout: Path) -> None:
    import fcntl

    (site_packages,) = checkout.glob(".venv/lib/python*/site-packages")
    (site_packages / "slow.pth").write_text("import sys, time; print('starts', flush=True); time.sleep(1)\n")
    with started(checkout, "demo", "wait") as child:
        assert child.stdout and child.stdout.readline() == "starts\n"
        os.killpg(child.pid, signal.SIGTERM)
        assert child.wait(timeout=60) == 143
        assert child.stderr and child.stderr.read() == "\nInterrupted; nothing had been started.\n"
    edit_stamp(checkout, complete=False)
    with (checkout / ".venv.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with started(checkout, "demo") as child:
            assert child.stderr and "waiting for it" in child.stderr.readline()
            os.killpg(child.pid, signal.SIGINT)
            assert child.wait(timeout=60) == 130
            assert child.stderr.read() == "\nInterrupted; the command had not started.\n"


@posix_only
@pytest.mark.parametrize("closed", ["> /dev/full", "2> /dev/full", ">&- 2>&-"])
@pytest.mark.parametrize(("arguments", "code"), [(("--help",), 0), (("nonsense",), 2)])
def test_a_help_that_nobody_can_read_is_no_error(arguments: tuple[str, ...], code: int, closed: str) -> None:
    line = ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, str(ROOT / "run.py"), *arguments]
    result = subprocess.run(line, check=False, capture_output=True, text=True, timeout=300)
    assert result.returncode == code
    assert "Error" not in result.stderr and "Exception ignored" not in result.stderr


def started(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(folder / "run.py"), *arguments]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(command, cwd=folder, start_new_session=True, **options)


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with nothing in it but its name."""
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path

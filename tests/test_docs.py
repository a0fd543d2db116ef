"""The documents name only files, sections, commands and options that exist, and command-line.md names every option."""

import os
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from sd_t2v.t2v_helpers.commands.launcher import COMMANDS
from sd_t2v.t2v_helpers.models.known import KNOWN
from sd_t2v.t2v_helpers.settings import SECTION, SETTINGS, WEBUI_SETTINGS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "docs", "javascript", "localizations", "miniature", "modelscope", "requirements", "scripts")
FOLDERS += ("t2v_helpers", "tests", "tools", ".ci", ".github")
NAMES = ("README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "miniature/README.md", "docs/*.md")
DOCUMENTS = sorted(path for name in NAMES for path in ROOT.glob(name))
COMMAND_LINE = ROOT / "docs" / "command-line.md"
OF_OTHERS = {
    "--lowvram", "--medvram", "--skip-install", "--index-url", "--minutes", "--keep", "--times", "--cov", "--durations",
}  # fmt: skip
"""Options of the WebUI, of pip, of pytest, and of the programs in tools/."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def existing() -> set[str]:
    """Every file and folder of the project, and each end of its path: memory/plan.py stands for all of it."""
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    paths = [*ROOT.glob("*.*"), *map(ROOT.joinpath, FOLDERS), *inside]
    parts = [path.relative_to(ROOT).parts for path in paths if path.exists()]
    return {"/".join(part[start:]) for part in parts for start in range(len(part))}


def sections(path: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_links_lead_to_files_and_sections(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, section = link.partition("#")
        goal = document.parent / name if name else document
        assert goal.exists(), link
        assert not section or section in sections(goal), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./-])[\w./-]*\w\.py\b", text))
    named |= {name for name in re.findall(r"`([\w./-]+)`", text) if name.partition("/")[0] in FOLDERS and "/" in name}
    assert {name.rstrip("/") for name in named} <= existing()


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_named_settings_exist(document: Path) -> None:
    text = " ".join(document.read_text(encoding="utf-8").split())
    named = re.findall(rf"Settings > {SECTION[1]} > \*?([^*]+)\*", text)
    assert set(named) <= {setting.label for setting in (*SETTINGS, *WEBUI_SETTINGS)}


def test_models_md_lists_the_known_models() -> None:
    lines = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    listed = {
        match[1]: match[2] for line in lines if (match := re.fullmatch(r"\| `([\w-]+)` \|.*\| ([\d.]+) GB \|", line))
    }
    assert listed == {model.key: f"{model.size / 1e9:.1f}" for model in KNOWN}


@pytest.mark.parametrize("tree", ["modelscope", "t2v_helpers"])
def test_the_map_names_every_room(tree: str) -> None:
    rooms = {f"{tree}/{path.parent.name}/" for path in (ROOT / tree).glob("*/*.py")}
    assert rooms <= set(re.findall(r"`([\w/]+/)`", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")))


@cache
def help_of(*arguments: str) -> str:
    line = [sys.executable, str(ROOT / "run.py"), *arguments]
    return subprocess.run(line, check=True, capture_output=True, text=True, encoding="utf-8").stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_named_commands_exist(document: Path) -> None:
    commands = set(re.findall(r"^  ([a-z-]+) ", help_of("--help"), re.MULTILINE))
    named = set(re.findall(r"python run\.py ([a-z][a-z-]*)", document.read_text(encoding="utf-8")))
    assert {"demo", "test", "ui"} <= commands
    assert named <= commands


def options_of(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """What a command's own help lists."""
    command = COMMANDS[name]
    monkeypatch.setattr(sys, "argv", [name, *command.first, "--help"])
    with pytest.raises(SystemExit):
        import_module(command.module, "sd_t2v").main()
    return set(OPTION.findall(capsys.readouterr().out))


def test_command_line_md_names_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = set(OPTION.findall(COMMAND_LINE.read_text(encoding="utf-8")))
    existing_options = {"--own-torch", "--help"} | {
        option for name in COMMANDS for option in options_of(name, monkeypatch, capsys)
    }
    assert listed - OF_OTHERS == existing_options


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_other_documents_name_no_other_options(document: Path) -> None:
    listed = set(OPTION.findall(COMMAND_LINE.read_text(encoding="utf-8")))
    assert set(OPTION.findall(document.read_text(encoding="utf-8"))) <= listed | OF_OTHERS


def test_the_first_screen_has_the_two_commands() -> None:
    first = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]
    assert {'python run.py demo "a red ball moving left"', "python run.py test"} <= set(first)
    assert os.path.getsize(ROOT / "README.md") < 8000  # noqa: PTH202 - a front page stays one

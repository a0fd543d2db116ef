"""What install.py asks pip for, and what it tells pip to leave alone."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sd_t2v import install

ROOT = Path(__file__).resolve().parents[1]
HOSTS_OWN = {"torch", "numpy"}


def test_it_needs_what_the_project_declares() -> None:
    declared = re.search(r"^dependencies = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert declared
    assert set(re.findall(r'"([\w-]+)', declared[1])) - HOSTS_OWN == set(install.NEEDED.values())


def test_nothing_is_missing_where_all_is_there() -> None:
    assert install.find_missing() == []


def test_what_is_held_is_what_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("~qdm", "1"), ("tqdm", "0.1"), ("Open_CLIP.torch", "9")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    held = install.list_installed()
    assert [line for line in held if line.startswith(("~", "-"))] == []
    assert len([line for line in held if line.startswith("tqdm==")]) == 1
    assert "tqdm==0.1" not in held


@pytest.mark.parametrize(
    ("name", "version", "held"),
    [
        ("a.b_C", "1.0", True),
        ("whole", "1!2.0rc1.post2.dev3+cu121.x", True),
        ("post", "1.0-1", True),
        ("none", None, False),
        ("empty", "", False),
        ("words", "unknown", False),
        ("path", "1.0 @ file:///x", False),
        ("build", "0.0.1-local-build", False),
        ("na me", "1", False),
    ],
)
def test_pip_can_read_every_line(
    name: str, version: str | None, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x.dist-info"
    folder.mkdir()
    lines = [f"Name: {name}", *([] if version is None else [f"Version: {version}"])]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines, ""]))
    (tmp_path / "y.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert install.list_installed() == ([f"{name}=={version}"] if held else [])
    for line in install.list_installed():
        Requirement(line)

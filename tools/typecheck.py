"""Runs mypy on the project as the package sd_t2v, which it is at run time.

mypy cannot take a package from a __path__, and a link named sd_t2v in the checkout would not work on Windows. So mypy
reads a copy in its cache folder, and the real paths are put back into its messages.
"""

import re
import shutil
import sys
from pathlib import Path

from mypy import api

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".mypy_cache"
TREE = CACHE / "tree"
PACKAGE = TREE / "sd_t2v"
FOLDERS = ("modelscope", "t2v_helpers", "miniature", "benchmarks", "tools")
"""The folders of the package; those that do not exist are skipped."""
PLACES = {"sd_t2v": PACKAGE / "__init__.py", "install": PACKAGE / "install.py"}
"""Paths in the copy for scripts that are imported as a part of the package."""


def main() -> int:
    """Print mypy's findings and return its exit code."""
    _copy_tree()
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(CACHE)]
    out, errors, code = api.run([*options, "--no-color-output", str(TREE)])
    sys.stdout.write(_with_real_paths(out))
    sys.stderr.write(errors)
    return code


def _copy_tree() -> None:
    """Copy the package and the scripts next to it. Timestamps are kept, so that mypy's cache stays valid."""
    shutil.rmtree(TREE, ignore_errors=True)
    PACKAGE.mkdir(parents=True)
    for folder in filter(lambda name: (ROOT / name).is_dir(), FOLDERS):
        shutil.copytree(ROOT / folder, PACKAGE / folder, ignore=_not_python)
    for script in ROOT.glob("*.py"):
        shutil.copy2(script, PLACES.get(script.stem, TREE / script.name))


def _not_python(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_file() and not name.endswith(".py")]


def _with_real_paths(text: str) -> str:
    prefix = rf"(?m)^(?:.*[/\\])?{re.escape(TREE.name)}[/\\]"
    init = rf"{prefix}sd_t2v[/\\]__init__\.py"
    return re.sub(rf"{prefix}(?:sd_t2v[/\\])?", "", re.sub(init, "sd_t2v.py", text))


if __name__ == "__main__":
    sys.exit(main())

"""Feeds damaged files to the readers of untrusted files: `python tools/fuzz.py --minutes 10` with .venv's Python."""

import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Start the fuzzer as a module of the package that contains this folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "sd_t2v.tools.fuzzing.run", *sys.argv[1:]]
    return subprocess.run(command, check=False, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())

"""Installs missing packages, and changes none that is installed. The WebUI runs this at every start."""

import importlib.util
import re
import tempfile
from importlib.metadata import distributions
from pathlib import Path

NEEDED = {
    "einops": "einops",
    "filelock": "filelock",
    "huggingface_hub": "huggingface_hub",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "open_clip": "open_clip_torch",
    "omegaconf": "omegaconf",
    "psutil": "psutil",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
}
"""Packages by the names of their modules. torch, gradio and Pillow come with the WebUI."""

# A single line that pip cannot parse makes it refuse the whole file.
_NAME = re.compile(r"(?i)[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_VERSION = re.compile(
    r"(?i)v?(\d+!)?\d+(\.\d+)*([-_.]?(a|alpha|b|beta|c|rc|pre|preview)[-_.]?\d*)?"
    r"(-\d+|[-_.]?(post|rev|r)[-_.]?\d*)?([-_.]?dev[-_.]?\d*)?(\+[a-z0-9]+([-_.][a-z0-9]+)*)?"
)


def find_missing() -> list[str]:
    """Return pip's names of the missing packages."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def install(packages: list[str]) -> None:
    """Install packages, and keep the version of every installed package."""
    from launch import run_pip

    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder, "held.txt")
        held.write_text("\n".join(sorted(list_installed())), encoding="utf-8")
        run_pip(f'install -c "{held}" {" ".join(packages)}', f"packages for text2video: {', '.join(packages)}")


def list_installed() -> list[str]:
    """Return every installed package in the form of pip's constraints. Remains of broken updates are left out."""
    found: dict[str, str] = {}
    for package in distributions():
        about = package.metadata
        name, version = (str(about[key]) if key in about else "" for key in ("Name", "Version"))
        if _NAME.fullmatch(name) and _VERSION.fullmatch(version):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), f"{name}=={version}")
    return list(found.values())


if __name__ == "__main__" and find_missing():
    install(find_missing())

"""What the WebUI runs at every start: installs the packages that are missing, changes none that is there."""

import importlib.util
import tempfile
from importlib.metadata import distributions
from pathlib import Path

NEEDED = {
    "imageio_ffmpeg": "imageio-ffmpeg",
    "open_clip": "open_clip_torch",
    "omegaconf": "omegaconf",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
}
"""Packages by the name they are imported under. torch, gradio and Pillow are the WebUI's own."""


def install(packages: list[str]) -> None:
    """Install packages beside what is there, every version of which is held."""
    from launch import run_pip

    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder, "held.txt")
        lines = {f"{found.metadata['Name']}=={found.version}" for found in distributions() if found.metadata["Name"]}
        held.write_text("\n".join(sorted(lines)), encoding="utf-8")
        run_pip(f'install -c "{held}" {" ".join(packages)}', f"what text2video needs: {', '.join(packages)}")


missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
if missing:
    install(missing)

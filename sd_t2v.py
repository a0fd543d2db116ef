"""The extension folder as one importable package: sd_t2v.modelscope, sd_t2v.t2v_helpers, sd_t2v.miniature."""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parent)]
__version__ = "0.2.0"

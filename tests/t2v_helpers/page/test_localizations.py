"""Every word of the tab and of its settings is in every localisation."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sd_t2v.t2v_helpers.settings import SETTINGS, WEBUI_SETTINGS

ROOT = Path(__file__).resolve().parents[3]
LOCALIZATIONS = sorted((ROOT / "localizations").glob("*.json"))
# Texts that are the same in every language, and those nobody sees.
OUTSIDE = {"None", "All", "GPU", "MP4", "GIF", "WebP", "WebM", "()", "float32", "float16", "bfloat16"}
OUTSIDE |= {"Task", "Page's name", "Previous model", "opened", "collect"}
LIST_LABELS = """
import json, sys
from pathlib import Path
from sd_t2v.t2v_helpers.hosts.standalone.host import StandaloneHost
from sd_t2v.t2v_helpers.page.tab import build_tab
texts = set()
for part in build_tab(StandaloneHost(*map(Path, sys.argv[1:]))).config['components']:
    about = part['props']
    texts |= {about.get('label'), about.get('info'), about.get('placeholder')}
    texts |= {about.get('value')} if part['type'] == 'button' else set()
    if part['type'] == 'checkboxgroup':
        texts |= {choice[0] for choice in about['choices']}
print(json.dumps(sorted(text for text in texts if text)))
"""


def tab_texts(folder: Path) -> set[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GRADIO_ANALYTICS_ENABLED": "False"}
    result = subprocess.run(
        [sys.executable, "-c", LIST_LABELS, *[str(folder / name) for name in ("models", "outputs", "settings")]],
        check=True,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def expected(folder: Path) -> set[str]:
    script = (ROOT / "javascript" / "text2video.js").read_text(encoding="utf-8")
    table = re.search(r"TOOLTIPS = \{(.*?)\}", script, re.DOTALL)
    assert table
    words = {text for text in tab_texts(folder) if re.search(r"\w", text)}
    every = (*SETTINGS, *WEBUI_SETTINGS)
    settings = {text for setting in every for text in (setting.label, f"({setting.info})", *setting.choices)}
    return (words | settings | set(re.findall(r'"(.+?)"', table[1]))) - OUTSIDE


@pytest.mark.parametrize("path", LOCALIZATIONS, ids=lambda path: path.stem)
def test_every_text_is_translated(path: Path, tmp_path: Path) -> None:
    translations = json.loads(path.read_text(encoding="utf-8"))
    assert expected(tmp_path) <= set(translations)
    assert all(translations.values())


def test_the_promised_languages_are_there() -> None:
    assert [path.stem for path in LOCALIZATIONS] == ["ru_RU", "zh_CN"]

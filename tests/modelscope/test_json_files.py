"""Documents from strangers: bounded, and one sentence where they are none."""

import json
import shutil
import time
from pathlib import Path

import pytest

from sd_t2v.miniature.recipe import MODEL_FOLDER
from sd_t2v.modelscope.checkpoints.find_parts import Library, find_part, read_model_config
from sd_t2v.modelscope.checkpoints.parts import UNET
from sd_t2v.modelscope.config import ModelConfig, read_config
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.json_files import MAX_BYTES, MAX_DEPTH, parse_json


def test_reads_what_json_says() -> None:
    document = {"a": [1, -2.5, '\u00e9"\\[{', None, True, {"b": []}]}
    assert parse_json(json.dumps(document).encode()) == document
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"\xff", b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[1e400]", b"[" + b"9" * 5000 + b"]",
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b"[" * 1_000_000, b'{"a":' * 500_000,
        b'{"a": 1, "a": 2}', b" " * (MAX_BYTES + 1), b'["' + b'\\"' * 4_000_000, b'"' * 8_000_000, b'["\\',
    ],
)  # fmt: skip
def test_what_is_none_is_refused_at_once(data: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError):  # noqa: PT011 - of many kinds
        parse_json(data)
    assert time.monotonic() - start < 5


def spoilt(folder: Path, old: str, new: str) -> Path:
    """The miniature's configuration with other words in it."""
    text = (MODEL_FOLDER / "configuration.json").read_text(encoding="utf-8")
    assert old in text
    (folder / "configuration.json").write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


REFERENCES = (
    "${oc.env:FUZZ_SECRET}", "\\u0024{oc.env:FUZZ_SECRET}", "\\u0024\\u007boc.env:FUZZ_SECRET}",
    "$\\u007boc.env:FUZZ_SECRET}",
)  # fmt: skip


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize(
    "place", ['"text2video_pytorch_model.pth"', '"unet_dim": 64', '"unet_dim_mult": [', '"type": "']
)
def test_no_configuration_reads_the_environment(
    reference: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUZZ_SECRET", "hunter2")
    new = {
        '"text2video_pytorch_model.pth"': f'"{reference}"',
        '"unet_dim": 64': f'"unet_dim": "{reference}"',
        '"unet_dim_mult": [': f'"unet_dim_mult": [["{reference}"], ',
        '"type": "': f'"type": "{reference}',
    }[place]
    with pytest.raises(ModelError) as told:
        read_config(spoilt(tmp_path, place, new))
    assert "it refers to something outside itself" in str(told.value)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"unet_dim_mult": [', '"unet_dim_mult": [[1, 2], '),
        ('"unet_dim_mult": [', '"unet_dim_mult": [["%s"], '),
        ('"unet_dim_mult": [', '"unet_dim_mult": [{}, '),
        ('"unet_dim": 64', '"unet_dim": [[64]]'),
        ('"unet_dim": 64', '"unet_dim": null'),
        ('"unet_dim": 64', '"unet_dim": true'),
        ('"unet_dim": 64', '"unet_dim": 3.5'),
        ('"unet_dim": 64', '"unet_dim": 1' + "0" * 4000),
        ('"unet_dim": 64', '"unet_dim": NaN'),
        ('"unet_dim": 64', '"unet_dim": {"a": 64}'),
        ('"unet_dim": 64', '"unet_dim": "???"'),
        ('"unet_dim": 64', '"unet_dim": 64, "unet_dim": 64'),
        ('"text2video_pytorch_model.pth"', '["x"]'),
        ('"model_cfg": {', '"model_cfg": [], "x": {'),
        ('"framework"', '"x": ' + "[" * 5000 + "]" * 5000 + ', "framework"'),
    ],
)
def test_wrong_kinds_of_values_are_one_sentence(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as told:
        read_config(spoilt(tmp_path, old, new))
    assert str(told.value).startswith(f"{tmp_path / 'configuration.json'}: is not the model's configuration (")
    assert "\n" not in str(told.value)


def test_the_miniatures_own_is_read(tmp_path: Path) -> None:
    shutil.copy(MODEL_FOLDER / "configuration.json", tmp_path)
    assert read_config(tmp_path).unet.dim == 64
    whole_numbers = spoilt(tmp_path, '"unet_dropout": 0.0', '"unet_dropout": 0')
    assert read_config(whole_numbers).unet.dropout == 0
    numbers_as_text = spoilt(tmp_path, '"unet_dim": 64', '"unet_dim": "64"')
    assert read_config(numbers_as_text).unet.dim == 64


@pytest.mark.parametrize("text", ["[]", "3", '{"block_out_channels": ["%s", 2]}', "[" * 5000, '{"a": NaN}'])
def test_diffusers_configurations_are_as_bounded(text: str, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(text)
    with pytest.raises(ModelError, match="is not this part's configuration"):
        read_model_config(tmp_path)


@pytest.mark.parametrize(
    "weight_map", ['["a"]', '{"a": ["b"]}', '{"a": {}}', '{"a": "x\\n\\u001b[8m"}', '{"a": "\\u0000"}', "3", "[" * 5000]
)
def test_an_index_is_as_bounded(weight_map: str, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    index = tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(f'{{"weight_map": {weight_map}}}')
    with pytest.raises(ModelError) as told:
        find_part(UNET, tmp_path, ModelConfig(), Library(tmp_path))
    assert str(told.value).isprintable()
    assert str(index) in str(told.value)

"""Which models are found, under which names, and what they may borrow."""

import os
import shutil
from pathlib import Path

import pytest

from sd_t2v.modelscope.checkpoints.load import load_model
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.t2v_helpers.hosts.console import models_for
from sd_t2v.t2v_helpers.hosts.standalone.host import StandaloneHost
from sd_t2v.t2v_helpers.models.folders import BASE_NAME, MINIATURE_NAME, find_model, find_models, list_model_names
from sd_t2v.t2v_helpers.settings import FURTHER_MODELS, Setting
from sd_t2v.tests.helpers.support import CPU, write_model_folder


class Host(StandaloneHost):
    """With a setting that says where more models are."""

    further = ""

    def setting(self, setting: Setting) -> object:
        return self.further if setting is FURTHER_MODELS else super().setting(setting)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "models", tmp_path / "out", tmp_path / "settings.json", "cpu")


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_all_layouts_are_listed_and_nothing_else(host: Host, tmp_path: Path) -> None:
    further = tmp_path / "models" / "text2video"
    touched(
        tmp_path / "models" / "ModelScope" / "t2v" / "text2video_pytorch_model.pth",
        further / "potat1" / "text2video_pytorch_model.pth",
        further / "diffusers" / "unet" / "diffusion_pytorch_model.fp16.safetensors",
        further / "zeroscope" / "zs2_576w" / "text2video_pytorch_model.pth",
        further / "zeroscope" / "zs2_XL" / "text2video_pytorch_model.pth",
        further / "zeroscope" / "VQGAN_autoencoder.pth",
        further / "zeroscope_v2_XL" / "unet" / "diffusion_pytorch_model.bin",
        further / "zeroscope_v2_XL" / "vae" / "diffusion_pytorch_model.bin",
        further / "zeroscope_v2_XL" / "zs2_XL" / "text2video_pytorch_model.pth",
        further / "single.safetensors",
        further / "notes.txt",
        further / ".download" / "half.pth",
        further / "empty" / "README.md",
    )
    assert list_model_names(host) == [
        BASE_NAME, "diffusers", "potat1", "single", "zeroscope/zs2_576w", "zeroscope/zs2_XL",
        "zeroscope_v2_XL", "zeroscope_v2_XL/zs2_XL", MINIATURE_NAME,
    ]  # fmt: skip


def test_an_extensions_models_are_its_webuis(tmp_path: Path) -> None:
    extension = tmp_path / "extensions" / "text2video"
    assert models_for(extension) == extension / "models"
    (tmp_path / "models").mkdir()
    assert models_for(extension) == tmp_path / "models"
    assert models_for(tmp_path / "text2video") == tmp_path / "text2video" / "models"


def test_no_model_hides_another(host: Host, tmp_path: Path) -> None:
    further, others = tmp_path / "models" / "text2video", (tmp_path / "a" / "x", tmp_path / "b" / "x")
    touched(further / "foo" / "unet.pth", further / "foo.ckpt", further / "foo.safetensors")
    touched(*(other / "foo" / "unet.pth" for other in others))
    host.further = ";".join(map(str, (*others, others[0], "~nosuchuser/x")))
    paths = [model.path for model in find_models(host)[:-1]]
    assert sorted(paths) == sorted(
        [further / "foo", further / "foo.ckpt", further / "foo.safetensors", *(other / "foo" for other in others)]
    )
    assert len(set(list_model_names(host))) == 6


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_the_hubs_cache_can_be_a_further_folder(host: Host, tmp_path: Path) -> None:
    cache = tmp_path / "models--some--one"
    real = write_model_folder(cache / "blobs")
    version = cache / "snapshots" / "0123"
    version.mkdir(parents=True)
    for path in real.iterdir():
        (version / path.name).symlink_to(path)
    host.further = str(cache / "snapshots")
    model = find_model(host, "0123")
    assert load_model(model.path, CPU, library=model.library).lender is None


def test_further_folders_come_from_a_setting(host: Host, tmp_path: Path) -> None:
    touched(
        tmp_path / "models" / "text2video" / "same" / "x.pth",
        tmp_path / "disk" / "same" / "x.pth",
        tmp_path / "other disk" / "model" / "x.pth",
    )
    host.further = f"{tmp_path / 'disk'} ; {tmp_path / 'other disk'};{tmp_path / 'gone'};"
    assert list_model_names(host) == ["same", "disk/same", "model", MINIATURE_NAME]
    assert find_model(host, "disk/same").path == tmp_path / "disk" / "same"


def test_an_autoencoder_comes_from_the_base_model(host: Host, tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model_folder(models / "ModelScope" / "t2v")
    zeroscope = write_model_folder(models / "text2video" / "zeroscope" / "zs2_576w")
    (zeroscope / "VQGAN_autoencoder.pth").unlink()
    model = find_model(host, "zeroscope/zs2_576w")
    load_model(model.path, CPU, library=model.library)
    shutil.rmtree(models / "ModelScope")
    model = find_model(host, "zeroscope/zs2_576w")
    with pytest.raises(ModelError, match="install another model that has one"):
        load_model(model.path, CPU, library=model.library)


def test_a_configuration_may_name_the_base_models_file_but_none_outside(host: Host, tmp_path: Path) -> None:
    models = tmp_path / "models"
    base, folder = write_model_folder(models / "ModelScope" / "t2v"), write_model_folder(models / "text2video" / "mine")
    (folder / "VQGAN_autoencoder.pth").unlink()
    configuration = folder / "configuration.json"
    text = configuration.read_text(encoding="utf-8")
    named = text.replace("VQGAN_autoencoder.pth", "../../ModelScope/t2v/VQGAN_autoencoder.pth")
    configuration.write_text(named, encoding="utf-8")
    model = find_model(host, "mine")
    assert load_model(model.path, CPU, library=model.library).lender is None
    (base / "VQGAN_autoencoder.pth").rename(tmp_path / "VQGAN_autoencoder.pth")
    configuration.write_text(text.replace("VQGAN_auto", "../../../VQGAN_auto"), encoding="utf-8")
    with pytest.raises(ModelError, match="is outside"):
        load_model(model.path, CPU, library=model.library)


def test_a_name_that_is_gone_is_told_with_those_that_are_there(host: Host) -> None:
    with pytest.raises(ModelError, match=r"no model 'gone'.*Choose one of these: miniature"):
        find_model(host, "gone")
    assert [model.name for model in find_models(host)] == [MINIATURE_NAME]


def test_a_folder_that_may_be_listed_and_not_entered_hides_no_other(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system answers an ordinary user; who runs the tests may be allowed everything."""
    further = tmp_path / "models" / "text2video"
    touched(further / "good" / "unet.pth", further / "locked" / "unet.pth")
    stat = os.stat

    def refusing(path: object, **options: object) -> os.stat_result:
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", refusing)
    assert list_model_names(host)[0] == "good"

"""Models in every layout that people have: each loads to the same weights, bit for bit."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from sd_t2v.benchmarks.layouts import (
    Write,
    as_bin,
    as_half_variant,
    as_in_2023,
    as_safetensors,
    as_shards,
    as_transformers_5,
    write_diffusers,
)
from sd_t2v.modelscope.checkpoints.diffusers_keys import TEXT_PREFIX, text_names, to_diffusers, unet_names, vae_names
from sd_t2v.modelscope.checkpoints.find_parts import Library, find_part, read_model_config
from sd_t2v.modelscope.checkpoints.load import check_parts_agree, load_model
from sd_t2v.modelscope.checkpoints.parts import UNET as UNET_PART
from sd_t2v.modelscope.checkpoints.parts import VAE as VAE_PART
from sd_t2v.modelscope.checkpoints.parts import describe_mismatch
from sd_t2v.modelscope.config import write_config
from sd_t2v.modelscope.errors import ModelError
from sd_t2v.tests.helpers.layouts import assert_golden_weights
from sd_t2v.tests.helpers.support import CPU, small_config, small_model, write_model_folder

UNET, VAE, CLIP = "text2video_pytorch_model.pth", "VQGAN_autoencoder.pth", "open_clip_pytorch_model.bin"


def fails(path: Path, library: Library | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path, CPU, library=library)
    return str(caught.value)


@pytest.mark.parametrize(
    "write",
    [as_safetensors, as_bin, as_half_variant, as_shards, as_in_2023, as_transformers_5],
    ids=lambda f: f.__name__,
)
def test_diffusers_folders(tmp_path: Path, write: Write) -> None:
    assert_golden_weights(write_diffusers(tmp_path / "model", write, small_model()))


def test_24_blocks_of_which_one_is_not_used(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "model", as_bin, small_model(), blocks=24)
    model = load_model(folder, CPU)
    assert model.config.text.layers == 24
    assert len(model.text_encoder.transformer.resblocks) == 23
    twin = load_model(write_diffusers(tmp_path / "23", as_bin, small_model(), blocks=23), CPU).text_encoder.state_dict()
    assert all(torch.equal(x, twin[name]) for name, x in model.text_encoder.state_dict().items())


def test_diffusers_reads_its_own_layout_of_what_we_read(tmp_path: Path) -> None:
    """So that the folders of these tests are what they claim to be."""
    folder = write_diffusers(tmp_path / "model", as_safetensors, small_model())
    unet = UNet3DConditionModel.from_pretrained(folder / "unet").state_dict()
    ours = to_diffusers(load_model(folder, CPU).unet.state_dict(), unet_names(small_config()))
    assert unet.keys() == ours.keys()
    assert all(torch.equal(unet[name], x.float()) for name, x in ours.items())
    vae = AutoencoderKL.from_pretrained(folder / "vae").state_dict()
    ours = to_diffusers(load_model(folder, CPU).autoencoder.state_dict(), vae_names(small_config()))
    assert vae.keys() == ours.keys()
    assert all(torch.equal(vae[name], x.float()) for name, x in ours.items())
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    ours = to_diffusers(load_model(folder, CPU).text_encoder.state_dict(), text_names)
    ours = {name.removeprefix(TEXT_PREFIX): x for name, x in ours.items()}
    theirs = {name.removeprefix(TEXT_PREFIX): x for name, x in text.items() if "position_ids" not in name}
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], x.float()) for name, x in ours.items())


def test_a_folder_without_autoencoder_and_configuration_borrows_the_autoencoder(tmp_path: Path) -> None:
    """Zeroscope's zs2_576w, beside the base model; without its configuration it is taken for one of the 1.7B's size."""
    lender = write_model_folder(tmp_path / "ModelScope" / "t2v")
    folder = write_model_folder(tmp_path / "text2video" / "zs2_576w")
    (folder / VAE).unlink()
    library = Library(tmp_path / "text2video", (lender,))
    assert "VQGAN_autoencoder.pth: is missing" in fails(folder, Library(tmp_path))
    assert_golden_weights(folder, library)
    (folder / "configuration.json").unlink()
    assert "VQGAN_autoencoder.pth: is missing" in fails_to_find_autoencoder(folder, library)
    (lender / "configuration.json").unlink()
    source = find_part(VAE_PART, folder, read_model_config(folder), library)
    assert (source.lender, source.named) == (lender, lender / VAE)


@pytest.mark.parametrize(
    "stray",
    [
        lambda folder: torch.save({"state": {}}, folder / "optimizer.bin"),
        lambda folder: torch.save([torch.zeros(2, 2)], folder / "lora.pt"),
        lambda folder: (folder / "empty.pt").touch(),
        lambda folder: (folder / "page.safetensors").write_text("<html>"),
        lambda folder: (folder.parent / "lender" / "unet" / "config.json").write_text('{"block_out_channels": []}'),
    ],
)
def test_nothing_else_that_lies_about_keeps_it_from_being_borrowed(
    tmp_path: Path, stray: Callable[[Path], object]
) -> None:
    folder = write_model_folder(tmp_path / "zs2_576w")
    (folder / VAE).unlink()
    write_diffusers(tmp_path / "lender", as_bin, small_model())
    write_model_folder(tmp_path / "t2v")
    stray(folder)
    assert_golden_weights(folder)


def test_what_is_wrong_with_a_file_of_any_name_is_told_with_what_is_missing(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    (folder / CLIP).unlink()
    (folder / "clip.pt").write_text("<html>", encoding="utf-8")
    message = fails(folder)
    assert f"{folder / CLIP}: is missing" in message
    assert f"It may be this file, which cannot be used: {folder / 'clip.pt'}: is a web page" in message


def fails_to_find_autoencoder(folder: Path, library: Library) -> str:
    """Not one of another size."""
    with pytest.raises(ModelError) as caught:
        find_part(VAE_PART, folder, read_model_config(folder), library)
    return str(caught.value)


def test_an_autoencoder_can_be_borrowed_from_diffusers_folders(tmp_path: Path) -> None:
    lender = write_diffusers(tmp_path / "lender", as_bin, small_model())
    folder = write_model_folder(tmp_path / "model")
    (folder / VAE).unlink()
    assert_golden_weights(folder, Library(tmp_path, (tmp_path / "nothing", folder, lender)))
    assert_golden_weights(folder)


def rename_in_configuration(folder: Path, old: str, new: str) -> None:
    path = folder / "configuration.json"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_a_configuration_may_name_a_file_in_the_folder_above(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "text2video" / "zeroscope" / "zs2_XL")
    (folder / VAE).rename(folder.parent / VAE)
    rename_in_configuration(folder, VAE, f"../{VAE}")
    assert_golden_weights(folder, Library(tmp_path / "text2video"))
    assert_golden_weights(folder)


@pytest.mark.parametrize("up", ["../../", "ABSOLUTE/"])
def test_but_not_one_outside_of_the_models_folder(tmp_path: Path, up: str) -> None:
    folder = write_model_folder(tmp_path / "text2video" / "model")
    (folder / VAE).rename(tmp_path / VAE)
    rename_in_configuration(folder, VAE, f"{up.replace('ABSOLUTE', str(tmp_path))}{VAE}")
    for library in (None, Library(tmp_path / "text2video")):
        message = fails(folder, library)
        assert "is outside" in message
        assert "Put the file into the model's folder" in message


@pytest.mark.parametrize("name", ["", ".", "..", "/", "\\u0000", "a" * 5000])
def test_names_that_are_no_files(tmp_path: Path, name: str) -> None:
    folder = write_model_folder(tmp_path / "model")
    (folder / VAE).unlink()
    rename_in_configuration(folder, VAE, name)
    assert "is missing" in fails(folder)


def linked(path: Path, goal: Path, *, folder: bool = False) -> None:
    try:
        path.symlink_to(goal, target_is_directory=folder)
    except OSError:
        pytest.skip("links are not allowed here")


def test_a_folder_may_be_a_link_but_not_a_file_that_leads_out_of_it(tmp_path: Path) -> None:
    real = write_model_folder(tmp_path / "disk" / "t2v")
    models = tmp_path / "models"
    models.mkdir()
    linked(models / "t2v", real, folder=True)
    assert_golden_weights(models / "t2v", Library(models))
    folder = models / "files"
    folder.mkdir()
    for file in real.iterdir():
        linked(folder / file.name, file)
    assert "link the whole folder" in fails(folder, Library(models))


def test_the_hubs_cache_is_made_of_links(tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--model"
    real, snapshot = write_model_folder(repository / "blobs"), repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    for file in real.iterdir():
        linked(snapshot / file.name, Path(os.path.relpath(file, snapshot)))
    assert_golden_weights(snapshot)


def test_files_under_other_names(tmp_path: Path) -> None:
    """What a browser calls a second download, and what people call a model of theirs."""
    folder = write_model_folder(tmp_path / "model")
    (folder / UNET).rename(folder / "text2video_pytorch_model (1).pth")
    (folder / CLIP).rename(folder / "text encoder.bin")
    (folder / VAE).rename(folder / "some vae.ckpt")
    assert_golden_weights(folder)


def everything(*prefixes: str) -> dict[str, Tensor]:
    model = small_model()
    parts = (model.text_encoder, model.unet, model.autoencoder)
    tensors = {
        f"{prefix}{n}": x for prefix, part in zip(prefixes, parts, strict=True) for n, x in part.state_dict().items()
    }
    return {name: tensor.half().contiguous().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "prefixes",
    [
        ("", "", "first_stage_model."),
        ("cond_stage_model.model.", "model.diffusion_model.", "first_stage_model."),
        ("text_encoder.", "unet.", "vae."),
    ],
)
def test_one_file_that_holds_everything(tmp_path: Path, prefixes: tuple[str, str, str]) -> None:
    write_config(tmp_path, small_config())
    save_file(everything(*prefixes), tmp_path / "all of it.safetensors")
    assert_golden_weights(tmp_path)
    assert_golden_weights(tmp_path / "all of it.safetensors", Library(tmp_path))


def test_one_file_without_an_autoencoder_borrows_it(tmp_path: Path) -> None:
    write_config(tmp_path, small_config())
    tensors = everything("cond_stage_model.model.", "model.diffusion_model.", "first_stage_model.")
    file = tmp_path / "all but one.safetensors"
    save_file({name: x for name, x in tensors.items() if not name.startswith("first_stage_model.")}, file)
    assert f"{VAE}: is missing" in fails(file)
    lender = write_model_folder(tmp_path / "t2v")
    assert assert_golden_weights(file).lender == lender


def test_files_in_the_other_format(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    save_file(torch.load(folder / UNET, weights_only=True), folder / UNET)
    assert_golden_weights(folder)
    (folder / VAE).rename((folder / VAE).with_suffix(".safetensors"))
    assert "in torch's format, although its name says safetensors. Rename it to VQGAN_autoencoder.pth" in fails(folder)


def test_split_files_without_their_list(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "model", as_shards, small_model())
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    assert "download their index diffusion_pytorch_model.safetensors.index.json too" in fails(folder)


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "no such folder"])
def test_paths_that_are_none(path: str) -> None:
    assert "older" in fails(Path(path))


def test_one_file_by_diffusers_names(tmp_path: Path) -> None:
    model, config = small_model(), small_config()
    write_config(tmp_path, config)
    tensors = {f"text_encoder.{n}": x for n, x in to_diffusers(model.text_encoder.state_dict(), text_names).items()}
    tensors |= {f"unet.{n}": x for n, x in to_diffusers(model.unet.state_dict(), unet_names(config)).items()}
    tensors |= {f"vae.{n}": x for n, x in to_diffusers(model.autoencoder.state_dict(), vae_names(config)).items()}
    save_file({name: x.half().contiguous().clone() for name, x in tensors.items()}, tmp_path / "x.safetensors")
    assert_golden_weights(tmp_path)


def test_parts_of_different_models_are_told(tmp_path: Path) -> None:
    folder = write_diffusers(tmp_path / "model", as_bin, small_model())
    path = folder / "unet" / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"cross_attention_dim": 32', '"cross_attention_dim": 48'))
    assert "with another shape" in fails(folder)
    shutil.rmtree(folder / "text_encoder")
    other = write_diffusers(tmp_path / "other", as_bin, small_model())
    values = json.loads((other / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    shutil.copytree(other / "text_encoder", folder / "text_encoder")
    assert values["hidden_size"] == 32
    message = fails(folder)
    assert str(folder / "unet") in message


def test_widths_of_different_models_are_told() -> None:
    config = small_config()
    check_parts_agree(config)
    with pytest.raises(ModelError, match="text encoder's features are 48 wide, but the UNet expects 32"):
        check_parts_agree(replace(config, text=replace(config.text, width=48)))
    with pytest.raises(ModelError, match="autoencoder's latents have 8 channels, but the UNet's have 4"):
        check_parts_agree(replace(config, autoencoder=replace(config.autoencoder, embed_dim=8)))


@pytest.mark.parametrize("odd", [torch.zeros(8, 32), torch.zeros(()), torch.zeros(32, 32, dtype=torch.int8)])
def test_a_third_that_does_not_fit_is_told(tmp_path: Path, odd: Tensor) -> None:
    folder = write_diffusers(tmp_path / "model", as_safetensors, small_model())
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    save_file({**tensors, name: odd}, path)
    assert "1 with another shape (transformer.resblocks.0.attn.in_proj_weight" in fails(folder)


WIDTHS = '{"block_out_channels": %s, "cross_attention_dim": 32, "attention_head_dim": 32}'


@pytest.mark.parametrize(
    "broken", ["<html>", "{}", "[]", *(WIDTHS % widths for widths in ("[32, 40]", "[]", "[0]", "[1e999]")), "\x00"]
)
def test_a_part_whose_configuration_is_none(tmp_path: Path, broken: str) -> None:
    folder = write_diffusers(tmp_path / "model", as_bin, small_model())
    (folder / "unet" / "config.json").write_text(broken, encoding="utf-8")
    assert "config.json: is not this part's configuration" in fails(folder)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("{", "is not an index"),
        ('{"weight_map": {}}', "it lists no files"),
        ('{"weight_map": {"a": "../x.bin"}}', "something other than files in its own folder"),
        ('{"weight_map": {"a": 3}}', "something other than files in its own folder"),
        ('{"weight_map": {"a": "x.bin", "b": "y.bin"}}', "lists 2 files, but these are missing: x.bin, y.bin"),
    ],
)
def test_an_index_that_leads_nowhere(tmp_path: Path, index: str, told: str) -> None:
    folder = write_diffusers(tmp_path / "model", as_shards, small_model())
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(index, encoding="utf-8")
    assert told in fails(folder)


def test_a_file_that_holds_another_part_is_told(tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "model")
    shutil.copy(folder / CLIP, folder / UNET)
    assert "holds the text encoder, not the UNet." in fails(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion checkpoint"),
        ("conditioner.embedders.0.transformer.x", "an SDXL checkpoint"),
        ("down_blocks.0.motion_modules.0.x", "an AnimateDiff motion module"),
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA"),
        ("double_blocks.0.img_attn.x", "a Flux model"),
    ],
)
def test_other_kinds_of_model_are_known(name: str, kind: str) -> None:
    assert kind in describe_mismatch([name], UNET_PART)
    # Checkpoints hold these, too, and they look like a ModelScope model's.
    rest = ["first_stage_model.decoder.norm_out.weight", "cond_stage_model.model.ln_final.weight"]
    assert kind in describe_mismatch([*rest, name], UNET_PART)
    assert kind in describe_mismatch([*rest, name], VAE_PART)
    assert describe_mismatch(["anything"], UNET_PART) == ""


@pytest.mark.parametrize("name", ["модель 模型 é", "x" * 200])
def test_names_of_folders(tmp_path: Path, name: str) -> None:
    assert_golden_weights(write_model_folder(tmp_path / name))

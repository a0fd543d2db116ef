"""Files that are no LoRA of this model: each refused whole, in words that say what it is."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sd_t2v.modelscope.errors import ModelError
from sd_t2v.modelscope.lora.lora_file import read_lora
from sd_t2v.modelscope.memory.lora_deltas import Delta
from sd_t2v.tests.helpers.loras import cloneofsimo_list, renamed, stable_tensors
from sd_t2v.tests.helpers.support import small_model


def pair(name: str, down: str = "lora_down.weight", up: str = "lora_up.weight", width: int = 8) -> dict[str, Tensor]:
    return {f"{name}.{down}": torch.zeros(2, width), f"{name}.{up}": torch.zeros(8, 2)}


BLOCK = "down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
FOREIGN: dict[str, tuple[dict[str, Tensor], str]] = {
    "sd15_kohya": (pair(f"lora_unet_{BLOCK}", width=768), "image LoRA for Stable Diffusion"),
    "sd15_kohya_text": (pair("lora_te_text_model_encoder_layers_0_mlp_fc1"), "image LoRA for Stable Diffusion"),
    "sdxl_kohya": (pair("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"), "Stable Diffusion XL"),
    "sdxl_kohya_text": (pair("lora_te2_text_model_encoder_layers_0_mlp_fc1"), "Stable Diffusion XL"),
    "sdxl_diffusers": (
        pair("unet.down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q", "lora_A.weight", "lora_B.weight"),
        "Stable Diffusion XL",
    ),
    "sd15_diffusers": (
        pair(
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", "lora.down.weight", "lora.up.weight", 768
        ),
        r"do not fit this one .*attn2\.to_k .*as in Stable Diffusion 1\.x",
    ),
    "flux": (pair("lora_unet_double_blocks_0_img_attn_proj"), "Flux"),
    "flux_diffusers": (
        pair("transformer.single_transformer_blocks.3.attn.to_q", "lora_A.weight", "lora_B.weight"),
        "Flux",
    ),
    "wan": (pair("diffusion_model.blocks.0.cross_attn.k", "lora_A.weight", "lora_B.weight"), "Wan"),
    "animatediff": (
        pair("down_blocks.0.motion_modules.0.temporal_transformer.proj_in", "processor.to_q_lora.down.weight"),
        "AnimateDiff",
    ),
    "animatediff_kohya": (pair("lora_unet_down_blocks_0_motion_modules_0_attn1_to_q"), "AnimateDiff"),
    "wan_kohya": (pair("lora_unet_blocks_0_cross_attn_k"), "Wan"),
    "loha": ({"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, "LyCORIS"),
    "checkpoint": ({"model.diffusion_model.out.0.weight": torch.zeros(2)}, "a whole model"),
    "embedding": ({"emb_params": torch.zeros(2, 768)}, "textual inversion"),
    "something": ({"weight": torch.zeros(2)}, "belong to no known LoRA format"),
    "other_modules": (
        pair("unet.down_blocks.9.resnets.0.conv1"),
        r"1 of its 1 modules are not in this model \(unet\.down",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_models_files_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    tensors, words = FOREIGN[name]
    path = tmp_path / f"{name}.safetensors"
    save_file(tensors, path)
    with pytest.raises(ModelError, match=words) as caught:
        read_lora(path, small_model())
    assert str(caught.value).startswith(str(path))


def test_a_part_without_a_home_refuses_all_of_it(tmp_path: Path) -> None:
    names = stable_tensors()
    save_file(names | pair("up_blocks.7.resnets.0.conv1", "lora_A", "lora_B"), tmp_path / "x.safetensors")
    with pytest.raises(
        ModelError, match=r"1 of its 574 modules are not in this model \(up_blocks\.7\.resnets\.0\.conv1\)"
    ):
        read_lora(tmp_path / "x.safetensors", small_model())


def peft() -> dict[str, Tensor]:
    names = renamed(lambda name, up: f"unet.{name}.lora_{'B' if up else 'A'}.weight")
    return {name: x for name, x in names.items() if "mid_block.attentions" in name}


def changed(change: Callable[[dict[str, Tensor]], Any]) -> dict[str, Tensor]:
    tensors = {name: x.clone() for name, x in peft().items()}
    change(tensors)
    return tensors


Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
DAMAGED: dict[str, tuple[dict[str, Tensor], str]] = {
    "half a pair": (changed(lambda x: x.pop(f"{Q}.lora_B.weight")), r"1 of its 12 modules lack .*attn1\.to_q"),
    "absurd shape": (
        changed(lambda x: x.update({f"{Q}.lora_A.weight": torch.zeros(2, 3)})),
        r"1 of its 12 modules do not fit",
    ),
    "rank zero": (changed(lambda x: x.update({f"{Q}.lora_A.weight": torch.zeros(0, 64)})), "invalid shapes"),
    "a number": (changed(lambda x: x.update({f"{Q}.lora_A.weight": torch.tensor(1.0)})), "invalid shapes"),
    "not a number": (changed(lambda x: x[f"{Q}.lora_A.weight"].fill_(torch.nan)), r"not finite numbers .*attn1\.to_q"),
    "infinity": (changed(lambda x: x[f"{Q}.lora_B.weight"].fill_(torch.inf)), "not finite numbers"),
    "integers": (
        changed(lambda x: x.update({f"{Q}.lora_A.weight": torch.ones(2, 64, dtype=torch.int32)})),
        "not finite",
    ),
    "bias": (changed(lambda x: x.update({f"{Q}.lora_B.bias": torch.zeros(64)})), r"no known LoRA format .*B\.bias"),
    "several adapters": (
        changed(
            lambda x: x.update({f"{Q}.lora_{c}.{n}.weight": x[f"{Q}.lora_{c}.weight"] for n in "xy" for c in "AB"})
        ),
        r"holds several LoRAs \(x, y\)",
    ),
    "twice": (
        changed(lambda x: x.update({n.removeprefix("unet."): x[n] for n in list(x) if Q in n})),
        "changes the same weight twice",
    ),
    "numbers that stand for many": (
        changed(lambda x: x.update({f"{Q}.lora_A.weight": torch.zeros(1).expand(50_000_000, 64)})),
        "repeats its numbers",
    ),
    "no values": (changed(lambda x: x.update({f"{Q}.lora_A.weight": torch.zeros(2, 64, device="meta")})), "meta"),
    "alpha": (changed(lambda x: x.update({f"{Q}.alpha": torch.ones(3)})), "alpha of .* is not a single number"),
    "alpha without end": (changed(lambda x: x.update({f"{Q}.alpha": torch.tensor(torch.inf)})), "not finite numbers"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    tensors, words = DAMAGED[name]
    torch.save(tensors, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=words):
        read_lora(tmp_path / "x.pt", small_model())


def only(path: Path) -> Delta:
    """What a file adds to the one weight that it is for."""
    (deltas,) = read_lora(path, small_model()).unet.values()
    (delta,) = deltas
    return delta


def one() -> dict[str, Tensor]:
    return {name: x for name, x in peft().items() if Q in name}


def test_pefts_own_names_and_settings(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("unet.", "base_model.model."): x for name, x in one().items()}, path)
    assert only(path).scale == 1
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8, "r": 2}')
    assert only(path).scale == 4
    (tmp_path / "adapter_config.json").write_text(
        '{"lora_alpha": 8, "alpha_pattern": {"to_q": 6}, "use_rslora": false}'
    )
    assert only(path).scale == 3
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": "much"}')
    with pytest.raises(ModelError, match="settings of its adapter are damaged"):
        only(path)


@pytest.mark.parametrize("alpha", [1, 1.0, torch.tensor(1), torch.tensor([1.0])])
def test_an_alpha_may_be_any_kind_of_number(alpha: Any, tmp_path: Path) -> None:
    torch.save(one() | {f"{Q}.alpha": alpha, "epoch": 3}, tmp_path / "x.pt")
    assert only(tmp_path / "x.pt").scale == 0.5


def test_a_file_in_the_other_format_is_read_or_told(tmp_path: Path) -> None:
    save_file(one(), tmp_path / "x.pt")
    assert only(tmp_path / "x.pt").scale == 1
    torch.save(one(), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"torch's format.* Rename it to x\.pth"):
        only(tmp_path / "x.safetensors")


def test_a_sound_file_like_the_damaged_ones_is_taken(tmp_path: Path) -> None:
    torch.save({"state_dict": peft()}, tmp_path / "x.ckpt")
    assert len(read_lora(tmp_path / "x.ckpt", small_model()).unet) == 12


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "not one of matrix pairs"),
        ([torch.zeros(2, 2)], "not one of matrix pairs"),
        ([torch.zeros(2, 2), "x"], "not one of matrix pairs"),
        ([torch.zeros(2, 2)] * 6, r"contains 3 pairs of matrices without names.* have 8, 12.*573, 574 pairs"),
        ({"a": 1}, "contains no LoRA"),
        (3, "contains no LoRA"),
    ],
)
def test_other_content_is_refused(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=words):
        read_lora(tmp_path / "x.pt", small_model())


def test_a_list_of_another_model_with_as_many_pairs_is_refused(tmp_path: Path) -> None:
    factors = cloneofsimo_list()
    factors[100], factors[102] = torch.zeros(7, 2), torch.zeros(7, 2)
    torch.save(factors, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="573 pairs of matrices without names, which do not match"):
        read_lora(tmp_path / "x.pt", small_model())


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    if zipped:
        torch.save([Code(), torch.zeros(2, 2)], path)
    else:
        path.write_bytes(pickle.dumps([Code()]))
    with pytest.raises(ModelError, match=r"refers to (posix|nt)\.mkdir, which is code that weights do not need"):
        read_lora(path, small_model())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_files_are_named(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(cloneofsimo_list(), path)
    else:
        save_file(peft(), path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match=re.escape(str(path))):
        read_lora(path, small_model())

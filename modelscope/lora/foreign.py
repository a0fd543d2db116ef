"""Recognises files that are not LoRAs for this model, by the names in them."""

import re
from collections.abc import Iterable

_SIGNS = {
    r"motion_modules?[._]|\.motion_module": "is an AnimateDiff motion LoRA, for Stable Diffusion with AnimateDiff",
    r"double_blocks|single_blocks|single_transformer_blocks": "is a LoRA for Flux or a model built like it",
    r"lora_te2_|lora_unet_(input|output|middle)_block|^text_encoder_2\.|transformer_blocks[._][1-9]": "is an image "
    "LoRA for Stable Diffusion XL",
    r"joint_blocks|context_block": "is a LoRA for Stable Diffusion 3",
    r"\.(hada|lokr|oft|boft)_|\.dora_scale$|^lycoris_": "is a LyCORIS that is not made of pairs of matrices",
    r"^model\.diffusion_model\.|^first_stage_model\.": "is a whole model, not a LoRA",
    r"string_to_param|^emb_params$|^clip_[lg]$": "is a textual inversion embedding, not a LoRA",
    r"^(diffusion_model|transformer)\.(?!resblocks|text_model)|^(lora_unet_)?blocks[._]\d|^lora_transformer_": "is a "
    "LoRA for a model built of transformers only, such as Wan, HunyuanVideo, LTX or Stable Diffusion 3",
    r"^lora_(unet|te)": "is an image LoRA for Stable Diffusion, with kohya's names and no temporal layers",
}
_TEXT_WIDTHS = {768: "Stable Diffusion 1.x", 2048: "Stable Diffusion XL"}
_KOHYAS = re.compile(r"^lora_(unet|te)")
_OF_TIME = re.compile(r"temp_attentions|temp_convs|transformer_in")


def recognise_foreign(names: Iterable[str]) -> str:
    """Say what a file with these tensors' names is, if it is known to be something else; otherwise return no text."""
    names = list(names)
    of_time = any(map(_OF_TIME.search, names))
    for sign, description in _SIGNS.items():
        if any(re.search(sign, name) for name in names) and not (of_time and sign == _KOHYAS.pattern):
            return description
    return ""


def find_origin(module: str, text_width: int) -> str:
    """Return the model that a projection of text features comes from, or an empty string if it is not known.

    module: the projection's name; text_width: width of the features.
    """
    return _TEXT_WIDTHS.get(text_width, "") if module.endswith(("attn2.to_k", "attn2_to_k")) else ""

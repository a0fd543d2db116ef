"""TAESD's decoder in its own layout, where the squeezing of latents is layer 0."""

from torch import Tensor


def own_layout(state: dict[str, Tensor], prefix: str = "layers.") -> dict[str, Tensor]:
    """The weights under the names that taesd_decoder.pth has. prefix: of the decoder's names; others are left out."""
    split = [(name.removeprefix(prefix).split(".", 1), x) for name, x in state.items() if name.startswith(prefix)]
    return {f"{int(number) + 1}.{rest}": x for (number, rest), x in split}

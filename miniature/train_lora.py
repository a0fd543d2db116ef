"""Trains the miniature's LoRA, which teaches it bars: python run.py train-lora --work DIR.

On one CPU thread, in minutes. The same command goes on where it was stopped.
"""

import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from ..modelscope.checkpoints.load import load_model
from ..modelscope.device import Place
from ..modelscope.lora.targets import Target, Targets
from ..modelscope.model import Model
from .recipe import LORA_FILE, MODEL_FOLDER, LoraRecipe, Recipe
from .stages import Clips, UNetStage, encode_clips
from .train import Trainer
from .world import NEW_LABELS, TRAINED


class LoraStage(UNetStage):
    """Pairs of matrices beside the frozen networks, trained on what those do not know and on some of what they do."""

    def __init__(self, recipe: Recipe, model: Model, targets: dict[str, Target], clips: Clips, rank: int):
        super().__init__(recipe, model.text_encoder, clips)
        self.unet, self.tower = model.unet.requires_grad_(False), model.text_encoder.requires_grad_(False)
        self.targets = targets
        sizes = [(target.shape[0], torch.Size(target.shape[1:]).numel()) for target in targets.values()]
        self.ups = nn.ParameterList(torch.zeros(rows, rank) for rows, _ in sizes)
        self.downs = nn.ParameterList(torch.randn(rank, columns) * columns**-0.5 for _, columns in sizes)

    def text(self, tokens: Tensor) -> Tensor:
        """Return the features of captions, with gradients for the text encoder's pairs."""
        return self.tower(tokens)

    def loss(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """As for the whole network."""
        return functional_call(self, self._merge(), (generator, device))

    def forward(self, generator: torch.Generator, device: torch.device) -> Tensor:
        return super().loss(generator, device)

    def _merge(self) -> dict[str, Tensor]:
        weights = dict(self.named_parameters())
        found: dict[str, Tensor] = {}
        for target, up, down in zip(self.targets.values(), self.ups, self.downs, strict=True):
            name = f"{'unet' if target.network == 'unet' else 'tower'}.{target.weight}"
            weight = found.get(name, weights[name])
            thirds = list(weight.chunk(1 if target.third is None else 3))
            number = target.third or 0
            thirds[number] = thirds[number] + (up @ down).view(target.shape)
            found[name] = torch.cat(thirds)
        return found

    def export(self, path: Path) -> None:
        """Write the pairs in half precision, under diffusers' names, as PEFT has them."""
        tensors = {}
        for (module, target), up, down in zip(self.targets.items(), self.ups, self.downs, strict=True):
            prefix = "unet" if target.network == "unet" else "text_encoder.text_model"
            filters = (-1, *target.shape[1:])
            tensors[f"{prefix}.{module}.lora_A.weight"] = down.detach().view(filters).half().contiguous()
            points = (*up.shape, *(1 for _ in target.shape[2:]))
            tensors[f"{prefix}.{module}.lora_B.weight"] = up.detach().view(points).half().contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path)


def train_lora(work: Path, output: Path, recipe: LoraRecipe) -> None:
    """Train and write the file."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    base, cpu = recipe.base, torch.device("cpu")
    model = load_model(MODEL_FOLDER, Place(cpu, torch.float32))
    for module in (model.unet, model.text_encoder, model.autoencoder):
        module.float()
    shown = [*NEW_LABELS * recipe.new_share, *TRAINED]
    clips = encode_clips(model.autoencoder, base, cpu, shown)
    listed = Targets(model).listed
    chosen = {name: target for named in listed.values() for name, target in named.items()}
    targets = {name: target for name, target in chosen.items() if target.weight and re.search(recipe.modules, name)}
    stage = LoraStage(base, model, targets, clips, recipe.rank)
    Trainer("lora", stage, recipe.steps, recipe.rate, base, work).run().export(output)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints to resume from")
    parser.add_argument("--output", type=Path, default=LORA_FILE, help="the file to write")
    arguments = parser.parse_args()
    train_lora(arguments.work, arguments.output, LoraRecipe())


if __name__ == "__main__":
    main()

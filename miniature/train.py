"""Trains the miniature from a seed, on CPU or GPU: python run.py train --work DIR.

Checkpoints land in the work folder every few minutes; the same command goes on where it was stopped.
"""

import argparse
import copy
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .export import export
from .recipe import MODEL_FOLDER, Recipe
from .stages import AutoencoderStage, TextStage, UNetStage, encode_clips


class Stage(Protocol):
    """A module with a loss for one step."""

    def loss(self, generator: torch.Generator, device: torch.device) -> Tensor: ...


class Trainer:
    """Steps one stage, keeps a moving average of its weights and checkpoints both."""

    def __init__(self, name: str, stage: Any, steps: int, rate: float, recipe: Recipe, work: Path):
        self.name, self.steps, self.recipe = name, steps, recipe
        self.device = next(stage.parameters()).device
        self.stage = stage
        self.average = copy.deepcopy(stage).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(stage.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.path = work / f"{name}.ckpt"
        self.done = 0

    def _rate(self, step: int) -> float:
        warmup = min(1.0, (step + 1) / self.recipe.warmup_steps)
        plateau = self.recipe.plateau
        fall = min(1.0, max(0.0, (step / self.steps - plateau) / (1 - plateau)))
        return warmup * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))

    def run(self) -> Any:
        """Train to the last step and return the averaged stage."""
        self._resume()
        threads = ThreadPoolExecutor(self.recipe.shards, initializer=torch.set_num_threads, initargs=(1,))
        bar = tqdm(total=self.steps, initial=self.done, desc=self.name, unit="step")
        running = 0.0
        while self.done < self.steps:
            self.optimizer.zero_grad()
            loss = sum(threads.map(self._shard, range(self.recipe.shards)))
            nn.utils.clip_grad_norm_(self.stage.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self._average()
            self.done += 1
            running += (loss - running) * (0.01 if running else 1.0)
            bar.set_postfix(loss=f"{running:.4f}", refresh=False)
            bar.update()
            if self.done % self.recipe.checkpoint_every == 0 or self.done == self.steps:
                self._save()
        bar.close()
        return self.average

    def _shard(self, index: int) -> float:
        # A generator per step and shard: a resumed run draws what an uninterrupted one would have drawn.
        step = self.recipe.seed * 1_000_003 + self.done
        generator = torch.Generator().manual_seed(step * self.recipe.shards + index)
        loss = self.stage.loss(generator, self.device) / self.recipe.shards
        loss.backward()
        return float(loss.detach())

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.ema_decay, (1 + self.done) / (10 + self.done))
        for mean, value in zip(self.average.parameters(), self.stage.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)

    def _state(self) -> dict[str, Any]:
        return {"stage": self.stage, "average": self.average, "optimizer": self.optimizer, "schedule": self.schedule}

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._state().items()} | {"done": self.done}
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def _resume(self) -> None:
        if not self.path.exists():
            return
        saved = torch.load(self.path, map_location=self.device, weights_only=True)
        self.done = saved.pop("done")
        for name, part in self._state().items():
            part.load_state_dict(saved[name])


def train(work: Path, output: Path, recipe: Recipe, device: torch.device) -> None:
    """Train all three parts and write the checkpoint."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    text = TextStage(recipe).to(device)
    tower = Trainer("text", text, recipe.text_steps, recipe.text_rate, recipe, work).run().finish()
    torch.manual_seed(recipe.seed + 1)
    frames = AutoencoderStage(recipe).to(device)
    autoencoder = (
        Trainer("autoencoder", frames, recipe.autoencoder_steps, recipe.autoencoder_rate, recipe, work).run().finish()
    )
    clips = encode_clips(autoencoder, recipe, device)
    torch.manual_seed(recipe.seed + 2)
    stage = UNetStage(recipe, tower, clips).to(device)
    unet = Trainer("unet", stage, recipe.unet_steps, recipe.unet_rate, recipe, work).run().unet
    export(output, unet, autoencoder, tower)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints to resume from")
    parser.add_argument("--output", type=Path, default=MODEL_FOLDER, help="folder for the finished model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    train(arguments.work, arguments.output, Recipe(), torch.device(arguments.device))


if __name__ == "__main__":
    main()

"""Judges a model over every combination: python run.py judge; prints the model card's tables."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..modelscope.checkpoints.load import load_model
from ..modelscope.device import Place, best_device, best_dtype
from ..modelscope.memory.plan import FAST, Plan
from ..modelscope.memory.residency import Residency
from ..modelscope.model import Model
from ..modelscope.pipeline import generate
from ..modelscope.request import VideoRequest
from ..modelscope.run_options import RunOptions
from ..modelscope.sampling.catalogue import get_sampler, sampler_names
from .judge import Verdict, judge
from .recipe import MODEL_FOLDER
from .world import HELD_OUT, LABELS, Label

PARTS = ("colour", "shape", "direction", "all")


def request(model: Model, prompt: str, seed: int, **changes: object) -> VideoRequest:
    """Return a request with the miniature's recommended settings."""
    return VideoRequest.recommended(model.config.recommended, {"prompt": prompt, "seed": seed, **changes})


def judge_videos(
    model: Model, labels: Iterable[Label], seeds: Iterable[int], plan: Plan = FAST, **changes: object
) -> Iterator[tuple[Label, Verdict]]:
    """Return what the judge sees in a video of each label and seed."""
    for label in labels:
        for seed in seeds:
            yield (
                label,
                judge(
                    generate(Residency(model), request(model, label.caption, seed, **changes), RunOptions(plan=plan))
                ),
            )


def count_shares(results: Iterable[tuple[Label, Verdict]]) -> dict[str, float]:
    """Return how often colour, shape, direction, and all three are right, 0..1."""
    marks = [verdict.agrees(label) for label, verdict in results]
    rows = [{**mark, "all": all(mark.values())} for mark in marks]
    return {part: sum(row[part] for row in rows) / len(rows) for part in PARTS}


def judge_without_prompt(model: Model, seeds: Iterable[int], **changes: object) -> Counter[str | None]:
    """Return how often each colour, shape and direction appears when nothing is asked for."""
    seen: Counter[str | None] = Counter()
    for seed in seeds:
        # Guidance away from nothing towards nothing takes a second pass and changes nothing.
        wish = request(model, "", seed, cfg_scale=1, **changes)
        seen.update(vars(judge(generate(Residency(model), wish, RunOptions(plan=FAST)))).values())
    return seen


def _row(name: str, found: dict[str, float]) -> str:
    return f"| {name} | " + " | ".join(f"{found[part]:.0%}" for part in PARTS) + " |\n"


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--seeds", type=int, default=2, help="seeds for each combination")
    parser.add_argument("--samplers", action="store_true", help="also judge every sampler at its default steps")
    options = parser.parse_args()
    device = best_device()
    model = load_model(options.model, Place(device, best_dtype(device)))
    out = sys.stdout.write
    out("| clips | " + " | ".join(PARTS) + " |\n|---|---|---|---|---|\n")
    results = list(judge_videos(model, LABELS, range(options.seeds)))
    out(_row("all combinations", count_shares(results)))
    out(_row("seen in training", count_shares(r for r in results if r[0] not in HELD_OUT)))
    out(_row("held out", count_shares(r for r in results if r[0] in HELD_OUT)))
    if options.samplers:
        for name in sampler_names():
            steps = get_sampler(name).default_steps
            out(
                _row(
                    f"{name}, {steps} steps",
                    count_shares(judge_videos(model, LABELS[::2], (0,), sampler=name, steps=steps)),
                )
            )
    out(f"\nWithout a prompt: {dict(judge_without_prompt(model, range(24)))}\n")


if __name__ == "__main__":
    main()

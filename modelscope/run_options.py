"""How a video is made, apart from what is asked for."""

from dataclasses import dataclass

from .memory.lora_deltas import NO_LORAS, LoraDeltas
from .memory.plan import BALANCED, Plan
from .memory.plan_runner import Notify, warn
from .network.tiny_decoder import TinyDecoder
from .progress import OnStep, ignore


@dataclass(frozen=True)
class RunOptions:
    """How a video is made, apart from what is asked for.

    Args:
        plan: The plan to begin with; if memory runs out, the next one takes over.
        loras: What is added to the model's weights. With T2V-Turbo's, the network takes the CFG scale as an input, and
            the negative prompt has no effect.
        on_step: Called after every step; it may raise to interrupt.
        notify: Called when the plan or the precision has to change.
        tiny_decoder: Decodes instead of the model's autoencoder, if given.
    """

    plan: Plan = BALANCED
    loras: LoraDeltas = NO_LORAS
    on_step: OnStep = ignore
    notify: Notify = warn
    tiny_decoder: TinyDecoder | None = None

    @property
    def can_use_kept_weights(self) -> bool:
        """True if a run can use weights that are kept on the device; otherwise they only take memory."""
        return not self.loras and self.plan.is_resident


DEFAULTS = RunOptions()

"""Passes of the UNet in the form that a recorder takes: functions of a list of tensors."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from ..network.attention import KeysValues
from ..network.blocks import TextContext
from ..network.unet3d import PassOptions, UNet3D
from .recorded_pass import PassRecorder


class PassInputs(NamedTuple):
    """Inputs from which the UNet predicts noise: see `UNet3D.predict_noise`."""

    latents: Tensor
    timesteps: Tensor
    contexts: Sequence[TextContext]
    condition: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the inputs, always in the same order."""
        texts = [tensor for context in self.contexts for text in context.values() for tensor in text]
        return [self.latents, self.timesteps, *texts, *([] if self.condition is None else [self.condition])]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "PassInputs":
        """Return inputs of the same form with other tensors, in the order of `tensors`."""
        rest: Iterator[Tensor] = iter(tensors)
        latents, timesteps = next(rest), next(rest)
        contexts = [{layer: KeysValues(next(rest), next(rest)) for layer in context} for context in self.contexts]
        return PassInputs(latents, timesteps, contexts, next(rest, None))


def predict_noise(
    unet: UNet3D, inputs: PassInputs, options: PassOptions, recorder: PassRecorder | None = None
) -> list[Tensor]:
    """Predict the noise under each text.

    Args:
        unet: The UNet, whose weights are on the device.
        inputs: The inputs, on the same device and in the same precision as the weights.
        options: How to compute.
        recorder: Runs the pass if it may be recorded; otherwise None.
    """

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        given = inputs.with_tensors(tensors)
        return unet.predict_noise(given.latents, given.timesteps, given.contexts, options, condition=given.condition)

    tensors = inputs.tensors()
    if recorder is None:
        return run(tensors)
    key = tuple((tensor.shape, tensor.dtype) for tensor in tensors), options, len(inputs.contexts)
    return recorder.run(key, run, tensors)

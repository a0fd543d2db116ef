"""How much of a source is left: which noise levels sampling goes through, for a strength between 0 and 1."""

from collections.abc import Sequence

from ..sampling.schedules import END, NoiseLevel

WEBUI, DIFFUSERS = "WebUI", "diffusers"
"""What a strength means: as in the WebUI's img2img, or as in diffusers' VideoToVideoSDPipeline."""
MOST_WEBUI = 0.999


def cut_levels(levels: Sequence[NoiseLevel], strength: float, meaning: str) -> list[NoiseLevel]:
    """Return the last part of a sampler's noise levels, the first of which is where the source gets its noise.

    With the WebUI's meaning there is always one step at least. With diffusers' there may be none: then the source comes
    out as it is, but for the autoencoder. A strength of 1 goes through all steps; the source still shows through the
    noise a little.

    Args:
        levels: All noise levels of the request, falling.
        strength: 0..1.
        meaning: WEBUI or DIFFUSERS.
    """
    steps = len(levels) - 1
    # Both round down in binary: diffusers runs 7 steps for 25 x 0.3 = 7.5, and 14 for 50 x 0.29.
    kept = int(min(strength, MOST_WEBUI) * steps) + 1 if meaning == WEBUI else min(int(steps * strength), steps)
    # DDIM's grid ends at a little noise, which nobody would remove.
    return list(levels[steps - kept :]) if kept else [END]

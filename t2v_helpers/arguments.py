"""All that a person can ask for: the model's request plus how the video is written."""

from dataclasses import dataclass

from ..modelscope.request import VideoRequest, param


@dataclass(kw_only=True)
class GenerationRequest(VideoRequest):
    """A request together with the file it ends in."""

    fps: float = param(8.0, "FPS", minimum=1, maximum=120, step=1)

"""A job: a request that is ready to run. Everything that could fail early has been checked."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...modelscope.checkpoints.find_parts import find_library, find_part, read_model_config
from ...modelscope.checkpoints.parts import PARTS
from ...modelscope.network.tiny_decoder import TinyDecoder
from ...modelscope.request import TAESD
from ..host import Host, Upscale
from ..models.folders import ModelFolder, find_model
from ..models.tiny_decoder import load_tiny_decoder
from ..request import LANCZOS, OFF, SAME, GenerationRequest
from ..signals import held
from ..video.ffmpeg import OutputError
from ..video.formats import FORMATS
from ..video.write import check_format, check_soundtrack
from .enlarge import find_upscaler
from .later_stages import check_later_stages
from .lora_tags import Prompts, split_prompts
from .loras import LoraChoice, choose_loras
from .outputs import Destination, destination, make_folder, pattern_values, reserved_stem
from .source import Reading, read_source


@dataclass(frozen=True)
class Job:
    """A prepared request. All videos of its batch share it.

    Args:
        request: The request, with only those formats that can be written, adapted to its source.
        prompts: The request's prompts, divided into the text that the model reads and the tags.
        loras: The LoRA files that the tags name.
        folder: The model's folder.
        destination: The folder for the videos, and the patterns for their names.
        tiny_decoder: Decodes instead of the model's autoencoder, if the request says so.
        reading: The source, and what comes of it.
        second: The folder of the second pass's model.
        upscale: Enlarges pictures for the second pass.
    """

    request: GenerationRequest
    prompts: Prompts
    loras: LoraChoice
    folder: ModelFolder
    destination: Destination
    tiny_decoder: TinyDecoder | None
    reading: Reading
    second: ModelFolder
    upscale: Upscale

    def plain_request(self) -> GenerationRequest:
        """Return the request as the model reads it, without tags."""
        return replace(self.request, prompt=self.prompts.prompt, negative_prompt=self.prompts.negative_prompt)

    def with_tags(self, request: GenerationRequest) -> GenerationRequest:
        """Return a video's request as a person reads it, with the tags in its prompts."""
        return replace(request, prompt=self.request.prompt, negative_prompt=self.request.negative_prompt)


class ModelFolders(NamedTuple):
    """The folders of a job's models. second: that of the second pass, if it is none of the host's."""

    first: ModelFolder
    second: ModelFolder | None = None


def prepare_job(
    host: Host, models: ModelFolders, request: GenerationRequest, on_problem: Callable[[Exception], None]
) -> Job:
    """Make a request ready to run. Everything that can fail early is tried now, not after an hour's sampling.

    Args:
        host: Provides settings and folders.
        models: The models' folders.
        request: The request.
        on_problem: Called with errors that do not end the run.

    Raises:
        ModelError: The file of the request's decoder cannot be used, or there is no such second model.
        OutputError: The folder is not writable, or none of the formats can be written.
        RequestError: A tag, the source, the soundtrack or the decoder cannot be used.
    """
    where = destination(host)
    request = replace(request, formats=_select_formats(request.formats, on_problem))
    prompts = split_prompts(request)
    loras = choose_loras(host.lora_folder(), prompts)
    tiny_decoder = load_tiny_decoder(host.models_folder()) if request.decoder == TAESD else None
    if request.soundtrack:
        check_soundtrack(request.soundtrack)
    reading = read_source(request)
    check_later_stages(reading)
    second = _find_second(host, models, request)
    upscale = find_upscaler(host, LANCZOS if request.hires == OFF else request.hires_upscaler)
    names = pattern_values(reading.request, models.first.name)
    with held(), reserved_stem(make_folder(where, names), where.name_pattern, names):
        pass
    return Job(reading.request, prompts, loras, models.first, where, tiny_decoder, reading, second, upscale)


def _find_second(host: Host, models: ModelFolders, request: GenerationRequest) -> ModelFolder:
    """Return the folder of the second pass's model. Raises ModelError if it is none."""
    if models.second is None and request.hires in (OFF, SAME):
        return models.first
    second = models.second or find_model(host, request.hires)
    config, library = read_model_config(second.path), second.library or find_library(second.path)
    for part in PARTS:
        find_part(part, second.path, config, library)
    return second


def _select_formats(formats: tuple[str, ...], on_problem: Callable[[Exception], None]) -> tuple[str, ...]:
    """Return the formats that ffmpeg can write. Raises OutputError if there is none."""
    failures: dict[str, OutputError] = {}
    for name in formats:
        try:
            check_format(FORMATS[name])
        except OutputError as error:
            failures[name] = error
    if len(failures) == len(formats):
        raise failures[formats[0]]
    for failure in failures.values():
        on_problem(failure)
    return tuple(name for name in formats if name not in failures)

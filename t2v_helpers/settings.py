"""The options of Settings > Text2Video, each declared once. The first five keep the 2023 extension's keys."""

from typing import Any, NamedTuple

SECTION = ("modelscope_deforum", "Text2Video")


class Setting(NamedTuple):
    """An option. Its widget depends on the type of the default, and on whether there are choices."""

    key: str
    default: Any
    label: str
    info: str = ""
    choices: tuple[str, ...] = ()


KEEP_NOTHING, KEEP_UNET, KEEP_ALL = "None", "Main Model Only", "All"
VAE_HALF, VAE_FULL, VAE_CPU = "GPU (half precision)", "GPU", "CPU (Low VRAM)"
AUTOMATIC = "automatic"
PRECISIONS = (AUTOMATIC, "float32", "float16", "bfloat16")
"""Precisions to compute in, by torch's names; float16 and bfloat16 take half the memory."""
CONTACT_SHEET, MIDDLE_FRAME = "Contact sheet", "Middle frame"
COLOURS_PREVIEW, TAESD_PREVIEW = "Colours", "TAESD"

KEEP = Setting(
    "modelscope_deforum_keep_model_in_vram",
    KEEP_NOTHING,
    "Keep model in VRAM between runs",
    "the next run starts sooner, but until then less memory is free; with --lowvram or --medvram nothing is kept",
    (KEEP_NOTHING, KEEP_UNET, KEEP_ALL),
)
VAE = Setting(
    "modelscope_deforum_vae_settings",
    VAE_HALF,
    "VAE Mode:",
    "GPU means full precision: choose it if frames come out black; choose the CPU if memory is short",
    (VAE_HALF, VAE_FULL, VAE_CPU),
)
SHOWN_VIDEOS = Setting(
    "modelscope_deforum_show_n_videos",
    -1,
    "How many videos to show on the right panel on completion (-1 = show all)",
)
SAVE_TEXT = Setting("modelscope_save_info_to_file", False, "Save generation params to a text file near the video")
SAVE_INFOTEXT = Setting(
    "modelscope_save_metadata",
    True,
    "Save generation params as video metadata",
    "drop the video on the tab to get them back",
)
OUTPUT_FOLDER = Setting(
    "text2video_output_folder",
    "",
    "Output folder for videos",
    "leave empty for the folder text2video among the other outputs",
)
FOLDER_PATTERN = Setting(
    "text2video_folder_pattern",
    "[date]",
    "Subfolder name pattern",
    "takes the same patterns as the file name below; leave empty for no subfolders",
)
NAME_PATTERN = Setting(
    "text2video_name_pattern",
    "[number]-[seed]",
    "File name pattern",
    "[number] [seed] [steps] [cfg] [sampler] [width] [height] [frames] [fps] [model_name] [prompt] [prompt_words] "
    "[prompt_hash] [date] [datetime] [datetime<format>]",
)
PREVIEW = Setting(
    "text2video_preview",
    CONTACT_SHEET,
    "Live preview shows",
    "how often is set in the WebUI's Settings > Live previews",
    (CONTACT_SHEET, MIDDLE_FRAME),
)
PREVIEW_DECODER = Setting(
    "text2video_preview_decoder",
    COLOURS_PREVIEW,
    "Live preview method",
    "TAESD shows details, but takes more time and needs taesd_decoder.pth in models/VAE-taesd",
    (COLOURS_PREVIEW, TAESD_PREVIEW),
)
SAVE_UNFINISHED = Setting(
    "text2video_save_unfinished",
    False,
    "Interrupt also saves the video that is being made",
    "as far as it got",
)
PLAN = Setting(
    "text2video_plan",
    AUTOMATIC,
    "Memory plan",
    "automatic takes the quickest plan that fits; small and smallest load the model onto the card piece by piece, "
    "which is slower",
    (AUTOMATIC, "fast", "balanced", "small", "smallest"),
)
BUDGET = Setting(
    "text2video_memory",
    0.0,
    "Memory that a video may use, in GB",
    "0 means all free memory; only the automatic plan keeps to this limit",
)
EIGHT_BITS = Setting(
    "text2video_eight_bits",
    False,
    "Store weights in 8 bits",
    "the weights take half the memory, and the video is nearly the same; they are not kept in VRAM between runs",
)
PRECISION = Setting(
    "text2video_precision",
    AUTOMATIC,
    "Precision of the model",
    "automatic means the WebUI's precision or, without a WebUI, the quickest one that the device has; with bfloat16, "
    "processors that have it take half the time",
    PRECISIONS,
)
FURTHER_MODELS = Setting(
    "text2video_models_folders",
    "",
    "Extra folders with models",
    "folders that contain model folders; separate them with semicolons",
)
READABLE_FOLDERS = Setting(
    "text2video_readable_folders",
    "",
    "Folders from which visitors may open files",
    "for visitors on other computers, who otherwise have to upload files; separate the folders with semicolons",
)
PUBLIC_NAMES = Setting(
    "text2video_public_names",
    ".gradio.live, .trycloudflare.com, .ngrok-free.app, .ngrok.app, .ngrok.io, .proxy.runpod.net",
    "Names that lead to this WebUI",
    "names of a proxy or tunnel, in addition to this computer's own; requests to any other name are refused. A name "
    "that begins with a dot includes all names below it",
)
"""The setting for public names. Only a tunnel's provider can let names below its own lead to this computer, but other
people have such names, too."""
WEBUI_SETTINGS = (READABLE_FOLDERS, PUBLIC_NAMES)
"""Settings for a WebUI only. For the standalone page, the person who starts it decides about visitors and their rights.
"""
SETTINGS = (
    KEEP, VAE, PRECISION, PLAN, BUDGET, EIGHT_BITS, FURTHER_MODELS, SHOWN_VIDEOS, SAVE_TEXT, SAVE_INFOTEXT,
    OUTPUT_FOLDER, FOLDER_PATTERN, NAME_PATTERN, PREVIEW, PREVIEW_DECODER, SAVE_UNFINISHED,
)  # fmt: skip


def usable(setting: Setting, value: Any) -> Any:
    """Return a stored value if it is valid for the setting, else the default: old or edited files may hold anything."""
    if type(setting.default) is int and isinstance(value, float) and value.is_integer():
        # gradio 3's number boxes return integers as floats.
        value = int(value)
    if type(setting.default) is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    fits = type(value) is type(setting.default) and (not setting.choices or value in setting.choices)
    return value if fits else setting.default

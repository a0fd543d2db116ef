"""Receives settings that other parts of the WebUI send to the tab, and sends frames from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from ...host import TAB, Host

GALLERIES = {f"{tab}_send_to_extras": f"{tab}_gallery" for tab in ("txt2img", "img2img", "extras")}
"""The last of the WebUI's own buttons below a result, by id, and the gallery that it belongs to."""
SOURCES = {"pnginfo_generation_info", "pnginfo_image", *GALLERIES.values()}
"""Ids of components from which something is sent to our tab."""


class _Button(NamedTuple):
    """A button of ours on another tab, and the component whose text or picture it sends."""

    component: Any
    text: Any = None
    image: Any = None


def add_frame_buttons(image: Any) -> None:
    """Add buttons that send an image component to the WebUI's other tabs."""
    import gradio as gr
    from modules import infotext_utils

    with gr.Row():
        buttons = infotext_utils.create_buttons(["img2img", "inpaint", "extras"])
    for tab, button in buttons.items():
        button.do_not_save_to_config = True
        binding = infotext_utils.ParamBinding(paste_button=button, tabname=tab, source_image_component=image)
        infotext_utils.register_paste_params_button(binding)


class Pasting:
    """The fields that receive settings and pictures, and our buttons on the WebUI's other tabs."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}
        self._buttons: list[_Button] = []

    def after_component(self, component: Any, **about: Any) -> None:
        """Add our buttons to the WebUI's own while the page is built."""
        name = about.get("elem_id")
        if name in SOURCES:
            self._seen[name] = component
        elif name == "extras_tab" and "pnginfo_generation_info" in self._seen:
            self._add_to_png_info()
        elif name in GALLERIES and GALLERIES[name] in self._seen:
            self._add_to_gallery(name.removesuffix("_send_to_extras"), self._seen[GALLERIES[name]])

    def _add_to_png_info(self) -> None:
        import gradio as gr

        text, image = self._seen["pnginfo_generation_info"], self._seen.get("pnginfo_image")
        self._buttons.append(_Button(gr.Button(f"Send to {TAB}", elem_id=f"{TAB}_tab"), text=text))
        if image is not None:
            button = gr.Button(f"Use as first frame in {TAB}", elem_id=f"{TAB}_from_pnginfo")
            self._buttons.append(_Button(button, image=image))

    def _add_to_gallery(self, tab: str, gallery: Any) -> None:
        from modules.ui_components import ToolButton

        tooltip = f"Use the image as the first frame in {TAB}."
        button = ToolButton("🎬", elem_id=f"{tab}_send_to_{TAB}", tooltip=tooltip)
        button.do_not_save_to_config = True
        self._buttons.append(_Button(button, image=gallery))

    def withdraw_buttons(self) -> None:
        """Hide the buttons. Other tabs are built before ours; if building it fails, nothing can be sent to it."""
        for button in self._buttons:
            button.component.visible = False
        self._buttons.clear()

    def connect(self, host: Host, models: list[Any], widgets: dict[str, Any], image: Any) -> None:
        """Register the components that receive something.

        Args:
            host: The host, whose models can be chosen.
            models: The components that receive a model's name.
            widgets: The components of the request's fields, by name.
            image: The component that receives pictures.
        """
        from modules import infotext_utils

        from ...models.folders import list_model_names

        def pasted_model(pairs: dict[str, Any]) -> str | None:
            return pairs["Model"] if pairs.get("Model") in list_model_names(host) else None

        fields: list[tuple[Any, Any]] = [(component, pasted_model) for component in models]
        fields += [(component, field_reader(name)) for name, component in widgets.items()]
        infotext_utils.add_paste_fields(TAB, image, fields)
        for button in self._buttons:
            binding = infotext_utils.ParamBinding(
                paste_button=button.component,
                tabname=TAB,
                source_text_component=button.text,
                source_image_component=button.image,
            )
            infotext_utils.register_paste_params_button(binding)
        # Reload UI builds all of it again.
        self._buttons, self._seen = [], {}


def field_reader(name: str) -> Callable[[dict[str, Any]], Any]:
    """Return a function that reads a field's value from the WebUI's parsed infotext; None keeps the field unchanged."""
    from ...infotext import fields_of_pairs

    prompts = {"prompt": "Prompt", "negative_prompt": "Negative prompt"}

    def read(pairs: dict[str, Any]) -> Any:
        if prompts.get(name) in pairs:
            return pairs[prompts[name]]
        texts = {key: str(text) for key, text in pairs.items()}
        if "Size-1" in texts and "Size-2" in texts:
            texts["Size"] = f"{texts['Size-1']}x{texts['Size-2']}"
        return fields_of_pairs(texts).get(name)

    return read

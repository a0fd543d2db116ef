"""Receives settings that other parts of the WebUI send to the tab, and sends frames from it."""

from collections.abc import Callable
from typing import Any

from ...host import TAB, Host


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
    """The fields that receive settings, and our button on the tab PNG Info."""

    def __init__(self) -> None:
        self._png_info: dict[str, Any] = {}

    def after_component(self, component: Any, **about: Any) -> None:
        """Add our button to those of PNG Info while the page is built."""
        if about.get("elem_id") == "pnginfo_generation_info":
            self._png_info = {"text": component}
        elif about.get("elem_id") == "extras_tab" and set(self._png_info) == {"text"}:
            import gradio as gr

            self._png_info["button"] = gr.Button(f"Send to {TAB}", elem_id=f"{TAB}_tab")

    def withdraw_button(self) -> None:
        """Hide the button. PNG Info is built before our tab; if building the tab fails, nothing can be sent to it."""
        if button := self._png_info.pop("button", None):
            button.visible = False

    def connect(self, host: Host, models: list[Any], widgets: dict[str, Any]) -> None:
        """Register the fields that receive settings.

        Args:
            host: The host, whose models can be chosen.
            models: The components that receive a model's name.
            widgets: The components of the request's fields, by name.
        """
        from modules import infotext_utils

        from ...models.folders import list_model_names

        def pasted_model(pairs: dict[str, Any]) -> str | None:
            return pairs["Model"] if pairs.get("Model") in list_model_names(host) else None

        fields: list[tuple[Any, Any]] = [(component, pasted_model) for component in models]
        fields += [(component, field_reader(name)) for name, component in widgets.items()]
        infotext_utils.add_paste_fields(TAB, None, fields)
        if set(self._png_info) == {"text", "button"}:
            binding = infotext_utils.ParamBinding(
                paste_button=self._png_info["button"], tabname=TAB, source_text_component=self._png_info["text"]
            )
            infotext_utils.register_paste_params_button(binding)


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

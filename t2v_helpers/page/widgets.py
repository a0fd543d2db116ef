"""Creates widgets for the request's fields, for gradio 3.41 and 4."""

import dataclasses
from typing import Any, get_type_hints

import gradio as gr

from ..host import TAB
from ..request import GenerationRequest

GRADIO_3 = gr.__version__.startswith("3.")
JS = "_js" if GRADIO_3 else "js"
"""Name of an event's argument for JavaScript."""
CONCURRENCY = "concurrency_count" if GRADIO_3 else "default_concurrency_limit"
"""Name of a queue's argument for the number of events that it handles at once."""
UNLIMITED: dict[str, Any] = {} if GRADIO_3 else {"concurrency_limit": None}
"""Arguments for an event that waits in the host's queue. Otherwise gradio 4 would let only one at a time reach it."""
Field = dataclasses.Field[Any]
LONGEST_SLIDER = 100_000
"""Maximum for which a field gets a slider; fields with a larger one get a number box."""


def element(name: str) -> str:
    """Return the DOM id of one of the tab's elements."""
    return f"{TAB}_{name}"


def fields() -> dict[str, Field]:
    """Return the request's fields by name."""
    return {field.name: field for field in dataclasses.fields(GenerationRequest)}


def widget(name: str, **changes: Any) -> Any:
    """Return the widget for a field. Labels are unique on the tab, since the WebUI stores defaults by label."""
    field, kind = fields()[name], get_type_hints(GenerationRequest)[name]
    about = field.metadata
    default: Any = field.default
    basics: dict[str, Any] = {"label": about["label"], "value": default, "elem_id": element(name)}
    if about["info"]:
        basics["info"] = about["info"]
    if kind == tuple[str, ...]:
        return gr.CheckboxGroup(choices=about["choices"](), **basics | {"value": list(default)} | changes)
    if kind is str:
        if about["choices"] or "choices" in changes:
            return gr.Dropdown(**basics | ({"choices": about["choices"]()} if about["choices"] else {}) | changes)
        return gr.Textbox(**basics | changes)
    if about["maximum"] > LONGEST_SLIDER:
        return gr.Number(precision=0, **basics | changes)
    ends = {"minimum": about["minimum"], "maximum": about["usual"] or about["maximum"], "step": about["step"]}
    return gr.Slider(**basics | ends | changes)


def tool(symbol: str, name: str) -> gr.Button:
    """Return a small button with one symbol; the page's script adds its tooltip."""
    return gr.Button(symbol, elem_id=element(name), elem_classes=["tool", f"{TAB}-tool"])


def file_path(value: Any) -> str:
    """Return the path of an uploaded file: gradio 3 passes an object, gradio 4 the path itself."""
    return str(getattr(value, "name", value) or "")

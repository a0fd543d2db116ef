"""The tab: a prompt, its settings, and the results."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from ...modelscope.request import ADVANCED, IMPROVE
from ..generation.enlarge import upscaler_names
from ..host import TAB, PageHost
from ..models.folders import make_folders
from ..models.model_list import ModelList
from ..request import OFF, SAME
from .actions import Actions
from .files import FIELDS
from .guarded_events import accept_uploads_only, connect
from .model_actions import FORECAST_FIELDS, ModelActions
from .models_panel import Changes, ModelsPanel
from .outcome import model_note
from .restore import Restore
from .results import Frame, Models, Restored, Results
from .source_fold import SourceButtons, SourceFold
from .widgets import JS, UNLIMITED, element, fields, tool, widget

HINT = "(Press Ctrl+Enter to generate, Alt+Enter to skip, Esc to interrupt)"
ASKING = "(...values) => [window.text2videoPage ?? '', ...values.slice(1)]"
OPENING = "(...values) => [text2videoOpened(), ...values.slice(1)]"
"""Code that puts the page's name before a question. ASKING works before our script is there: a host may ask early."""
ORDER = tuple(name for name in fields() if name not in FIELDS)
"""The request's fields that have widgets, in the order of events' values."""


class Tab:
    """The tab, which is built inside the current gr.Blocks."""

    def __init__(self, host: PageHost) -> None:
        make_folders(host.models_folder())
        self.host = host
        self.models = ModelList(host)
        self.actions = Actions(host, ORDER, self.models)
        self.model_actions = ModelActions(host, ORDER, self.models)
        self.widgets: dict[str, Any] = {}
        self.task = gr.Textbox(visible=False, elem_id=element("task"), label="Task")
        self.task.do_not_save_to_config = True
        self.page = gr.Textbox(visible=False, elem_id=element("page"), label="Page's name")
        self.page.do_not_save_to_config = True
        self._top_row()
        with gr.Row(elem_id=element("core")):
            with gr.Column(elem_id=element("settings")):
                self._model_row()
                self._settings()
                self.source = SourceFold(host, self._add)
                self.restore = Restore(ORDER, self.models, self.source.cleared())
                self._improvements()
                self._loras()
                self._other_files()
                self._models = ModelsPanel(host)
            with gr.Column(elem_id=element("results")):
                self._results()
        self._connect()

    def _add(self, name: str, **changes: Any) -> None:
        self.widgets[name] = widget(name, **changes)

    def _top_row(self) -> None:
        with gr.Row(elem_id=element("toprow")):
            with gr.Column(scale=6):
                self._add("prompt", lines=3, show_label=False, placeholder=f"Prompt\n{HINT}", elem_classes=["prompt"])
                placeholder = f"Negative prompt\n{HINT}"
                self._add(
                    "negative_prompt", lines=2, show_label=False, placeholder=placeholder, elem_classes=["prompt"]
                )
            with gr.Column(scale=1, elem_id=element("actions_column")):
                with gr.Row(elem_id=element("generate_box"), elem_classes=["generate-box"]):
                    self.interrupt = gr.Button(
                        "Interrupt", elem_id=element("interrupt"), elem_classes=["generate-box-interrupt"]
                    )
                    self.skip = gr.Button("Skip", elem_id=element("skip"), elem_classes=["generate-box-skip"])
                    self.interrupting = gr.Button(
                        "Interrupting...", elem_id=element("interrupting"), elem_classes=["generate-box-interrupting"]
                    )
                    self.generate = gr.Button("Generate", elem_id=element("generate"), variant="primary")
                with gr.Row(elem_id=element("tools")):
                    self.paste = tool("↙️", "paste")
                    self.clear = tool("🗑️", "clear_prompt")

    def _model_row(self) -> None:
        names = self.models.names()
        with gr.Row(elem_classes=[f"{TAB}-line"]):
            self.model = gr.Dropdown(names, value=names[0], label="Video model", elem_id=element("model"))
            self.model.do_not_save_to_config = True
            self.refresh = tool("🔄", "refresh")
        self.note = gr.HTML(model_note(self.host, names), elem_id=element("note"))
        # Not a gr.State: the WebUI's own events set it, too.
        self.previous_model = gr.Textbox(visible=False, label="Previous model")
        self.previous_model.do_not_save_to_config = True

    def _settings(self) -> None:
        with gr.Row():
            self._add("sampler")
            self._add("steps")
        with gr.Row(elem_classes=[f"{TAB}-line"]):
            with gr.Column(scale=4):
                self._add("width")
                self._add("height")
            self.swap = tool("⇅", "swap")
        with gr.Row():
            self._add("frames")
            self._add("fps")
        self.forecast = gr.HTML(elem_id=element("length"))
        self._add("cfg_scale")
        with gr.Row(elem_classes=[f"{TAB}-line"]):
            self._add("seed")
            self.dice = tool("🎲️", "random_seed")
            self.recycle = tool("♻️", "reuse_seed")
            self._add("batch_count")
        self._add("formats")
        with gr.Accordion("Advanced", open=False, elem_id=element("advanced")):
            for name, field in fields().items():
                if field.metadata["fold"] == ADVANCED:
                    self._add(name)

    def _improvements(self) -> None:
        with gr.Accordion("Improve", open=False, elem_id=element("improve_fold")):
            for name, field in fields().items():
                if field.metadata["fold"] == IMPROVE:
                    self._add(name, **self._choices(name))

    def _choices(self, name: str) -> dict[str, Any]:
        """Return the choices for a field whose choices depend on the host."""
        if name == "hires":
            return {"choices": [OFF, SAME, *self.models.names()]}
        return {"choices": upscaler_names(self.host)} if name == "hires_upscaler" else {}

    def _loras(self) -> None:
        with gr.Accordion("LoRA", open=False, elem_id=element("lora_fold")), gr.Row(elem_classes=[f"{TAB}-line"]):
            names = self.model_actions.lora_names()
            self.lora = gr.Dropdown(names, label="LoRA to add to the prompt", elem_id=element("lora"))
            self.lora.do_not_save_to_config = True
            self.refresh_loras = tool("🔄", "refresh_loras")

    def _other_files(self) -> None:
        with gr.Accordion("Soundtrack", open=False, elem_id=element("soundtrack_fold")):
            self.soundtrack = gr.File(label="File with sound (cut or looped to length)", elem_id=element("soundtrack"))
            accept_uploads_only(self.soundtrack)
        with gr.Accordion("Settings from a video", open=False, elem_id=element("restore_fold")):
            self.dropped = gr.File(
                label="Video, image or text file whose settings to restore",
                elem_id=element("restore"),
                file_types=["video", "image", ".txt"],
            )
            accept_uploads_only(self.dropped)
            self.restore_path = gr.Textbox(
                label="Or its path on the WebUI's computer (press Enter to read it)",
                max_lines=1,
                elem_id=element("restore_path"),
            )
            self.restore_path.do_not_save_to_config = True
            # Only events of ours set it, as with the source's path.
            self.restored_file = gr.State("")
            self.use_restored = gr.Button("Use this video as the source", elem_id=element("use_restored"))
        self.restored = gr.HTML(elem_id=element("restored"))

    def _results(self) -> None:
        with gr.Column(elem_id=element("progress")):
            self.preview = gr.HTML("<div></div>", elem_id=element("preview"))
        # Above earlier videos, so that an error is seen.
        self.status = gr.HTML(elem_id=element("status"))
        self.players = gr.HTML(elem_id=element("players"))
        with gr.Row(elem_id=element("result_tools")):
            self.use_as_source = gr.Button("Use as source", elem_id=element("use_as_source"))
            self.continue_video = gr.Button("Continue", elem_id=element("continue"))
            self.improve = gr.Button("Improve", elem_id=element("improve"))
            self.open_folder = gr.Button("Open folder", elem_id=element("open_folder"), visible=self.host.opens_folders)
        self.folder_status = gr.HTML(elem_id=element("folder_status"))
        with gr.Accordion("Use a frame", open=False, elem_id=element("frame_fold")):
            self.frame_number = gr.Slider(1, 24, value=1, step=1, label="Frame", elem_id=element("frame"))
            self.frame_number.do_not_save_to_config = True
            self.frame = gr.Image(label="Chosen frame", type="pil", interactive=False, elem_id=element("frame_image"))
            self.frame_status = gr.HTML(elem_id=element("frame_status"))
            self.use_as_first = gr.Button("Use as first frame", elem_id=element("use_as_first"))
            self.host.tools_for_frames(self.frame)
        self.infotext = gr.HTML(elem_id=element("infotext"))
        self.made = gr.State([])

    def _on(self, event: Any, function: Any, inputs: Any, outputs: Any, **options: Any) -> Any:
        """Make a component's event call a function."""
        return connect(self.host, event, function, inputs, outputs, **options)

    def _forecast_on(self, event: Any, script: str = ASKING) -> Any:
        return self._on(event, self.model_actions.forecast, self._forecast_inputs(), [self.forecast], **{JS: script})

    def _connect(self) -> None:
        values = [self.widgets[name] for name in ORDER]
        inputs = [self.task, self.model, *self.source.files(self.soundtrack), *values]
        outputs = Results(
            made=self.made,
            players=self.players,
            infotext=self.infotext,
            frame_number=self.frame_number,
            frame=self.frame,
            frame_status=self.frame_status,
            status=self.status,
        )
        # gradio passes the outputs to the script as well, which must return only as many values as there are inputs.
        submit = {JS: f"(...values) => text2videoSubmit(values.slice(0, {len(inputs)}))"}
        run = self.host.make_queued(self.actions.generate, len(outputs), self.actions.refuse)
        self._on(self.generate.click, run, inputs, outputs, **UNLIMITED, **submit)
        collect = self._hidden_button("collect")
        self._on(collect.click, self.actions.collect, [self.task], outputs, **{JS: "() => [text2videoReloaded]"})
        asked = {JS: "() => text2videoTasks()"}
        interrupting = {JS: "() => text2videoInterrupting()"}
        self._on(self.interrupt.click, self.actions.interrupt, [self.task], None, **interrupting)
        self._on(self.interrupting.click, self.actions.interrupt, [self.task], None, **asked)
        self._on(self.skip.click, self.actions.skip, [self.task], None, **asked)
        self._connect_model(values)
        self._connect_small()
        self._connect_restoring(values)
        buttons = SourceButtons(
            use_video=self.use_as_source,
            use_frame=self.use_as_first,
            continue_video=self.continue_video,
            improve=self.improve,
            use_restored=self.use_restored,
            restored=self.restored_file,
            made=self.made,
            frame=self.frame,
        )
        self.source.connect(self._on, buttons, self.widgets, self.models)

    def _connect_model(self, values: list[Any]) -> None:
        chosen = [self.previous_model, self.model, *values]
        outputs = [self.previous_model, *values]
        self._forecast_on(self._on(self.model.change, self.model_actions.choose_model, chosen, outputs).then)
        refreshed = Models(self.model, self.note, self.widgets["hires"])
        self._on(self.refresh.click, self.model_actions.refresh, [self.model], refreshed)
        everything = Changes(
            lambda name: [*self.model_actions.refresh(name), self.model_actions.refresh_loras()],
            [*refreshed, self.lora],
        )
        self._models.connect(self.model, everything, Changes(self.model_actions.advise, values))
        forecast = self._forecast_on(self._hidden_button("opened").click, OPENING)
        named = self._on(forecast.then, self.model_actions.refresh, [self.model], refreshed)
        self.opened = self._on(named.then, self.model_actions.choose_model, chosen, outputs)

    def _forecast_inputs(self) -> list[Any]:
        return [self.page, self.model, *(self.widgets[name] for name in FORECAST_FIELDS)]

    def _hidden_button(self, name: str) -> gr.Button:
        """Return a hidden button, which the page's script presses."""
        button = gr.Button(name, elem_id=element(name), elem_classes=[f"{TAB}-hidden"])
        button.do_not_save_to_config = True
        return button

    def _connect_small(self) -> None:
        width, height = self.widgets["width"], self.widgets["height"]
        self._on(self.swap.click, lambda *size: size[::-1], [width, height], [width, height])
        frames, fps, *others = (self.widgets[name] for name in FORECAST_FIELDS[2:])
        # Most only when a person changes them: with many events at once, gradio 4.40 loses answers.
        for changed in (frames.change, fps.change, *(one.input for one in (width, height, *others))):
            self._forecast_on(changed)
        seed = self.widgets["seed"]
        self._on(self.dice.click, lambda: -1, None, [seed])
        self._on(self.recycle.click, self.actions.last_seed, [self.made, seed], [seed])
        prompts = [self.widgets["prompt"], self.widgets["negative_prompt"]]
        self._on(self.clear.click, lambda: ("", ""), None, prompts)
        chosen = [self.lora, self.widgets["prompt"]]
        self._on(self.lora.input, self.model_actions.add_lora, chosen, chosen)
        self._on(self.refresh_loras.click, self.model_actions.refresh_loras, None, [self.lora])
        self._on(self.open_folder.click, self.actions.open_folder, [self.made], [self.folder_status])
        frame = Frame(self.frame, self.frame_status)
        self._on(self.frame_number.release, self.actions.frame, [self.made, self.frame_number], frame)

    def _connect_restoring(self, values: list[Any]) -> None:
        outputs = Restored(
            self.restored, self.model, self.previous_model, values, self.source.clearable, self.restored_file
        ).outputs()
        restore = self.restore
        # The file component is cleared afterwards, so that it takes the next file.
        restored = self._on(self.dropped.upload, _outputs_of(restore.restore_file), [self.dropped, self.model], outputs)
        self._forecast_on(self._on(restored.then, lambda: None, None, [self.dropped]).then)
        named = [self.restore_path, self.model]
        restored = self._on(self.restore_path.submit, _outputs_of(restore.restore_path), named, outputs, reads=True)
        self._forecast_on(restored.then)
        pasted = [self.widgets["prompt"], self.model]
        self._forecast_on(self._on(self.paste.click, _outputs_of(restore.restore_text), pasted, outputs).then)
        self.host.connect_paste([self.model, self.previous_model], self.widgets, self.source.first)


def _outputs_of(restore: Callable[..., Restored]) -> Callable[..., list[Any]]:
    """Turn a function that restores settings into one for an event, which returns a list of outputs."""

    def call(*values: Any) -> list[Any]:
        return restore(*values).outputs()

    call.__name__ = restore.__name__
    return call


def build_tab(host: PageHost) -> gr.Blocks:
    """Return the tab as separate Blocks."""
    with gr.Blocks(analytics_enabled=False) as tab:
        Tab(host)
    return tab

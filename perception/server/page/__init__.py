"""The Gradio page: four tabs (Live, Wall, Video, Picture) beside one column of settings that holds for all of them.

Gradio makes the layout, the look and the controls. What moves is in ``static/``, JavaScript modules that use the same
routes as any other client: no picture and no video goes through Gradio, so that it writes no temporary file. A control
writes its value into ``window.perception.settings`` and tells ``static/page.js``. No event of a control has a Python
function: the browser answers all of them, and Gradio's routes for calls stay closed, see `perception.server.page.edge`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from perception.errors import PerceptionError
from perception.server.inference.explain_process import METHODS, missing
from perception.server.options import views
from perception.server.page.edge import GradioEdge

if TYPE_CHECKING:
    from perception.card import ModelCard
    from perception.server.service import Service

FOLDER = Path(__file__).parent

TABS = ("live", "wall", "video", "picture")
VIEWS = (("boxes", "boxes"), ("outlines (panoptic)", "panoptic"))
SHOWN = ("Masks", "Boxes", "Labels", "Legend")
WEBCAM, FILE, URL = "webcam", "file", "url"
"""Sources that are not the server's own; those are called ``server:NAME``."""

_QUEUE_S = 60.0
_SCORE, _IOU, _OPACITY = 0.3, 0.6, 0.5
_FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]  # of the machine: nothing is fetched from anywhere
_MONO = ["ui-monospace", "monospace"]
_SMALL_TEXT = {
    f"{name}{scheme}": color
    for name in ("body_text_color_subdued", "block_info_text_color", "block_title_text_color", "block_label_text_color")
    for scheme, color in (("", "#475569"), ("_dark", "#b6c2d1"))
}
"""Colours whose contrast to either background is above 4.5 (WCAG 1.4.3); that of Gradio's own is not."""


def mount_page(app: FastAPI, service: Service) -> None:
    """Mount the page at ``/`` and its scripts at ``/static/perception`` of an application."""
    app.mount("/static/perception", StaticFiles(directory=FOLDER / "static"), name="page")
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
    theme.set(**_SMALL_TEXT)
    page = build_page(service)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css_paths=[FOLDER / "page.css"],
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    # Gradio looks a thousand times a second whether a call has come, which none does. Each time the engine's threads
    # are interrupted and the interpreter is taken: 3 ms of a live frame's way, and a twentieth of a core for ever.
    page._queue.sleep_when_free = _QUEUE_S
    # Mounting never sets this, and without it Gradio copies whatever file of this machine a call names into its cache.
    # No call gets so far: this is the second lock.
    page.has_launched = True
    mount = app.routes[-1]
    assert isinstance(mount, Mount)
    mount.app = GradioEdge(mount.app, service.settings.root_path)


def build_page(service: Service) -> gr.Blocks:
    """The page of one running server."""
    known = _known(service)
    with gr.Blocks(title="perception", analytics_enabled=False, fill_width=True) as page, gr.Row(elem_id="pv-page"):
        with gr.Column(scale=7, min_width=320):
            gr.HTML("<h1>perception</h1>", apply_default_css=False, elem_id="pv-head")
            with gr.Tabs():
                for name in TABS:
                    with gr.Tab(name.capitalize(), id=name) as tab:
                        _tab(name, known)
                    tab.select(fn=None, js=_sets("tab", f'"{name}"'), show_progress="hidden")
        with gr.Column(scale=2, min_width=260, elem_id="pv-settings"):
            _settings(service, known)
    return page


def sources(service: Service) -> list[tuple[str, str]]:
    """Sources of the Live tab as (text, value): the operator's first, then the browser's own."""
    settings = service.settings
    named = [(name.replace("_", " "), f"server:{name}") for name in settings.sources]
    cameras = [(f"camera {number} of the server", f"server:{number}") for number in settings.cameras]
    own = [("this browser's camera", WEBCAM), ("a video file", FILE)]
    return [*named, *cameras, *own, *([("stream URL", URL)] if settings.allow else [])]


def models(service: Service) -> dict[str, dict[str, Any]]:
    """Purpose, classes, thresholds and views of each model, by name."""
    return {file.name: _describe(file.card) for file in service.models.files()}


def _describe(card: ModelCard) -> dict[str, Any]:
    described: dict[str, Any] = {"description": card.description}
    for name, task in (
        ("segmentation", card.segmentation),
        ("detection", card.detection),
        ("classification", card.classification),
    ):
        described[name] = [] if task is None else [{"name": c.name, "color": list(c.color)} for c in task.classes]
    described["ignored"] = [] if card.segmentation is None else card.segmentation.ignored
    if card.detection is not None:
        described |= {"score": card.detection.score_threshold, "iou": card.detection.iou_threshold}
    unknown = card.segmentation is not None and card.segmentation.unknown is not None
    return {**described, "views": views(card), "unknown": unknown}


def _tab(name: str, known: dict[str, Any]) -> gr.HTML:
    """A part of the page that one module of ``static/`` brings to life; it is given the models."""
    return gr.HTML(
        value=known,
        html_template=(FOLDER / f"{name}.html").read_text(encoding="utf-8"),
        js_on_load=_LOAD.replace("NAME", name),
        apply_default_css=False,
        elem_id=f"pv-{name}",
    )


_LOAD = """
import(new URL("static/perception/NAME.js", document.baseURI))
  .then((module) => module.mount(element, props.value, trigger))
  .catch((error) => { element.textContent = `This page needs a newer browser (${error.message}).`; });
"""


def _known(service: Service) -> dict[str, Any]:
    """The values that a tab is given; a default model that is not usable is a message on the page and not its end."""
    known: dict[str, Any] = {
        "source": sources(service)[0][1],
        "sources": sources(service),
        "default": service.models.default,
        "unknown": service.settings.unknown,
        "methods": METHODS,
        "lacking": missing(),  # for explanations
    }
    try:
        found = models(service)
        camera = service.settings.before_cameras
        return {**known, "models": found, "camera": camera if camera in found else known["default"], "problem": None}
    except PerceptionError as error:
        # Without its path, which is nobody's business but the operator's.
        return {
            **known,
            "models": {},
            "camera": known["default"],
            "problem": f"The model {service.models.default}: {error.message}.",
        }


def _settings(service: Service, known: dict[str, Any]) -> None:
    """The controls. Each one only tells the scripts; page.css shows those that mean something, see choices.js."""
    choices = _tab("choices", known)
    first = known["models"].get(service.models.default, {})
    score = gr.Slider(0, 1, first.get("score", _SCORE), step=0.01, label="Confidence", elem_id="pv-score")
    iou = gr.Slider(0, 1, first.get("iou", _IOU), step=0.01, label="Merge overlap", elem_id="pv-iou")
    unknown = gr.Slider(
        0,
        1,
        service.settings.unknown,
        step=0.01,
        label="Unknown pixels",
        info="So many of the right ones may stay uncoloured, so that most wrong ones do.",
        elem_id="pv-unknown",
    )
    track = gr.Checkbox(
        True,
        label="Follow boxes",
        info="Each keeps its number, also while its score is a little below the confidence.",
        elem_id="pv-track",
    )
    smooth = gr.Checkbox(
        False,
        label="Smooth over time",
        info="Averaged over the last moments, along the motion of the picture.",
        elem_id="pv-smooth",
    )
    opacity = gr.Slider(0, 1, _OPACITY, step=0.01, label="Mask opacity", elem_id="pv-opacity")
    view = gr.Radio(list(VIEWS), value="boxes", label="Objects as", elem_id="pv-view")
    show = gr.CheckboxGroup(list(SHOWN), value=list(SHOWN), label="Show", elem_id="pv-show")
    mirror = gr.Checkbox(True, label="Mirror the camera", elem_id="pv-mirror")
    _tab("classes", known)

    controls: dict[str, Any] = {
        "score": score,
        "iou": iou,
        "unknown": unknown,
        "track": track,
        "smooth": smooth,
        "view": view,
        "opacity": opacity,
        "show": show,
        "mirror": mirror,
    }
    for name, control in controls.items():
        control.change(fn=None, inputs=[control], js=_sets(name), show_progress="hidden")
    follow = _FOLLOW.replace("KNOWN", json.dumps(_of_models(known["models"])))
    choices.change(fn=None, outputs=[score, iou], js=follow, show_progress="hidden")


_FOLLOW = "() => (KNOWN)[window.perception.settings.model]"


def _of_models(known: dict[str, dict[str, Any]]) -> dict[str, list[float]]:
    """The thresholds of each model, by its name."""
    return {name: [card.get("score", _SCORE), card.get("iou", _IOU)] for name, card in known.items()}


def _sets(name: str, value: str = "value") -> str:
    """JavaScript that hands a control's value over, whether the scripts are there yet or not."""
    return (
        "(value) => { const shared = (window.perception ??= {}); "
        f"(shared.settings ??= {{}}).{name} = {value}; shared.changed?.({{ {name}: {value} }}); }}"
    )

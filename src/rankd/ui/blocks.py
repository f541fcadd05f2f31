"""Layout of the page. The only file that imports Gradio."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

# Gradio reads these when it is imported: no analytics, no history.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from rankd.config.text import replace_surrogates
from rankd.ui import documents, render
from rankd.ui.events import OWN, Events, PageFields
from rankd.ui.examples import EXAMPLES, Example

_SANS = [
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans CJK SC",
    "sans-serif",
]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

_FORM_LABELS = {
    documents.AUTO: "Detect the format",
    documents.LINES: "One per line",
    documents.JSON: "JSON",
    documents.CSV: "CSV",
}

# Without Gradio's queue a click is one POST, which ends when the browser leaves. Without
# preprocessing Gradio does not check the fields; rankd does, with better messages.
_EVENT_OPTIONS: dict[str, Any] = {
    "queue": False,
    "preprocess": False,
    "api_visibility": "private",
    "show_progress": "minimal",
}


class _RaisingTraceback:
    """Replaces the module `traceback` in Gradio, which prints exceptions with users' texts.

    The exception is raised again instead, and rankd logs it without texts.
    """

    def print_exc(self) -> None:
        raise


@cache
def resource(name: str) -> str:
    return resources.files("rankd.ui").joinpath(name).read_text(encoding="utf-8")


def build(events: Events) -> ASGIApp:
    """An app that serves Gradio at `/ui`; it contains no secrets."""
    vars(gr.routes)["traceback"] = _RaisingTraceback()
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        _blocks(events),
        path="/ui",
        ssr_mode=False,
        show_error=False,
        allowed_paths=[],
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=_theme(),
        css=resource("page.css"),
        head=f"<script>{_script(events.settings.max_body_bytes)}</script>",
    )
    return app


def _theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="md", font=_SANS, font_mono=_MONO
    )
    # White text on Gradio's default teal has too little contrast.
    return theme.set(
        color_accent="*primary_600",
        **dict.fromkeys(_primary_fills(""), "*primary_700"),
        **dict.fromkeys(_primary_fills("_hover"), "*primary_600"),
    )


def _primary_fills(state: str) -> tuple[str, str]:
    name = f"button_primary_background_fill{state}"
    return name, f"{name}_dark"


def _script(max_bytes: int) -> str:
    # Only a first check: as JSON a file is larger, and the server refuses it then.
    return f"const MAX_FILE_BYTES = {max_bytes};\n" + resource("page.js")


def _blocks(events: Events) -> gr.Blocks:
    page = gr.Blocks(title="rankd", analytics_enabled=False, fill_width=True)
    with page:
        key = resource("key.html") if events.service.needs_key else ""
        gr.HTML(resource("head.html").replace("<!-- key -->", key), padding=False)
        with gr.Row(elem_id="rk-columns"):
            with gr.Column(scale=5, min_width=300):
                fields, run = _fields()
            with gr.Column(scale=6, min_width=300), gr.Tabs():
                with gr.Tab("Ranking", elem_id="rk-ranking"):
                    ranking = _output("Fill in the fields, or choose an example, and press Rerank.")
                with gr.Tab("Compare", elem_id="rk-compare"):
                    other, instruction, compare, comparison = _compare()
                with gr.Tab("Distribution", elem_id="rk-distribution"):
                    distribution = _output("Distribution of the scores of the last ranking.")
                with gr.Tab("Code", elem_id="rk-code"):
                    code = _output("The last request as curl, Python and TypeScript.")
        served = gr.HTML(elem_id="rk-served", padding=False)

        outputs = [ranking, distribution, code]
        for trigger in (run.click, fields[0].submit):
            trigger(_on_rank(events), fields, outputs, **_EVENT_OPTIONS)
        compare.click(
            _on_compare(events), [*fields, other, instruction], comparison, **_EVENT_OPTIONS
        )
        for trigger in (page.load, _connect_button().click):
            trigger(_on_connect(events), None, [served, fields[1], other], **_EVENT_OPTIONS)
    return page


def _fields() -> tuple[list[Any], gr.Button]:
    with gr.Row(elem_id="rk-examples"):
        buttons = [gr.Button(example.label, size="sm", min_width=72) for example in EXAMPLES]
    query = gr.Textbox(label="Query", placeholder="What do you want to know?", elem_id="rk-query")
    preset = gr.Dropdown(
        _presets_without_key(), value=OWN, label="Instruction", elem_id="rk-preset"
    )
    instruction = gr.Textbox(
        label="Or your own instruction",
        placeholder="Given a …, retrieve …",
        elem_id="rk-instruction",
    )
    texts = gr.Textbox(
        label="Documents",
        placeholder="One document per line, or paste JSON or CSV",
        lines=7,
        max_lines=14,
        elem_id="rk-documents",
    )
    with gr.Row(elem_id="rk-source"):
        form = gr.Dropdown(
            [(label, name) for name, label in _FORM_LABELS.items()],
            value=documents.AUTO,
            label="Read as",
            container=False,
            elem_id="rk-form",
            min_width=140,
        )
        open_file = gr.Button("Open a file …", elem_id="rk-open", min_width=140)
    run = gr.Button("Rerank", variant="primary", elem_id="rk-run")
    fields = [query, preset, instruction, texts, form]
    open_file.click(None, None, [texts, form], js="() => window.rankd.open()", **_EVENT_OPTIONS)
    for button, example in zip(buttons, EXAMPLES, strict=True):
        button.click(None, None, fields, js=_fill(example), **_EVENT_OPTIONS)
    gr.HTML(
        render.hint(
            "The built-in model is for short English and Chinese texts. For production, and for "
            "Chinese in particular, serve a Qwen3-Reranker checkpoint."
        ),
        padding=False,
    )
    return fields, run


def _compare() -> tuple[gr.Dropdown, gr.Textbox, gr.Button, gr.HTML]:
    gr.HTML(render.hint("A uses the instruction on the left. B uses this one:"), padding=False)
    other = gr.Dropdown(
        _presets_without_key(), value=OWN, label="Instruction B", elem_id="rk-preset-b"
    )
    instruction = gr.Textbox(label="Or your own instruction", elem_id="rk-instruction-b")
    button = gr.Button("Compare", variant="primary", elem_id="rk-compare-run")
    return other, instruction, button, _output("The same documents ranked with both, side by side.")


def _output(text: str) -> gr.HTML:
    return gr.HTML(render.hint(text), padding=False)


def _presets_without_key() -> list[tuple[str, str]]:
    """Before `_on_connect`, which needs a key, only the server's own is listed."""
    return [("the server's own", OWN)]


def _connect_button() -> gr.Button:
    """Hidden; page.js clicks it after a key was entered."""
    return gr.Button("connect", elem_id="rk-connect")


def _fill(example: Example) -> str:
    """JavaScript that fills in the fields without a request."""
    lines = "\n".join(example.documents)
    return f"() => {json.dumps([example.query, OWN, example.instruction, lines, documents.AUTO])}"


def _on_rank(events: Events) -> Callable[..., Any]:
    async def rank(
        query: str, preset: str, instruction: str, text: str, form: str, request: gr.Request
    ) -> tuple[str, str, str]:
        fields = _page_fields(query, preset, instruction, text, form)
        return await events.rank(fields, request.headers)

    return rank


def _on_compare(events: Events) -> Callable[..., Any]:
    async def compare(
        query: str,
        preset: str,
        instruction: str,
        text: str,
        form: str,
        other: str,
        other_instruction: str,
        request: gr.Request,
    ) -> str:
        first = _page_fields(query, preset, instruction, text, form)
        second = _page_fields(query, other, other_instruction, text, form)
        return await events.compare(first, second, request.headers)

    return compare


def _on_connect(events: Events) -> Callable[[], Any]:
    async def connect() -> tuple[str, Any, Any]:
        choices = gr.update(choices=events.presets())
        return events.server_info(), choices, choices

    return connect


def _page_fields(*fields: object) -> PageFields:
    """From a browser's values, which may be of any type; other types become empty strings."""
    return PageFields(
        *(replace_surrogates(field) if isinstance(field, str) else "" for field in fields)
    )

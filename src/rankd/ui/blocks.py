"""What stands where on the page. The only file that imports Gradio."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

# Before it is imported: nothing is counted, fetched or kept.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from rankd.ui import documents, render
from rankd.ui.events import OWN, Events, Question
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

_FORMS = {
    documents.AUTO: "Detect the format",
    documents.LINES: "One per line",
    documents.JSON: "JSON",
    documents.CSV: "CSV",
}

# Without the queue a click is one POST: whoever leaves stops it, and no stream stays open.
# What stands in the fields is read by the server alone, which says in a sentence what it cannot.
_DIRECT: dict[str, Any] = {
    "queue": False,
    "preprocess": False,
    "api_visibility": "private",
    "show_progress": "minimal",
}


class _Raised:
    """In place of the `traceback` by which Gradio writes a failure to stderr, words of users with
    it, and answers: the failure goes on to where the server's own are logged, and a client that
    left is one that left."""

    def print_exc(self) -> None:
        raise


@cache
def resource(name: str) -> str:
    return resources.files("rankd.ui").joinpath(name).read_text(encoding="utf-8")


def build(events: Events) -> ASGIApp:
    """Gradio's app, to be mounted at `/ui`; nothing that is a secret stands in it."""
    vars(gr.routes)["traceback"] = _Raised()
    outside = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        outside,
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
    return outside


def _theme() -> gr.themes.Base:
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", radius_size="md", font=_SANS, font_mono=_MONO
    )
    # White on Gradio's own is hard to read.
    return theme.set(
        color_accent="*primary_600",
        **dict.fromkeys(_primary(""), "*primary_700"),
        **dict.fromkeys(_primary("_hover"), "*primary_600"),
    )


def _primary(state: str) -> tuple[str, str]:
    name = f"button_primary_background_fill{state}"
    return name, f"{name}_dark"


def _script(limit: int) -> str:
    # JSON writes some characters of a text twice, and a form around it.
    return f"const LIMIT = {limit};\n" + resource("page.js")


def _blocks(events: Events) -> gr.Blocks:
    page = gr.Blocks(title="rankd", analytics_enabled=False, fill_width=True)
    with page:
        key = resource("key.html") if events.service.needs_key else ""
        gr.HTML(resource("head.html").replace("<!-- key -->", key), padding=False)
        with gr.Row(elem_id="rk-desk"):
            with gr.Column(scale=5, min_width=300):
                fields, run = _fields()
            with gr.Column(scale=6, min_width=300), gr.Tabs():
                with gr.Tab("Ranking", elem_id="rk-ranking"):
                    ranking = _answer("Fill in the fields, or take an example, and press Rerank.")
                with gr.Tab("Compare", elem_id="rk-compare"):
                    other, instruction, compare, comparison = _compare()
                with gr.Tab("Distribution", elem_id="rk-distribution"):
                    distribution = _answer("Where the scores of the last ranking lie.")
                with gr.Tab("Code", elem_id="rk-code"):
                    code = _answer("The last request for curl, Python and TypeScript.")
        served = gr.HTML(elem_id="rk-served", padding=False)

        outputs = [ranking, distribution, code]
        for trigger in (run.click, fields[0].submit):
            trigger(_rank(events), fields, outputs, **_DIRECT)
        compare.click(_compared(events), [*fields, other, instruction], comparison, **_DIRECT)
        for trigger in (page.load, _connect().click):
            trigger(_connected(events), None, [served, fields[1], other], **_DIRECT)
    return page


def _fields() -> tuple[list[Any], gr.Button]:
    with gr.Row(elem_id="rk-examples"):
        buttons = [gr.Button(example.label, size="sm", min_width=72) for example in EXAMPLES]
    query = gr.Textbox(label="Query", placeholder="What do you want to know?", elem_id="rk-query")
    preset = gr.Dropdown(_unknown_yet(), value=OWN, label="Instruction", elem_id="rk-preset")
    instruction = gr.Textbox(
        label="Or an instruction of your own",
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
            [(label, name) for name, label in _FORMS.items()],
            value=documents.AUTO,
            label="Read as",
            container=False,
            elem_id="rk-form",
            min_width=140,
        )
        opened = gr.Button("Open a file …", elem_id="rk-open", min_width=140)
    run = gr.Button("Rerank", variant="primary", elem_id="rk-run")
    fields = [query, preset, instruction, texts, form]
    opened.click(None, None, [texts, form], js="() => window.rankd.open()", **_DIRECT)
    for button, example in zip(buttons, EXAMPLES, strict=True):
        button.click(None, None, fields, js=_fill(example), **_DIRECT)
    gr.HTML(
        render.hint(
            "The built-in model knows short English and Chinese texts. For real work, Chinese "
            "above all, serve a Qwen3-Reranker checkpoint."
        ),
        padding=False,
    )
    return fields, run


def _compare() -> tuple[gr.Dropdown, gr.Textbox, gr.Button, gr.HTML]:
    gr.HTML(render.hint("A is the instruction of the fields. B is this one:"), padding=False)
    other = gr.Dropdown(_unknown_yet(), value=OWN, label="Instruction B", elem_id="rk-preset-b")
    instruction = gr.Textbox(label="Or one of your own", elem_id="rk-instruction-b")
    button = gr.Button("Compare", variant="primary", elem_id="rk-compare-run")
    return other, instruction, button, _answer("The same documents by both, side by side.")


def _answer(text: str) -> gr.HTML:
    return gr.HTML(render.hint(text), padding=False)


def _unknown_yet() -> list[tuple[str, str]]:
    """Presets are told to those who have a key, by `_connected`."""
    return [("the server's own", OWN)]


def _connect() -> gr.Button:
    """Pressed by the script of the page, when a key was written."""
    return gr.Button("connect", elem_id="rk-connect")


def _fill(example: Example) -> str:
    """A script: what is already known is not asked of the server."""
    lines = "\n".join(example.documents)
    return f"() => {json.dumps([example.query, OWN, example.instruction, lines, documents.AUTO])}"


def _rank(events: Events) -> Callable[..., Any]:
    async def rank(
        query: str, preset: str, instruction: str, text: str, form: str, request: gr.Request
    ) -> tuple[str, str, str]:
        question = _question(query, preset, instruction, text, form)
        return await events.rank(question, request.headers)

    return rank


def _compared(events: Events) -> Callable[..., Any]:
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
        first = _question(query, preset, instruction, text, form)
        second = _question(query, other, other_instruction, text, form)
        return await events.compare(first, second, request.headers)

    return compare


def _connected(events: Events) -> Callable[[], Any]:
    async def connect() -> tuple[str, Any, Any]:
        choices = gr.update(choices=events.presets())
        return events.head(), choices, choices

    return connect


def _question(*fields: object) -> Question:
    """Of what a browser sent, which may be anything."""
    return Question(*(_plain(field) if isinstance(field, str) else "" for field in fields))


def _plain(text: str) -> str:
    """Without halves of characters, which JavaScript has and JSON cannot write."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

"""A page with Gradio, on http://127.0.0.1:7860, that asks the server over HTTP.

A program of its own: the server does not know it, and has a page without Gradio at /ui.
"""

import os

import gradio as gr
import httpx

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("RERANK_API_KEY", "any")

QUERY = "What is the capital of China?"
DOCUMENTS = """Gravity is a force that attracts two bodies towards each other.
The capital of China is Beijing.
The capital of France is Paris."""


def rank(query: str, instruction: str, lines: str) -> list[list[object]]:
    """Rows of the table, best first: rank, score, document."""
    documents = [line for line in lines.splitlines() if line.strip()]
    body = {"query": query, "documents": documents}
    if instruction.strip():
        body["instruction"] = instruction
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        response = httpx.post(f"{URL}/v1/rerank", json=body, headers=headers, timeout=60)
    except httpx.HTTPError as error:
        raise gr.Error(f"{URL} does not answer: {error}", print_exception=False) from error
    answer = response.json()
    if response.status_code != 200:
        raise gr.Error(answer["error"]["message"], print_exception=False)
    return [
        [number, round(result["relevance_score"], 4), documents[result["index"]]]
        for number, result in enumerate(answer["results"], 1)
    ]


page = gr.Interface(
    rank,
    [
        gr.Textbox(QUERY, label="Query"),
        gr.Textbox(label="Instruction", placeholder="The server's own"),
        gr.Textbox(DOCUMENTS, label="Documents, one per line", lines=8),
    ],
    gr.Dataframe(
        headers=["rank", "score", "document"],
        column_widths=["15%", "20%", "65%"],
        label="Ranking",
        wrap=True,
    ),
    title="Rerank",
    submit_btn="Rerank",
    flagging_mode="never",
    analytics_enabled=False,
)

if __name__ == "__main__":
    page.launch()

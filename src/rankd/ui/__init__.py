"""The web page `/ui`, built with Gradio. It sends its requests to `/v1/rerank`.

- page.py       routes: which paths of Gradio are served, and when Gradio is loaded
- blocks.py     layout; the only file that imports Gradio
- events.py     what the buttons do
- answers.py    sends requests to `/v1/rerank` and reads the answers
- documents.py  reads documents from lines, JSON or CSV
- render.py     answers as HTML; users' texts are escaped
- snippets.py   the request as curl, Python and TypeScript
- examples.py   texts for the example buttons
"""

from rankd.ui.page import is_installed, is_open, routes

__all__ = ["is_installed", "is_open", "routes"]

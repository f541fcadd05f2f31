"""The web page of a server, `/ui`: Gradio draws it, and every score comes through the front door.

- page.py       which of Gradio's paths are served, and when it is loaded
- blocks.py     what stands where; the only file that imports Gradio
- events.py     what a button does
- frontdoor.py  a request of the page, asked of the app from inside
- documents.py  texts out of lines, JSON and CSV
- render.py     answers as HTML, in which no text of a user is markup
- snippets.py   the same request for curl, Python and TypeScript
- examples.py   something to begin with
"""

from rankd.ui.page import is_installed, is_open, routes

__all__ = ["is_installed", "is_open", "routes"]

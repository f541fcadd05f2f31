"""The pages for browsers: `/ui`, to try queries and documents, and `/docs`, the API.

Both are static files, which send their requests to the server like any other client.

- files.py  serves a fixed table of files
- page.py   routes of `/ui`, and what its page is told about the server
- docs.py   routes of `/docs`
- static/   the page: HTML, CSS and JavaScript modules
- swagger/  Swagger UI, unchanged, and the page around it
"""

from rankd.ui import docs, page

__all__ = ["docs", "page"]

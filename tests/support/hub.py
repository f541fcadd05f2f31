"""A model hub on 127.0.0.1 with the part of Hugging Face's API that a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MODEL = "someone/small-reranker"

# A file that is downloaded and not used: the hub's client shows progress in steps of 10 MB.
PADDING = "padding.safetensors"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(
    folder: Path, seconds: float = 0.0, token: str = "", sent: list[str] | None = None
) -> Iterator[str]:
    """Serve one model, `MODEL`; gives the URL of the hub.

    Args:
        folder: files of the model.
        seconds: duration of the download of `PADDING`.
        token: refuse requests without it.
        sent: gets the name of each file whose content was requested.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if token and self.headers["Authorization"] != f"Bearer {token}":
                return self.send_missing("GatedRepo", 401)
            if path.startswith(f"/api/models/{MODEL}/tree/"):
                return self.send_json([_entry(file) for file in sorted(folder.iterdir())])
            if path.startswith(f"/api/models/{MODEL}"):
                names = [{"rfilename": file.name} for file in folder.iterdir()]
                return self.send_json({"id": MODEL, "sha": _COMMIT, "siblings": names})
            file = folder / path.rpartition("/")[2]
            if path.startswith(f"/{MODEL}/resolve/") and file.is_file():
                return self.send_file(file, body=body)
            return self.send_missing("RepoNotFound", 404)

        def send_missing(self, code: str, status: int) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def send_file(self, file: Path, *, body: bool) -> None:
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("ETag", f'"{_digest(content)}"')
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if not body:
                return
            if sent is not None:
                sent.append(file.name)
            chunks = 20 if seconds and file.name == PADDING else 1
            size = -(-len(content) // chunks)
            try:
                for start in range(0, len(content), size):
                    self.wfile.write(content[start : start + size])
                    time.sleep(seconds / chunks if chunks > 1 else 0)
            except OSError:
                self.close_connection = True  # The client closed the connection.

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    return {"type": "file", "path": file.name, "size": len(content), "oid": _digest(content)}


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()

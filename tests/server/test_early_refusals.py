"""Clients read the answer to a large body that is refused before it has arrived.

A server that answers and closes while more arrives sends a reset, which destroys the answer.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import requests

from support.servers import Server, serving

JAVA = Path(__file__).with_name("java") / "Upload.java"
NODE = Path(__file__).with_name("node") / "upload.mjs"

MEGABYTE = 1024 * 1024

# Two busy connections are too many.
ONE_CONNECTION = {"rankd.server.run.MIN_CONNECTIONS": 1, "rankd.server.run.SPARE_CONNECTIONS": 0}


class Upload(NamedTuple):
    """A body that is refused early.

    Attributes:
        header: name and value.
        answer: begins with the status, and contains the text behind it.
    """

    url: str
    file: Path
    framing: str
    header: tuple[str, str]
    answer: tuple[str, str]


# Posts a body, and returns its status and text.
Client = Callable[[Upload], str]


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Upload]]:
    """Every kind of early refusal, with a length and in chunks."""
    folder = tmp_path_factory.mktemp("uploads")
    files = {size: _file(folder, size * MEGABYTE) for size in (10, 33, 200)}
    binary, form = ("content-type", "application/json"), ("content-type", "multipart/form-data")
    gzip = ("content-encoding", "gzip")
    with ExitStack() as stack:
        server = stack.enter_context(
            serving("--engine", "fake", "--batch-dir", str(folder / "batches"))
        )
        closed = stack.enter_context(serving("--engine", "fake", "--api-key", "a-key"))
        full = stack.enter_context(_full_server())
        cases = [
            (server, "/v1/rerank", 33, binary, ("413", "the limit is 33,554,432")),
            (server, "/v1/rerank", 200, binary, ("413", "the limit is 33,554,432")),
            (server, "/v1/rerank", 10, gzip, ("415", "send the body uncompressed")),
            (server, "/v1/files", 33, form, ("400", "send the file as multipart/form-data")),
            (closed, "/v1/rerank", 33, binary, ("401", "invalid api token")),
            (full, "/v1/rerank", 33, binary, ("429", "more than 1 connections are open")),
        ]
        yield [
            Upload(at.url + path, files[size], framing, header, answer)
            for at, path, size, header, answer in cases
            for framing in ("plain", "chunked")
        ]


def _file(folder: Path, size: int) -> Path:
    file = folder / str(size)
    with file.open("wb") as stream:
        stream.truncate(size)
    return file


@contextmanager
def _full_server() -> Iterator[Server]:
    """A server all of whose connections are busy."""
    flags = ("--engine", "fake", "--max-waiting-requests", "1", "--read-timeout-seconds", "600")
    with (
        serving(*flags, constants=ONE_CONNECTION) as server,
        socket.create_connection(_address(server.url)) as busy,
    ):
        busy.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        yield server


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def _parts(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while part := stream.read(64 * 1024):
            yield part


def _length(upload: Upload) -> dict[str, str]:
    size = str(upload.file.stat().st_size)
    return {"content-length": size} if upload.framing == "plain" else {}


def with_http_client(upload: Upload) -> str:
    connection = http.client.HTTPConnection(*_address(upload.url), timeout=60)
    headers = dict([upload.header]) | _length(upload)
    path, chunked = urlsplit(upload.url).path, upload.framing == "chunked"
    with closing(connection):
        connection.request("POST", path, _parts(upload.file), headers, encode_chunked=chunked)
        response = connection.getresponse()
        return f"{response.status} {response.read().decode()}"


def with_requests(upload: Upload) -> str:
    with upload.file.open("rb") as stream:
        body = stream if upload.framing == "plain" else _parts(upload.file)
        response = requests.post(upload.url, data=body, headers=dict([upload.header]), timeout=60)
    return f"{response.status_code} {response.text}"


def with_httpx(upload: Upload) -> str:
    headers = dict([upload.header]) | _length(upload)
    response = httpx.post(upload.url, content=_parts(upload.file), headers=headers, timeout=60)
    return f"{response.status_code} {response.text}"


@pytest.mark.parametrize("client", [with_http_client, with_requests, with_httpx])
def test_python_clients_read_the_answer(client: Client, uploads: list[Upload]) -> None:
    _check(uploads, [client(upload) for upload in uploads])


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("expects", [True, False], ids=["with Expect", "without Expect"])
def test_curl_reads_the_answer(expects: bool, uploads: list[Upload]) -> None:
    _check(uploads, [_with_curl(upload, expects) for upload in uploads])


def _with_curl(upload: Upload, expects: bool) -> str:
    program = ["curl", "-sS", "-X", "POST", "-H", ": ".join(upload.header), "-T", str(upload.file)]
    if upload.framing == "chunked":
        program += ["-H", "Transfer-Encoding: chunked"]
    program += ["-H", "Expect: 100-continue" if expects else "Expect:"]
    ran = subprocess.run(
        [*program, "-w", "\n%{http_code}", upload.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    text, _, status = ran.stdout.rpartition("\n")
    return f"{status} {text} {ran.stderr}"


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node 20 or newer")
@pytest.mark.parametrize("client", ["fetch", "http"])
def test_node_reads_the_answer(client: str, uploads: list[Upload]) -> None:
    _check(uploads, _answers(["node", str(NODE), client], uploads))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("javac") is None, reason="needs a JDK, 11 or newer")
def test_the_http_client_of_the_jdk_reads_the_answer(uploads: list[Upload]) -> None:
    _check(uploads, _answers(["java", str(JAVA)], uploads))


def _answers(program: list[str], uploads: list[Upload]) -> list[str]:
    arguments = [
        argument
        for upload in uploads
        for argument in (upload.url, str(upload.file), upload.framing, *upload.header)
    ]
    ran = subprocess.run(
        [*program, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines()


def _check(uploads: list[Upload], answers: list[str]) -> None:
    assert len(answers) == len(uploads)
    for upload, answer in zip(uploads, answers, strict=True):
        status, message = upload.answer
        assert answer.startswith(status), f"{upload}: {answer}"
        assert message in answer, upload

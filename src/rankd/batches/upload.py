"""`multipart/form-data` as it arrives: its file goes to the disk, and never whole into memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from rankd.batches.records import new_id
from rankd.batches.results import create, sync
from rankd.errors import ClientGone, InvalidRequest, StorageDown, TooLarge

# What a form may hold beside its file: nobody sends more than five fields of some words.
_MOST_FIELDS = 20
_LONGEST_FIELD = 10_000

# Bytes that are written at a time.
_BLOCK = 1024 * 1024


@dataclass
class UploadedForm:
    """What was sent.

    Attributes:
        path: where the bytes of `file` lie; its name is the id that the file may have.
        filename: as the sender calls it; None when there was no file.
    """

    path: Path
    filename: str | None = None
    size: int = 0
    fields: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def received(
    http: Request, folder: Path, *, most_bytes: int, reserve: Callable[[int], None]
) -> AsyncIterator[UploadedForm]:
    """A form whose file lies on the disk; unless the block ends well, it is deleted again.

    Args:
        most_bytes: of the file.
        reserve: is told of every block before it is written; raises when there is no room.

    Raises:
        InvalidRequest: it is no form, or half of one.
        StorageDown: the disk does not take it.
    """
    path = folder / new_id("file-")
    arriving = path.with_suffix(".part")
    form = UploadedForm(path)
    try:
        with create(arriving) as file:
            await _read(http, form, file, most_bytes, reserve)
            await asyncio.to_thread(_keep, file)
        arriving.rename(path)
        await asyncio.to_thread(sync, folder)
        yield form
    except BaseException as problem:
        arriving.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            raise StorageDown(f"the file cannot be kept: {problem.strerror}") from None
        raise


def _keep(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _read(
    http: Request,
    form: UploadedForm,
    file: IO[bytes],
    most_bytes: int,
    reserve: Callable[[int], None],
) -> None:
    parts = _Parts(http.headers.get("content-type", ""), form, most_bytes)
    try:
        async for chunk in http.stream():
            parts.feed(chunk)
            if len(parts.block) >= _BLOCK:
                await _write(parts, file, reserve)
        await _write(parts, file, reserve)
    except ClientDisconnect:
        raise ClientGone("the client left while sending") from None
    parts.end()


async def _write(parts: _Parts, file: IO[bytes], reserve: Callable[[int], None]) -> None:
    block, parts.block = bytes(parts.block), bytearray()
    reserve(len(block))
    await asyncio.to_thread(file.write, block)


class _Parts:
    """The parts of a form, told apart.

    Attributes:
        block: bytes of the file that are not yet written.
    """

    def __init__(self, content_type: str, form: UploadedForm, most_bytes: int) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequest(
                "send the file as multipart/form-data, with the fields purpose and file"
            )
        self.block = bytearray()
        self._form = form
        self._most_bytes = most_bytes
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._header = [b"", b""]
        self._disposition = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": self._begin,
                    "on_header_begin": self._header_begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as problem:
            raise InvalidRequest(f"the form cannot be read: {problem}") from None

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as problem:
            raise InvalidRequest(f"the form cannot be read: {problem}") from None

    def end(self) -> None:
        if not self._ended:
            raise InvalidRequest("the form ends in the middle of a part")

    def _begin(self) -> None:
        self._name, self._is_file = "", False
        self._value = bytearray()
        self._disposition = b""

    def _header_begin(self) -> None:
        self._header = [b"", b""]

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name != "file":
            return
        if self._form.filename is not None:
            raise InvalidRequest("file stands twice in the form; send one", param="file")
        self._is_file = True
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._form.filename = name[:255] or "file"

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._value += data[start:end]
            if len(self._value) > _LONGEST_FIELD:
                raise InvalidRequest(
                    f"a field of the form has more than {_LONGEST_FIELD:,} bytes", param=self._name
                )
            return
        self._form.size += end - start
        if self._form.size > self._most_bytes:
            raise TooLarge(
                f"the file has more than {self._most_bytes:,} bytes, the limit of this server",
                param="file",
            )
        self.block += data[start:end]

    def _part_end(self) -> None:
        if self._is_file:
            return
        fields = self._form.fields
        if self._name in fields:
            raise InvalidRequest(f"{self._name} stands twice in the form", param=self._name)
        if len(fields) >= _MOST_FIELDS:
            raise InvalidRequest(f"the form has more than {_MOST_FIELDS} fields beside its file")
        fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True

"""Reads `multipart/form-data` as it arrives; the file goes to disk, never whole into memory."""

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

from rankd.batches.output_files import create, sync_folder
from rankd.batches.records import new_id
from rankd.errors import ClientGone, InvalidRequest, StorageDown, TooLarge

# Fields besides the file, and bytes of each. OpenAI's SDKs send at most three short ones.
_MAX_FIELDS = 20
_MAX_FIELD_BYTES = 10_000

# Bytes written to disk at a time.
_BLOCK = 1024 * 1024


@dataclass
class UploadedForm:
    """A form whose file is on disk.

    Attributes:
        path: the bytes of the file; its name is the id for the file.
        filename: sent by the client; None if the form has no file.
        size: bytes of the file.
        fields: all other fields.
    """

    path: Path
    filename: str | None = None
    size: int = 0
    fields: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def uploaded_form(
    http: Request, folder: Path, *, max_bytes: int, reserve: Callable[[int], None]
) -> AsyncIterator[UploadedForm]:
    """Receive a form. Its file is deleted again if the `async with` block raises.

    Args:
        max_bytes: of the file.
        reserve: called with the size of each block before it is written; may raise.

    Raises:
        ClientGone: the client disconnected.
        InvalidRequest: the body is not a form, or is incomplete.
        StorageDown: the file cannot be written.
        TooLarge: the file has more than `max_bytes`.
    """
    path = folder / new_id("file-")
    partial = path.with_suffix(".part")
    form = UploadedForm(path)
    try:
        with create(partial) as file:
            await _read(http, form, file, max_bytes, reserve)
            await asyncio.to_thread(_sync, file)
        partial.rename(path)
        await asyncio.to_thread(sync_folder, folder)
        yield form
    except BaseException as error:
        partial.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageDown(f"the file cannot be stored: {error.strerror}") from None
        raise


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _read(
    http: Request,
    form: UploadedForm,
    file: IO[bytes],
    max_bytes: int,
    reserve: Callable[[int], None],
) -> None:
    parser = _FormParser(http.headers.get("content-type", ""), form, max_bytes)
    try:
        async for chunk in http.stream():
            parser.feed(chunk)
            if len(parser.block) >= _BLOCK:
                await _write(parser, file, reserve)
        await _write(parser, file, reserve)
    except ClientDisconnect:
        raise ClientGone("the client disconnected during the upload") from None
    parser.close()


async def _write(parser: _FormParser, file: IO[bytes], reserve: Callable[[int], None]) -> None:
    block, parser.block = bytes(parser.block), bytearray()
    reserve(len(block))
    await asyncio.to_thread(file.write, block)


class _FormParser:
    """Splits a form into its parts, as chunks of the body arrive.

    Attributes:
        block: bytes of the file that are not yet on disk.
    """

    def __init__(self, content_type: str, form: UploadedForm, max_bytes: int) -> None:
        media_type, options = parse_options_header(content_type)
        if media_type != b"multipart/form-data" or not options.get(b"boundary"):
            raise InvalidRequest(
                "send the file as multipart/form-data, with the fields purpose and file"
            )
        self.block = bytearray()
        self._form = form
        self._max_bytes = max_bytes
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
                    "on_part_begin": self._part_begin,
                    "on_header_begin": self._header_begin,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_end,
                    "on_part_data": self._add_data,
                    "on_part_end": self._part_end,
                    "on_end": self._form_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"the form cannot be read: {error}") from None

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest(f"the form cannot be read: {error}") from None

    def close(self) -> None:
        """Raise InvalidRequest if the form is incomplete."""
        if not self._ended:
            raise InvalidRequest("the form is incomplete: it ends in the middle of a part")

    def _part_begin(self) -> None:
        self._name, self._is_file = "", False
        self._value = bytearray()
        self._disposition = b""

    def _header_begin(self) -> None:
        self._header = [b"", b""]

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
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
            raise InvalidRequest("the form has two files; send one", param="file")
        self._is_file = True
        name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._form.filename = name[:255] or "file"

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._value += data[start:end]
            if len(self._value) > _MAX_FIELD_BYTES:
                raise InvalidRequest(
                    f"a field of the form has more than {_MAX_FIELD_BYTES:,} bytes",
                    param=self._name,
                )
            return
        self._form.size += end - start
        if self._form.size > self._max_bytes:
            raise TooLarge(
                f"the file has more than {self._max_bytes:,} bytes, the limit of this server; "
                "split it",
                param="file",
            )
        self.block += data[start:end]

    def _part_end(self) -> None:
        if self._is_file:
            return
        fields = self._form.fields
        if self._name in fields:
            raise InvalidRequest(
                f"the form has the field {self._name} twice; send it once", param=self._name
            )
        if len(fields) >= _MAX_FIELDS:
            raise InvalidRequest(f"the form has more than {_MAX_FIELDS} fields besides its file")
        fields[self._name] = self._value.decode("utf-8", "replace")

    def _form_end(self) -> None:
        self._ended = True

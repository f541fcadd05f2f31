"""What the buttons of the page do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankd.config.settings import Settings
from rankd.context import REQUEST_ID
from rankd.errors import RankError
from rankd.ranking.service import ModelService
from rankd.ui import documents, render
from rankd.ui.answers import PageClient, PageError, RerankAnswer
from rankd.ui.documents import Document
from rankd.ui.snippets import CodeSnippets

# The browser's address of the server, for the snippets only.
PAGE_HEADER = "x-rankd-page"
_ADDRESS = re.compile(r"https?://[\w.:\[\]-]+(/[\w./~%-]*)?", re.ASCII)
_DEFAULT_ADDRESS = "http://127.0.0.1:8000"

# The choice in the list of presets that means the server's own instruction.
OWN = ""


@dataclass(frozen=True, slots=True)
class PageFields:
    """The fields of the page.

    Attributes:
        preset: name of an instruction, or `OWN`.
        instruction: a text; if not blank, used instead of the preset.
        text: the documents, as written.
        form: how to read them, one of `documents.FORMATS`.
    """

    query: str
    preset: str
    instruction: str
    text: str
    form: str

    def request_body(self, documents: Sequence[Document]) -> dict[str, Any]:
        """The body for `/v1/rerank`."""
        chosen: dict[str, Any] = {}
        if self.instruction.strip():
            chosen["instruction"] = self.instruction
        elif self.preset != OWN:
            chosen["preset"] = self.preset
        return {"query": self.query, "documents": list(documents), **chosen, "return_details": True}

    @property
    def instruction_name(self) -> str:
        """The heading of its column in a comparison."""
        return self.instruction.strip() or self.preset or "the server's own instruction"


@dataclass(frozen=True)
class Events:
    """Handlers of one server's page; they return HTML."""

    client: PageClient
    service: ModelService
    settings: Settings

    def presets(self) -> list[tuple[str, str]]:
        """Label and name of every instruction that can be chosen."""
        labels = {
            f"the server's own: {self.settings.instruction}": OWN,
            **{f"{name}: {text}": name for name, text in self.settings.instructions.items()},
        }
        return list(labels.items())

    def server_info(self) -> str:
        info = self.service.ranker.engine.info
        return render.server_info(
            self.service.name,
            [
                f"{info.name} engine on {info.device}",
                f"up to {self.settings.max_documents:,} documents",
                f"{info.max_tokens:,} tokens each",
            ],
        )

    async def rank(self, fields: PageFields, headers: Mapping[str, str]) -> tuple[str, str, str]:
        """Ranking, distribution and snippets; on an error, its message and two empty strings."""
        try:
            parsed = await _documents(fields)
            body = fields.request_body(parsed)
            answer = await self.client.rerank(body, headers)
        except PageError as error:
            return render.error(error), "", ""
        snippets = CodeSnippets(_address(headers), body, self.service.needs_key)

        def draw() -> tuple[str, str, str]:
            return (
                render.ranking(render.RankingColumn.of(answer, parsed)),
                render.distribution(answer),
                render.snippets(snippets),
            )

        return await asyncio.to_thread(draw)

    async def compare(
        self, first: PageFields, second: PageFields, headers: Mapping[str, str]
    ) -> str:
        """Two rankings of the same documents, A and B; B shows the changes from A."""
        try:
            parsed = await _documents(first)
            answer_a = await self.client.rerank(first.request_body(parsed), headers)
            answer_b = await self.client.rerank(second.request_body(parsed), headers)
        except PageError as error:
            return render.error(error)
        return await asyncio.to_thread(
            render.comparison,
            render.RankingColumn.of(answer_a, parsed),
            render.RankingColumn(answer_b, parsed, _ranks(answer_a), "in A"),
            (first.instruction_name, second.instruction_name),
        )


async def _documents(fields: PageFields) -> list[Document]:
    """Parse in a thread: millions of lines take seconds."""
    try:
        return await asyncio.to_thread(documents.parse, fields.text, fields.form)
    except RankError as error:
        raise PageError(error.message, error.status, REQUEST_ID.get()) from None


def _ranks(answer: RerankAnswer) -> dict[int, int]:
    """Document index → rank, both from 0."""
    return {result["index"]: rank for rank, result in enumerate(answer.results)}


def _address(headers: Mapping[str, str]) -> str:
    address = headers.get(PAGE_HEADER, "")
    return address.rstrip("/") if _ADDRESS.fullmatch(address) else _DEFAULT_ADDRESS

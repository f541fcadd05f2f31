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
from rankd.ui.asgi_client import PageClient, Refused, RerankAnswer
from rankd.ui.documents import Document
from rankd.ui.snippets import Shown

# Under which address the browser knows the server; it stands in snippets only.
PAGE_HEADER = "x-rankd-page"
_ADDRESS = re.compile(r"https?://[\w.:\[\]-]+(/[\w./~%-]*)?", re.ASCII)

# What a preset is called that leaves the instruction to the server.
OWN = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What stands in the fields of the page.

    Attributes:
        preset: the name of an instruction, or `OWN`.
        instruction: a text; it beats the preset, as everywhere.
        form: how the documents are written, one of `documents.FORMATS`.
    """

    query: str
    preset: str
    instruction: str
    text: str
    form: str

    def body(self, found: Sequence[Document]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        if self.instruction.strip():
            chosen["instruction"] = self.instruction
        elif self.preset != OWN:
            chosen["preset"] = self.preset
        return {"query": self.query, "documents": list(found), **chosen, "return_details": True}

    @property
    def name(self) -> str:
        """What it is compared as."""
        return self.instruction.strip() or self.preset or "the server's own instruction"


@dataclass(frozen=True)
class Events:
    """One server's page."""

    door: PageClient
    service: ModelService
    settings: Settings

    def presets(self) -> list[tuple[str, str]]:
        """Label and name of every instruction that may be chosen."""
        known = {
            f"the server's own: {self.settings.instruction}": OWN,
            **{f"{name}: {text}": name for name, text in self.settings.instructions.items()},
        }
        return list(known.items())

    def head(self) -> str:
        info = self.service.ranker.engine.info
        return render.head(
            self.service.name,
            [
                f"{info.name} engine on {info.device}",
                f"up to {self.settings.max_documents:,} documents",
                f"{info.max_tokens:,} tokens each",
            ],
        )

    async def rank(self, question: Question, headers: Mapping[str, str]) -> tuple[str, str, str]:
        """Ranking, distribution and snippets; on an error its sentence and two empty places."""
        try:
            found = await _documents(question)
            body = question.body(found)
            answer = await self.door.rerank(body, headers)
        except Refused as problem:
            return render.error(problem), "", ""
        shown = Shown(_address(headers), body, self.service.needs_key)

        def draw() -> tuple[str, str, str]:
            return (
                render.ranking(render.Column.of(answer, found)),
                render.distribution(answer),
                render.snippets(shown),
            )

        return await asyncio.to_thread(draw)

    async def compare(self, first: Question, second: Question, headers: Mapping[str, str]) -> str:
        """Two rankings of the same documents; B says how it differs from A."""
        try:
            found = await _documents(first)
            one = await self.door.rerank(first.body(found), headers)
            other = await self.door.rerank(second.body(found), headers)
        except Refused as problem:
            return render.error(problem)
        return await asyncio.to_thread(
            render.comparison,
            render.Column.of(one, found),
            render.Column(other, found, _places(one), "in A"),
            (first.name, second.name),
        )


async def _documents(question: Question) -> list[Document]:
    """In a thread: millions of lines take a while."""
    try:
        return await asyncio.to_thread(documents.parse, question.text, question.form)
    except RankError as problem:
        raise Refused(problem.message, problem.status, REQUEST_ID.get()) from None


def _places(answer: RerankAnswer) -> dict[int, int]:
    return {result["index"]: place for place, result in enumerate(answer.results)}


def _address(headers: Mapping[str, str]) -> str:
    said = headers.get(PAGE_HEADER, "")
    return said.rstrip("/") if _ADDRESS.fullmatch(said) else "http://127.0.0.1:8000"

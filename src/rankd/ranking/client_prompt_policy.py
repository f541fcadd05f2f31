"""What is done with a prompt that a client brought along: take it off, warn, or refuse."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Literal

from rankd.config.tables import DEFAULT
from rankd.errors import InvalidRequest
from rankd.prompts.client_prompts import ClientPrompt, Kind, Queries, recognize
from rankd.ranking.profiles import Profile, Profiles
from rankd.telemetry import metrics

_log = logging.getLogger("rankd")

# Seconds between two log lines about the same key.
_LOG_INTERVAL = 60.0

_INSTEAD = "rankd adds the prompt itself, so send the query and the documents bare"
_INSTRUCTION = ', and the instruction as "instruction"'
_WHOLE = "the query and the documents hold Qwen3-Reranker's prompt"
_FOUND: dict[Kind, str] = {
    "whole": _WHOLE,
    "nested": _WHOLE,
    "mixed": "the query and the documents hold parts of Qwen3-Reranker's prompt, or different ones",
    "query": "the query holds Qwen3-Reranker's prompt and the documents do not",
    "labels": "the query holds labels of Qwen3-Reranker's prompt",
    "documents": "documents hold parts of Qwen3-Reranker's prompt",
    "embedding": "the query holds Qwen3-Embedding's prompt",
}

Mode = Literal["unwrap", "warn", "refuse"]


class ClientPromptPolicy:
    """What a server does with prompts that clients bring along; see `--client-prompts`.

    Attributes:
        mode: `unwrap` takes a whole frame off and warns of a part, `warn` scores all as sent,
            `refuse` is an error. Parts in documents alone are never refused, because the client
            may not have written the documents.
        takes_instruction: whether the model's prompt has a place for an instruction. Otherwise the
            one in a frame is dropped, and the warning says so.
    """

    def __init__(self, mode: Mode = "unwrap", *, takes_instruction: bool = True) -> None:
        self.mode = mode
        self.takes_instruction = takes_instruction
        self._instead = _INSTEAD + (_INSTRUCTION if takes_instruction else "")
        self._logged: dict[str, float] = {}

    def check(self, queries: Queries, param: str = "query") -> ClientPrompt | None:
        """The prompt in the texts of a request, which is counted; None if there is none.

        Args:
            param: the client's name of the query, for the error.

        Returns:
            Without `bare` if the texts are to be scored as sent.

        Raises:
            InvalidRequest: the mode is `refuse`, and the query holds a prompt.
        """
        prompt = recognize(queries)
        if prompt is None:
            return None
        metrics.CLIENT_PROMPTS.labels(prompt.kind).inc()
        if self.mode == "refuse" and prompt.kind != "documents":
            raise InvalidRequest(f"{_FOUND[prompt.kind]}: {self._instead}", param=param)
        if self.mode == "unwrap" and prompt.bare:
            return prompt
        return replace(prompt, instruction="", bare=())

    def log(self, prompt: ClientPrompt, caller: str) -> None:
        """Log, once per key and minute, that a request with this prompt is scored as sent.

        Args:
            caller: the name of the API key.
        """
        now = time.monotonic()
        if now - self._logged.get(caller, -_LOG_INTERVAL) < _LOG_INTERVAL:
            return
        self._logged[caller] = now
        _log.warning(
            "scores of%s are probably wrong: %s; %s",
            f" key {caller}" if caller else " a client",
            _FOUND[prompt.kind],
            self._instead,
        )

    def warning(self, prompt: ClientPrompt, used: Profile, profiles: Profiles) -> str:
        """The warning in the answer.

        Args:
            used: whose instruction was used.
        """
        found = _FOUND[prompt.kind]
        if not prompt.bare:
            return f"{found}; scored as sent, the scores are probably wrong: {self._instead}"
        instruction = "its instruction used"
        if not self.takes_instruction:
            instruction = "its instruction ignored, because the prompt of this model has none"
        elif prompt.instruction and _differs(prompt.instruction, used, profiles):
            instruction = "its instruction ignored, because the request has another one"
        nested = "; another one inside was scored as text" if prompt.kind == "nested" else ""
        return f"{found}; it was taken off and {instruction}{nested}: {self._instead}"


def _differs(instruction: str, used: Profile, profiles: Profiles) -> bool:
    """Whether an instruction is not the one that was used."""
    if used.instruction is None:  # The server's own.
        return profiles.choose(text=instruction).preset != DEFAULT
    return used.instruction != instruction

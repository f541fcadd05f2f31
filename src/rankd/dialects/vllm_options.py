"""The options of vLLM's rerank and score requests, which rankd's own API takes, too.

Source: vLLM 0.33, `entrypoints/pooling/base/protocol.py` and `scoring/protocol.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rankd.dialects.fields import Count
from rankd.dialects.request import RequestBody, SentFields


class VllmOptions(RequestBody):
    use_activation: bool | None = Field(
        None, description="false: return raw logits, in nats. Default: true."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Only its `instruction` is read. Default: empty."
    )
    max_tokens_per_query: Count | None = Field(
        None,
        ge=0,
        description="A longer query is refused (400), because queries are never cut; 0 is the "
        "default. Default: half of what the model reads.",
    )
    truncate_prompt_tokens: Count | None = Field(
        None,
        ge=-1,
        description="Maximum tokens per pair, template included; longer documents are cut; -1 is "
        "the default. Default: what the model reads.",
    )
    truncation_side: Literal["right", "left"] | None = Field(
        None,
        description="The end of a long document to cut off; right is the end of the text. "
        "Default: right.",
    )
    request_id: str | None = Field(None, description="Accepted without effect.")
    padding: str | None = Field(
        None, description="Accepted without effect: prompts are never padded."
    )
    cache_salt: str | None = Field(
        None, description="Accepted without effect; `cache` false computes every score."
    )
    mm_processor_kwargs: dict[str, Any] | None = Field(
        None, description="Accepted without effect: the model reads text only."
    )

    def add_limits(self, sent: SentFields) -> None:
        """Adds the limits of the query and of the whole prompt."""
        sent.max_query_tokens = self.max_tokens_per_query or None
        if self.truncate_prompt_tokens is not None and self.truncate_prompt_tokens >= 0:
            sent.max_prompt_tokens = self.truncate_prompt_tokens

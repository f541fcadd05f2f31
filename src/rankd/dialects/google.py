"""Google's ranking API (Discovery Engine, Agent Search): `records` with a title and a content.

Source: google-cloud-discoveryengine 0.20, types/rank_service.py; cloud.google.com, rankingConfigs.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import AliasChoices, BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import GRPC_CODES, Failure, openai_error
from rankd.dialects.fields import LIST, Count, NoTexts, Query, text_at
from rankd.dialects.reply import AnswerResult, Reply
from rankd.dialects.request import RequestBody, SentFields, example
from rankd.dialects.text_objects import record_text, text_of
from rankd.errors import RankError


class GoogleRequest(RequestBody):
    model_config = example(
        {
            "model": "semantic-ranker-default@latest",
            "query": "What do bees make?",
            "records": [
                {"id": "1", "title": "Bees", "content": "Bees make honey and wax."},
                {"id": "2", "content": "Cactuses store water."},
            ],
            "topN": 1,
        }
    )

    sent_names: ClassVar = {"documents": "records"}

    query: Query = Field(description="The search query.")
    records: list[Any] = Field(
        description="Records to rank: objects with `id`, and `title`, `content` or both.",
        json_schema_extra=LIST,
    )
    top_n_: Count | None = Field(
        None,
        validation_alias=AliasChoices("topN", "top_n"),
        ge=-(2**31),
        description="Maximum number of records. 0 or less, or absent: all.",
    )
    ignore_details_: bool | None = Field(
        None,
        validation_alias=AliasChoices(
            "ignoreRecordDetailsInResponse", "ignore_record_details_in_response"
        ),
        description="true: records in the answer have only `id` and `score`. Default: false.",
    )
    user_labels_: dict[str, str] | None = Field(
        None,
        validation_alias=AliasChoices("userLabels", "user_labels"),
        description="Accepted without effect.",
    )

    def sent(self) -> SentFields:
        if not self.records:
            raise NoTexts("records must not be empty", param="records")
        return SentFields(
            queries=[
                (
                    self.query,
                    tuple(
                        text_at(record, f"records[{index}]", _record_text)
                        for index, record in enumerate(self.records)
                    ),
                )
            ],
            top_n=self.top_n_,
            # The answer has no indexes, so even without details it repeats the ids.
            return_documents=True,
            documents=[_details(one, ids_only=bool(self.ignore_details_)) for one in self.records],
        )


_TEXT_FIELDS = ("title", "content")


def _record_text(record: Any) -> str:
    """The title and the content (and fields that Google does not have) as a record.

    If only one of title and content is there, it is the text.
    """
    if not isinstance(record, dict) or not record.get("title") or "text" in record:
        return text_of(record)
    fields = {name: value for name, value in record.items() if name != "id"}
    if not fields.get("content"):
        fields.pop("content", None)
    else:
        rest = {name: value for name, value in fields.items() if name != "title"}
        fields["content"] = text_of(rest)
    return text_of({"content": fields["title"]}) if len(fields) == 1 else record_text(fields)


def _details(record: Any, *, ids_only: bool) -> dict[str, Any]:
    """What the answer repeats of a record."""
    if not isinstance(record, dict):
        return {}
    names = ("id",) if ids_only else ("id", *_TEXT_FIELDS)
    return {name: record[name] for name in names if name in record}


class GoogleRecord(BaseModel):
    id: str | None = Field(None, description="As sent; absent if the record has none.")
    title: str | None = Field(None, description="As sent; absent unless details are returned.")
    content: str | None = Field(None, description="As sent; absent unless details are returned.")
    score: float


class GoogleResponse(BaseModel):
    records: list[GoogleRecord] = Field(description="Most relevant first.")


class GoogleStatus(BaseModel):
    code: int
    message: str
    status: str


class GoogleFailure(Failure):
    error: GoogleStatus
    message: str
    detail: str


class Google(Dialect):
    name = "google"
    about = "Google's ranking API."
    Request = GoogleRequest
    response = GoogleResponse
    failure = GoogleFailure
    paths = tuple(
        f"/{version}/projects/{{config:path}}:rank" for version in ("v1", "v1beta", "v1alpha")
    )

    def render(self, reply: Reply) -> dict[str, Any]:
        return {"records": [self._record(reply, result) for result in reply.best]}

    def _record(self, reply: Reply, result: AnswerResult) -> dict[str, Any]:
        return {**reply.answer.documents[result.index], "score": result.number}

    def error(self, problem: RankError) -> dict[str, Any]:
        status = {
            "code": problem.status,
            "message": problem.message,
            "status": GRPC_CODES.get(problem.status, "UNKNOWN"),
        }
        return openai_error(problem) | {"error": status}


dialect = Google()

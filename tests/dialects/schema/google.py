"""Google's ranking API, as its Python client states it; over HTTP names are in camel case."""

from __future__ import annotations

from typing import Any

from schema.base import OBJECTS, PICTURE, QUERY, TEXTS, Call, Field, Maybe, Never, Schema

_RECORDS = [{"id": str(index), "content": text} for index, text in enumerate(TEXTS)]
_TITLED = [{"id": "a", "title": "Texel", "content": TEXTS[0]}, {"id": "b", "title": "Utrecht"}]


def _error(status: int, name: str) -> dict[str, Any]:
    return {
        "error": {"code": status, "message": str, "status": name, "details": Never(list)},
    }


SCHEMA = Schema(
    dialect="google",
    version="discoveryengine v1, google-cloud-discoveryengine 0.20.5",
    date="2026-11",
    source="google-cloud-discoveryengine: discoveryengine_v1/types/rank_service.py",
    calls=tuple(
        Call(
            f"/{version}/projects/p/locations/global/rankingConfigs/default_ranking_config:rank",
            {
                "model": Field(("semantic-ranker-default@latest",)),
                # The client may leave it out; there is nothing to rank by then.
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "records": Field(
                    (_RECORDS, _TITLED),
                    required=True,
                    invalid=([], 3, [3], [{}]),
                    lenient=(TEXTS, OBJECTS),
                    refused=([PICTURE],),
                ),
                "topN": Field((0, 1, 50, -1), invalid=("many",)),
                "ignoreRecordDetailsInResponse": Field((True, False), invalid=("maybe",)),
                "userLabels": Field(({"team": "search"},), invalid=(3,)),
                # Protocol buffers as JSON have both spellings.
                "top_n": Field((1,), invalid=("many",)),
                "ignore_record_details_in_response": Field((True, False)),
                "user_labels": Field(({},)),
            },
            {
                "records": [
                    {
                        "id": str,
                        "title": Maybe(str),
                        "content": Maybe(str),
                        "score": float,
                    }
                ],
            },
        )
        for version in ("v1", "v1beta", "v1alpha")
    ),
    errors={
        400: _error(400, "INVALID_ARGUMENT"),
        401: _error(401, "UNAUTHENTICATED"),
        404: _error(404, "NOT_FOUND"),
    },
)

"""Google's Discovery Engine client with its REST transport; its gRPC transports do not fit."""

from __future__ import annotations

from typing import Any

from google.api_core import exceptions
from google.auth.api_key import Credentials
from google.cloud import discoveryengine_v1
from google.cloud.discoveryengine_v1.services.rank_service.transports import (
    RankServiceRestTransport,
)

from harness import BEIJING, BEST, DOCUMENTS, QUERY, Server, case, eq, main, ranked, refused

CLIENT, PACKAGE, DIALECT = "discoveryengine RankService", "google-cloud-discoveryengine", "Google"
CONFIG = "projects/p/locations/global/rankingConfigs/default_ranking_config"


def client(url: str, key: str = "any") -> Any:
    transport = RankServiceRestTransport(
        host=url.removeprefix("http://"), url_scheme="http", credentials=Credentials(key)
    )
    return discoveryengine_v1.RankServiceClient(transport=transport)


def request(query: str = QUERY, **fields: Any) -> Any:
    records = [
        discoveryengine_v1.RankingRecord(id=str(index), content=document)
        for index, document in enumerate(DOCUMENTS)
    ]
    return discoveryengine_v1.RankRequest(
        ranking_config=CONFIG, query=query, records=records, **fields
    )


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    ranked(
        [int(record.id) for record in answer.records],
        [record.score for record in answer.records],
        count,
    )


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        answer = client(wire.url).rank(request())
    check(answer)
    eq(answer.records[0].content, BEIJING)
    [sent] = wire.requests
    assert sent.startswith(f"POST /v1/{CONFIG}:rank"), sent


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    answer = client(server.url).rank(
        request(
            model="semantic-ranker-default@latest",
            top_n=2,
            ignore_record_details_in_response=True,
            user_labels={"team": "search"},
        )
    )

    check(answer, 2)
    eq(answer.records[0].content, "")


@case(CLIENT, PACKAGE, DIALECT)
def titles(server: Server) -> None:
    records = [
        discoveryengine_v1.RankingRecord(id=str(index), title="A fact", content=document)
        for index, document in enumerate(DOCUMENTS)
    ]
    asked = discoveryengine_v1.RankRequest(ranking_config=CONFIG, query=QUERY, records=records)

    answer = client(server.url).rank(asked)

    eq((answer.records[0].id, answer.records[0].title), (str(BEST), "A fact"))


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(exceptions.BadRequest, "query must not be empty"):
        client(wire.url).rank(request(query=" "))
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    check(client(server.keyed, server.key).rank(request()))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    with refused(exceptions.Unauthorized, "invalid api token"):
        client(server.keyed, "wrong").rank(request())


if __name__ == "__main__":
    main()

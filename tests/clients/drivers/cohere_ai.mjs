// Cohere's SDK for Node: versions 1 and 2 of its API.
import { CohereClient, CohereClientV2, CohereError } from "cohere-ai";

import { BEIJING, DOCUMENTS, MODEL, QUERY, SENTENCE, eq, main, ok, ranked, refused, server, watched } from "./harness.mjs";

const NAME = "cohere-ai";
const request = { model: MODEL, query: QUERY, documents: DOCUMENTS };
const v2 = (environment, token = "any") => new CohereClientV2({ token, environment });
const v1 = (environment, token = "any") => new CohereClient({ token, environment });

function check(answer, count) {
  ranked(
    answer.results.map((result) => result.index),
    answer.results.map((result) => result.relevanceScore),
    count,
  );
}

await main("cohere-ai CohereClientV2", "Cohere v2", NAME, {
  async ranks() {
    const requests = await watched(server.url, async (url) => check(await v2(url).rerank(request)));
    eq(requests, ["POST /v2/rerank"]);
  },
  async every_field() {
    const answer = await v2(server.url).rerank({
      ...request,
      topN: 2,
      maxTokensPerDoc: 4096,
      priority: 1,
    });
    check(answer, 2);
    eq(answer.meta.billedUnits.searchUnits, 1);
    ok(answer.id, "no id");
  },
  async top_n_above_the_count() {
    check(await v2(server.url).rerank({ ...request, topN: 50 }));
  },
  async half_of_an_emoji() {
    const answer = await v2(server.url).rerank({ ...request, documents: ["half \ud83d", "b"] });
    eq(answer.results.length, 2);
  },
  async bad_request() {
    const requests = await watched(server.url, async (url) => {
      const error = await refused(CohereError, SENTENCE, () =>
        v2(url).rerank({ ...request, query: "" }),
      );
      eq(error.statusCode, 400);
      eq(error.body.message, SENTENCE);
    });
    eq(requests.length, 1, "requests");
  },
  async right_key() {
    check(await v2(server.keyed, server.key).rerank(request));
  },
  async wrong_key() {
    const error = await refused(CohereError, "invalid api token", () =>
      v2(server.keyed, "wrong").rerank(request),
    );
    eq(error.statusCode, 401);
  },
});

await main("cohere-ai CohereClient", "Cohere v1", NAME, {
  async ranks() {
    const requests = await watched(server.url, async (url) => check(await v1(url).rerank(request)));
    eq(requests, ["POST /v1/rerank"]);
  },
  async every_field() {
    const answer = await v1(server.url).rerank({
      ...request,
      documents: DOCUMENTS.map((text) => ({ text })),
      topN: 2,
      rankFields: ["text"],
      returnDocuments: true,
      maxChunksPerDoc: 10,
    });
    check(answer, 2);
    eq(answer.results[0].document.text, BEIJING);
  },
  async without_documents() {
    const answer = await v1(server.url).rerank({ ...request, returnDocuments: false });
    check(answer);
    ok(answer.results.every((result) => result.document === undefined), "documents came back");
  },
  async bad_request() {
    await refused(CohereError, SENTENCE, () => v1(server.url).rerank({ ...request, query: "" }));
  },
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { requestBody } from "../../../src/rankd/ui/static/fields.js";
import { excerpt, pieces } from "../../../src/rankd/ui/static/spans.js";

const joined = (parts) => parts.map((part) => part.text).join("");

const CASES = {
  "no span": ["abc", [], [{ text: "abc" }]],
  "a span inside": [
    "a b c",
    [{ start: 2, end: 3, score: 0.5 }],
    [{ text: "a " }, { text: "b", score: 0.5 }, { text: " c" }],
  ],
  "the whole text": ["abc", [{ start: 0, end: 3, score: 1 }], [{ text: "abc", score: 1 }]],
  "spans by score, shown by place": [
    "ab",
    [
      { start: 1, end: 2, score: 0.9 },
      { start: 0, end: 1, score: 0.1 },
    ],
    [
      { text: "a", score: 0.1 },
      { text: "b", score: 0.9 },
    ],
  ],
  "an emoji is one character": [
    "😀中b",
    [{ start: 1, end: 2, score: 0 }],
    [{ text: "😀" }, { text: "中", score: 0 }, { text: "b" }],
  ],
  "a span behind the end": ["ab", [{ start: 1, end: 9, score: 1 }], [{ text: "a" }, { text: "b", score: 1 }]],
};

for (const [name, [text, spans, expected]] of Object.entries(CASES)) {
  test(`pieces: ${name}`, () => {
    assert.deepEqual(pieces([...text], spans), expected);
    assert.equal(joined(pieces([...text], spans)), text);
  });
}

const LONG = [..."x".repeat(900), ..."answer", ..."y".repeat(900)];

test("an excerpt begins with the text if its best span is there", () => {
  const found = excerpt(LONG, [{ start: 5, end: 9, score: 1 }, { start: 900, end: 906, score: 0.5 }], 600);
  assert.deepEqual([found.start, found.end], [0, 600]);
  assert.deepEqual(found.spans, [{ start: 5, end: 9, score: 1 }]);
});

test("an excerpt shows the best span of a long text", () => {
  const found = excerpt(LONG, [{ start: 900, end: 906, score: 1 }], 600);
  const [span] = found.spans;
  assert.equal(found.characters.slice(span.start, span.end).join(""), "answer");
  assert.equal(found.characters.length, 600);
});

test("spans are asked for if they are chosen", () => {
  const fields = { query: "q", preset: "", instruction: "" };
  assert.ok(!("relevant_spans" in requestBody({ ...fields, spans: "" }, ["a"])));
  assert.equal(requestBody({ ...fields, spans: "sentences" }, ["a"]).relevant_spans, true);
});

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { readable } from "../../../src/rankd/ui/static/api.js";
import { counts, figures } from "../../../src/rankd/ui/static/chart.js";
import { LABELS, t } from "../../../src/rankd/ui/static/labels.js";
import { sorted } from "../../../src/rankd/ui/static/ranking.js";

const STATIC = new URL("../../../src/rankd/ui/static/", import.meta.url);

const fields = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();

test("every label exists in both languages, with the same fields", () => {
  assert.deepEqual(Object.keys(LABELS.zh), Object.keys(LABELS.en));
  for (const [name, text] of Object.entries(LABELS.en)) {
    assert.deepEqual(fields(LABELS.zh[name]), fields(text), name);
    assert.ok(LABELS.zh[name], name);
  }
});

test("every label of the HTML file exists, and the file has no words of its own", () => {
  const page = readFileSync(new URL("index.html", STATIC), "utf8");
  const used = [...page.matchAll(/data-label(?:-\w+)?="(\w+)"/g)].map((match) => match[1]);
  assert.ok(used.length > 25);
  assert.deepEqual(used.filter((name) => !(name in LABELS.en)), []);
  assert.ok([...page.matchAll(/data-label="\w+"[^>]*>([^<]*)</g)].every(([, text]) => !text));
});

test("numbers in labels have thousands separators", () => {
  assert.equal(t("documentsMany", { n: 12_345 }), "12,345 documents");
});

for (const [said, shown] of [
  ["document 0 was cut from 27000 to 8102 tokens", "#1 was cut from 27,000 to 8,102 tokens"],
  ["document 9 was cut from more than 123456 to 8102 tokens", "#10 was cut from more than 123,456 to 8,102 tokens"],
  ["4 of 1000 documents were not scored in time: 3, 5-7", "4 of 1,000 documents were not scored in time: #4, #6-#8"],
  ["documents[2] must not be an empty object", "document #3 must not be an empty object"],
  ["a request may have at most 1,000 documents, not 2,000", "a request may have at most 1,000 documents, not 2,000"],
  ["the instruction '20231 rules' was read as a text", "the instruction '20231 rules' was read as a text"],
  ["unknown field 'a1234' was ignored", "unknown field 'a1234' was ignored"],
  ["below 0.12345, the threshold", "below 0.12345, the threshold"],
]) {
  test(`sentences of the server use the page's numbers: ${said}`, () => {
    assert.equal(readable(said), shown);
  });
}

test("the distribution counts every score once", () => {
  const scores = [1, 0.999, 0.5, 0.001, 0];
  const bins = counts(scores);
  assert.deepEqual([bins[0], bins[10], bins[19]], [2, 1, 2]);
  assert.equal(bins.reduce((sum, count) => sum + count), 5);
  const shown = figures(scores).map(([, value]) => value);
  assert.deepEqual(shown, ["1.0000", "0.5000", "0.0000", "3 of 5", "0.4990 after rank 2"]);
  assert.equal(figures([0.8, 0.2])[1][1], "0.5000");
});

test("equal scores keep the order of the input", () => {
  const results = [2, 0, 1].map((index) => ({ index, relevance_score: index === 1 ? 0.9 : 0.5 }));
  assert.deepEqual(sorted(results).map((result) => result.index), [1, 0, 2]);
});

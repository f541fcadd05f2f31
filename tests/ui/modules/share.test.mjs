import assert from "node:assert/strict";
import { test } from "node:test";

import { csvRows } from "../../../src/rankd/ui/static/documents.js";
import { fromFragment, toCsv, toFragment } from "../../../src/rankd/ui/static/share.js";

const NAMES = ["query", "documents", "format"];
const TEXTS = ["", "a+b/c=d?e#f", "中文 🎉", '"quoted" \\ \n lines', "x".repeat(10_000)];

for (const text of TEXTS) {
  test(`a link gives back what was shared: ${text.slice(0, 20)}`, () => {
    const fields = { query: text, documents: `${text}\n${text}`, format: "csv" };
    const fragment = toFragment(fields);
    assert.match(fragment, /^#s=[\w-]+$/);
    assert.deepEqual(fromFragment(fragment, NAMES), fields);
  });
}

test("a link sets only the named fields, and only texts", () => {
  const fragment = toFragment({ query: "q", key: "secret", documents: ["no text"] });
  assert.deepEqual(fromFragment(fragment, NAMES), { query: "q", documents: "", format: "" });
});

test("a damaged link sets nothing", () => {
  const fragment = toFragment({ query: "中文" });
  for (const damaged of ["", "#", "#s=", "#s=%%", fragment.slice(0, -3), "#s=bnVsbA%", "#other"]) {
    assert.equal(fromFragment(damaged, NAMES), undefined, damaged);
  }
  assert.deepEqual(fromFragment("#s=bnVsbA", NAMES), { query: "", documents: "", format: "" });
});

test("the CSV has a row for each result, best first, and reads back as it was", () => {
  const documents = ['with "quotes", commas', "two\r\nlines", " 中文 ", { text: "of an object" }];
  const results = [2, 0, 3, 1].map((index, rank) => ({ index, relevance_score: 1 / (rank + 3) }));
  const csv = toCsv(results, documents);

  assert.ok(csv.startsWith("\uFEFFrank,index,relevance_score,text\r\n"));
  assert.deepEqual(csvRows(csv.slice(1)).slice(1), [
    ["1", "2", String(1 / 3), " 中文 "],
    ["2", "0", "0.25", 'with "quotes", commas'],
    ["3", "3", "0.2", "of an object"],
    ["4", "1", String(1 / 6), "two\r\nlines"],
  ]);
});

test("no text of a document is a formula of a spreadsheet", () => {
  for (const text of ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]) {
    const [, row] = csvRows(toCsv([{ index: 0, relevance_score: 0.5 }], [text]).slice(1));
    assert.equal(row[3], `'${text}`);
  }
});

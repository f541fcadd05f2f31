import assert from "node:assert/strict";
import { test } from "node:test";

import {
  csvRows,
  guessFormat,
  parseDocuments,
  textOf,
  UnreadableDocuments,
} from "../../../src/rankd/ui/static/documents.js";

test("every line is a document and blank lines are skipped", () => {
  const text = "one\n\n  two, and more \r\nthree\n";
  assert.deepEqual(parseDocuments(text), ["one", "two, and more", "three"]);
});

test("blank lines separate paragraphs", () => {
  const text = "one\nline\r\n\r\ntwo\n \t\nthree\n\n\n";
  assert.deepEqual(parseDocuments(text, "paragraphs"), ["one\nline", "two", "three"]);
});

for (const [text, documents] of [
  ['["a", {"text": "b"}]', ["a", { text: "b" }]],
  ['[\n "a",\n "b"\n]\n', ["a", "b"]],
  ['{"query": "q", "documents": ["a", "b"]}', ["a", "b"]],
  ['{"input": "q", "texts": ["a"]}', ["a"]],
  ['{"text": "a"}\n{"text": "b"}\n', [{ text: "a" }, { text: "b" }]],
  ['{"text": "a"}', [{ text: "a" }]],
  ['id,text\n1,"a, ""b"""\n2,c\n', ['a, "b"', "c"]],
  ["Title,Content\nx,one\ny,two\n", ["one", "two"]],
]) {
  test(`JSON and CSV are detected: ${text}`, () => {
    assert.deepEqual(parseDocuments(text, "auto"), documents);
  });
}

for (const line of ["[1] A footnote", "Yes, of course", '"Hello," she said']) {
  test(`lines that only begin like JSON or CSV are lines: ${line}`, () => {
    assert.deepEqual(parseDocuments(`${line}\nanother`), [line, "another"]);
  });
}

test("CSV without a text column gives objects with all fields", () => {
  assert.deepEqual(parseDocuments("title,year\nRuns,1999\n", "csv"), [
    { title: "Runs", year: "1999" },
  ]);
});

test("CSV with one column needs no header", () => {
  assert.deepEqual(parseDocuments('one\n"two\nlines"\n', "csv"), ["one", "two\nlines"]);
});

test("empty cells at every place of a row are kept", () => {
  assert.deepEqual(csvRows('a,,b\r\n,x,\n"",""\n'), [["a", "", "b"], ["", "x", ""], ["", ""]]);
});

for (const [text, format, message] of [
  ["", "auto", /no documents/],
  [" \n ", "lines", /no documents/],
  ["\n\n", "paragraphs", /no documents/],
  ["id,text\n", "csv", /no documents/],
  ['["a",\n "b', "json", /line 2/],
  ['{"text": "a"}\n{"text": ', "json", /line 2/],
  ["7", "json", /array/],
  ['["a", 7]', "json", /#2/],
  ['["a", null]', "json", /#2/],
  ['["a", ["b"]]', "json", /#2/],
  ['x\na,"b', "csv", /CSV, line 2/],
  ['a,"b"c', "csv", /CSV, line 1/],
]) {
  test(`unreadable text is an error that says where: ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseDocuments(text, format), (error) => {
      assert.ok(error instanceof UnreadableDocuments);
      assert.match(error.message, message);
      return true;
    });
  });
}

test("deeply nested JSON is no crash", () => {
  assert.throws(() => parseDocuments("[".repeat(100_000), "json"), UnreadableDocuments);
});

test("any text gives documents or a readable error", () => {
  const pieces = ['"', ",", "\n", "\r\n", "{", "}", "[", "]", "a", " ", "text", ":", "\\", "\t"];
  let seed = 1;
  const die = (sides) => (seed = (seed * 48_271) % 2_147_483_647) % sides;
  for (let round = 0; round < 5_000; round += 1) {
    const text = Array.from({ length: die(12) }, () => pieces[die(pieces.length)]).join("");
    for (const format of ["auto", "lines", "paragraphs", "json", "csv"]) {
      try {
        const documents = parseDocuments(text, format);
        assert.ok(documents.length > 0, text);
      } catch (error) {
        assert.ok(error instanceof UnreadableDocuments, `${format} ${JSON.stringify(text)} ${error}`);
      }
    }
  }
});

test("ten times the text takes no more than forty times the time", () => {
  for (const shape of ["a line\n", 'a,"b"\n', "one\n\n", '"a"",', ",", "\n \n", '{"text": "a"}\n']) {
    for (const format of ["lines", "paragraphs", "json", "csv"]) {
      const time = (count) => {
        const text = shape.repeat(count);
        const began = performance.now();
        try {
          parseDocuments(text, format);
        } catch (error) {
          assert.ok(error instanceof UnreadableDocuments);
        }
        return performance.now() - began;
      };
      time(20_000);
      const [small, large] = [time(20_000), time(200_000)];
      assert.ok(large < 40 * Math.max(small, 5), `${format} ${JSON.stringify(shape)}: ${small}, ${large}`);
    }
  }
});

test("the text of an object is its text, or all of its fields", () => {
  assert.equal(textOf({ text: "a", n: 1 }), "a");
  assert.equal(textOf({ title: "a", n: 1 }), "title: a\nn: 1");
  assert.equal(guessFormat('{"a": 1}'), "json");
});

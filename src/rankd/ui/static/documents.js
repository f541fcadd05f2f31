// Reads documents from pasted text: lines, paragraphs, JSON, JSON lines or CSV. Linear time.

import { t } from "./labels.js";

export const FORMATS = ["auto", "lines", "paragraphs", "json", "csv"];

// Fields with the documents in a pasted request.
const LIST_FIELDS = ["documents", "texts", "passages"];

// Columns with the text in a table, in order of preference.
export const TEXT_COLUMNS = ["text", "content", "document", "passage", "body"];

// Numbers that JavaScript would change: 1.0, 1e5, more than 15 digits. Kept as they are written,
// where the browser can do so.
const INEXACT = /\d(\.|[eE]|\d{15})/;
const asWritten = (_, value, { source }) =>
  typeof value === "number" && String(value) !== source ? JSON.rawJSON(source) : value;
const parseJson = (text) =>
  JSON.rawJSON && INEXACT.test(text) ? JSON.parse(text, asWritten) : JSON.parse(text);
export const isNumberAsWritten = (value) => Boolean(JSON.isRawJSON?.(value));

const LINE_END = /\r\n|\r|\n/;

export class UnreadableDocuments extends Error {}

// The documents in a text: strings and objects. Throws UnreadableDocuments.
export function parseDocuments(text, format = "auto") {
  const chosen = format === "auto" ? guessFormat(text) : format;
  const documents = { lines, paragraphs, json, csv }[chosen](text);
  if (!documents.length) {
    throw new UnreadableDocuments(t("noDocuments"));
  }
  return documents;
}

// JSON or CSV only if the first line can hardly be anything else.
export function guessFormat(text) {
  const trimmed = text.trim();
  const first = trimmed.split(LINE_END, 1)[0];
  // Lines of text may begin with "[1]"; hardly any begins with a brace.
  if (first.startsWith("{") || (first.startsWith("[") && trimmed.endsWith("]"))) {
    return "json";
  }
  const names = first.split(",").map((name) => name.trim().toLowerCase());
  return names.length > 1 && names.some((name) => TEXT_COLUMNS.includes(name)) ? "csv" : "lines";
}

const lines = (text) => trimmedParts(text.split(LINE_END));

export const paragraphs = (text) =>
  trimmedParts(text.replace(/\r\n?/g, "\n").split(/\n[^\S\n]*\n/));

const trimmedParts = (parts) => parts.map((part) => part.trim()).filter(Boolean);

function json(text) {
  let value;
  try {
    value = parseJson(text);
  } catch (error) {
    if (text.trim().includes("\n") && !text.trim().startsWith("[")) {
      return jsonLines(text);
    }
    throw new UnreadableDocuments(t("badJson", { n: lineOfError(text, error), why: reason(error) }));
  }
  if (isObject(value)) {
    const list = LIST_FIELDS.map((name) => value[name]).find(Array.isArray);
    value = list ?? [value];
  }
  if (!Array.isArray(value)) {
    throw new UnreadableDocuments(t("notArray"));
  }
  return value.map(checked);
}

function jsonLines(text) {
  const documents = [];
  text.split(LINE_END).forEach((line, index) => {
    if (!line.trim()) {
      return;
    }
    let value;
    try {
      value = parseJson(line);
    } catch (error) {
      throw new UnreadableDocuments(t("badJsonLine", { n: index + 1, why: reason(error) }));
    }
    documents.push(checked(value, documents.length));
  });
  return documents;
}

function checked(value, index) {
  if (typeof value === "string" || isObject(value)) {
    return value;
  }
  throw new UnreadableDocuments(t("notDocument", { n: index + 1 }));
}

const isObject = (value) =>
  value !== null &&
  typeof value === "object" &&
  !Array.isArray(value) &&
  !isNumberAsWritten(value);

// Engines quote the text in the message, and add the position in different ways.
const reason = (error) => error.message.replace(/,? (in|at|of) .*$|, ?(\.\.\.)?".*$/s, "");

function lineOfError(text, error) {
  const line = /line (\d+)/.exec(error.message);
  const position = /position (\d+)/.exec(error.message);
  const end = position ? Number(position[1]) : text.trimEnd().length;
  return line ? Number(line[1]) : text.slice(0, end).split(LINE_END).length;
}

function csv(text) {
  const rows = csvRows(text.trim()).filter((row) => row.some(Boolean));
  if (!rows.length) {
    return [];
  }
  const names = rows[0].map((name) => name.trim());
  const lower = names.map((name) => name.toLowerCase());
  const column = TEXT_COLUMNS.map((name) => lower.indexOf(name)).find((index) => index >= 0);
  if (column !== undefined) {
    return rows.slice(1).flatMap((row) => (row[column]?.trim() ? [row[column]] : []));
  }
  if (names.length === 1) {
    return rows.map((row) => row[0]); // A single column needs no header.
  }
  return rows
    .slice(1)
    .map((row) => Object.fromEntries(row.slice(0, names.length).map((cell, n) => [names[n], cell])));
}

// Rows of cells, as RFC 4180 has them.
export function csvRows(text) {
  const rows = [];
  let row = [];
  let at = 0;
  while (at < text.length || row.length) {
    let cell;
    [cell, at] = text[at] === '"' ? quotedCell(text, at) : plainCell(text, at);
    row.push(cell);
    if (text[at] === ",") {
      at += 1;
      continue;
    }
    rows.push(row);
    row = [];
    at += text.startsWith("\r\n", at) ? 2 : 1;
  }
  return rows;
}

function plainCell(text, at) {
  const end = /[,\r\n]|$/g;
  end.lastIndex = at;
  const next = end.exec(text).index;
  return [text.slice(at, next), next];
}

function quotedCell(text, at) {
  let end = text.indexOf('"', at + 1);
  while (end >= 0 && text[end + 1] === '"') {
    end = text.indexOf('"', end + 2);
  }
  if (end < 0 || (end + 1 < text.length && !",\r\n".includes(text[end + 1]))) {
    const n = text.slice(0, end < 0 ? at : end).split(LINE_END).length;
    throw new UnreadableDocuments(t("badCsv", { n, why: t(end < 0 ? "csvQuote" : "csvAfterQuote") }));
  }
  return [text.slice(at + 1, end).replaceAll('""', '"'), end + 1];
}

// The text of a document as the server reads it.
export function textOf(document) {
  if (typeof document === "string") {
    return document;
  }
  if (typeof document.text === "string") {
    return document.text;
  }
  return Object.entries(document)
    .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join("\n");
}

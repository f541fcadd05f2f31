// Results as CSV, and the form's fields as a link.

import { textOf } from "./documents.js";

// Browsers and chats cut longer links.
export const MAX_LINK = 60_000;

const MARK = "#s=";

// Rows for a spreadsheet; the index counts from 0, as the API does. With a byte order mark, for Excel.
export function toCsv(results, documents) {
  const rows = results.map((result, rank) => [
    rank + 1,
    result.index,
    result.relevance_score,
    harmless(textOf(documents[result.index])),
  ]);
  const table = [["rank", "index", "relevance_score", "text"], ...rows];
  return `\uFEFF${table.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

const cell = (value) => {
  const text = String(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

// A spreadsheet would run a text that begins like a formula.
const harmless = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

// The part of a link behind the page's address. Servers never see it.
export function toFragment(fields) {
  const filled = Object.entries(fields).filter(([, value]) => value);
  const bytes = new TextEncoder().encode(JSON.stringify(Object.fromEntries(filled)));
  let binary = "";
  for (const byte of bytes) {
    binary += String.fromCharCode(byte);
  }
  return MARK + btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

// The fields in a link, of which only the named ones are read; undefined if there are none.
export function fromFragment(fragment, names) {
  if (!fragment.startsWith(MARK)) {
    return undefined;
  }
  try {
    const base64 = fragment.slice(MARK.length).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const sent = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return Object.fromEntries(
      names.map((name) => [name, typeof sent?.[name] === "string" ? sent[name] : ""]),
    );
  } catch {
    return undefined; // A link that was cut off.
  }
}

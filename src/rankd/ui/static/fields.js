// The form: its fields, which survive a reload, files, and the request that they describe.

import { FORMATS, guessFormat, paragraphs, parseDocuments } from "./documents.js";
import { byId, el } from "./dom.js";
import { number, t } from "./labels.js";
import { fromFragment } from "./share.js";

const STORED = "rankd.fields";

// Names in links and in storage → elements.
const ELEMENTS = {
  query: "query",
  preset: "preset",
  instruction: "instruction",
  documents: "documents",
  format: "format",
  spans: "spans",
  presetB: "preset-b",
  instructionB: "instruction-b",
};
const NAMES = Object.keys(ELEMENTS);

// Longer texts are counted only when they are ranked, and not kept over a reload.
const MAX_CHARACTERS = 1_000_000;

const FORMAT_OF_FILE = { json: "json", jsonl: "json", ndjson: "json", csv: "csv", txt: "lines" };

// A preset that a link or the storage named, before the server has told its presets.
const wanted = {};

// Half of a character (a lone surrogate) is no text that a server accepts.
const wellFormed = (text) => text.toWellFormed?.() ?? text;

export function readFields() {
  const fields = NAMES.map((name) => [name, wellFormed(byId(ELEMENTS[name]).value)]);
  return Object.fromEntries(fields);
}

export function writeFields(fields) {
  for (const name of NAMES) {
    if (fields[name] !== undefined) {
      byId(ELEMENTS[name]).value = fields[name] || (name === "format" ? "auto" : "");
      wanted[name] = fields[name];
    }
  }
  changed();
}

export function startFields() {
  byId("format").append(...FORMATS.map((format) => el("option", { value: format }, t(format))));
  showPresets({ presets: {} });
  writeFields(storedFields());
  takeLink();
  addEventListener("hashchange", takeLink);
  document.addEventListener("input", changed);
  byId("as-paragraphs").addEventListener("click", () => {
    byId("format").value = "paragraphs";
    changed();
  });
}

function storedFields() {
  try {
    return JSON.parse(sessionStorage.getItem(STORED)) ?? {};
  } catch {
    return {};
  }
}

// Fill in the fields of a shared link, and take them off the address: a reload keeps later changes.
function takeLink() {
  const fields = fromFragment(location.hash, NAMES);
  if (fields) {
    history.replaceState(null, "", location.pathname);
    writeFields(fields);
  }
}

export function showPresets(config) {
  const own = config.instruction ? t("serversOwnText", { text: config.instruction }) : t("serversOwn");
  for (const name of ["preset", "presetB"]) {
    const select = byId(ELEMENTS[name]);
    const chosen = select.value || wanted[name] || "";
    const options = Object.entries(config.presets).map(([value, text]) =>
      el("option", { value }, `${value}: ${text}`),
    );
    select.replaceChildren(el("option", { value: "" }, own), ...options);
    select.value = chosen;
    select.value ||= "";
    if (select.selectedIndex < 0) {
      select.selectedIndex = 0;
    }
  }
}

let waiting;

function changed() {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    keep();
    count();
  }, 150);
}

function keep() {
  const fields = readFields();
  const text = JSON.stringify(fields);
  if (text.length < MAX_CHARACTERS) {
    sessionStorage.setItem(STORED, text);
  } else {
    sessionStorage.removeItem(STORED);
  }
}

// Say below the field how many documents it has, and whether paragraphs may be meant.
function count() {
  const { documents: text, format } = readFields();
  const other = byId("as-paragraphs");
  other.hidden = true;
  byId("count").textContent = "";
  if (!text.trim() || text.length > MAX_CHARACTERS) {
    return;
  }
  const chosen = format === "auto" ? guessFormat(text) : format;
  let n;
  try {
    n = parseDocuments(text, chosen).length;
  } catch (error) {
    byId("count").textContent = error.message;
    return;
  }
  byId("count").textContent = t(n === 1 ? "countOne" : "count", { n, format: t(chosen) });
  const blocks = format === "auto" && chosen === "lines" ? paragraphs(text).length : n;
  if (blocks > 1 && blocks < n) {
    other.textContent = t("countParagraphs", { n: blocks });
    other.hidden = false;
  }
}

// The body for /v1/rerank with the form's instruction, or with the second one of a comparison.
export function requestBody(fields, documents, second = false) {
  const [preset, instruction] = second
    ? [fields.presetB, fields.instructionB]
    : [fields.preset, fields.instruction];
  const chosen = instruction.trim() ? { instruction } : preset ? { preset } : {};
  const spans = fields.spans ? { relevant_spans: true } : {};
  return { query: fields.query, documents, ...chosen, ...spans, return_details: true };
}

// The heading of a ranking in a comparison.
export const instructionName = (body) => body.instruction ?? body.preset ?? t("serversOwn");

// The browser reads the file and puts its text into the field. Returns an error message, or "".
export async function openFile(file, limit) {
  const format = FORMAT_OF_FILE[file.name.split(".").pop().toLowerCase()];
  if (!format) {
    return t("wrongFile", { name: file.name });
  }
  // Only a first check: as JSON a file is larger, and the server refuses it then.
  if (file.size > limit) {
    return t("largeFile", { name: file.name, size: number(file.size), limit: number(limit) });
  }
  writeFields({ documents: (await file.text()).replace(/^\uFEFF/, ""), format });
  return "";
}

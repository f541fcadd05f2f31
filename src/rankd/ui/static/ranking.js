// Shows rankings: summary, warnings and a row for each document.

import { textOf } from "./documents.js";
import { button, el, hint } from "./dom.js";
import { number, t } from "./labels.js";
import { excerpt, pieces } from "./spans.js";

// More makes the page slow.
export const MAX_ROWS = 200;

// Longer texts are cut, with a button that shows all.
const MAX_CHARACTERS = 600;

export const fixed = (score) => score.toFixed(4);

// The results so far, best first; equal scores in the order of the input.
export const sorted = (results) =>
  [...results].sort((a, b) => b.relevance_score - a.relevance_score || a.index - b.index);

// The ranks of a ranking: document index → rank, both from 0.
export const ranksOf = (results) => new Map(results.map((result, rank) => [result.index, rank]));

// Compares with the order of the input.
export const INPUT = { rank: (index) => index, label: "inInput" };

export function showRanking(answer, documents, before, actions = []) {
  return [
    el("div", { class: "summary" }, summary(answer), ...actions),
    ...answer.warnings.map((warning) => el("p", { class: "warning" }, warning)),
    rows(answer.results, documents, before, answer.cached),
    answer.results.length > MAX_ROWS &&
      hint(t("more", { n: answer.results.length - MAX_ROWS })),
  ].filter(Boolean);
}

export function rows(results, documents, before, cached) {
  const items = results
    .slice(0, MAX_ROWS)
    .map((result, rank) => row(result, rank, documents[result.index], before, cached));
  return el("ol", { class: "list" }, items);
}

function summary(answer) {
  const count = answer.results.length;
  const facts = [
    count === 1 ? t("documentsOne") : t("documentsMany", { n: count }),
    t("tokens", { n: answer.tokens }),
    answer.cached.size ? t("fromCache", { n: answer.cached.size }) : "",
  ];
  return el(
    "p",
    {},
    el("b", {}, `${number(Math.round(answer.milliseconds))} ms`),
    ...facts.filter(Boolean).map((fact) => ` · ${fact}`),
    " · ",
    el("span", { class: "id", title: t("requestId") }, answer.requestId),
  );
}

function row(result, rank, document, before, cached) {
  const score = result.relevance_score;
  const bar = el("i");
  bar.style.width = `${Math.max(0, Math.min(1, score)) * 100}%`;
  const previous = before.rank(result.index);
  return el(
    "li",
    {},
    el("div", { class: "rank" }, el("b", {}, String(rank + 1)), change(previous - rank)),
    el(
      "div",
      {},
      el(
        "div",
        { class: "score" },
        el("div", { class: "bar", "aria-hidden": "true" }, bar),
        el("data", { value: score, title: String(score) }, fixed(score)),
      ),
      // Spans count in the text that the server scored.
      result.relevant_spans
        ? text(result.document.text, result.relevant_spans)
        : text(textOf(document), []),
      el("p", { class: "tags" }, tags(result, previous, before, cached)),
    ),
  );
}

function tags(result, previous, before, cached) {
  const tag = (name, values, kind) => el("span", kind ? { class: kind } : {}, t(name, values));
  const chunks = result.chunk?.of ?? 1;
  return [
    tag(before.label, { n: previous + 1 }),
    result.tokens !== undefined && tag("promptTokens", { n: result.tokens }),
    result.normalized_score !== undefined &&
      tag("probable", { n: `${(result.normalized_score * 100).toFixed(1)}%` }),
    result.truncated && tag("truncated", {}, "cut"),
    chunks > 1 && tag("chunks", { n: chunks }),
    cached.has(result.index) && tag("cached", {}, "cached"),
  ].filter(Boolean);
}

// By how many ranks a document rose; negative: fell.
function change(up) {
  if (up === 0) {
    return el("span", { class: "same", title: t("sameRank") }, "=");
  }
  const name = up > 0 ? "up" : "down";
  const words = t(name, { n: Math.abs(up) });
  return el(
    "span",
    { class: name, title: words },
    el("span", { "aria-hidden": "true" }, (up > 0 ? "▲" : "▼") + number(Math.abs(up))),
    el("span", { class: "unseen" }, words),
  );
}

function text(whole, spans) {
  const paragraph = el("p", { class: "text" });
  if (whole.length <= MAX_CHARACTERS) {
    paragraph.append(...marked([...whole], spans));
    return paragraph;
  }
  const words = el("span");
  const toggle = button("", () => show(toggle.getAttribute("aria-expanded") !== "true"), {
    class: "link",
  });
  function show(all) {
    const characters = [...whole];
    const part = excerpt(characters, spans, MAX_CHARACTERS);
    const first = [part.start > 0 && "… ", ...marked(part.characters, part.spans), " … "];
    words.replaceChildren(...(all ? marked(characters, spans) : first.filter(Boolean)));
    toggle.textContent = t(all ? "showLess" : "showAll");
    toggle.setAttribute("aria-expanded", String(all));
  }
  show(false);
  paragraph.append(words, toggle);
  return paragraph;
}

// The nodes of a text; a string becomes a text node.
const marked = (characters, spans) =>
  pieces(characters, spans).map(({ text, score }) =>
    score === undefined
      ? text
      : el("mark", { title: t("spanScore", { score: fixed(score) }) }, text),
  );

// Two rankings of the same documents, side by side; B shows the changes from A.
export function showComparison(a, b, documents, names) {
  const ranksA = ranksOf(a.results);
  const differ = b.results.filter((result, rank) => ranksA.get(result.index) !== rank).length;
  const same = a.results[0]?.index === b.results[0]?.index;
  const inA = { rank: (index) => ranksA.get(index), label: "inA" };
  const side = (letter, name, answer, before) =>
    el(
      "section",
      {},
      el("h2", {}, el("span", {}, letter), name),
      ...showRanking(answer, documents, before),
    );
  const values = { n: differ, all: b.results.length, best: t(same ? "theSame" : "another") };
  return [
    el("p", { class: "difference" }, t("differ", values)),
    el("div", { class: "sides" }, side("A", names[0], a, INPUT), side("B", names[1], b, inA)),
  ];
}

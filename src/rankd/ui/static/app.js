// The page: what its buttons do.

import { cachedOf, PageError, rerank, serverUrl } from "./api.js";
import { announce, busy, stopOnClick } from "./busy.js";
import { showDistribution } from "./chart.js";
import { copyText, showCode } from "./code.js";
import { parseDocuments, UnreadableDocuments } from "./documents.js";
import { button, byId, el } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import * as form from "./fields.js";
import { connect, keyMissing, refused, startKey } from "./key.js";
import { labelPage, number, t } from "./labels.js";
import { fixed, INPUT, rows, showComparison, showRanking, sorted } from "./ranking.js";
import { MAX_LINK, toCsv, toFragment } from "./share.js";
import { openTab, startTabs } from "./tabs.js";

// Milliseconds between two pictures of a ranking that is being computed.
const REDRAW = 250;

// What the server told about itself; without a key it tells nothing.
let config = { presets: {}, max_body_bytes: Infinity, needs_key: true, model: "rankd" };

const output = (panel) => document.querySelector(`#${panel} .output`);

function alertUser(message) {
  byId("alert").textContent = message;
  byId("alert").hidden = !message;
}

async function start() {
  alertUser("");
  try {
    const told = await connect();
    if (told) {
      config = told;
      form.showPresets(config);
      showServer();
    } else {
      byId("served").replaceChildren();
    }
  } catch (error) {
    alertUser(error.message);
  }
}

function showServer() {
  const facts = [
    t("engine", { engine: config.engine, device: config.device }),
    t("maxDocuments", { n: config.max_documents }),
    t("maxTokens", { n: config.max_tokens }),
    `rankd ${config.version}`,
  ];
  const spans = facts.map((fact) => el("span", {}, fact));
  byId("served").replaceChildren(el("b", {}, config.model), ...spans);
  byId("builtin-hint").hidden = !config.is_builtin;
}

// Run `work` for a button and show its errors in the panel.
async function run(name, panel, work) {
  const target = output(panel);
  openTab(panel);
  if (keyMissing()) {
    target.replaceChildren(errorBox(new PageError(t("keyFirst"), 401)));
    byId("key").focus();
    return;
  }
  announce("");
  try {
    await busy(byId(name), target, work);
  } catch (error) {
    fail(error, target);
  }
}

function fail(error, target) {
  if (error.name === "AbortError") {
    target.replaceChildren(el("p", { class: "quiet" }, t("stopped")));
    announce(t("stopped"));
    return;
  }
  if (!(error instanceof PageError || error instanceof UnreadableDocuments)) {
    throw error;
  }
  if (error.status === 401) {
    refused();
  }
  target.replaceChildren(errorBox(error));
}

function errorBox(error) {
  const sentence = (error.message[0] ?? "").toUpperCase() + error.message.slice(1);
  const end = /[.!?。！？]$/.test(sentence) ? "" : ".";
  const details = [error.status || "", error.requestId ?? ""].filter(Boolean).join(" · ");
  return el(
    "div",
    { class: "error", role: "alert" },
    el("p", {}, sentence + end),
    details && el("small", {}, details),
  );
}

const rank = () =>
  run("run", "ranking", async (signal, show) => {
    const fields = form.readFields();
    const documents = parseDocuments(fields.documents, fields.format);
    const body = form.requestBody(fields, documents);
    bringIntoView();
    const answer = await ask(body, signal, show);
    const actions = el("span", { class: "actions" }, actionsFor(answer, documents, fields));
    output("ranking").replaceChildren(...showRanking(answer, documents, INPUT, [actions]));
    output("distribution").replaceChildren(...showDistribution(answer.results));
    const request = { url: serverUrl(), body, needsKey: config.needs_key, model: config.model };
    showCode(output("code"), request, answer.response);
    bringIntoView(); // Again: before, the page may have been too short.
    announceRanking(answer.results);
  });

// Ask the server, and show what is scored meanwhile.
function ask(body, signal, show) {
  const { documents } = body;
  let drawn = performance.now();
  show(t("scoring", { n: documents.length }));
  return rerank(body, {
    signal,
    onResults(scored) {
      if (performance.now() - drawn > REDRAW) {
        drawn = performance.now();
        show(t("scored", { done: scored.length, n: documents.length }), [
          rows(sorted(scored), documents, INPUT, cachedOf(scored)),
        ]);
      }
    },
  });
}

// On a phone the results are below the form.
function bringIntoView() {
  const tabs = byId("tabs");
  if (tabs.getBoundingClientRect().top > innerHeight * 0.7) {
    tabs.scrollIntoView({ block: "start" });
  }
}

function announceRanking(results) {
  const name = { 0: "statusNone", 1: "statusOne" }[results.length] ?? "status";
  const best = results.length ? results[0].relevance_score.toFixed(2) : "";
  announce(t(name, { n: results.length, best }));
}

function actionsFor(answer, documents, fields) {
  const download = button(t("download"), () => {
    const blob = new Blob([toCsv(answer.results, documents)], { type: "text/csv" });
    const link = el("a", { href: URL.createObjectURL(blob), download: "ranking.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  const share = button(t("share"), () => shareLink(share, fields), { title: t("shareTitle") });
  return [download, share];
}

async function shareLink(share, fields) {
  const link = location.href.split("#")[0] + toFragment(fields);
  if (link.length > MAX_LINK) {
    alertUser(t("shareLong", { n: number(link.length), limit: number(MAX_LINK) }));
    return;
  }
  alertUser("");
  await copyText(share, link, t("share"));
}

const compare = () =>
  run("run-compare", "compare", async (signal, show) => {
    const fields = form.readFields();
    const documents = parseDocuments(fields.documents, fields.format);
    const bodies = [false, true].map((second) => form.requestBody(fields, documents, second));
    const answers = [];
    for (const body of bodies) {
      // Without the cache, so that the two times mean the same.
      answers.push(await ask({ ...body, cache: false }, signal, (text) => show(text)));
    }
    const names = bodies.map(form.instructionName);
    output("compare").replaceChildren(...showComparison(...answers, documents, names));
    announceRanking(answers[1].results);
  });

function choose(example) {
  const { query, instruction, documents } = example;
  const lines = documents.join("\n");
  form.writeFields({ query, instruction, documents: lines, preset: "", format: "auto" });
  rank();
}

function switchTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  localStorage.setItem("rankd.theme", theme);
}

function onSubmit(id, action) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

labelPage();
startTabs();
form.startFields();
startKey(start);
byId("examples").append(...EXAMPLES.map((example) => button(example.label, () => choose(example))));
byId("theme").addEventListener("click", switchTheme);
byId("open").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", async ({ target }) => {
  alertUser(await form.openFile(target.files[0], config.max_body_bytes));
  target.value = "";
});
byId("documents").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    rank();
  }
});
stopOnClick(byId("run"));
stopOnClick(byId("run-compare"));
onSubmit("request", rank);
onSubmit("compare-form", compare);
start();

// The tab with the request as programs, and copying.

import { button, el, hint } from "./dom.js";
import { t } from "./labels.js";
import { SNIPPETS } from "./snippets.js";

const MAX_CHARACTERS = 50_000;

// The program that was looked at last.
let chosen = "curl";

// Show `request` (as of SNIPPETS) as a program, one at a time, and the server's response.
export function showCode(target, request, response) {
  const block = el("div");
  const programs = {
    ...Object.fromEntries(
      Object.entries(SNIPPETS).map(([name, write]) => [name, () => write(request)]),
    ),
    [t("response")]: () => JSON.stringify(response, null, 2),
  };
  const buttons = Object.keys(programs).map((name) => button(name, () => choose(name)));
  function choose(name) {
    chosen = name;
    for (const other of buttons) {
      other.setAttribute("aria-pressed", String(other.textContent === name));
    }
    block.replaceChildren(program(name, programs[name]()));
  }
  choose(chosen in programs ? chosen : "curl");
  const group = el("div", { class: "languages", role: "group", "aria-label": t("language") }, buttons);
  target.replaceChildren(group, ...(request.needsKey ? [hint(t("codeKey"))] : []), block);
}

function program(name, code) {
  if (code.length > MAX_CHARACTERS) {
    return hint(t("tooLong", { n: code.length }));
  }
  const label = t("copyAs", { name });
  const copy = button(label, () => copyText(copy, code, label));
  return el("div", { class: "program" }, copy, el("pre", { tabindex: "0" }, code));
}

// Copy a text and say so on the button.
export async function copyText(button, text, label) {
  const done = await written(text);
  button.textContent = t(done ? "copied" : "copyYourself");
  setTimeout(() => (button.textContent = label), 1500);
}

async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // navigator.clipboard does not exist over plain HTTP from another machine.
    const area = el("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

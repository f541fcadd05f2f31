// One request at a time per panel: its button becomes Stop, and the panel shows the seconds.

import { byId, el } from "./dom.js";
import { t } from "./labels.js";

const running = new Map();

// Run `work(signal, show)` for a button; pressing the button meanwhile stops it.
// `show(text, elements)` shows progress and the results so far in the panel.
export async function busy(button, panel, work) {
  if (running.has(button)) {
    running.get(button).abort();
    return;
  }
  const controller = new AbortController();
  running.set(button, controller);
  const label = button.textContent;
  button.textContent = t("stop");
  button.classList.add("stop");
  const progress = progressLine();
  const partial = el("div", { class: "partial" });
  panel.setAttribute("aria-busy", "true");
  panel.replaceChildren(progress.element, partial);
  try {
    await work(controller.signal, (text, elements = []) => {
      progress.say(text);
      partial.replaceChildren(...elements);
    });
  } finally {
    progress.end();
    running.delete(button);
    panel.removeAttribute("aria-busy");
    button.textContent = label;
    button.classList.remove("stop");
  }
}

function progressLine() {
  const words = el("span");
  const seconds = el("span", { class: "seconds" });
  const spinner = el("span", { class: "spinner", "aria-hidden": "true" });
  const element = el("p", { class: "progress" }, spinner, words, " … ", seconds);
  const started = performance.now();
  const tick = () => {
    seconds.textContent = t("seconds", { n: ((performance.now() - started) / 1000).toFixed(1) });
  };
  tick();
  const timer = setInterval(tick, 100);
  return {
    element,
    say: (text) => (words.textContent = text),
    end: () => clearInterval(timer),
  };
}

// The page's one polite live region.
export const announce = (text) => (byId("status").textContent = text);

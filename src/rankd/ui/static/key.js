// The key of a server that needs one: none, wrong or accepted.

import { loadConfig, storedKey, storeKey } from "./api.js";
import { byId } from "./dom.js";
import { t } from "./labels.js";

const WORDS = { none: "keyNone", wrong: "keyWrong", accepted: "keyAccepted" };

// "open": the server needs no key.
let state = "open";

export const keyMissing = () => state === "none";

function show(next) {
  state = next;
  const form = byId("key-form");
  form.hidden = state === "open";
  form.dataset.state = state;
  byId("key-state").textContent = state === "open" ? "" : t(WORDS[state]);
  byId("forget-key").hidden = !storedKey();
  byId("key").setAttribute("aria-invalid", String(state === "wrong"));
}

// The server's configuration, or undefined without an accepted key. Throws a PageError.
export async function connect() {
  try {
    const config = await loadConfig();
    show(config.needs_key ? "accepted" : "open");
    return config;
  } catch (error) {
    if (error.status !== 401) {
      throw error;
    }
    refused();
    return undefined;
  }
}

// The server answered 401.
export const refused = () => show(storedKey() ? "wrong" : "none");

// `onChange` is called when a key was entered or forgotten.
export function startKey(onChange) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    storeKey(byId("key").value.trim());
    onChange();
  });
  byId("forget-key").addEventListener("click", () => {
    storeKey("");
    byId("key").value = "";
    onChange();
    byId("key").focus();
  });
}

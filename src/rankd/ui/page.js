// What Gradio does not do: the key, the server's sentences, files, copying, the theme.
(() => {
  const page = location.origin + location.pathname.replace(/\/+$/, "");
  const server = page.replace(/\/ui$/, "");
  const KEY = "rankd.key";
  const at = (id) => document.getElementById(id);

  function say(sentence) {
    const alert = at("rk-alert");
    if (alert) {
      alert.textContent = sentence;
      alert.hidden = !sentence;
    }
  }

  // Gradio's requests carry the key, so that the door of the server decides, before it reads them.
  const send = window.fetch.bind(window);
  window.fetch = async (resource, options = {}) => {
    const url = new URL(resource.url ?? resource, document.baseURI).href;
    if (!url.startsWith(`${page}/gradio_api/`)) {
      return send(resource, options);
    }
    const headers = new Headers(options.headers ?? resource.headers);
    const key = sessionStorage.getItem(KEY);
    if (key) {
      headers.set("Authorization", `Bearer ${key}`);
    }
    headers.set("X-Rankd-Page", server);
    let reply;
    try {
      reply = await send(resource, { ...options, headers });
    } catch (problem) {
      say("The server does not answer. Is it running?");
      throw problem;
    }
    if (reply.ok) {
      say("");
      return reply;
    }
    const sentence = await told(reply);
    say(sentence);
    return Response.json({ error: sentence }, { status: reply.status });
  };

  async function told(reply) {
    const body = await reply.json().catch(() => ({}));
    const said = body.error?.message ?? body.detail ?? body.error ?? body.message;
    if (reply.status === 401) {
      return "This server wants a key: write it above and press “Use it”.";
    }
    return typeof said === "string" ? `${said} (${reply.status})` : `The server answered ${reply.status}.`;
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "rk-key-form") {
      return;
    }
    event.preventDefault();
    sessionStorage.setItem(KEY, at("rk-key").value.trim());
    say("");
    at("rk-connect").click();
  });

  document.addEventListener("click", async (event) => {
    if (event.target.matches?.("[data-rk-copy]")) {
      const code = event.target.closest(".rk-code").querySelector("pre");
      const label = event.target.textContent;
      event.target.textContent = (await copied(code)) ? "Copied" : "Select and copy";
      setTimeout(() => (event.target.textContent = label), 1500);
    } else if (event.target.id === "rk-theme") {
      const dark = !document.body.classList.contains("dark");
      localStorage.setItem("rankd.theme", dark ? "dark" : "light");
      follow();
    }
  });

  async function copied(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      // Not over plain HTTP from another machine.
      getSelection().selectAllChildren(element);
      return document.execCommand("copy");
    }
  }

  // Gradio follows the system while it starts; a choice of the user's comes after it.
  const follow = () => {
    const theme = localStorage.getItem("rankd.theme");
    if (theme) {
      document.body.classList.toggle("dark", theme === "dark");
    }
  };
  [0, 300, 1000, 3000].forEach((wait) => setTimeout(follow, wait));

  const FORMS = { json: "json", jsonl: "json", ndjson: "json", csv: "csv", txt: "lines" };

  // A file is read here: the server gets its text with the request, and keeps nothing.
  window.rankd = {
    async open() {
      const input = document.createElement("input");
      input.type = "file";
      input.id = "rk-file";
      input.accept = ".txt,.json,.jsonl,.ndjson,.csv";
      input.hidden = true;
      at("rk-file")?.remove();
      document.body.append(input);
      const file = await new Promise((resolve) => {
        input.addEventListener("change", () => resolve(input.files[0]));
        input.addEventListener("cancel", () => resolve(undefined));
        input.click();
      });
      input.remove();
      const asItIs = [at("rk-documents").querySelector("textarea").value, "auto"];
      if (!file) {
        return asItIs;
      }
      const form = FORMS[file.name.split(".").pop().toLowerCase()];
      if (!form) {
        say(`${file.name} is no .txt, .json, .jsonl or .csv file.`);
        return asItIs;
      }
      if (file.size > LIMIT) {
        say(`${file.name} has ${file.size.toLocaleString("en")} bytes; the server reads ${LIMIT.toLocaleString("en")}.`);
        return asItIs;
      }
      say("");
      return [(await file.text()).replace(/^\uFEFF/, ""), form];
    },
  };
})();

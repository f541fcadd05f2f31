// Adds to Gradio: the key, error messages, opening files, copying, the theme.
(() => {
  const page = location.origin + location.pathname.replace(/\/+$/, "");
  const server = page.replace(/\/ui$/, "");
  const KEY = "rankd.key";
  const byId = (id) => document.getElementById(id);

  function showAlert(message) {
    const alert = byId("rk-alert");
    if (alert) {
      alert.textContent = message;
      alert.hidden = !message;
    }
  }

  // Add the key to Gradio's requests: the server checks it before it reads them.
  const originalFetch = window.fetch.bind(window);
  window.fetch = async (resource, options = {}) => {
    const url = new URL(resource.url ?? resource, document.baseURI).href;
    if (!url.startsWith(`${page}/gradio_api/`)) {
      return originalFetch(resource, options);
    }
    const headers = new Headers(options.headers ?? resource.headers);
    const key = sessionStorage.getItem(KEY);
    if (key) {
      headers.set("Authorization", `Bearer ${key}`);
    }
    headers.set("X-Rankd-Page", server);
    let response;
    try {
      response = await originalFetch(resource, { ...options, headers });
    } catch (error) {
      showAlert("The server does not answer. Is it running?");
      throw error;
    }
    if (response.ok) {
      showAlert("");
      return response;
    }
    const message = await errorMessage(response);
    showAlert(message);
    return Response.json({ error: message }, { status: response.status });
  };

  async function errorMessage(response) {
    const body = await response.json().catch(() => ({}));
    const message = body.error?.message ?? body.detail ?? body.error ?? body.message;
    if (response.status === 401) {
      return "This server needs a key: enter it above and press “Use it”.";
    }
    return typeof message === "string"
      ? `${message} (${response.status})`
      : `The server answered ${response.status}.`;
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "rk-key-form") {
      return;
    }
    event.preventDefault();
    sessionStorage.setItem(KEY, byId("rk-key").value.trim());
    showAlert("");
    byId("rk-connect").click();
  });

  document.addEventListener("click", async (event) => {
    if (event.target.matches?.("[data-rk-copy]")) {
      const code = event.target.closest(".rk-code").querySelector("pre");
      const label = event.target.textContent;
      event.target.textContent = (await copy(code)) ? "Copied" : "Select and copy";
      setTimeout(() => (event.target.textContent = label), 1500);
    } else if (event.target.id === "rk-theme") {
      const dark = !document.body.classList.contains("dark");
      localStorage.setItem("rankd.theme", dark ? "dark" : "light");
      applyTheme();
    }
  });

  async function copy(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      // navigator.clipboard does not exist over plain HTTP from another machine.
      getSelection().selectAllChildren(element);
      return document.execCommand("copy");
    }
  }

  // Gradio sets the system's theme while it starts, so the stored one is applied several times.
  const applyTheme = () => {
    const theme = localStorage.getItem("rankd.theme");
    if (theme) {
      document.body.classList.toggle("dark", theme === "dark");
    }
  };
  [0, 300, 1000, 3000].forEach((wait) => setTimeout(applyTheme, wait));

  const FORMS = { json: "json", jsonl: "json", ndjson: "json", csv: "csv", txt: "lines" };

  // The browser reads the file and puts its text into the field; nothing is uploaded.
  window.rankd = {
    async open() {
      const input = document.createElement("input");
      input.type = "file";
      input.id = "rk-file";
      input.accept = ".txt,.json,.jsonl,.ndjson,.csv";
      input.hidden = true;
      byId("rk-file")?.remove();
      document.body.append(input);
      const file = await new Promise((resolve) => {
        input.addEventListener("change", () => resolve(input.files[0]));
        input.addEventListener("cancel", () => resolve(undefined));
        input.click();
      });
      input.remove();
      const unchanged = [byId("rk-documents").querySelector("textarea").value, "auto"];
      if (!file) {
        return unchanged;
      }
      const form = FORMS[file.name.split(".").pop().toLowerCase()];
      if (!form) {
        showAlert(`${file.name} is not a .txt, .json, .jsonl or .csv file.`);
        return unchanged;
      }
      if (file.size > MAX_FILE_BYTES) {
        const [size, limit] = [file.size, MAX_FILE_BYTES].map((bytes) => bytes.toLocaleString("en"));
        showAlert(`${file.name} has ${size} bytes; the server's limit is ${limit}.`);
        return unchanged;
      }
      showAlert("");
      return [(await file.text()).replace(/^\uFEFF/, ""), form];
    },
  };
})();

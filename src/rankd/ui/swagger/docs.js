// Loads /openapi.json, with a key if the server needs one, and shows it in Swagger UI.
(() => {
  // The page is at <server>/docs, also behind a proxy that adds a prefix.
  const server = new URL(".", location.href.split(/[?#]/)[0]).href;
  // The web page /ui keeps the key under the same name.
  const KEY = "rankd.key";
  const form = document.getElementById("key-form");
  const message = document.getElementById("message");
  const loading = document.getElementById("loading");

  function ask(text) {
    loading.hidden = true;
    form.hidden = false;
    message.textContent = text;
  }

  async function load() {
    loading.hidden = false;
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const response = await fetch(`${server}openapi.json`, { headers });
    if (response.status === 401) {
      ask(
        key
          ? "This key is not accepted."
          : "This server needs a key. It is kept until this tab is closed, and sent to this server only.",
      );
      return;
    }
    if (!response.ok) {
      throw new Error(`the server answered ${response.status}`);
    }
    form.hidden = true;
    show(await response.json(), key);
  }

  function show(spec, key) {
    const ui = SwaggerUIBundle({
      spec: { ...spec, servers: [{ url: server.replace(/\/$/, "") }] },
      dom_id: "#swagger",
      deepLinking: true,
      docExpansion: "none",
      defaultModelsExpandDepth: -1,
      // Nothing but the server: no badge of validator.swagger.io.
      validatorUrl: null,
      onComplete() {
        loading.hidden = true;
        if (key) {
          ui.preauthorizeApiKey("key", key);
        }
      },
    });
  }

  const start = () =>
    load().catch((error) =>
      ask(`The description of the API cannot be loaded: ${error.message}.`),
    );

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, document.getElementById("key").value.trim());
    start();
  });
  start();
})();

// Loads /openapi.json, with a key if the server needs one, and shows it in Swagger UI.
(() => {
  // The page is at <server>/docs, also behind a proxy that adds a prefix.
  const server = new URL(".", location.href.split(/[?#]/)[0]).href;
  // The web page /ui keeps the key under the same name.
  const KEY = "rankd.key";
  const form = document.getElementById("key-form");
  const message = document.getElementById("message");

  async function load() {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const response = await fetch(`${server}openapi.json`, { headers });
    if (response.status === 401) {
      form.hidden = false;
      message.textContent = key
        ? "This key is not accepted."
        : "This server needs a key. It is kept until this tab is closed, and sent to this server only.";
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
      onComplete: () => key && ui.preauthorizeApiKey("key", key),
    });
  }

  const start = () =>
    load().catch((error) => {
      form.hidden = false;
      message.textContent = `The API's description cannot be loaded: ${error.message}.`;
    });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, document.getElementById("key").value.trim());
    start();
  });
  start();
})();

/** A server that answers from a script and records its requests. `most`: most at one time. */

import { createServer } from "node:http";

export const GOOD = JSON.stringify({
  id: "rerank-1",
  object: "rerank",
  created: 1,
  model: "m",
  results: [{ index: 0, relevance_score: 0.5, document: { text: "d" } }],
  meta: {},
  usage: { prompt_tokens: 7, total_tokens: 7 },
});

/**
 * Runs a scene against a server. The last line of the script is repeated.
 *
 * A line is `{ status, body, headers, delay, drops, drips }`, all optional.
 */
export async function playing(script, scene) {
  const stage = { url: "", connections: 0, heard: [], now: 0, most: 0 };
  const lines = [...script];
  const server = createServer(async (request, reply) => {
    stage.most = Math.max(stage.most, ++stage.now);
    reply.on("close", () => stage.now--);
    let body = "";
    for await (const piece of request) {
      body += piece;
    }
    stage.heard.push({ at: performance.now(), headers: request.headers, body });
    const line = { status: 200, body: GOOD, ...(lines.length > 1 ? lines.shift() : lines[0]) };
    await new Promise((resolve) => setTimeout(resolve, line.delay ?? 0));
    if (line.drops) {
      request.socket.destroy();
      return;
    }
    reply.writeHead(line.status, { "Content-Length": Buffer.byteLength(line.body), ...line.headers });
    for (const letter of line.drips ? line.body : "") {
      if (reply.destroyed) {
        return; // The client gave up, as it should.
      }
      reply.write(letter);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    reply.end(line.drips ? "" : line.body);
  });
  server.on("connection", () => stage.connections++);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  stage.url = `http://127.0.0.1:${server.address().port}`;
  try {
    await scene(stage);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  return stage;
}

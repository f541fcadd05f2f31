// Posts files: URL, file, framing and a header's name and value, again and again; prints answers.
// The first argument is the client: fetch or http.

import { createReadStream, openAsBlob, statSync } from "node:fs";
import http from "node:http";
import { Readable } from "node:stream";

async function withFetch(url, file, chunked, headers) {
  const body = chunked ? Readable.toWeb(createReadStream(file)) : await openAsBlob(file);
  const response = await fetch(url, { method: "POST", body, headers, duplex: "half" });
  return `${response.status} ${await response.text()}`;
}

function withHttp(url, file, chunked, headers) {
  return new Promise((resolve, reject) => {
    const length = chunked ? {} : { "content-length": statSync(file).size };
    const request = http.request(url, { method: "POST", headers: { ...headers, ...length } });
    request.on("error", reject);
    request.on("response", (response) => {
      let text = "";
      response.on("data", (data) => (text += data));
      response.on("end", () => resolve(`${response.statusCode} ${text}`));
    });
    createReadStream(file).pipe(request);
  });
}

const [client, ...rest] = process.argv.slice(2);
const post = client === "fetch" ? withFetch : withHttp;
for (let at = 0; at < rest.length; at += 5) {
  const [url, file, framing, name, value] = rest.slice(at, at + 5);
  try {
    console.log(await post(url, file, framing === "chunked", { [name]: value }));
  } catch (problem) {
    console.log(`0 ${problem} ${problem.cause ?? ""}`);
  }
}

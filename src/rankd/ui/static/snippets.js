// Writes the page's request as programs. They read the key from RANKD_API_KEY, never contain it.

import { isNumberAsWritten, textOf } from "./documents.js";

const VARIABLE = "RANKD_API_KEY";

// Fields of the TypeScript client's options.
const TYPESCRIPT = { return_details: "returnDetails", relevant_spans: "relevantSpans" };

// What other vendors' clients cannot ask for, or ask for in their own way.
const OWN = ["return_details", "relevant_spans"];

// JSON is also a literal in JavaScript.
const js = (value) => JSON.stringify(value);

const shell = (text) =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;

const PYTHON_NAMES = new Map([[true, "True"], [false, "False"], [null, "None"]]);

// A Python literal: JSON's escapes in strings mean the same in Python.
function py(value) {
  if (Array.isArray(value)) {
    return `[${value.map(py).join(", ")}]`;
  }
  if (value !== null && typeof value === "object" && !isNumberAsWritten(value)) {
    const items = Object.entries(value).map(([name, item]) => `${py(name)}: ${py(item)}`);
    return `{${items.join(", ")}}`;
  }
  return PYTHON_NAMES.get(value) ?? JSON.stringify(value);
}

const listOf = (documents, literal, indent) =>
  `[${documents.map((document) => `\n${indent}    ${literal(document)},`).join("")}\n${indent}]`;

const options = (body) =>
  Object.entries(body).filter(([name]) => !["query", "documents"].includes(name));

const chosen = (body) =>
  Object.fromEntries(options(body).filter(([name]) => !OWN.includes(name)));

function curl({ url, body, needsKey }) {
  const key = needsKey ? `  -H "Authorization: Bearer $${VARIABLE}" \\\n` : "";
  // Indented, no line of the JSON can be the end mark of the here-document.
  return (
    `curl -s ${shell(`${url}/v1/rerank`)} \\\n  -H 'Content-Type: application/json' \\\n` +
    `${key}  -d @- <<'JSON'\n${JSON.stringify(body, null, 1)}\nJSON\n`
  );
}

function requests({ url, body, needsKey }) {
  const headers = needsKey
    ? `\n    headers={"Authorization": f"Bearer {os.environ['${VARIABLE}']}"},`
    : "";
  const rest = options(body).map(([name, value]) => `\n        ${py(name)}: ${py(value)},`);
  return (
    `${needsKey ? "import os\n\n" : ""}import requests\n\n` +
    `response = requests.post(\n    ${py(`${url}/v1/rerank`)},${headers}\n    json={\n` +
    `        "query": ${py(body.query)},\n` +
    `        "documents": ${listOf(body.documents, py, "        ")},${rest.join("")}\n    },\n` +
    "    timeout=60,\n)\nresponse.raise_for_status()\n" +
    'for result in response.json()["results"]:\n' +
    `    print(f"{result['relevance_score']:.4f}", result["document"]["text"])\n`
  );
}

function rankd({ url, body, needsKey }) {
  const key = needsKey ? `, api_key=os.environ["${VARIABLE}"]` : "";
  const rest = options(body).map(([name, value]) => `\n        ${name}=${py(value)},`).join("");
  return (
    `${needsKey ? "import os\n\n" : ""}from rankd.client import Client\n\n` +
    `with Client(${py(url)}${key}) as client:\n    answer = client.rerank(\n` +
    `        ${py(body.query)},\n        ${listOf(body.documents, py, "        ")},${rest}\n    )\n` +
    "for result in answer.results:\n" +
    '    print(f"{result.relevance_score:.4f}", result.document)\n'
  );
}

const cohereKey = (needsKey) => (needsKey ? `os.environ["${VARIABLE}"]` : '"any"');

function cohere({ url, body, needsKey, model }) {
  const extra = chosen(body);
  const instruction = Object.keys(extra).length
    ? `\n    request_options={"additional_body_parameters": ${py(extra)}},`
    : "";
  return (
    `${needsKey ? "import os\n\n" : ""}import cohere\n\n` +
    `documents = ${listOf(body.documents.map(textOf), py, "")}\n` +
    `client = cohere.ClientV2(${cohereKey(needsKey)}, base_url=${py(url)})\n` +
    `answer = client.rerank(\n    model=${py(model)},\n    query=${py(body.query)},\n` +
    `    documents=documents,${instruction}\n)\n` +
    "for result in answer.results:\n" +
    '    print(f"{result.relevance_score:.4f}", documents[result.index])\n'
  );
}

function langchain({ url, body, needsKey, model }) {
  const note = Object.keys(chosen(body)).length
    ? "# CohereRerank sends no instruction: this ranks with the server's own.\n"
    : "";
  return (
    `${needsKey ? "import os\n\n" : ""}from langchain_cohere import CohereRerank\n\n` +
    `documents = ${listOf(body.documents.map(textOf), py, "")}\n${note}` +
    `reranker = CohereRerank(\n    model=${py(model)},\n    base_url=${py(url)},\n` +
    `    cohere_api_key=${cohereKey(needsKey)},\n    top_n=len(documents),\n)\n` +
    `for result in reranker.rerank(documents, ${py(body.query)}):\n` +
    `    print(f"{result['relevance_score']:.4f}", documents[result["index"]])\n`
  );
}

function typescript({ url, body, needsKey }) {
  const key = needsKey ? `, apiKey: process.env["${VARIABLE}"] ?? ""` : "";
  const rest = options(body).map(([name, value]) => `${TYPESCRIPT[name] ?? name}: ${js(value)}`);
  return (
    `import { Rankd } from "rankd"; // clients/typescript\n\n` +
    `const rankd = new Rankd({ baseUrl: ${js(url)}${key} });\n` +
    `const { results } = await rankd.rerank(\n  ${js(body.query)},\n` +
    `  ${listOf(body.documents, js, "  ")},\n  { ${rest.join(", ")} },\n);\n` +
    "for (const { relevanceScore, document } of results) {\n" +
    "  console.log(relevanceScore.toFixed(4), document);\n}\n"
  );
}

// Each takes { url, body, needsKey, model } and returns the program.
export const SNIPPETS = {
  curl,
  requests,
  "rankd (Python)": rankd,
  Cohere: cohere,
  LangChain: langchain,
  TypeScript: typescript,
};

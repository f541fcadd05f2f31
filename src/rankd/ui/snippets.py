"""Writes the page's request as curl, Python and TypeScript."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

# Snippets read the key from this environment variable; they never contain it.
_KEY_VARIABLE = "RANKD_API_KEY"

# Options of the TypeScript client that differ from the field in the body.
_TYPESCRIPT_NAMES = {"return_details": "returnDetails"}


@dataclass(frozen=True, slots=True)
class CodeSnippets:
    """One request.

    Attributes:
        url: the server's, as the browser sees it, without a slash at the end.
        body: of `/v1/rerank`.
        needs_key: whether the server has keys.
    """

    url: str
    body: dict[str, Any]
    needs_key: bool

    @property
    def options(self) -> dict[str, Any]:
        """Fields of the body besides query and documents."""
        return {
            name: value for name, value in self.body.items() if name not in ("query", "documents")
        }

    def curl(self) -> str:
        key = f'  -H "Authorization: Bearer ${_KEY_VARIABLE}" \\\n' if self.needs_key else ""
        # With `indent` no line of the JSON can be the end mark of the here-document.
        body = json.dumps(self.body, ensure_ascii=False, indent=1)
        return (
            f"curl -s {shlex.quote(self.url + '/v1/rerank')} \\\n"
            "  -H 'Content-Type: application/json' \\\n"
            f"{key}  -d @- <<'JSON'\n{body}\nJSON\n"
        )

    def python(self) -> str:
        documents = "".join(f"\n            {document!r}," for document in self.body["documents"])
        options = "".join(f"\n        {name}={value!r}," for name, value in self.options.items())
        imports = "import os\n\n" if self.needs_key else ""
        key = f', api_key=os.environ["{_KEY_VARIABLE}"]' if self.needs_key else ""
        return (
            f"{imports}from rankd.client import Client  # pip install 'rankd[client]'\n\n"
            f"with Client({self.url!r}{key}) as client:\n"
            "    answer = client.rerank(\n"
            f"        {self.body['query']!r},\n"
            f"        [{documents}\n        ],{options}\n"
            "    )\n"
            "for result in answer.results:\n"
            '    print(f"{result.relevance_score:.4f}", result.document)\n'
        )

    def typescript(self) -> str:
        documents = "".join(f"\n    {_js(document)}," for document in self.body["documents"])
        options = ", ".join(
            f"{_TYPESCRIPT_NAMES.get(n, n)}: {_js(v)}" for n, v in self.options.items()
        )
        key = f', apiKey: process.env["{_KEY_VARIABLE}"] ?? ""' if self.needs_key else ""
        return (
            'import { Rankd } from "rankd"; // clients/typescript\n\n'
            f"const rankd = new Rankd({{ baseUrl: {_js(self.url)}{key} }});\n"
            "const { results } = await rankd.rerank(\n"
            f"  {_js(self.body['query'])},\n"
            f"  [{documents}\n  ],\n"
            f"  {{ {options} }},\n"
            ");\n"
            "for (const { relevanceScore, document } of results) {\n"
            "  console.log(relevanceScore.toFixed(4), document);\n"
            "}\n"
        )


def _js(value: Any) -> str:
    """A JavaScript literal."""
    return json.dumps(value, ensure_ascii=False)

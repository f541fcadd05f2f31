"""Effect of wrong prompts on a reranker's scores: the table of docs/prompt.md.

    python bench/prompt.py [--model builtin|FOLDER|HUB-ID]

Seventy queries with one right and two wrong documents each are scored by the native engine on the
CPU, once per prompt. A random ranking of three documents has the right one first in 23 of 70.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankd.config.settings import Settings
from rankd.engines.native import open_engine
from rankd.models.checkpoint import locate
from rankd.prompts import qwen3
from rankd.prompts.tokenizer import Tokenizer
from rankd.types import AnswerTokenIds, Prompt, sigmoid

TRIPLES = Path(__file__).parent.parent / "training/eval"
INSTRUCTION: str = Settings.model_fields["instruction"].default

FIGURES = "right first | right above 0.5 | wrong above 0.5 | right, mean | wrong, mean"

Render = Callable[[str, str], str]


def triples() -> list[dict[str, Any]]:
    """Queries with a right document and two wrong ones: `query`, `right`, `wrong`."""
    return [
        json.loads(line)
        for file in sorted(TRIPLES.glob("triples*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


def exact(query: str, document: str) -> str:
    """Qwen's own prompt, which rankd builds."""
    pair = qwen3.prefix_text(INSTRUCTION, query) + qwen3.suffix_text(document)
    return qwen3.PREFIX + pair + qwen3.SUFFIX


def cut(query: str, document: str) -> str:
    """Without the end, as if the rendered prompt was truncated on the right."""
    return exact(query, document).removesuffix(qwen3.SUFFIX)


def without_thought(query: str, document: str) -> str:
    """Without the empty thought of the assistant's turn."""
    return exact(query, document).removesuffix("<think>\n\n</think>\n\n")


def other_lines(query: str, document: str) -> str:
    """Two newlines between the fields, and the user's turn closed twice."""
    pair = f"<Instruct>: {INSTRUCTION}\n\n<Query>: {query}\n\n<Document>: {document}"
    return f"{qwen3.PREFIX}{pair}<|im_end|>\n{qwen3.SUFFIX}"


PROMPTS: dict[str, Render] = {
    "exact": exact,
    "the last newline missing": lambda query, document: exact(query, document)[:-1],
    "double newlines, the turn closed twice": other_lines,
    "no `<think>` block": without_thought,
    "end cut off": cut,
    "query and document, no template": lambda query, document: query + document,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin", help="a checkpoint that rankd serves")
    options = parser.parse_args()
    asyncio.run(_compare(options.model))


async def _compare(model: str) -> None:
    checkpoint = locate(model)
    tokenizer = _tokenizer(checkpoint.path)
    answers = AnswerTokenIds(tokenizer.single(qwen3.YES), tokenizer.single(qwen3.NO))
    settings = Settings(device="cpu", dtype="float32")
    print(f"| prompt | {FIGURES} |")
    print("|---|---|---|---|---|---|")
    async with open_engine(checkpoint, answers, settings) as engine:
        for name, render in PROMPTS.items():
            prompts = [
                _prompt(tokenizer, render(one["query"], document))
                for one in triples()
                for document in (one["right"], *one["wrong"])
            ]
            print(f"| {name} | {figures(await engine.score(prompts))} |")


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))


def _prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """Encode a rendered template as servers do: names of control tokens become control tokens."""
    ids = tokenizer.encode_template(text)
    return Prompt((ids[0],), tuple(ids[1:]))


def figures(logits: Sequence[float]) -> str:
    """The cells of a row, under `FIGURES`.

    Args:
        logits: for each triple those of the right document and of the two wrong ones.
    """
    right, wrong = logits[::3], [max(logits[i + 1 : i + 3]) for i in range(0, len(logits), 3)]
    first = sum(a > b for a, b in zip(right, wrong, strict=True))
    scores = [sigmoid(one) for one in right]
    others = [sigmoid(one) for i, one in enumerate(logits) if i % 3]
    return (
        f"{first} of {len(right)} | {_above(scores)} | {_above(others)} "
        f"| {sum(scores) / len(scores):.3f} | {sum(others) / len(others):.3f}"
    )


def _above(scores: Sequence[float]) -> str:
    return f"{sum(score > 0.5 for score in scores)} of {len(scores)}"


if __name__ == "__main__":
    main()

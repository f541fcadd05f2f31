"""One in-process peer of `bench/peers.py`: reads requests from stdin, writes scores to stdout.

    python bench/peer_worker.py KIND MODEL

KIND: tutorial, cross-encoder-float32, cross-encoder-bfloat16 or openvino. It uses nothing of
rankd's, so it runs in each peer's own environment. A request is a line of JSON with query and
documents; its answer is a line of JSON with the scores, in order. The first line says that the
model is loaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

Score = Callable[[str, Sequence[str]], list[float]]

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
YES, NO = 9693, 2152


def tutorial(model_path: str) -> Score:
    """transformers as in the model card's example: one left-padded batch, the whole LM head."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model_path, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [_prompt(query, document) for document in documents]
        inputs = tokenizer(pairs, padding=True, return_tensors="pt")
        with torch.no_grad():
            last = model(**inputs).logits[:, -1, :]
        answers = torch.stack([last[:, NO], last[:, YES]], dim=1)
        scores: list[float] = torch.softmax(answers, dim=1)[:, 1].tolist()
        return scores

    return score


def cross_encoder(model_path: str, dtype: str) -> Score:
    """sentence-transformers, with its batch size of 32."""
    import torch
    from sentence_transformers import CrossEncoder

    model: Any = CrossEncoder(
        model_path,
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": getattr(torch, dtype)},
    )

    def score(query: str, documents: Sequence[str]) -> list[float]:
        scores = model.predict([(query, document) for document in documents])
        return [float(score) for score in scores]

    return score


def openvino(model_path: str) -> Score:
    """OpenVINO GenAI's pipeline; the prompt is written by the caller, as its sample does."""
    import openvino_genai  # type: ignore[import-not-found]

    pipeline = openvino_genai.TextRerankPipeline(model_path, "CPU", top_n=10_000)

    def score(query: str, documents: Sequence[str]) -> list[float]:
        question = f"{PREFIX}<Instruct>: {INSTRUCTION}\n<Query>: {query}\n"
        results = pipeline.rerank(
            question, [f"<Document>: {document}{SUFFIX}" for document in documents]
        )
        return [score for _, score in sorted(results)]

    return score


def _prompt(query: str, document: str) -> str:
    question = f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n"
    return f"{PREFIX}{question}<Document>: {document}{SUFFIX}"


def load(kind: str, model_path: str) -> Score:
    if kind == "tutorial":
        return tutorial(model_path)
    if kind == "openvino":
        return openvino(model_path)
    return cross_encoder(model_path, kind.removeprefix("cross-encoder-"))


def main() -> None:
    # Libraries that print to stdout must not disturb the protocol.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    score = load(*sys.argv[1:3])
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(score(request["query"], request["documents"])), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""RAG with LlamaIndex: BM25 finds ten passages, rankd picks three, a prompt is made of them.

No language model is called: the prompt is printed. With one, pass `retriever` and `[reranker]` to a
RetrieverQueryEngine, which does the same and calls the model.
"""

import json
import os
import sys
from pathlib import Path

from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.retrievers.bm25 import BM25Retriever

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
CORPUS = Path(__file__).parent / "data" / "corpus.jsonl"

# Words, and single Chinese characters: the default drops words of one character.
WORD = r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+"


def read_corpus() -> list[TextNode]:
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    return [TextNode(id_=row["id"], text=row["text"]) for row in rows]


def show(title: str, passages: list[NodeWithScore]) -> None:
    print(title)
    for passage in passages:
        print(f"  {passage.score:.3f} {passage.node_id}")


def main(question: str) -> None:
    retriever = BM25Retriever.from_defaults(
        nodes=read_corpus(), similarity_top_k=10, token_pattern=WORD, skip_stemming=True
    )
    # rankd has Cohere's API. Without --api-key the server accepts any key.
    reranker = CohereRerank(
        model="qwen3-reranker",
        base_url=URL,
        api_key=os.environ.get("RERANK_API_KEY", "any"),
        top_n=3,
    )

    found = retriever.retrieve(question)
    # Copies, because LlamaIndex' rerankers write their scores into the nodes.
    best = reranker.postprocess_nodes([one.model_copy() for one in found], query_str=question)

    show("BM25", found[:3])
    show("rankd", best)
    passages = "\n".join(
        f"[{one.node_id}] {one.node.get_content(MetadataMode.LLM)}" for one in best
    )
    print("\n" + DEFAULT_TEXT_QA_PROMPT.format(context_str=passages, query_str=question))


if __name__ == "__main__":
    main(*sys.argv[1:] or ["How long until the battery is full?"])

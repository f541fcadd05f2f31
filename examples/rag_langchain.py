"""RAG with LangChain: BM25 finds ten passages, rankd picks three, a prompt is made of them.

No language model is called: the prompt is printed. Send it to yours.
"""

import json
import os
import re
import sys
from pathlib import Path

import bm25s
from langchain_cohere import CohereRerank
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.prompts import PromptTemplate
from langchain_core.retrievers import BaseRetriever
from pydantic import PrivateAttr

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
CORPUS = Path(__file__).parent / "data" / "corpus.jsonl"

PROMPT = PromptTemplate.from_template(
    "Answer from these passages only, and name the one you used.\n\n"
    "{passages}\n\nQuestion: {question}"
)


class BM25Retriever(BaseRetriever):
    """The first stage; replace it by any retriever of LangChain."""

    documents: list[Document]
    k: int = 10
    _index: bm25s.BM25 = PrivateAttr(default_factory=bm25s.BM25)

    def model_post_init(self, context: object) -> None:
        words = [_words(document.page_content) for document in self.documents]
        self._index.index(words, show_progress=False)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        k = min(self.k, len(self.documents))
        found, _ = self._index.retrieve([_words(query)], k=k, show_progress=False)
        return [self.documents[index] for index in found[0]]


def _words(text: str) -> list[str]:
    """Words, and Chinese characters one by one."""
    return re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+", text.lower())


def read_corpus() -> list[Document]:
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    return [Document(page_content=row["text"], metadata={"id": row["id"]}) for row in rows]


def show(title: str, passages: list[Document]) -> None:
    print(title)
    for passage in passages:
        score = passage.metadata.get("relevance_score")
        print("  " + ("" if score is None else f"{score:.3f} ") + passage.metadata["id"])


def main(question: str) -> None:
    retriever = BM25Retriever(documents=read_corpus())
    # rankd has Cohere's API. Without --api-key the server accepts any key.
    reranker = CohereRerank(
        model="qwen3-reranker",
        base_url=URL,
        cohere_api_key=os.environ.get("RERANK_API_KEY", "any"),
        top_n=3,
    )

    found = retriever.invoke(question)
    best = list(reranker.compress_documents(found, question))

    show("BM25", found[:3])
    show("rankd", best)
    passages = "\n".join(f"[{one.metadata['id']}] {one.page_content}" for one in best)
    prompt = PROMPT.invoke({"passages": passages, "question": question})
    print("\n" + prompt.to_string())


if __name__ == "__main__":
    main(*sys.argv[1:] or ["Can I give the bike back if I do not like it?"])

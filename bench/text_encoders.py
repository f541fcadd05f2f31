"""Are the ids of rankd's text encoder those of Hugging Face `tokenizers`, and how fast is it?

    python bench/text_encoders.py [--texts 1000000] [--model FOLDER]

Both encode the same random texts: many scripts, emoji, runs of white space, control tokens as text,
characters that NFC changes. CPU time is for documents of 500 characters: English, and the Chinese
of README.zh-CN.md. Without --model it reads Qwen's real tokenizer.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import orjson

from dialect_layer import texts
from server import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from rankd.prompts.text_encoders import GeneralEncoder, TextEncoder, text_encoder
from support.checkpoints import qwen_tokenizer
from support.random_texts import random_texts

BATCH = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--model", type=Path, help="a folder with tokenizer.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        if options.model is None:
            qwen_tokenizer(Path(folder))
        raw = ((options.model or Path(folder)) / "tokenizer.json").read_bytes()
    spec = orjson.loads(raw)
    encoders = {"rankd": text_encoder(spec), "tokenizers": GeneralEncoder(spec)}
    compare(encoders, options.texts, list(spec["model"]["vocab"]))
    measure(encoders)


def compare(encoders: dict[str, TextEncoder], count: int, words: list[str]) -> None:
    rng = random.Random(1)
    for _ in range(0, count, BATCH):
        batch = random_texts(rng, BATCH, words)
        rows = zip(batch, *(encoder.encode(batch) for encoder in encoders.values()), strict=True)
        if differing := [text for text, ours, theirs in rows if ours != theirs]:
            sys.exit(f"different ids: {differing[0]!a}")
    print(f"{count:,} random texts: the same ids\n")


def measure(encoders: dict[str, TextEncoder]) -> None:
    chinese = "".join((ROOT / "README.zh-CN.md").read_text().split())
    starts = range(0, len(chinese) - 500, len(chinese) // 100)
    samples = {"English": texts(100), "Chinese": [chinese[at : at + 500] for at in starts]}
    print("| | CPU us/document | ratio, paired |")
    print("|---|---|---|")
    for language, documents in samples.items():
        spent: dict[str, list[float]] = {name: [] for name in encoders}
        for _ in range(20):
            for name, encoder in encoders.items():
                began = time.process_time()
                encoder.encode(documents)
                spent[name].append((time.process_time() - began) / len(documents))
        for name, seconds in spent.items():
            pairs = zip(spent["tokenizers"], seconds, strict=True)
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            print(f"| {language}, {name} | {statistics.median(seconds) * 1e6:.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()

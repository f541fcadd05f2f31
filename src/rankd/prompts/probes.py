"""Texts that show whether a template keeps texts as they are, and where tokens can be split.

At their ends stand the characters that tokenizers join with their neighbours.
"""

TEXTS = (
    *("", "a", "Z", "7", "12", " ", "  ", "  x", "x  ", "\n", "\nx", "x\n", "\n\n", " \n x \n "),
    *("\r\nx", "x\r\n", "\t", "\tx", ".", "?!", "x.", "x:", ": x", ":x", "'s", "'", '"', "don't"),
    *("é", "\u0301x", "x\u0301", "北京", "。", "🙂", "👩\u200d👧", "\u200dx", "\u00a0x", "x\u00a0"),
    *(
        "\u3000",
        "<",
        "|>",
        "<|",
        ">",
        "_",
        "x y",
        "((",
        "))\n",
        "{",
        "}",
        "\\n",
        "#",
        "-",
        "/",
        "=",
    ),
    *("What is the capital of China?", "The capital of China is Beijing.", "x" * 200),
)

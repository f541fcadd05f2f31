"""rankd: a rerank server for Qwen3-Reranker that gives right scores without a flag."""

__version__ = "0.1.0"

"""rankd: a rerank server for Qwen3-Reranker. Right scores, no flags needed."""

__version__ = "0.1.0"

"""What operators count. One registry, names in Prometheus' manner."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "rankd_requests_total", "Requests answered, by route and status.", ["route", "status"]
)
SECONDS = Histogram(
    "rankd_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
DOCUMENTS = Counter("rankd_documents_total", "Documents scored.")
TOKENS = Counter("rankd_prompt_tokens_total", "Tokens of scored pairs, template included.")
TRUNCATED = Counter("rankd_truncated_documents_total", "Documents that were cut to fit.")
DIALECTS = Counter(
    "rankd_dialect_requests_total", "Rerank requests, by the dialect they were in.", ["dialect"]
)
UNKNOWN_FIELDS = Counter(
    "rankd_unknown_fields_total",
    "Request fields that no dialect here knows, by dialect.",
    ["dialect"],
)
CACHE_HITS = Counter("rankd_cache_hits_total", "Pairs whose score was computed before.")
CACHE_MISSES = Counter("rankd_cache_misses_total", "Pairs looked up whose score was not known.")
CACHE_BYTES = Gauge("rankd_cache_bytes", "Memory that cached scores take in this process.")
CACHE_FAILURES = Counter(
    "rankd_cache_failures_total", "Attempts to reach the shared cache that failed."
)
COALESCED = Counter(
    "rankd_coalesced_total", "Pairs that another request in flight computed at the time."
)

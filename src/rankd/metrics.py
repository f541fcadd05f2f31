"""What operators count. One registry, names in Prometheus' manner."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, Info

REQUESTS = Counter(
    "rankd_requests_total", "Requests answered, by route and status.", ["route", "status"]
)
SECONDS = Histogram(
    "rankd_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
STAGE_SECONDS = Histogram(
    "rankd_stage_duration_seconds",
    "Time that a ranking spent in a stage: parse, tokenise, cache, queue, engine, render.",
    ["stage"],
    buckets=(
        *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
        *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    ),
)
DOCUMENTS = Counter("rankd_documents_total", "Documents scored.")
TOKENS = Counter("rankd_prompt_tokens_total", "Tokens of scored pairs, template included.")
CACHED_DOCUMENTS = Counter(
    "rankd_cached_documents_total",
    "Of the documents scored, those computed for an earlier request.",
)
CACHED_TOKENS = Counter(
    "rankd_cached_tokens_total", "Of the prompt tokens, those of pairs computed for an earlier one."
)
COMPUTED_TOKENS = Counter(
    "rankd_computed_tokens_total",
    "Tokens of pairs that the engine scored, template included; equal pairs once.",
)
SEARCH_UNITS = Counter(
    "rankd_search_units_total", "Cohere's units: a query with up to 100 documents of 500 tokens."
)
TRUNCATED = Counter("rankd_truncated_documents_total", "Documents that were cut to fit.")
ABANDONED_REQUESTS = Counter(
    "rankd_abandoned_requests_total",
    "Requests given up half done: the client left, or the deadline passed.",
    ["reason"],
)
ABANDONED_DOCUMENTS = Counter(
    "rankd_abandoned_documents_total",
    "Documents of abandoned requests that left the engine's queue unscored.",
)
DIALECTS = Counter(
    "rankd_dialect_requests_total", "Rerank requests, by the dialect they were in.", ["dialect"]
)
INSTRUCTIONS = Counter(
    "rankd_instruction_requests_total",
    "Requests by their instruction: a preset's name, default for the server's, or custom for a "
    "text that came along.",
    ["preset"],
)
BELOW_THRESHOLD = Counter(
    "rankd_below_threshold_documents_total",
    "Documents that were scored and left out, because a threshold was above their score.",
)
UNKNOWN_FIELDS = Counter(
    "rankd_unknown_fields_total",
    "Request fields that no dialect here knows, by dialect.",
    ["dialect"],
)
ENGINE_UP = Gauge("rankd_engine_up", "1 while the engine answers, 0 while it does not.")
ENGINE_RESTARTS = Counter("rankd_engine_restarts_total", "Times the engine was started again.")
WAITING_REQUESTS = Gauge("rankd_waiting_requests", "Requests taken in and not yet answered.")
WAITING_TOKENS = Gauge(
    "rankd_waiting_tokens", "Tokens that were admitted and are not yet scored, template included."
)
DRAIN_RATE = Gauge(
    "rankd_drain_tokens_per_second",
    "Tokens scored per second of work, over the last 30; what Retry-After is computed from.",
)
REFUSED = Counter(
    "rankd_refused_total",
    "Requests refused by a limit: request_tokens, waiting_requests, waiting_tokens, "
    "key_requests, key_tokens, key_concurrency.",
    ["reason"],
)
LIMITS_LOST = Counter(
    "rankd_limits_backend_errors_total",
    "Times that the limits' Redis did not answer, so that requests passed unchecked.",
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
SERVED = Info("rankd_served", "What scores are made by, as the header `rankd` says it.")
BATCH_JOBS = Gauge("rankd_batch_jobs", "Batch jobs that are not finished.")
BATCH_LINES = Counter(
    "rankd_batch_lines_total",
    "Lines of batch jobs that were answered: completed, or failed with another status than 200.",
    ["result"],
)

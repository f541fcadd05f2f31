"""What operators count. One registry, names in Prometheus' manner; docs/metrics.md.

A label is never a caller's word: its values are a closed set, or names that an operator chose.
"""

from __future__ import annotations

import platform

from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from rankd import __version__

# When each series began is a series of its own, twice as many for nothing that anyone asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter(
    "rankd_requests_total",
    "HTTP requests answered, probes included, by route and status.",
    ["route", "status"],
)
RERANKS = Counter(
    "rankd_rerank_requests_total",
    "Requests to rank or score that were answered, with a ranking or an error, by the dialect "
    "they were in (unknown: refused before their body was read), route and status.",
    ["dialect", "route", "status"],
)
RERANK_SECONDS = Histogram(
    "rankd_rerank_duration_seconds",
    "Of requests to rank or score, the time from their first byte to the last of their answer.",
    ["status"],
    buckets=(
        *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
        *(1, 1.5, 2, 3, 5, 10, 30, 60, 300),
    ),
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
SECONDS = Histogram(
    "rankd_request_duration_seconds",
    "Time from the first byte of a request to the last of its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
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
REQUEST_DOCUMENTS = Histogram(
    "rankd_request_documents",
    "Documents with a score in one ranking, equal ones each.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
REQUEST_TOKENS = Histogram(
    "rankd_request_tokens",
    "Prompt tokens of one ranking: those of every pair, template included.",
    buckets=(100, 250, 500, *(n * 10**e for e in (3, 4, 5) for n in (1, 2.5, 5)), 1e6, 1e7),
)
COMPUTED_PAIRS = Counter(
    "rankd_computed_pairs_total", "Pairs that the engine scored; equal ones once."
)
DEDUPLICATED = Counter(
    "rankd_deduplicated_total", "Pairs equal to another one of their request, so not computed."
)
TRUNCATED = Counter("rankd_truncated_documents_total", "Documents that were cut to fit.")
CHUNKED = Counter("rankd_chunked_documents_total", "Documents that were read in several chunks.")
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
BATCH_PAIRS = Histogram(
    "rankd_engine_batch_pairs",
    "Pairs that the native engine computed together.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
BATCH_TOKENS = Histogram(
    "rankd_engine_batch_tokens",
    "Tokens of a batch of the native engine, a head that its pairs share counted once.",
    buckets=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
)
BATCH_SECONDS = Histogram(
    "rankd_engine_batch_duration_seconds",
    "Time in which the native engine had nothing before this batch to its answer: its sum grows "
    "by one a second while the engine is never idle.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WAITING_REQUESTS = Gauge("rankd_waiting_requests", "Requests taken in and not yet answered.")
WAITING_TOKENS = Gauge(
    "rankd_waiting_tokens", "Tokens that were admitted and are not yet scored, template included."
)
MAX_WAITING_REQUESTS = Gauge(
    "rankd_max_waiting_requests", "The limit on waiting requests; 0 is none."
)
MAX_WAITING_TOKENS = Gauge("rankd_max_waiting_tokens", "The limit on waiting tokens; 0 is none.")
DRAIN_RATE = Gauge(
    "rankd_drain_tokens_per_second",
    "Tokens scored per second of work, over the last 30; what Retry-After is computed from.",
)
REFUSED = Counter(
    "rankd_refused_total",
    "Requests refused by a limit: of what one may have, of what may wait or stay open, or of "
    "what one key may ask for.",
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
BUILD = Info("rankd_build", "What runs.")
BUILD.info({"version": __version__, "python": platform.python_version()})
BATCH_JOBS = Gauge("rankd_batch_jobs", "Batch jobs that are not finished.")
BATCH_LINES = Counter(
    "rankd_batch_lines_total",
    "Lines of batch jobs that were answered: completed, or failed with another status than 200.",
    ["result"],
)

# From the start, so that the first of a kind is an increase.
for _counter, _values in {
    REFUSED: (
        *("request_bytes", "request_documents", "request_tokens"),
        *("connections", "waiting_bytes", "waiting_requests", "waiting_tokens"),
        *("key_requests", "key_tokens", "key_concurrency"),
    ),
    ABANDONED_REQUESTS: ("client", "deadline"),
    BATCH_LINES: ("completed", "failed"),
}.items():
    for _value in _values:
        _counter.labels(_value)


class EngineProcessCollector(ProcessCollector):
    """Memory, CPU time and files of the native engine's process; nothing while there is none.

    Attributes:
        pid: whose; None is nobody's.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        super().__init__("rankd_engine", pid=lambda: self.pid or "none")


ENGINE_PROCESS = EngineProcessCollector()

"""Prometheus metrics, in one registry; docs/metrics.md describes them.

Label values are closed sets, or names from the operator's settings, never text of a request.
"""

from __future__ import annotations

import platform

from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)

from rankd import __version__

# The `_created` series would double the number of series, and no dashboard uses them.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter(
    "rankd_requests_total",
    "HTTP requests, by route and status; includes health checks.",
    ["route", "status"],
)
RERANKS = Counter(
    "rankd_rerank_requests_total",
    "Ranking and scoring requests, by dialect, route and status. Dialect unknown: refused "
    "before the body was read.",
    ["dialect", "route", "status"],
)
RERANK_SECONDS = Histogram(
    "rankd_rerank_duration_seconds",
    "Duration of ranking and scoring requests, from first byte in to last byte out, by status.",
    ["status"],
    buckets=(
        *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
        *(1, 1.5, 2, 3, 5, 10, 30, 60, 300),
    ),
)
STAGE_SECONDS = Histogram(
    "rankd_stage_duration_seconds",
    "Duration of a ranking's stages: parse, tokenise, cache, queue, engine, render.",
    ["stage"],
    buckets=(
        *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
        *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    ),
)
SECONDS = Histogram(
    "rankd_request_duration_seconds",
    "Duration of HTTP requests, from first byte in to last byte out, by route.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
DOCUMENTS = Counter("rankd_documents_total", "Documents scored.")
TOKENS = Counter(
    "rankd_prompt_tokens_total", "Prompt tokens of scored documents, template included."
)
CACHED_DOCUMENTS = Counter(
    "rankd_cached_documents_total",
    "Scored documents whose score was in the cache.",
)
CACHED_TOKENS = Counter(
    "rankd_cached_tokens_total", "Prompt tokens of documents whose score was in the cache."
)
COMPUTED_TOKENS = Counter(
    "rankd_computed_tokens_total",
    "Tokens of pairs that the engine scored, template included. Equal pairs count once.",
)
SEARCH_UNITS = Counter(
    "rankd_search_units_total",
    "Cohere's search units: a query with up to 100 documents of 500 tokens.",
)
REQUEST_DOCUMENTS = Histogram(
    "rankd_request_documents",
    "Scored documents per ranking. Equal documents count each.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
REQUEST_TOKENS = Histogram(
    "rankd_request_tokens",
    "Prompt tokens per ranking, template included.",
    buckets=(100, 250, 500, *(n * 10**e for e in (3, 4, 5) for n in (1, 2.5, 5)), 1e6, 1e7),
)
COMPUTED_PAIRS = Counter(
    "rankd_computed_pairs_total", "Pairs that the engine scored. Equal pairs count once."
)
DEDUPLICATED = Counter(
    "rankd_deduplicated_total", "Pairs not computed because the request has an equal pair."
)
TRUNCATED = Counter("rankd_truncated_documents_total", "Documents truncated to the token limit.")
CHUNKED = Counter("rankd_chunked_documents_total", "Documents split into several chunks.")
ABANDONED_REQUESTS = Counter(
    "rankd_abandoned_requests_total",
    "Requests abandoned before completion, by reason: client (it left) or deadline.",
    ["reason"],
)
ABANDONED_DOCUMENTS = Counter(
    "rankd_abandoned_documents_total",
    "Documents of abandoned requests, removed from the engine's queue before scoring.",
)
DIALECTS = Counter("rankd_dialect_requests_total", "Rerank requests, by dialect.", ["dialect"])
INSTRUCTIONS = Counter(
    "rankd_instruction_requests_total",
    "Requests by instruction: the name of a preset, default (the server's instruction) or "
    "custom (a text in the request).",
    ["preset"],
)
BELOW_THRESHOLD = Counter(
    "rankd_below_threshold_documents_total",
    "Scored documents left out of the response because of a score threshold.",
)
UNKNOWN_FIELDS = Counter(
    "rankd_unknown_fields_total",
    "Unknown fields in requests, by dialect.",
    ["dialect"],
)
CLIENT_PROMPTS = Counter(
    "rankd_client_prompts_total",
    "Requests whose texts hold the model's prompt already, by what they hold of it.",
    ["kind"],
)
VARIANTS = Counter(
    "rankd_variant_requests_total",
    "Requests of A/B tests, by test and variant: A (as without the test) or B.",
    ["experiment", "variant"],
)
SHADOWS = Counter(
    "rankd_shadow_requests_total",
    "Requests chosen for a second scoring, by what became of it: compared, failed, or dropped "
    "because too many wait.",
    ["shadow", "outcome"],
)
SHADOW_SAME_TOP = Counter(
    "rankd_shadow_same_top_total",
    "Compared requests whose best document is the same in both scorings.",
    ["shadow"],
)
# Sums and counts, because a histogram with values below 0 has no sum.
SHADOW_TAU = Summary(
    "rankd_shadow_kendall_tau",
    "Kendall's tau of the two orders of a compared request: 1 same order, -1 reversed.",
    ["shadow"],
)
SHADOW_OVERLAP = Summary(
    "rankd_shadow_overlap",
    "Share of the best k documents that both scorings of a compared request have, 0 to 1.",
    ["shadow"],
)
SHADOW_SHIFT = Summary(
    "rankd_shadow_score_shift",
    "Mean change of the scores of a compared request, from the answer to the second scoring.",
    ["shadow"],
)
SHADOW_SECONDS = Histogram(
    "rankd_shadow_duration_seconds",
    "Duration of second scorings, waiting included.",
    ["shadow"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
ENGINE_UP = Gauge("rankd_engine_up", "1 while the engine is up, otherwise 0.")
ENGINE_RESTARTS = Counter(
    "rankd_engine_restarts_total", "Engine restarts, failed attempts included."
)
RAY_REPLICAS = Gauge("rankd_ray_replicas", "Replicas on the Ray cluster that take batches now.")
RAY_OUTSTANDING = Gauge(
    "rankd_ray_outstanding_tokens", "Tokens sent to replicas on the Ray cluster and not yet scored."
)
RAY_RETRIES = Counter(
    "rankd_ray_retries_total",
    "Batches scored again by another replica, because theirs died or restarted its engine.",
)
RAY_HEDGES = Counter(
    "rankd_ray_hedges_total",
    "Batches sent to a second replica as well, because theirs had stopped answering.",
)
RAY_DEATHS = Counter(
    "rankd_ray_replica_deaths_total", "Replicas on the Ray cluster that died or became unreachable."
)
RAY_TOKENS = Counter(
    "rankd_ray_replica_tokens_total",
    "Tokens scored by each replica. A prefix that pairs share counts once per batch.",
    ["replica"],
)
BATCH_PAIRS = Histogram(
    "rankd_engine_batch_pairs",
    "Pairs per batch of the engine.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
BATCH_TOKENS = Histogram(
    "rankd_engine_batch_tokens",
    "Tokens per batch of the engine. A prefix that pairs share counts once.",
    buckets=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
)
BATCH_SECONDS = Histogram(
    "rankd_engine_batch_duration_seconds",
    "Time of the engine per batch. On the native engine without time spent on earlier batches: its "
    "sum grows by one second per second while the engine is busy.",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
WAITING_REQUESTS = Gauge(
    "rankd_waiting_requests", "Requests in flight: received and not yet answered."
)
WAITING_TOKENS = Gauge(
    "rankd_waiting_tokens", "Tokens admitted and not yet scored, template included."
)
MAX_WAITING_REQUESTS = Gauge(
    "rankd_max_waiting_requests", "Maximum waiting requests. 0: unlimited."
)
MAX_WAITING_TOKENS = Gauge("rankd_max_waiting_tokens", "Maximum waiting tokens. 0: unlimited.")
DRAIN_RATE = Gauge(
    "rankd_drain_tokens_per_second",
    "Tokens scored per second, over the last 30 seconds of work; the basis of Retry-After.",
)
REFUSED = Counter(
    "rankd_refused_total",
    "Requests refused, by reason.",
    ["reason"],
)
IDLE_CLOSED = Counter(
    "rankd_idle_connections_closed_total",
    "Idle connections closed to make room for others, because too many were open.",
)
LOG_LINES_DROPPED = Counter(
    "rankd_log_lines_dropped_total",
    "Log lines dropped because nothing read standard error.",
)
RATE_LIMIT_BACKEND_ERRORS = Counter(
    "rankd_limits_backend_errors_total",
    "Failed calls to the Redis of the key limits; the requests were admitted unchecked.",
)
CACHE_HITS = Counter("rankd_cache_hits_total", "Pairs whose score was in the cache.")
CACHE_MISSES = Counter("rankd_cache_misses_total", "Pairs whose score was not in the cache.")
CACHE_BYTES = Gauge("rankd_cache_bytes", "Memory of the cached scores in this process, in bytes.")
CACHE_FAILURES = Counter("rankd_cache_failures_total", "Failed calls to the shared cache in Redis.")
COALESCED = Counter(
    "rankd_coalesced_total", "Pairs taken from another request that was computing them."
)
SERVED = Info(
    "rankd_served",
    "Model, engine and template behind the scores, as in the response header `rankd`.",
)
BUILD = Info("rankd_build", "Versions of rankd and Python.")
BUILD.info({"version": __version__, "python": platform.python_version()})
BATCH_JOBS = Gauge("rankd_batch_jobs", "Unfinished batch jobs.")
BATCH_LINES = Counter(
    "rankd_batch_lines_total",
    "Processed lines of batch jobs, by result: completed (status 200) or failed.",
    ["result"],
)

# Start every label at 0, so that the first event is an increase for rate() and alerts.
for _counter, _values in {
    REFUSED: (
        *("request_bytes", "request_documents", "request_tokens", "response_bytes"),
        *("connections", "waiting_bytes", "waiting_requests", "waiting_tokens"),
        *("key_requests", "key_tokens", "key_concurrency"),
    ),
    ABANDONED_REQUESTS: ("client", "deadline"),
    BATCH_LINES: ("completed", "failed"),
    CLIENT_PROMPTS: (*("whole", "nested", "mixed", "query", "labels", "documents", "embedding"),),
}.items():
    for _value in _values:
        _counter.labels(_value)


class EngineProcessCollector(ProcessCollector):
    """Memory, CPU time and open files of the native engine's process.

    Attributes:
        pid: process id of the engine; None while it does not run, then there are no samples.
    """

    def __init__(self) -> None:
        self.pid: int | None = None
        super().__init__("rankd_engine", pid=lambda: self.pid or "none")


ENGINE_PROCESS = EngineProcessCollector()

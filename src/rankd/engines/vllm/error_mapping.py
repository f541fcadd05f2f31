"""Translate vLLM's exceptions into rankd's errors.

By class name, because modules and classes change between vLLM's releases.
"""

from __future__ import annotations

from rankd.errors import EngineDown, InternalError, InvalidRequest, RankError, TooManyRequests

DEAD = "the vLLM engine has died; see the log above for the reason"


def translated(problem: Exception) -> RankError | None:
    """rankd's error for an exception raised by vLLM; None for an unknown exception."""
    if isinstance(problem, RankError):
        return problem
    names = {base.__name__ for base in type(problem).__mro__}
    if "EngineDeadError" in names:
        return EngineDown(DEAD)
    # Queue limits that vllm_args sets; since 0.33 also a paused engine, which computed nothing.
    if names & {"GracefulHTTPError", "RetryableRequestError"}:
        return TooManyRequests(str(problem) or "the vLLM engine takes no more requests now")
    if names & {"VLLMClientError", "VLLMValidationError", "ValueError"}:
        return InvalidRequest(str(problem))
    if names & {"EngineGenerateError", "GenerationError"}:
        return InternalError(f"vLLM could not score a document: {problem}")
    return None

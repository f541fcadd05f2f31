"""vLLM's exceptions as ours, by name: the classes move and come and go between releases."""

from __future__ import annotations

from rankd.errors import EngineDown, InternalError, InvalidRequest, RankError, TooManyRequests

DEAD = "the vLLM engine has died; see the log above for the reason"


def translated(problem: Exception) -> RankError | None:
    """Our error for one of vLLM's; None when it is none that we know."""
    if isinstance(problem, RankError):
        return problem
    names = {kind.__name__ for kind in type(problem).__mro__}
    if "EngineDeadError" in names:
        return EngineDown(DEAD)
    if "GracefulHTTPError" in names:
        return TooManyRequests(str(problem) or "the vLLM engine takes no more requests now")
    if names & {"VLLMClientError", "VLLMValidationError", "ValueError"}:
        return InvalidRequest(str(problem))
    if names & {"EngineGenerateError", "GenerationError"}:
        return InternalError(f"vLLM could not score a document: {problem}")
    return None

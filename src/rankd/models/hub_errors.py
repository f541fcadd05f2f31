"""Says why a model could not be downloaded, and what to do next."""

from __future__ import annotations

import errno
import os


def explain(model: str, revision: str | None, problem: Exception) -> str:
    """One sentence of cause and one of what to do.

    Args:
        problem: what huggingface_hub's `snapshot_download` raised.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    cause = f"{model!r} is not a local folder and could not be downloaded from the hub"
    if isinstance(problem, LocalEntryNotFoundError) and isinstance(problem.__cause__, Exception):
        problem = problem.__cause__
    reason = next(iter(str(problem).strip().splitlines()), "") or repr(problem)
    return f"{cause}: {_next_step(model, revision, problem, reason)}"


def _next_step(model: str, revision: str | None, problem: Exception, reason: str) -> str:
    from huggingface_hub import constants, errors

    if isinstance(problem, errors.GatedRepoError):
        return (
            f"it is gated; accept its terms at {constants.ENDPOINT}/{model} and set HF_TOKEN to a "
            "token of that account"
        )
    if isinstance(problem, errors.RepositoryNotFoundError):
        return (
            f"{constants.ENDPOINT} has no such model, or it is private; check the spelling, or "
            "set HF_TOKEN to a token that may read it"
        )
    if isinstance(problem, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}; check --revision"
    if isinstance(problem, errors.HFValidationError):
        return reason
    if constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE is set, and the cache in {constants.HF_HUB_CACHE} lacks it; unset "
            f"HF_HUB_OFFLINE where the hub can be reached. Or {_from_modelscope(model)}"
        )
    if _is_of_a_file(problem):
        return (
            f"its cache in {constants.HF_HUB_CACHE} cannot be written ({reason}); set HF_HOME to a "
            "folder that can be written and has room"
        )
    mirror = "another mirror" if "HF_ENDPOINT" in os.environ else "https://hf-mirror.com"
    return (
        f"{constants.ENDPOINT} cannot be reached ({reason}). Set HF_ENDPOINT to {mirror}. "
        f"Or {_from_modelscope(model)}"
    )


def _is_of_a_file(problem: Exception) -> bool:
    """Whether a file or folder could not be written. Some HTTP clients raise OSError, too."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return isinstance(problem, OSError) and bool(problem.filename or problem.errno in full)


def _from_modelscope(model: str) -> str:
    folder = model.rpartition("/")[2]
    return (
        "take it from ModelScope, on this or another "
        f"machine: pip install modelscope && modelscope download --model {model} --local_dir "
        f"{folder}; then serve the folder ./{folder}"
    )

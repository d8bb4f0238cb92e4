"""Why an attempt at a line failed: a code of the worker's (tts_core.errors), or one of ours."""

import json
from collections.abc import Mapping
from typing import Any, Self

CODES: Mapping[str, str] = {
    "runpod_unauthorized": "RunPod refuses RUNPOD_API_KEY.",
    "endpoint_not_found": "RunPod knows no endpoint with this id.",
    "runpod_unreachable": "RunPod's API did not answer, however often it was asked.",
    "runpod_fault": "RunPod's API answered with 5xx, however often it was asked.",
    "runpod_refused": "RunPod's API did not take the job; the message has its status.",
    "job_lost": "RunPod no longer knows the job: its time to live passed, or it was lost.",
    "job_timed_out": "The job took longer than the endpoint or `--job-timeout` allows.",
    "job_cancelled": "Somebody cancelled the job on RunPod.",
    "job_failed": "The job failed, and what it says is no error of the worker's.",
    "result_incomplete": "Parts of the result are missing: RunPod lost them.",
    "audio_unreachable": "The audio's address could not be read, or no longer holds.",
}
"""What can happen between here and the worker."""

STOPS = frozenset(
    {
        "unauthorized",
        "forbidden",
        "quota_exceeded",
        "startup_error",
        "runpod_unauthorized",
        "endpoint_not_found",
        "runpod_unreachable",
    }
)
"""Would be every other line's answer too."""

UNTOLD = frozenset({"runpod_unauthorized", "runpod_unreachable", "runpod_fault", "runpod_refused"})
"""Say nothing of the job that was asked about."""


class LineFailed(Exception):
    """One attempt at a line failed.

    retry_after_s  when the worker's rate limit accepts one more
    execution_ms   what RunPod bills for the attempt, where it says so
    job_id         of its job, where that may still be on its way
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.execution_ms = 0
        self.job_id: str | None = None

    @classmethod
    def ours(cls, code: str, message: str = "", *, retryable: bool = True) -> Self:
        """code: of CODES"""
        return cls(code, message or CODES[code], retryable=retryable)

    @classmethod
    def told(cls, error: object) -> Self:
        """From the `error` of a failed job: the worker's JSON text, or whatever RunPod or its SDK put there."""
        body = _parsed(error)
        if body is None:
            return cls("job_failed", _one_line(error), retryable=True)
        after = body.get("retry_after_s")
        return cls(
            body["code"],
            _one_line(body.get("message", "")),
            retryable=body.get("retryable") is True,
            retry_after_s=float(after) if isinstance(after, int | float) else None,
        )


def _parsed(error: object) -> dict[str, Any] | None:
    try:
        body = json.loads(error) if isinstance(error, str) else error
    except ValueError:
        return None
    return body if isinstance(body, dict) and isinstance(body.get("code"), str) else None


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:300]

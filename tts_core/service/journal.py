"""One line of the log for each job: what an operator counts, and nothing of what was said or by which key."""

import logging
import time

from tts_core.service.attempt import Attempt
from tts_core.store import Reservation

log = logging.getLogger(__name__)


def log_ended(
    reservation: Reservation, attempt: Attempt | None, *, request_id: str, outcome: str, error: str | None
) -> None:
    """
    attempt  None: the store refused the request, or did not answer
    outcome  success, failed, cancelled; repeated: told again; refused: nothing was begun
    """
    fields: dict[str, object] = {
        "request_id": request_id,
        "action": reservation.action,
        "characters": reservation.input_chars,
        "streaming": reservation.streaming,
        "outcome": outcome,
        "error": error,
    }
    log.info("job %s", outcome, extra={"fields": fields | (_figures(attempt) if attempt is not None else {})})


def log_unread(error: str) -> None:
    """Of what was no request at all."""
    log.info("job refused", extra={"fields": {"outcome": "refused", "error": error}})


def _figures(attempt: Attempt) -> dict[str, object]:
    """rtf: real-time factor, seconds of work for a second of speech; of what was spoken for this request alone"""
    took_s, first_s = time.monotonic() - attempt.started_s, attempt.first_audio_s
    was_spoken = attempt.audio_seconds > 0 and not attempt.cached and attempt.reserved.outcome is None
    return {
        "tenant_id": attempt.reserved.tenant.id,
        "attempt": attempt.reserved.fence,
        "audio_seconds": round(attempt.audio_seconds, 3),
        "first_audio_ms": None if first_s is None else round((first_s - attempt.started_s) * 1000),
        "latency_ms": round(took_s * 1000),
        "rtf": round(took_s / attempt.audio_seconds, 3) if was_spoken else None,
        "cached": attempt.cached,
    }

"""Every error a caller can see.

TTSError                    internal
├── InvalidInput            invalid_input
├── NotSupported            not_supported
├── Unauthorized            unauthorized
├── Forbidden               forbidden
├── TenantNotFound          tenant_not_found
├── KeyNotFound             key_not_found
├── RateLimited             rate_limited
├── QuotaExceeded           quota_exceeded
├── LimitReached            limit_reached
├── IdempotencyConflict     idempotency_conflict
├── RequestRunning          request_running
├── TextError
│   ├── TextEmpty           text_empty
│   ├── TextTooLong         text_too_long
│   ├── TextUnspeakable     text_unspeakable
│   └── LanguageUnsupported language_unsupported
├── VoiceNotFound           voice_not_found
├── UserNotFound            user_not_found
├── PersonaNotFound         persona_not_found
├── MessageNotFound         message_not_found
├── JobNotFound             job_not_found
├── ConsentRequired         consent_required
├── ReferenceRefused
│   ├── ReferenceBlocked    reference_blocked
│   ├── ReferenceUnreachable reference_unreachable
│   ├── ReferenceTooLarge   reference_too_large
│   ├── ReferenceNotAudio   reference_not_audio
│   ├── ReferenceTooShort   reference_too_short
│   ├── ReferenceTooLong    reference_too_long
│   ├── ReferenceSilent     reference_silent
│   ├── ReferenceClipped    reference_clipped
│   └── ReferenceNoisy      reference_noisy
├── ResultTooLarge          result_too_large
├── ResultExpired           result_expired
├── Overloaded              overloaded
├── DiskFull                disk_full
├── DeadlineExceeded        deadline_exceeded
├── EngineLost              engine_lost
├── StoreUnavailable        store_unavailable
├── Cancelled               cancelled
└── StartupError            startup_error
"""

import json
import traceback
from pathlib import Path
from typing import ClassVar


class TTSError(Exception):
    """Something went wrong inside the worker; the log has the cause under the request id.

    Base of every error a caller can see. `code` is API: never renamed, never reused.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", **details: str | float | None) -> None:
        """details: further fields of the error's JSON, of the codes that have some"""
        super().__init__(message)
        self.details = details

    def to_wire(self, request_id: str) -> str:
        """JSON text: RunPod's streaming path turns a dict error into its Python repr."""
        body = {"code": self.code, "message": str(self), "retryable": self.retryable, "request_id": request_id}
        return json.dumps(body | self.details)


class InvalidInput(TTSError):
    """A field of the job is unknown, missing, of the wrong type or out of range; the message names it."""

    code = "invalid_input"


class NotSupported(TTSError):
    """A field asks for something this version or engine does not do."""

    code = "not_supported"


class Unauthorized(TTSError):
    """`tenant_key` is missing, unknown, or no longer valid."""

    code = "unauthorized"


class Forbidden(TTSError):
    """The key is valid but may not do this."""

    code = "forbidden"


class TenantNotFound(TTSError):
    """No tenant with this id, or none that this key may look after."""

    code = "tenant_not_found"


class KeyNotFound(TTSError):
    """The tenant has no key with this prefix, or it is no longer valid."""

    code = "key_not_found"


class RateLimited(TTSError):
    """The tenant made as many requests as it may for now; `retry_after_s` says when one more is accepted."""

    code = "rate_limited"
    retryable = True


class QuotaExceeded(TTSError):
    """The tenant's audio minutes do not suffice; `left_s` says what is left until the period ends, at `resets_at`."""

    code = "quota_exceeded"


class LimitReached(TTSError):
    """The tenant has as many of these as it may have; the message names the limit."""

    code = "limit_reached"


class IdempotencyConflict(TTSError):
    """The `idempotency_key` (or job id) was used before with another body."""

    code = "idempotency_conflict"


class RequestRunning(TTSError):
    """The same request is being worked on by another worker."""

    code = "request_running"
    retryable = True


class TextError(TTSError):
    """Base of the refusals of a text; never raised itself."""


class TextEmpty(TextError):
    """`text` is empty or white space."""

    code = "text_empty"


class TextTooLong(TextError):
    """`text` is longer than XTTS_MAX_TEXT_CHARS, or a sentence of it expands beyond what the model takes at once."""

    code = "text_too_long"


class TextUnspeakable(TextError):
    """`text` has no letter or digit that could be spoken."""

    code = "text_unspeakable"


class LanguageUnsupported(TextError):
    """`language` is not one of the 17 that XTTS-v2 speaks."""

    code = "language_unsupported"


class VoiceNotFound(TTSError):
    """No voice with this id belongs to the tenant or the engine, or is shared with the tenant."""

    code = "voice_not_found"


class UserNotFound(TTSError):
    """The tenant has no user with this id."""

    code = "user_not_found"


class PersonaNotFound(TTSError):
    """The tenant has no persona with this id."""

    code = "persona_not_found"


class MessageNotFound(TTSError):
    """The persona has no message with this id."""

    code = "message_not_found"


class JobNotFound(TTSError):
    """No kept job with this id belongs to the tenant."""

    code = "job_not_found"


class ConsentRequired(TTSError):
    """A reference clip was sent without a `consent` statement."""

    code = "consent_required"


class ReferenceRefused(TTSError):
    """Base of the refusals of a reference clip; never raised itself."""


class ReferenceBlocked(ReferenceRefused):
    """`reference_audio_url` is not http(s), or leads to an address that is not public."""

    code = "reference_blocked"


class ReferenceUnreachable(ReferenceRefused):
    """`reference_audio_url` did not answer with a file in time."""

    code = "reference_unreachable"
    retryable = True


class ReferenceTooLarge(ReferenceRefused):
    """A reference clip has more bytes than XTTS_MAX_REFERENCE_BYTES."""

    code = "reference_too_large"


class ReferenceNotAudio(ReferenceRefused):
    """A reference clip holds no sound that can be decoded."""

    code = "reference_not_audio"


class ReferenceTooShort(ReferenceRefused):
    """The reference has too little speech to take a voice from."""

    code = "reference_too_short"


class ReferenceTooLong(ReferenceRefused):
    """A reference clip is longer than is accepted."""

    code = "reference_too_long"


class ReferenceSilent(ReferenceRefused):
    """A reference clip is silent, or mostly so."""

    code = "reference_silent"


class ReferenceClipped(ReferenceRefused):
    """A reference clip is overdriven."""

    code = "reference_clipped"


class ReferenceNoisy(ReferenceRefused):
    """The speech of a reference clip does not stand out from its noise."""

    code = "reference_noisy"


class ResultTooLarge(TTSError):
    """`output: inline` was asked for and the audio exceeds what one job may return."""

    code = "result_too_large"


class ResultExpired(TTSError):
    """The same request has succeeded before, and its audio is no longer kept: send it under another key."""

    code = "result_expired"


class Overloaded(TTSError):
    """The worker has as many requests as it takes."""

    code = "overloaded"
    retryable = True


class DiskFull(TTSError):
    """The worker cannot write the audio to its disk; another worker may have room.

    The system's error is `__cause__`.
    """

    code = "disk_full"
    retryable = True


class DeadlineExceeded(TTSError):
    """The job took as long as one may; sent again under the `idempotency_key` told, it goes on behind what is kept."""

    code = "deadline_exceeded"
    retryable = True


class EngineLost(TTSError):
    """The worker's device failed: it ends, and another one can do what was asked."""

    code = "engine_lost"
    retryable = True


class StoreUnavailable(TTSError):
    """The backend did not answer.

    The driver's exception is `__cause__`.
    """

    code = "store_unavailable"
    retryable = True


class Cancelled(TTSError):
    """The request was cancelled before it was finished."""

    code = "cancelled"
    retryable = True


class StartupError(TTSError):
    """The worker is wrongly configured and answers every job with the reason."""

    code = "startup_error"


def scrubbed(exc: BaseException) -> str:
    """What a log may say of an unexpected exception: its type and the lines it passed, no message, no path."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f"{type(exc).__name__} at " + " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))

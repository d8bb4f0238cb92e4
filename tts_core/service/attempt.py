"""One attempt at a request."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tts_core.service.delivery import Emit
from tts_core.store import Outcome, Reserved


@dataclass(slots=True)
class Attempt:
    """What the work of a request knows and what it has used up so far; settled whatever happens next."""

    reserved: Reserved
    started_s: float
    emit: Emit
    audio_seconds: float = 0.0
    audio_bytes: int = 0
    voice_id: str | None = None
    user_id: str | None = None
    audio_path: str | None = None
    cached: bool = False
    metadata: str = "{}"
    first_audio_s: float | None = None
    answer_is_kept: bool = True
    afterwards: Callable[[], Awaitable[None]] | None = None
    """What is left to do once the request has succeeded, been settled and told. Raises nothing."""

    @property
    def quota_left_s(self) -> float | None:
        """What this request leaves of the tenant's quota; None: unlimited."""
        left_s = self.reserved.left_s
        return None if left_s is None else round(left_s - (0 if self.cached else self.audio_seconds), 3)

    def outcome(self) -> Outcome:
        """As a failure; `replace` makes it a success."""
        return Outcome(
            status="failed",
            latency_ms=round((time.monotonic() - self.started_s) * 1000),
            audio_seconds=self.audio_seconds,
            audio_bytes=self.audio_bytes,
            voice_id=self.voice_id,
            user_id=self.user_id,
            audio_path=self.audio_path,
            cached=self.cached,
            metadata=self.metadata,
        )

"""An entry together with its sound, as the layers of a worker hold it."""

from dataclasses import dataclass

from tts_core.store import CacheEntry


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """audio: the encoded file, whole"""

    entry: CacheEntry
    audio: bytes

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from all others: pool and content hash."""
        return self.entry.pool, self.entry.content_hash

"""The takes a worker holds in memory: so many bytes of them, the least recently heard one goes first."""

from collections import OrderedDict
from dataclasses import dataclass

from tts_core.cache.kept import Kept
from tts_core.store import CacheEntry

Place = tuple[str, str]
"""Pool and content hash."""


@dataclass(frozen=True, slots=True)
class Size:
    entries: int
    bytes: int


class MemoryLayer:
    """max_bytes: of audio and details together; a take larger than a quarter of it is not held"""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._takes: OrderedDict[Place, Kept] = OrderedDict()

    def get(self, place: Place) -> Kept | None:
        if place in self._takes:
            self._takes.move_to_end(place)
        return self._takes.get(place)

    def put(self, kept: Kept) -> None:
        self.drop(kept.place)
        if weight(kept) * 4 > self._max_bytes:
            return
        self._takes[kept.place] = kept
        self._bytes += weight(kept)
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._takes)))

    def drop(self, place: Place) -> None:
        if (kept := self._takes.pop(place, None)) is not None:
            self._bytes -= weight(kept)

    def drop_pool(self, pool: str) -> None:
        for place in [place for place in self._takes if place[0] == pool]:
            self.drop(place)

    def size(self, pool: str) -> Size:
        held = [len(kept.audio) for (owner, _), kept in self._takes.items() if owner == pool]
        return Size(len(held), sum(held))


def weight(kept: Kept) -> int:
    """Bytes a take costs, roughly: characters can take four of them."""
    entry: CacheEntry = kept.entry
    return len(kept.audio) + 4 * (len(entry.details) + len(entry.content_text)) + 1_000

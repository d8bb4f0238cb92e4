"""What a client heard of a job: pieces of audio sorted into deliveries, and what was wrong with them. Pure."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BYTES_PER_S = {"ulaw": 8_000, "pcm": 48_000}
"""Of the formats whose files have no header: what is streamed and what is told again are the same bytes."""

LATE_S = 0.010
"""What a piece may be late before it is heard: players and networks hold more than that."""


@dataclass(frozen=True, slots=True)
class Piece:
    seq: int
    audio: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A result: its last event, and the audio of all its events."""

    last: Mapping[str, Any]
    sha256: str
    size_bytes: int


def brief(output: Any) -> Any:
    """What the platform's books remember of a chunk (a Piece, or another event without audio) or a result (Told)."""
    if isinstance(output, list):
        audio = b"".join(map(_audio, output))
        return Told(_without_audio(output[-1]) if output else {}, hashlib.sha256(audio).hexdigest(), len(audio))
    if isinstance(output, dict) and output.get("event") == "audio":
        return Piece(output["seq"], _audio(output))
    return _without_audio(output) if isinstance(output, dict) else output


def _audio(event: Mapping[str, Any]) -> bytes:
    return base64.b64decode(event.get("audio_base64", ""))


def _without_audio(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in event.items() if name not in ("audio_base64", "text")}


@dataclass(slots=True)
class Delivery:
    """One reading of a job by one worker, as far as it came.

    has_gaps  pieces of it were posted, and lost by the platform
    """

    worker_id: str
    pieces: list[tuple[float, Piece]] = field(default_factory=list)
    has_gaps: bool = False

    @property
    def next_seq(self) -> int:
        return self.pieces[-1][1].seq + 1 if self.pieces else 0

    @property
    def audio(self) -> bytes:
        return b"".join(piece.audio for _, piece in self.pieces)


def deliveries(pieces: Iterable[tuple[str, float, Piece]], *, may_skip: bool) -> tuple[Sequence[Delivery], int]:
    """Sort pieces (worker, moment, piece) into deliveries; and how many of them fit into none.

    may_skip  some posts were refused, so numbers may be missing
    """
    found: list[Delivery] = []
    strays = 0
    for worker_id, at_s, piece in pieces:
        delivery = _place(found, worker_id, piece.seq, may_skip=may_skip)
        strays += delivery is None
        if delivery is not None:
            delivery.pieces.append((at_s, piece))
    return found, strays


def _place(found: list[Delivery], worker_id: str, seq: int, *, may_skip: bool) -> Delivery | None:
    """The newest delivery that this number continues. Of two that run at once any will do: they say the same."""
    own = [delivery for delivery in reversed(found) if delivery.worker_id == worker_id]
    if (fitting := next((delivery for delivery in own if delivery.next_seq == seq), None)) is not None:
        return fitting
    if seq > 0 and not may_skip:
        return None
    if seq > 0 and (behind := next((delivery for delivery in own if delivery.next_seq < seq), None)) is not None:
        behind.has_gaps = True
        return behind
    found.append(Delivery(worker_id, has_gaps=seq > 0))
    return found[-1]


def differ(found: Sequence[Delivery], results: Sequence[Told]) -> bool:
    """Whether two readings of a job, or two results, are not the same bytes as far as both go."""
    whole = max((delivery.audio for delivery in found if not delivery.has_gaps), key=len, default=b"")
    if any(not whole.startswith(delivery.audio) for delivery in found if not delivery.has_gaps):
        return True
    told = {(result.sha256, result.size_bytes) for result in results}
    complete = {(hashlib.sha256(whole).hexdigest(), len(whole))} if _is_complete(whole, results) else set()
    return len(told | complete) > 1


def _is_complete(whole: bytes, results: Sequence[Told]) -> bool:
    return any(len(whole) >= result.size_bytes for result in results) and bool(whole)


def underruns(delivery: Delivery, *, bytes_per_s: int) -> int:
    """Pieces that came after all before them had been played, in real time from the first one's arrival on."""
    return sum(late_s > LATE_S for late_s in lateness(delivery, bytes_per_s=bytes_per_s))


def lateness(delivery: Delivery, *, bytes_per_s: int) -> Iterator[float]:
    ends_s = delivery.pieces[0][0]
    for at_s, piece in delivery.pieces:
        yield at_s - ends_s
        ends_s = max(ends_s, at_s) + len(piece.audio) / bytes_per_s
